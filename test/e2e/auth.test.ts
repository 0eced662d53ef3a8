/** `tunward auth` on a terminal: the command, the daemon, ssh and the servers are the real ones. */
import { existsSync, readFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { mainFile, tunward } from '../cli/run.js';
import {
  type AskingOptions,
  type AskingServer,
  byPassword,
  byPasswordAndCode,
  startAsking,
} from '../support/asking.js';
import { type Home, makeHome, type RunningDaemon, startUp } from '../support/daemon.js';
import { answer, question } from '../support/dialogue.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';
import { startSshd } from '../support/sshd.js';
import { type OnTerminal, runOnTerminal } from '../support/terminal.js';

const PASSWORD = 'correct horse';
const CODE = '424242';

// What ssh says besides (of a wrong answer, of a new host) may come behind its next question.
describe('tunward auth, all the way', function () {
  this.timeout(60_000);
  const reaper = createReaper();
  let home: Home;
  let daemon: RunningDaemon;
  let port: number;
  before(function () {
    need(this, 'pty', 'ssh');
  });
  beforeEach(() => {
    home = makeHome();
  });
  afterEach(async () => {
    const end = await daemon?.end('SIGTERM');
    await reaper.end();
    home.remove();
    expect(end).to.equal(0);
  });

  /** A daemon with one tunnel to the server, which asks. */
  async function serve({ host, sshConfigFile }: { host: string; sshConfigFile: string }): Promise<void> {
    port = await freeLocalPort();
    const listen = { remote_port: '127.0.0.1:1', local_port: `127.0.0.1:${port}` };
    const tunnel = { name: 'vault', remote_host: host, ssh_config: sshConfigFile, interactive: true, ...listen };
    home.configure({}, [tunnel]);
    daemon = await startUp(reaper, home, { SSH_AUTH_SOCK: undefined, DISPLAY: undefined });
  }
  const asking = async (options: AskingOptions): Promise<AskingServer> => {
    const server = await startAsking(options);
    await serve(server);
    return server;
  };
  const auth = (...args: string[]) =>
    runOnTerminal(reaper, [process.execPath, mainFile, 'auth', 'vault', '--socket', home.socket, ...args], {
      columns: 120,
    });
  const vault = async () => {
    const { body } = await home.api('GET', '/v1/tunnels/vault');
    return body;
  };
  const lastOf = async (terminal: OnTerminal) => (await terminal.all()).join(' ');
  const listens = () =>
    new Promise<boolean>((resolve) => {
      const socket = net.connect(port, '127.0.0.1');
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
      socket.once('close', () => socket.destroy());
    });

  it('logs in with a password and a code, and is not needed any more', async () => {
    await using server = await asking({ factors: [byPasswordAndCode(PASSWORD, CODE)] });
    const listed = await tunward(reaper, ['ls', '--socket', home.socket]);
    expect(listed.stdout).to.contain('needs_auth').and.contain('tunward auth vault');
    expect(daemon.stderr()).to.match(/ vault {2}needs a person {2}.*tunward auth vault/);
    const refused = await tunward(reaper, ['start', 'vault', '--socket', home.socket]);
    expect(refused.code).to.equal(1);
    expect(refused.stderr).to.contain('tunward auth vault');
    const terminal = auth();
    await answer(terminal, /Password: /, PASSWORD);
    const between = await vault();
    expect(between).to.include({ state: 'starting' });
    await answer(terminal, /One-time code: /, CODE);
    expect(await terminal.ended).to.equal(0);
    expect(await lastOf(terminal)).to.match(/✔ vault {2}up in .* {2}127\.0\.0\.1:\d+ → 127\.0\.0\.1:1 via rig/);
    expect(terminal.bytes()).not.to.contain(PASSWORD).and.not.contain(CODE);
    expect(server.logins()).to.equal(1);
    expect(await vault()).to.include({ state: 'up', reason: null });
    expect(await listens()).to.equal(true);
    // Nothing of it is kept: not in a log, nor in what any process was started with.
    const { id, chain } = await vault();
    expect(home.logLines(id).join('\n')).not.to.contain(PASSWORD).and.not.contain(CODE);
    for (const { pid } of chain) {
      const [words, environment] = ['cmdline', 'environ'].map((name) => readFileSync(`/proc/${pid}/${name}`, 'latin1'));
      expect(`${words}${environment}`).not.to.contain(PASSWORD).and.not.contain(CODE);
    }
    // Whoever comes now is told.
    const second = auth();
    expect(await second.ended).to.equal(1);
    expect(await lastOf(second)).to.contain('is up');
  });

  it('ends with 1 when the password is wrong, and is not tried again', async () => {
    await using server = await asking({ factors: [byPassword(PASSWORD)] });
    const terminal = auth();
    for (let attempt = 0; attempt < 3; attempt++) await answer(terminal, /password: /i, 'wrong');
    expect(await terminal.ended).to.equal(1);
    expect(await lastOf(terminal))
      .to.contain('auth_failed')
      .and.contain('tunward auth vault');
    expect(await vault()).to.include({ state: 'stopped', reason: 'auth_failed', next_retry_at: null });
    expect(server.logins()).to.equal(0);
    // The next one may try again.
    const again = auth();
    await answer(again, /password: /i, PASSWORD);
    expect(await again.ended).to.equal(0);
  });

  it('is given up by Ctrl-C at a prompt: nothing of it is left', async () => {
    await using server = await asking({ factors: [byPassword(PASSWORD)] });
    const terminal = auth();
    await question(terminal, /password: /i);
    const { chain } = await vault();
    expect(chain).to.have.length.above(0);
    terminal.type('half of it\u0003');
    expect(await terminal.ended).to.equal(130);
    const alive = () => chain.filter((one: { pid: number; start_ticks: number }) => isAlive(one.pid, one.start_ticks));
    expect(await until(() => alive().length === 0, { timeoutMs: 5000, everyMs: 5 }), JSON.stringify(alive())).to.equal(
      true,
    );
    const isStopped = async () => (await vault()).state === 'stopped';
    expect(await until(isStopped, { timeoutMs: 5000 })).to.equal(true);
    expect(await vault()).to.include({ reason: 'needs_auth', pid: null });
    expect(await until(() => server.connections() === 0, { timeoutMs: 5000 })).to.equal(true);
    expect(await listens()).to.equal(false);
  });

  it('is one person’s at a time', async () => {
    await using _server = await asking({ factors: [byPassword(PASSWORD)] });
    const first = auth();
    await question(first, /password: /i);
    const second = auth();
    expect(await second.ended).to.equal(1);
    expect(await lastOf(second)).to.contain('somebody else');
    first.type(`${PASSWORD}\r`);
    expect(await first.ended).to.equal(0);
  });

  it('ends with 75 when the daemon is killed at a prompt, and nothing of it is left', async () => {
    await using _server = await asking({ factors: [byPassword(PASSWORD)] });
    const terminal = auth();
    await question(terminal, /password: /i);
    const { chain } = await vault();
    await daemon.end('SIGKILL');
    expect(await terminal.ended).to.equal(75);
    expect(await lastOf(terminal)).to.contain('went away');
    const isGone = () => chain.every((one: { pid: number; start_ticks: number }) => !isAlive(one.pid, one.start_ticks));
    expect(await until(isGone, { timeoutMs: 5000, everyMs: 5 })).to.equal(true);
    daemon = { ...daemon, end: async () => 0 };
  });

  for (const says of ['yes', 'no'] as const) {
    it(`shows the fingerprint of a host that is not known: ${says}`, async () => {
      await using server = await asking({ factors: [byPassword(PASSWORD)], known: false });
      const file = join(home.stateDir, 'known_hosts');
      const known = () => (existsSync(file) ? readFileSync(file, 'utf8') : '');
      const terminal = auth();
      const shown = await answer(terminal, /\(yes\/no\/\[fingerprint\]\)\? /, says);
      expect(shown.replace(/\s+/g, '')).to.contain(server.fingerprint());
      if (says === 'yes') {
        await answer(terminal, /password: /i, PASSWORD);
        expect(await terminal.ended).to.equal(0);
        // The daemon has a file of its own, before the person's.
        expect(known()).to.contain('ssh-ed25519');
        expect(readFileSync(server.knownHostsFile, 'utf8')).to.equal('');
      } else {
        expect(await terminal.ended).to.equal(1);
        expect(await vault()).to.include({ state: 'stopped' });
        expect(known()).to.equal('');
      }
    });
  }

  it('logs in at a real sshd: a passphrase, then a password and a code by PAM', async function () {
    need(this, 'sshd', 'pam');
    const login = { password: PASSWORD, code: CODE };
    await using sshd = await startSshd({ passphrase: 'of the key', login });
    await serve(sshd);
    const terminal = auth('--json');
    await answer(terminal, /passphrase for key .*: /, 'of the key');
    await answer(terminal, /Password: /, PASSWORD);
    await answer(terminal, /One-time code: /, CODE);
    expect(await terminal.ended).to.equal(0);
    const record = JSON.parse(terminal.bytes().slice(terminal.bytes().indexOf('{')));
    expect(record).to.include({ name: 'vault', state: 'up' });
    expect(await listens()).to.equal(true);
  });
});
