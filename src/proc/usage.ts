import { type Clock, systemClock } from '../time.js';
import { type BackendOptions, requireLinux, type Usage, usesPortable } from './backend.js';
import { openProc, type Proc } from './read.js';
import { isGone, isSame, type ProcessRef, type ProcessStat, readStat, readUptimeTicks } from './stat.js';

export type { Usage } from './backend.js';

export interface UsageReaderOptions extends BackendOptions {
  readonly clock?: Clock | undefined;
}

export interface ReadUsageOptions extends UsageReaderOptions {
  readonly signal?: AbortSignal | undefined;
}

/** The library's {@link import('../door.js').readUsage}: by one look, which takes no memory of an earlier one. */
export async function readUsage(
  process: number | ProcessRef,
  options: ReadUsageOptions = {},
): Promise<Usage | undefined> {
  options.signal?.throwIfAborted();
  const pid = typeof process === 'number' ? process : process.pid;
  if (usesPortable(options)) return (await import('./portable.js')).readUsagePortably(pid, options);
  return createUsageReader(options).read([process]).get(pid);
}

/** Reads the usage of the same processes again and again. */
export interface UsageReader {
  /**
   * By pid; without those that are gone. `cpu` is that since the last call which named the process, and the average
   * since its start in the first one. Remembers the processes of the last call and no others.
   */
  read(processes: readonly (number | ProcessRef)[]): ReadonlyMap<number, Usage>;
}

/** The library's {@link import('../door.js').createUsageReader}. */
export function createUsageReader(options: UsageReaderOptions = {}): UsageReader {
  requireLinux('read usage again and again', options);
  const proc = options.proc ?? openProc();
  const meter = createUsageMeter(proc, options.clock ?? systemClock);
  const rowOf = (process: number | ProcessRef): ProcessStat | undefined => {
    const stat = readStat(proc, typeof process === 'number' ? process : process.pid);
    return typeof process === 'number' || isSame(stat, process) ? stat : undefined;
  };
  return { read: (processes) => meter.measure(processes.map(rowOf).filter((stat) => stat !== undefined)) };
}

/** The same by rows that were read just now. */
export interface UsageMeter {
  measure(rows: readonly ProcessStat[]): ReadonlyMap<number, Usage>;
}

export function createUsageMeter(proc: Proc, clock: Clock): UsageMeter {
  let before: ReadonlyMap<number, Look> = new Map();
  return {
    measure: (rows) => {
      const looks = new Map<number, Look>();
      const found = new Map<number, Usage>();
      for (const row of rows) {
        if (isGone(row)) continue;
        const sample = { row, ageTicks: readAgeTicks(proc, row) };
        const look = lookAt(proc, sample, before.get(row.pid));
        looks.set(row.pid, look);
        found.set(row.pid, toUsage(proc, sample, { cpu: look.cpu, timestamp: clock.wallTime() }));
      }
      before = looks;
      return found;
    },
  };
}

/** The figures of several as one: what they use together, and the identity and the age of the first. */
export function sumUsage([root, ...others]: readonly Usage[]): Usage | null {
  if (!root) return null;
  const sum = (of: (usage: Usage) => number) => others.reduce((total, usage) => total + of(usage), of(root));
  const cpu = round(sum((usage) => usage.cpu));
  return { ...root, cpu, memory: sum(({ memory }) => memory), ctime: sum(({ ctime }) => ctime) };
}

/** One process at one moment. */
interface Sample {
  readonly row: ProcessStat;
  /** Since its start; undefined where /proc does not say when this host was booted. */
  readonly ageTicks: number | undefined;
}

/** What is remembered of a process: where the time began that `cpu` is of, and the last answer. */
interface Look {
  readonly since: Sample;
  readonly cpu: number;
}

function readAgeTicks(proc: Proc, { startTicks }: ProcessRef): number | undefined {
  const uptime = readUptimeTicks(proc);
  return uptime === undefined ? undefined : Math.max(0, uptime - startTicks);
}

/**
 * The kernel counts CPU time in ticks of 10 ms, so over a shorter time than this a share says nothing (one tick in
 * 10 ms would be 100 %): the last answer stands until it is over.
 */
const SHORTEST_S = 0.2;

function lookAt(proc: Proc, now: Sample, before: Look | undefined): Look {
  const { cpuTicks } = now.row;
  if (!before || !isSame(before.since.row, now.row)) return { since: now, cpu: share(cpuTicks, now.ageTicks) };
  const ticks = (now.ageTicks ?? 0) - (before.since.ageTicks ?? 0);
  if (ticks < SHORTEST_S * proc.ticksPerSecond) return before;
  return { since: now, cpu: share(cpuTicks - before.since.row.cpuTicks, ticks) };
}

/** 100 is one core. */
function share(cpuTicks: number, ticks: number | undefined): number {
  return ticks ? round((cpuTicks / ticks) * 100) : 0;
}

function toUsage(proc: Proc, { row, ageTicks = 0 }: Sample, rest: Pick<Usage, 'cpu' | 'timestamp'>): Usage {
  const toMs = (ticks: number) => (ticks * 1000) / proc.ticksPerSecond;
  const { pid, ppid, rssBytes, cpuTicks } = row;
  return {
    cpu: rest.cpu,
    memory: rssBytes,
    ppid,
    pid,
    ctime: toMs(cpuTicks),
    elapsed: toMs(ageTicks),
    timestamp: rest.timestamp,
  };
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
