import type { Proc } from './read.js';
import { isGone, type ProcessStat, readChildren, readPids, readStat } from './stat.js';

/**
 * The children of a process that are dead and that it has not taken away (wait(2)). An orphan goes to pid 1, and where
 * that is no init (Node waits for its own children alone) it stays so for ever: no port, no memory, but a number each,
 * and those are counted (pids.max).
 */
export function readZombies(proc: Proc, parent: number): ProcessStat[] {
  // Where the kernel keeps no lists of children (gVisor, CONFIG_PROC_CHILDREN), everybody is looked at.
  const listed = proc.has(`${parent}/task/${parent}/children`) ? readChildren(proc, parent) : readPids(proc);
  return listed
    .flatMap((pid) => readStat(proc, pid) ?? [])
    .filter((stat) => stat.ppid === parent && stat.state === 'Z' && isGone(stat));
}
