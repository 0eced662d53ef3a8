// What namespace.test.ts runs: a /proc that shows nobody but one's own processes (hidepid=2).
import { execFileSync } from 'node:child_process';
import { assertIsolated, emit } from '../support/namespace.js';
import { isAlive } from '../support/proc.js';
import { startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { asNobody } from '../support/stranger.js';

assertIsolated();
await using reaper = createReaper();
const { pid, ready } = startTree(reaper, {});
await ready;
execFileSync('mount', ['-o', 'remount,hidepid=2', '/proc']);
const seen = await asNobody('test/kill/stranger.js', [String(pid)]);
emit('pid', pid);
emit('stat', seen.stat);
for (const name of ['kill', 'tunward kill', 'tunward tree']) emit(name, seen[name]);
emit('alive', isAlive(pid));
