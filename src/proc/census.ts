import type { Clock } from '../time.js';
import { createMarkerMemory, type MarkerMemory } from './marker.js';
import type { Proc, Read } from './read.js';
import { type ProcessStat, readForkCount } from './stat.js';

/**
 * What a look at all processes has found, shared by those who look at about the same time: among 1,000 processes one look
 * takes 50 ms, and 500 tunnels whose server goes away are 500 looks.
 */
export interface Census {
  /** The same /proc, which lists all processes once for as long as nothing has been forked. */
  readonly proc: Proc;
  /** A table whose rows are a second old at most. Whoever takes it brings it up to date. */
  table(): Map<number, ProcessStat>;
  readonly markers: MarkerMemory;
}

/**
 * No number comes back within this time: that takes a full round of all numbers. A session or a parent that changes
 * meanwhile is overlooked, as it is by a look that takes as long.
 */
const KEPT_MS = 1000;

/** `names`: the variables of the markers that will be looked for. */
export function createCensus(proc: Proc, clock: Clock, names: readonly string[]): Census {
  let table = new Map<number, ProcessStat>();
  let keptUntil = Number.NEGATIVE_INFINITY;
  return {
    proc: { ...proc, list: shareListing(proc) },
    markers: createMarkerMemory(names),
    table: () => {
      if (clock.now() >= keptUntil) {
        table = new Map();
        keptUntil = clock.now() + KEPT_MS;
      }
      return table;
    },
  };
}

/**
 * To list 1,000 processes takes 1 ms, and each of 500 chains that are ended at once has them listed ten times. The count is
 * read before the list: while it stands, nobody can have come who is not in there. Who has gone since is found to be gone.
 */
function shareListing(proc: Proc): Proc['list'] {
  let known: { readonly forks: number | undefined; readonly names: Read<string[]> } | undefined;
  return (path) => {
    if (path !== '.') return proc.list(path);
    const forks = readForkCount(proc);
    if (!known || forks === undefined || forks !== known.forks) known = { forks, names: proc.list(path) };
    return known.names;
  };
}
