import fs from 'node:fs';
import { isErrno } from '../errors.js';
import type { Slice } from '../time.js';
import { printable } from '../wire.js';
import { known, type Pin, type Proc, type Read } from './read.js';

/**
 * One process and no other: its number, and when it began in clock ticks since boot. A pid alone is not an identity,
 * since numbers are used again; two processes with one number inside one tick (10 ms) are told apart by a {@link Pin}.
 */
export interface ProcessRef {
  readonly pid: number;
  readonly startTicks: number;
}

/** A row of the process table, from `/proc/<pid>/stat` (proc_pid_stat(5)). */
export interface ProcessStat extends ProcessRef {
  readonly ppid: number;
  readonly pgid: number;
  readonly sid: number;
  /** The name the kernel knows, at most 15 bytes. Any byte may be in it. */
  readonly comm: string;
  /** R running, S sleeping, D uninterruptible, T stopped, t traced, Z zombie, X dead, I idle kernel thread. */
  readonly state: string;
  readonly kernelThread: boolean;
  readonly threads: number;
  readonly rssBytes: number;
  /** User and system time of its own threads, not of children that it waited for; in clock ticks. */
  readonly cpuTicks: number;
}

export type ProcessTable = ReadonlyMap<number, ProcessStat>;

/** A process in words for a person. */
export interface ProcessInfo extends ProcessRef {
  readonly command: string;
  readonly user: string;
  readonly ageS: number | null;
}

const PF_KTHREAD = 0x0020_0000;

/**
 * Reads one line of stat. The name stands in brackets and may itself hold brackets, blanks and newlines, so the fields
 * begin after the last `)` of the whole text. Answers undefined for text that is not a stat line.
 *
 * @example
 * parseStat('7 (x) S 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 812 0 3', 4096);
 * // { pid: 7, comm: 'x', state: 'S', ppid: 1, …, startTicks: 812, rssBytes: 12288, cpuTicks: 0 }
 */
export function parseStat(text: string, pageSize: number): ProcessStat | undefined {
  const open = text.indexOf('(');
  const close = text.lastIndexOf(')');
  if (open < 1 || close < open) return undefined;
  // Field n of the man page is fields[n - 3]: the state is the third.
  const fields = text
    .slice(close + 2)
    .trim()
    .split(' ', MOST_FIELDS);
  const numbers = [text.slice(0, open).trim(), ...shown.map((field) => fields[field - 3])].map(parseInteger);
  if (numbers.includes(Number.NaN)) return undefined;
  const [pid = 0, ppid = 0, pgid = 0, sid = 0, flags = 0, user = 0, system = 0, ...rest] = numbers;
  const [threads = 0, startTicks = 0, rssPages = 0] = rest;
  return {
    pid,
    startTicks,
    ppid,
    pgid,
    sid,
    comm: text.slice(open + 1, close),
    state: fields[0] ?? '',
    kernelThread: (flags & PF_KTHREAD) !== 0,
    threads,
    rssBytes: rssPages * pageSize,
    cpuTicks: user + system,
  };
}

/** The fields that are read: ppid, group, session, flags, user and system time, threads, start and resident pages. */
const shown = [4, 5, 6, 9, 14, 15, 20, 22, 24];
/** From the third to the last of those; a line has 52. */
const MOST_FIELDS = 22;

/** A process on its way out has -1 for group and session. */
function parseInteger(text: string | undefined): number {
  const number = text ? Number(text) : Number.NaN;
  return Number.isInteger(number) ? number : Number.NaN;
}

/** The process that bears this pid now, dead but unreaped ones included; undefined when there is none. */
export function readStat(proc: Proc, pid: number): ProcessStat | undefined {
  return toStat(proc, proc.text(`${pid}/stat`));
}

/** The pinned process, undefined once it is reaped. */
export function readPinned(proc: Proc, pin: Pin): ProcessStat | undefined {
  return toStat(proc, pin.stat());
}

/**
 * The process that a number belongs to (`Tgid`): the number itself, or that of the process of which it is a thread.
 * `/proc/<tid>` can be read and kill(2) takes a thread's number, though no listing of /proc shows it.
 */
export function readLeader(proc: Proc, pid: number): number | undefined {
  return readStatusField(proc, pid, 'Tgid');
}

/** Who traces it (a debugger, strace), undefined when nobody does. */
export function readTracer(proc: Proc, pid: number): number | undefined {
  return readStatusField(proc, pid, 'TracerPid') || undefined;
}

/** How far the numbers of its descriptors can go: the slots that the kernel has made for them. */
export function readDescriptorSlots(proc: Proc, pid: number): number | undefined {
  return readStatusField(proc, pid, 'FDSize');
}

/** Its user ids: real, effective, saved and that of its files. None where it does not say. */
export function readUids(proc: Proc, pid: number): number[] {
  const match = /^Uid:\t(\d+)\t(\d+)\t(\d+)\t(\d+)\n/m.exec(known(proc.text(`${pid}/status`)) ?? '');
  return match ? match.slice(1).map(Number) : [];
}

/** A field of /proc/<pid>/status (proc_pid_status(5)) that is one number. */
function readStatusField(proc: Proc, pid: number, name: string): number | undefined {
  // With its line's end, so that no number is read by half.
  const match = new RegExp(`^${name}:\\t(\\d+)\\n`, 'm').exec(known(proc.text(`${pid}/status`)) ?? '');
  return match ? Number(match[1]) : undefined;
}

/** The state of each thread, as {@link ProcessStat.state}: that of the process is its first thread's alone. */
export function readThreadStates(proc: Proc, pid: number): string[] {
  const tasks = known(proc.list(`${pid}/task`)) ?? [];
  return tasks.flatMap((task) => toStat(proc, proc.text(`${pid}/task/${task}/stat`))?.state ?? []);
}

function toStat(proc: Proc, text: Read<string>): ProcessStat | undefined {
  const line = known(text);
  return line === undefined ? undefined : parseStat(line, proc.pageSize);
}

/**
 * Is it over? A zombie holds nothing any more, unless threads of it live on: a leader that ended before its threads
 * shows `Z` too, and its threads hold every socket of the process.
 */
export function isGone(stat: ProcessStat | undefined): stat is undefined {
  return stat === undefined || stat.state === 'X' || (stat.state === 'Z' && stat.threads <= 1);
}

export function isSame(one: ProcessRef | undefined, other: ProcessRef | undefined): boolean {
  return one !== undefined && one.pid === other?.pid && one.startTicks === other.startTicks;
}

/** The numbers of all processes that can be seen (thread-group leaders; threads are not listed), ascending. */
export function readPids(proc: Proc): number[] {
  const names = known(proc.list('.')) ?? [];
  const pids = names.filter((name) => /^[1-9]\d*$/.test(name)).map(Number);
  return pids.sort((one, other) => one - other);
}

/** The same from the newest to the oldest: numbers are given out in ascending order, and from the beginning again. */
export function readPidsNewestFirst(proc: Proc): number[] {
  const pids = readPids(proc);
  // The last field of loadavg is the number that was given out last.
  const last = Number(/(\d+)\s*$/.exec(known(proc.text('loadavg')) ?? '')?.[1] ?? 0);
  const fromBefore = pids.findIndex((pid) => pid > last);
  return (fromBefore < 0 ? pids : [...pids.slice(fromBefore), ...pids.slice(0, fromBefore)]).reverse();
}

/** The whole table, in slices: 33 ms of work for 2,000 processes. Rows that vanish on the way are left out. */
export async function readTable(proc: Proc, slice: Slice): Promise<Map<number, ProcessStat>> {
  const table = new Map<number, ProcessStat>();
  for (const pid of readPids(proc)) {
    const stat = readStat(proc, pid);
    if (stat) table.set(pid, stat);
    await slice();
  }
  return table;
}

/**
 * Brings a table up to date: rows of the dead go, those of the newborn come. A number that is still there is not read
 * again: it takes a full round of all numbers, seconds at least, before one comes back.
 */
export async function updateTable(proc: Proc, table: Map<number, ProcessStat>, slice: Slice): Promise<void> {
  const pids = readPidsNewestFirst(proc);
  const listed = new Set(pids);
  for (const pid of table.keys()) if (!listed.has(pid)) table.delete(pid);
  for (const pid of pids) {
    if (table.has(pid)) continue;
    const stat = readStat(proc, pid);
    if (stat) table.set(pid, stat);
    await slice();
  }
}

/**
 * How many processes were ever forked (`processes` of /proc/stat): when it stands still, nothing new can be there.
 * Undefined where it is not counted (gVisor always says 0).
 */
export function readForkCount(proc: Proc): number | undefined {
  const match = /^processes (\d+)\n/m.exec(known(proc.text('stat')) ?? '');
  return Number(match?.[1]) || undefined;
}

/** Clock ticks since boot, the unit of `startTicks`. */
export function readUptimeTicks(proc: Proc): number | undefined {
  const seconds = Number.parseFloat(known(proc.text('uptime')) ?? '');
  const ticks = Math.round(seconds * proc.ticksPerSecond);
  return Number.isSafeInteger(ticks) ? ticks : undefined;
}

/** The arguments it was started with. Empty for kernel threads, zombies, and for an instant inside execve. */
export function readArguments(proc: Proc, pid: number): string[] {
  const text = known(proc.text(`${pid}/cmdline`)) ?? '';
  return text === '' ? [] : text.replace(/\0$/, '').split('\0');
}

/** The command line in one line of printable text, the kernel's name in brackets where there is none. */
export function readCommand(proc: Proc, { pid, comm = '?' }: { pid: number; comm?: string }): string {
  // A program that gives itself a shorter name (setproctitle(3)) leaves the rest of its old command line empty.
  const line = readArguments(proc, pid).join(' ').trimEnd();
  return printable(line || `[${comm}]`);
}

/** Who, what and since when, for a person. */
export function describeProcess(proc: Proc, stat: ProcessStat): ProcessInfo {
  const uid = known(proc.owner(String(stat.pid)));
  const uptime = readUptimeTicks(proc);
  const age = uptime === undefined ? null : Math.max(0, uptime - stat.startTicks) / proc.ticksPerSecond;
  return {
    pid: stat.pid,
    startTicks: stat.startTicks,
    command: readCommand(proc, stat),
    user: uid === undefined ? 'unknown' : readUserName(uid),
    ageS: age === null ? null : Math.round(age * 100) / 100,
  };
}

/** The name of a user id in /etc/passwd; `uid 1000` where it has none, as in many containers. */
export function readUserName(uid: number, passwd = '/etc/passwd'): string {
  let text: string;
  try {
    text = fs.readFileSync(passwd, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EACCES')) return `uid ${uid}`;
    throw error;
  }
  const row = text.split('\n').find((line) => line.split(':')[2] === String(uid));
  return row?.split(':')[0] || `uid ${uid}`;
}

/**
 * A process and all below it, parents first, by the kernel's own lists of children (0.02 ms a process). Such a list may
 * miss one while others exit: good for looking, not for deciding who dies. Where the kernel keeps none
 * (CONFIG_PROC_CHILDREN) the process stands alone.
 */
export function readFamily(proc: Proc, root: ProcessRef): ProcessStat[] {
  const family: ProcessStat[] = [];
  const queue = [root.pid];
  const seen = new Set(queue);
  for (let pid = queue.shift(); pid !== undefined; pid = queue.shift()) {
    const stat = readStat(proc, pid);
    if (isGone(stat) || (pid === root.pid && !isSame(stat, root))) continue;
    family.push(stat);
    for (const child of readChildren(proc, pid, stat.threads)) {
      if (!seen.has(child)) queue.push(child);
      seen.add(child);
    }
  }
  return family;
}

/** Each thread has a list of its own; one that is alone (the caller may know it) has the number of the process. */
export function readChildren(proc: Proc, pid: number, threads?: number): number[] {
  const tasks = threads === 1 ? [pid] : (known(proc.list(`${pid}/task`)) ?? []);
  return tasks.flatMap((task) =>
    (known(proc.text(`${pid}/task/${task}/children`)) ?? '').split(' ').filter(Boolean).map(Number),
  );
}
