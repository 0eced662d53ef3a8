import { openProc, type Proc } from '../proc/read.js';
import { readZombies } from '../proc/zombies.js';
import type { Journal } from './events.js';

/** Who takes away the dead here. */
export interface InitReport {
  /** This process is pid 1: whatever loses its parent becomes its child, and it is no init. */
  readonly pid1: boolean;
  /** The dead that wait for this process, or for pid 1, to take them away. */
  readonly zombies: number;
  /** What to do, where there is something. */
  readonly advice?: string;
}

/** So many of the dead at pid 1 are no moment's coincidence: an init takes each away at once. */
const MANY = 10;

export function readInit(proc: Proc, pid: number): InitReport {
  const pid1 = pid === 1;
  const parents = pid1 ? [1] : [pid, 1];
  const zombies = parents.reduce((sum, parent) => sum + readZombies(proc, parent).length, 0);
  if (pid1) return { pid1, zombies, advice: `tunward is pid 1 and no init: ${putInitInFront}` };
  if (zombies < MANY) return { pid1, zombies };
  return { pid1, zombies, advice: `pid 1 does not take away the dead: ${putInitInFront}` };
}

export const putInitInFront =
  'put an init in front of it (docker run --init, init: true in a compose file, or tini), or the dead that others leave behind keep their numbers';

/**
 * As pid 1 the daemon says so at its start, and again when there are 10, 100, 1,000 zombies: they come of chains whose
 * ssh dies together with its autossh, one with each restart. To count is a look at every child, so it is done once for
 * every 10 that were killed.
 */
export function watchInit({ append, subscribe }: Journal, { proc = openProc(), pid = process.pid } = {}): void {
  if (pid !== 1) return;
  let killed = 0;
  let next = MANY;
  say(readInit(proc, pid));
  subscribe((entry) => {
    if (entry.type !== 'process.killed') return;
    killed += entry.kill.killed.length;
    if (killed < MANY) return;
    killed = 0;
    const report = readInit(proc, pid);
    if (report.zombies < next) return;
    while (next <= report.zombies) next *= 10;
    say(report);
  });

  function say({ zombies, advice = '' }: InitReport): void {
    append({ type: 'init.missing', pid, zombies, message: advice });
  }
}
