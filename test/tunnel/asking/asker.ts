// What death.test.ts kills: a supervisor with somebody at a prompt. Says who there is as one line of JSON, and waits.
import { spawn } from 'node:child_process';
import { usualPatience } from '#lib/tunnel/asking/person.js';
import { createSupervisor } from '#lib/tunnel/supervisor.js';
import { createTestTerminal } from '../../support/person.js';
import { makeSpec } from '../../support/specs.js';

const [sshConfig = '', port = '', stage = '', answer = '', withOthers = ''] = process.argv.slice(2);
const supervisor = createSupervisor({ env: { ...process.env, SSH_AUTH_SOCK: undefined } });
const spec = makeSpec({
  ...{ side: 'local', interactive: true, remoteHost: 'rig', sshConfig },
  listen: { host: '127.0.0.1', port: Number(port) },
});
await supervisor.reconcile([spec]);
const screen = createTestTerminal();
const login = supervisor.authenticate(spec.id, screen, { patience: usualPatience });
login.catch(() => undefined); // this process is killed before that
await screen.answer(/Enter passphrase for key/, stage === 'prompt' ? 'half of i' : `${answer}\r`);
if (stage === 'up') await login;
// Started after the terminal was made: where a process holds its master, this one inherits it.
const other = withOthers && spawn('sleep', ['60'], { detached: true, stdio: 'ignore' });
const { chain } = supervisor.status(spec.id);
process.stdout.write(`${JSON.stringify({ chain, other: other ? other.pid : 0 })}\n`);
setInterval(() => undefined, 60_000);
