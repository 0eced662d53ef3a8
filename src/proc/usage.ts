import { type Clock, systemClock } from '../time.js';
import { type BackendOptions, requireLinux, type Usage, usesPortable } from './backend.js';
import { known, openProc, type Proc } from './read.js';
import { isGone, isSame, type ProcessRef, parseStat, readUptimeTicks } from './stat.js';

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
  const clock = options.clock ?? systemClock;
  let before: ReadonlyMap<number, Look> = new Map();
  return {
    read: (processes) => {
      const looks = new Map<number, Look>();
      const found = new Map<number, Usage>();
      for (const process of processes) {
        const sample = readSample(proc, process);
        if (!sample) continue;
        const { pid } = sample.ref;
        const look = lookAt(proc, sample, before.get(pid));
        looks.set(pid, look);
        found.set(pid, toUsage(proc, sample, { cpu: look.cpu, timestamp: clock.wallTime() }));
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

/** One process at one moment. Times in clock ticks. */
interface Sample {
  readonly ref: ProcessRef;
  readonly ppid: number;
  readonly rssBytes: number;
  readonly cpuTicks: number;
  /** Since its start; undefined where /proc does not say when this host was booted. */
  readonly ageTicks: number | undefined;
}

/** What is remembered of a process: where the time began that `cpu` is of, and the last answer. */
interface Look {
  readonly since: Sample;
  readonly cpu: number;
}

function readSample(proc: Proc, process: number | ProcessRef): Sample | undefined {
  const pid = typeof process === 'number' ? process : process.pid;
  const text = known(proc.text(`${pid}/stat`));
  const stat = text === undefined ? undefined : parseStat(text, proc.pageSize);
  const cpuTicks = text === undefined ? undefined : parseCpuTicks(text);
  if (isGone(stat) || cpuTicks === undefined) return undefined;
  if (typeof process !== 'number' && !isSame(stat, process)) return undefined;
  const uptime = readUptimeTicks(proc);
  const ageTicks = uptime === undefined ? undefined : Math.max(0, uptime - stat.startTicks);
  return { ref: stat, ppid: stat.ppid, rssBytes: stat.rssBytes, cpuTicks, ageTicks };
}

/** User and system time, the fields 14 and 15 of a stat line; of its own threads, not of children that it waited for. */
export function parseCpuTicks(text: string): number | undefined {
  const close = text.lastIndexOf(')');
  // The state, field 3, is the first one after the name.
  const [user, system] = text
    .slice(close + 2)
    .split(' ')
    .slice(11, 13)
    .map(Number);
  const ticks = (user ?? Number.NaN) + (system ?? Number.NaN);
  return close > 0 && Number.isInteger(ticks) && ticks >= 0 ? ticks : undefined;
}

/**
 * The kernel counts CPU time in ticks of 10 ms, so over a shorter time than this a share says nothing (one tick in
 * 10 ms would be 100 %): the last answer stands until it is over.
 */
const SHORTEST_S = 0.2;

function lookAt(proc: Proc, now: Sample, before: Look | undefined): Look {
  if (!before || !isSame(before.since.ref, now.ref)) return { since: now, cpu: share(now.cpuTicks, now.ageTicks) };
  const ticks = (now.ageTicks ?? 0) - (before.since.ageTicks ?? 0);
  if (ticks < SHORTEST_S * proc.ticksPerSecond) return before;
  return { since: now, cpu: share(now.cpuTicks - before.since.cpuTicks, ticks) };
}

/** 100 is one core. */
function share(cpuTicks: number, ticks: number | undefined): number {
  return ticks ? round((cpuTicks / ticks) * 100) : 0;
}

function toUsage(proc: Proc, sample: Sample, rest: Pick<Usage, 'cpu' | 'timestamp'>): Usage {
  const toMs = (ticks: number) => (ticks * 1000) / proc.ticksPerSecond;
  const { ref, ppid, rssBytes, cpuTicks, ageTicks = 0 } = sample;
  return {
    cpu: rest.cpu,
    memory: rssBytes,
    ppid,
    pid: ref.pid,
    ctime: toMs(cpuTicks),
    elapsed: toMs(ageTicks),
    timestamp: rest.timestamp,
  };
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
