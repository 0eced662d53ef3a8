// What P8 runs in a mount namespace of its own: /etc/hosts says something else there, and `localhost` is what it is.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspectPort } from '#lib/port/inspect.js';
import { isPortFree } from '#lib/port/wait.js';
import { startHolder } from '../support/holders.js';
import { assertIsolated, emit } from '../support/namespace.js';
import { freeLocalPort } from '../support/port.js';
import { createReaper } from '../support/reaper.js';

assertIsolated();
const [lines = '', times = '0'] = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), 'tunward-hosts-'));
const file = join(folder, 'hosts');
writeFileSync(file, lines);
spawnSync('mount', ['--bind', file, '/etc/hosts']);
// The mount has the file, and goes with the namespace; its name would stay.
rmSync(folder, { recursive: true });
if (readFileSync('/etc/hosts', 'utf8') !== lines) throw new Error('/etc/hosts is what it was');
const reaper = createReaper();
const wrong: string[] = [];
for (let n = 0; n < Number(times); n++) {
  const port = await freeLocalPort();
  const address = [undefined, '127.0.0.1', '::1'][n % 3];
  if (address) await startHolder(reaper, { port, address });
  const free = await isPortFree(port, { host: 'localhost' });
  const { verdict } = await inspectPort(port, { host: 'localhost' });
  if (free !== (address === undefined)) wrong.push(`${address}: free is ${free}`);
  if (verdict !== (address ? 'listening' : 'free')) wrong.push(`${address}: ${verdict}`);
  await reaper.end();
}
emit('wrong', wrong);
emit('right', Number(times) - wrong.length);
