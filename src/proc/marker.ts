import { type Clock, type Slice, systemClock } from '../time.js';
import { known, type Proc } from './read.js';
import {
  isGone,
  type ProcessRef,
  type ProcessStat,
  type ProcessTable,
  readPidsNewestFirst,
  readStat,
  readUptimeTicks,
} from './stat.js';

/**
 * Environment entries (`NAME=value`) that a process must all carry. An environment is inherited through fork, exec,
 * setsid and double fork, so a marker reaches what has left its tree.
 */
export type Marker = readonly string[];

/** What one look at a process's environment says. Empty is no answer: inside execve it is empty for a moment. */
export type MarkerState = 'carries' | 'lacks' | 'empty';

export function checkMarker(proc: Proc, pid: number, marker: Marker): MarkerState {
  return stateOf(readSettledEnvironment(proc, pid), marker);
}

function stateOf(environ: string | undefined, marker: Marker): MarkerState {
  if (environ === '') return 'empty';
  if (environ === undefined) return 'lacks';
  // Anchored at both ends: `OTHER_TUNNEL_ID=x` does not carry `TUNNEL_ID=x`, nor does a value that contains it.
  const entries = `\0${environ}\0`;
  return marker.every((entry) => entries.includes(`\0${entry}\0`)) ? 'carries' : 'lacks';
}

/** Its environment; '' inside execve; undefined where there is none, or it is not to be seen. */
function readSettledEnvironment(proc: Proc, pid: number): string | undefined {
  const environ = readEnvironment(proc, pid);
  if (environ !== '') return environ;
  // Inside execve there is no command line either. Where there is one, the descriptor was that of the former program,
  // or there is no environment at all: the second reading tells.
  return known(proc.text(`${pid}/cmdline`)) === '' ? '' : readEnvironment(proc, pid) || undefined;
}

/** The value of one variable in a process's environment. */
export function readVariable(proc: Proc, pid: number, name: string): string | undefined {
  const environ = readEnvironment(proc, pid) ?? '';
  const entry = environ.split('\0').find((line) => line.startsWith(`${name}=`));
  return entry?.slice(name.length + 1);
}

/** The entries of these variables in a process's environment; undefined unless it has them all. */
export function readMarker(proc: Proc, pid: number, names: readonly string[]): Marker | undefined {
  const entries = (readEnvironment(proc, pid) ?? '').split('\0');
  const found = names.flatMap((name) => entries.find((entry) => entry.startsWith(`${name}=`)) ?? []);
  return found.length === names.length ? found : undefined;
}

/** Undefined: not to be seen, or gone. A leader that ended before its threads has none of its own; theirs is the process's. */
function readEnvironment(proc: Proc, pid: number): string | undefined {
  const own = known(proc.text(`${pid}/environ`));
  if (own || readStat(proc, pid)?.state !== 'Z') return own;
  for (const task of known(proc.list(`${pid}/task`)) ?? []) {
    const environ = known(proc.text(`${pid}/task/${task}/environ`));
    if (environ) return environ;
  }
  return undefined;
}

/** What processes were seen to carry, for many searches: they need not ask again who lacks what they look for. */
export interface MarkerMemory {
  /** 'carries': it did. undefined: it was not asked yet. */
  recall(ref: ProcessRef, marker: Marker): 'carries' | 'lacks' | undefined;
  /** Of a process that is too old to be between fork and exec. */
  note(ref: ProcessRef, environ: string): void;
  /** The others are gone. */
  keep(pids: ReadonlySet<number>): void;
}

/**
 * Remembers the entries of these variables. A process that is there has the environment with which its program was
 * started; to be another one it would have to start a program that is given the marker by hand.
 */
export function createMarkerMemory(names: readonly string[]): MarkerMemory {
  const seen = new Map<number, { readonly startTicks: number; readonly entries: readonly string[] }>();
  const isWanted = (entry: string) => names.some((name) => entry.startsWith(`${name}=`));
  return {
    recall: ({ pid, startTicks }, marker) => {
      const found = seen.get(pid);
      if (found?.startTicks !== startTicks) return undefined;
      return marker.every((entry) => found.entries.includes(entry)) ? 'carries' : 'lacks';
    },
    note: ({ pid, startTicks }, environ) => {
      seen.set(pid, { startTicks, entries: environ.split('\0').filter(isWanted) });
    },
    keep: (pids) => {
      for (const pid of seen.keys()) if (!pids.has(pid)) seen.delete(pid);
    },
  };
}

/** A search that may be repeated, see {@link createMarkerSearch}. */
export interface MarkerSearch {
  /**
   * The carriers that are there now, the newest first. Each is also handed over the moment it is found: one that forks
   * every 2 ms and leaves is gone by the end of the look. Rows of a table that has just been read are not read again.
   */
  look(slice: Slice, table?: ProcessTable, onFound?: (stat: ProcessStat) => void): Promise<ProcessStat[]>;
  /** The last look met a process inside execve, which says nothing: another look is due though nothing was forked. */
  isPending(): boolean;
}

/**
 * Searches for carriers, again and again: every look reads only what can have changed since the last one: pids that
 * were not there, those whose environment was empty, and the young, which show their parent's environment until they
 * exec. The first look reads everything, but for what a memory spares it.
 */
export function createMarkerSearch(
  proc: Proc,
  marker: Marker,
  { clock = systemClock, memory }: { readonly clock?: Clock; readonly memory?: MarkerMemory | undefined } = {},
): MarkerSearch {
  let settled = new Set<number>();
  let emptySince = new Map<number, number>();
  const isInside = (since: number) => clock.now() - since < EXECVE_MS;
  return { look, isPending: () => [...emptySince.values()].some(isInside) };

  async function look(
    slice: Slice,
    table?: ProcessTable,
    onFound?: (stat: ProcessStat) => void,
  ): Promise<ProcessStat[]> {
    const found: ProcessStat[] = [];
    const stillEmpty = new Map<number, number>();
    const youngSince = (readUptimeTicks(proc) ?? 0) - YOUNG_S * proc.ticksPerSecond;
    const pids = readPidsNewestFirst(proc);
    for (const pid of pids) {
      if (settled.has(pid)) continue;
      const stat = table?.get(pid) ?? readStat(proc, pid);
      if (isGone(stat) || stat.kernelThread) continue;
      const isYoung = stat.startTicks >= youngSince;
      // Who carried it is asked again: it is to die.
      const isOther = memory?.recall(stat, marker) === 'lacks';
      const environ = isOther ? undefined : readSettledEnvironment(proc, pid);
      if (environ && !isYoung) memory?.note(stat, environ);
      const state = stateOf(environ, marker);
      if (state === 'carries') {
        found.push(stat);
        onFound?.(stat);
      } else if (state === 'empty') stillEmpty.set(pid, emptySince.get(pid) ?? clock.now());
      else if (!isYoung) settled.add(pid);
      await slice();
    }
    const listed = new Set(pids);
    memory?.keep(listed);
    settled = new Set([...settled].filter((pid) => listed.has(pid)));
    emptySince = stillEmpty;
    return found;
  }
}

/** Between fork and exec takes milliseconds; a process of this age has done it. */
const YOUNG_S = 2;
/** Inside execve a process is for a fraction of a millisecond, unless it has to wait for a processor. */
const EXECVE_MS = 200;
