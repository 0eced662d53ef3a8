// What namespace.test.ts runs: a manager that was itself started with the marker it looks for.
import { killChains } from '#lib/kill.js';
import { assertIsolated, emit } from '../support/namespace.js';
import { isAlive } from '../support/proc.js';
import { startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';

assertIsolated();
await using reaper = createReaper();
const { pid, ready } = startTree(reaper, { setsid: true });
await ready;
const report = await killChains([], { marker: [`TUNNEL_ID=${process.env.TUNNEL_ID}`], timeoutMs: 3000 });
emit('report', report);
emit('child', { pid, alive: isAlive(pid) });
emit('parents', [isAlive(process.pid), isAlive(process.ppid), isAlive(1)]);
