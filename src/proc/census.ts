import type { Clock } from '../time.js';
import { createMarkerMemory, type MarkerMemory } from './marker.js';
import type { ProcessStat } from './stat.js';

/**
 * What a look at all processes has found, shared by those who look at about the same time: among 1,000 processes one look
 * takes 50 ms, and 500 tunnels whose server goes away are 500 looks.
 */
export interface Census {
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
export function createCensus(clock: Clock, names: readonly string[]): Census {
  let table = new Map<number, ProcessStat>();
  let keptUntil = Number.NEGATIVE_INFINITY;
  return {
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
