// What abort.test.ts runs with few descriptors (ulimit -n): they run out before, in the middle of, and after a freeze.
import fs from 'node:fs';
import { killTree } from '#lib/kill.js';
import { openProc, type Proc } from '#lib/proc/read.js';
import { until } from '#lib/time.js';
import { emit } from '../support/namespace.js';
import { descendantsOf, isAlive, statOf } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';
import { startScript } from '../support/sockets.js';

const held: number[] = [];

/** Takes every descriptor there is. */
function starve(): void {
  for (;;) {
    try {
      held.push(fs.openSync('/dev/null', fs.constants.O_RDONLY));
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'EMFILE') return;
      throw error;
    }
  }
}

function feed(): void {
  for (const fd of held.splice(0)) fs.closeSync(fd);
}

/** Kills a perl with `children` below it, and says how it ended and what became of them. */
async function attempt(name: string, children: number, kill: (pid: number) => Promise<unknown>): Promise<void> {
  await using reaper = createReaper();
  const script = `$| = 1; for (1..${children}) { if (!fork) { sleep 1 while 1 } } print "ready\\n"; sleep 1 while 1`;
  const { pid } = await startScript(reaper, 'perl', ['-e', script]);
  const family = [pid, ...descendantsOf(pid).map((child) => child.pid)];
  const before = fs.readdirSync('/proc/self/fd').length;
  const outcome = await kill(pid).then(
    () => 'resolved',
    (error: unknown) => (error instanceof Error && 'code' in error ? error.code : String(error)),
  );
  feed();
  const leaked = fs.readdirSync('/proc/self/fd').length - before;
  const settle = () => !family.some((one) => isAlive(one)) || family.every((one) => isRunning(one));
  await until(settle, { timeoutMs: 3000 });
  const states = family.map((one) => (isAlive(one) ? statOf(one)?.state : 'gone'));
  emit(name, { outcome, members: family.length, leaked, states });
}

function isRunning(pid: number): boolean {
  return 'SRD'.includes(statOf(pid)?.state ?? 'gone');
}

await attempt('before', 90, (pid) => killTree(pid));

const proc = openProc();
let reads = 0;
const text: Proc['text'] = (path) => {
  if (path === 'stat' && ++reads === 2) starve();
  return proc.text(path);
};
await attempt('middle', 5, (pid) => killTree(pid, { proc: { ...proc, text } }));

const kill = process.kill;
process.kill = (pid, signal) => {
  if (signal === 'SIGKILL' && held.length === 0) starve();
  return kill(pid, signal);
};
await attempt('burst', 5, (pid) => killTree(pid));
