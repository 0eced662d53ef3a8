/**
 * The tests' own, plain reading of /proc: an oracle beside the code under test, so it shares nothing with `src/proc`.
 */
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';

/** A pid alone is not an identity: the number is used again. `startTicks` is field 22 of /proc/<pid>/stat. */
export interface Ref {
  readonly pid: number;
  readonly startTicks: number;
}

export interface Stat extends Ref {
  readonly comm: string;
  readonly state: string;
  readonly ppid: number;
  readonly pgid: number;
  readonly sid: number;
  readonly threads: number;
  readonly kernelThread: boolean;
}

/** What /proc says of a process, zombies included; `undefined` once the pid is gone. */
export function statOf(pid: number): Stat | undefined {
  const text = readGone(`/proc/${pid}/stat`);
  if (text === undefined) return undefined;
  // comm may hold blanks, newlines and parentheses, even ") S 1 (": only what follows the last one is fields.
  const close = text.lastIndexOf(')');
  const fields = text.slice(close + 2).split(' ');
  return {
    pid,
    comm: text.slice(text.indexOf('(') + 1, close),
    state: fields[0] ?? '?',
    ppid: Number(fields[1]),
    pgid: Number(fields[2]),
    sid: Number(fields[3]),
    threads: Number(fields[17]),
    kernelThread: (Number(fields[6]) & 0x200000) !== 0, // PF_KTHREAD
    startTicks: Number(fields[19]),
  };
}

/**
 * Whether that very process lives: a zombie with one thread is dead, one with more still runs in a thread (and may hold
 * a port). With `startTicks` a later process of the same pid does not count.
 */
export function isAlive(pid: number, startTicks?: number): boolean {
  const stat = statOf(pid);
  return stat !== undefined && isLiving(stat) && (startTicks === undefined || stat.startTicks === startTicks);
}

/** Every living process that somebody in `pids` begot, directly or not; parents before their children. */
export function descendantsOf(...pids: number[]): Stat[] {
  const children = new Map<number, Stat[]>();
  for (const stat of allPids().flatMap((pid) => statOf(pid) ?? [])) {
    children.set(stat.ppid, [...(children.get(stat.ppid) ?? []), stat]);
  }
  const found = new Map<number, Stat>();
  const queue = [...pids];
  for (let pid = queue.shift(); pid !== undefined; pid = queue.shift()) {
    for (const child of children.get(pid) ?? []) {
      if (found.has(child.pid)) continue;
      found.set(child.pid, child);
      queue.push(child.pid);
    }
  }
  return [...found.values()].filter(isLiving);
}

/**
 * Every living process, other than this one, whose environment at its start held exactly `entry` (`NAME=value`): the
 * youngest first and each as it is found, so that a process that forks all the time can be signalled before it is another.
 */
export function* processesWithEnv(entry: string): Generator<Stat> {
  for (const pid of allPids().sort((one, other) => other - one)) {
    if (pid === process.pid || !settledEnvironOf(pid).includes(entry)) continue;
    const stat = statOf(pid);
    if (stat && isLiving(stat)) yield stat;
  }
}

/** The environment a process was started with. Empty when it is gone, not ours to read, or inside execve. */
export function environOf(pid: number): string[] {
  return (readGone(`/proc/${pid}/environ`) ?? '').split('\0').filter((entry) => entry !== '');
}

/**
 * As environOf, but a young process whose environment is empty is asked again: inside execve it is, for a moment. Not
 * when it may not be read: an ordinary user on a busy machine would wait for every process of the others.
 */
function settledEnvironOf(pid: number): string[] {
  const deadline = performance.now() + 50;
  for (;;) {
    const environ = environOf(pid);
    if (environ.length === 0 && isDenied(`/proc/${pid}/environ`)) return environ;
    if (environ.length > 0 || !isYoung(pid) || performance.now() > deadline) return environ;
  }
}

function isDenied(path: string): boolean {
  try {
    closeSync(openSync(path, 'r'));
    return false;
  } catch (error) {
    return ['EACCES', 'EPERM'].includes(codeOf(error));
  }
}

function isYoung(pid: number): boolean {
  const stat = statOf(pid);
  if (!stat || !isLiving(stat) || stat.kernelThread) return false;
  const uptimeTicks = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 100;
  return uptimeTicks - stat.startTicks < 200;
}

/** The command line, blanks between the words; the name in brackets when there is none (a zombie, a kernel thread). */
export function commandOf(pid: number): string {
  const words = (readGone(`/proc/${pid}/cmdline`) ?? '').split('\0').join(' ').trim();
  return words || `[${statOf(pid)?.comm ?? 'gone'}]`;
}

/** Sends a signal to that very process, looked at in the same tick. `false`: it was gone. */
export function sendSignal({ pid, startTicks }: Ref, signal: NodeJS.Signals): boolean {
  if (!Number.isInteger(pid) || pid <= 1 || pid === process.pid) throw new RangeError(`Cannot signal pid ${pid}`);
  if (!isAlive(pid, startTicks)) return false;
  try {
    return process.kill(pid, signal);
  } catch (error) {
    if (codeOf(error) === 'ESRCH') return false;
    throw error;
  }
}

function isLiving({ state, threads }: Stat): boolean {
  return state !== 'X' && state !== 'x' && !(state === 'Z' && threads <= 1);
}

export function allPids(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

function readGone(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes(codeOf(error))) return undefined;
    throw error;
  }
}

export function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : '';
}
