import { TunwardError } from './errors.js';
import { isForbidden, type KillReport, type KillTarget, openHunt } from './hunt.js';
import { type BackendName, requireLinux } from './proc/backend.js';
import type { Census } from './proc/census.js';
import type { Marker } from './proc/marker.js';
import { assertPid } from './proc/pid.js';
import { known, openProc, type Proc } from './proc/read.js';
import { isGone, isSame, type ProcessRef, type ProcessStat, type ProcessTable, readStat } from './proc/stat.js';
import { ancestors } from './proc/tree.js';
import { assertMs, type Clock, systemClock } from './time.js';

export type { KilledProcess, KillReport, KillTarget, Survivor } from './hunt.js';

export interface KillOptions {
  /**
   * SIGTERM (and SIGCONT, so that the stopped can obey) first, and this long to leave. 0: SIGKILL at once. What somebody
   * starts in answer to SIGTERM, in a session of its own, and leaves at once has no tie to the tree any more.
   */
  readonly graceMs?: number | undefined;
  /**
   * The bound on everything, in milliseconds. What has not died by then is a survivor. The grace gives way to it: the last
   * 500 ms, or half of less than a second, are SIGKILL's. Default: 5000 after the grace.
   */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** By `portable` nobody is killed: it has no identities. */
  readonly backend?: BackendName | undefined;
  readonly proc?: Proc | undefined;
  readonly clock?: Clock | undefined;
}

export interface KillChainsOptions extends KillOptions {
  /** Whoever carries it goes too, wherever it is in the table; looked for until three looks in a row find nobody. */
  readonly marker?: Marker | undefined;
  /** Asked in the tick of the first signal: is what was decided still so? If not, nobody is touched. */
  readonly confirm?: (() => boolean) | undefined;
  /** The report of what would be killed; nobody is touched. */
  readonly dryRun?: boolean | undefined;
  /** A table that was read just now. It is brought up to date, which is quicker than to read one. */
  readonly table?: Map<number, ProcessStat> | undefined;
  /** What others have seen just now, for whom there are many to kill one by one. */
  readonly census?: Census | undefined;
}

/**
 * Kills a process and everything below it with SIGKILL, so that nothing is left that could start it again, and resolves
 * when all of it is gone or the time is over. A process that is already gone is an empty report, not an error.
 *
 * What is to die is first stopped, from the top down, until nothing new appears (stopped processes cannot fork); then
 * all get SIGKILL in one synchronous burst. Each is held by a descriptor of its /proc entry from the decision on, and
 * its identity is read through that in the very tick of the signal: a recycled number is never hit. This process, those
 * above it, pid 1, kernel threads and what is a thread and no process are never signalled: they are survivors.
 *
 * @param target a pid, or better a {@link ProcessRef} from an earlier look: it is not killed when its number has changed hands.
 * @throws TypeError, RangeError for what is no pid; the signal's reason when it aborts (nobody is left stopped);
 * TunwardError ERR_PROC_FORMAT where /proc is not mounted or is that of another PID namespace.
 * @example
 * const report = await killTree(child.pid, { graceMs: 200 });
 * for (const { pid, why } of report.survivors) console.error(`${pid} is still there: ${why}`);
 */
export async function killTree(target: number | ProcessRef, options: KillOptions = {}): Promise<KillReport> {
  const ref = typeof target === 'object' && target !== null ? target : undefined;
  const pid = ref ? ref.pid : (target as number);
  assertPid(pid);
  requireLinux(`kill pid ${pid}`, options);
  if (ref && !Number.isInteger(ref.startTicks))
    throw new TypeError(`Cannot kill pid ${pid}: its startTicks is missing`);
  const proc = options.proc ?? openProc();
  assertOurs(proc);
  const stat = readStat(proc, pid);
  if (isGone(stat) || (ref && !isSame(stat, ref))) return reportNobody(pid, stat);
  return killChains([{ ref: stat, why: 'target', below: 'all' }], { ...options, proc });
}

/** A pid is a number in one PID namespace: by the /proc of another one, strangers would die. */
function assertOurs(proc: Proc): void {
  if (known(proc.link('self')) === String(process.pid)) return;
  const message = `Cannot kill by ${proc.root}: it is not mounted, or shows another PID namespace than this process's`;
  throw new TunwardError('ERR_PROC_FORMAT', message, {});
}

/** Already gone; or, where /proc hides what belongs to others (hidepid), there and out of reach. */
function reportNobody(pid: number, stat: ProcessStat | undefined): KillReport {
  const why = 'not permitted: it belongs to another user, and /proc hides it';
  const survivors = stat === undefined && isForbidden(pid) ? [{ pid, command: '?', why }] : [];
  return { killed: [], left: [], survivors, tookMs: 0 };
}

/** Kills several chains as one: decide, freeze, one burst, look again. See {@link killTree}. */
export async function killChains(targets: readonly KillTarget[], options: KillChainsOptions = {}): Promise<KillReport> {
  const { clock = systemClock, graceMs = 0, timeoutMs = graceMs + 5000, dryRun = false, confirm, signal } = options;
  assertMs('graceMs', graceMs);
  assertMs('timeoutMs', timeoutMs);
  const proc = options.proc ?? openProc();
  if (!dryRun) assertOurs(proc);
  signal?.throwIfAborted();
  const began = clock.now();
  const deadline = began + timeoutMs;
  const hunt = openHunt(targets, { ...options, proc, clock });
  try {
    await hunt.decide();
    if (dryRun) return hunt.plan();
    if (confirm && !confirm()) return hunt.report(clock.now() - began);
    if (graceMs > 0) await hunt.ask(Math.min(began + graceMs, deadline - Math.min(KILL_MS, timeoutMs / 2)));
    await hunt.freeze(deadline);
    hunt.burst();
    await hunt.watch(deadline);
    return hunt.report(clock.now() - began);
  } finally {
    hunt.close();
  }
}

/** What the polite way leaves for the other one, or half of a short time: 800 MB of memory are torn down in 0.1 s. */
const KILL_MS = 500;
/**
 * From a process up to what would start it again: an autossh above an ssh, or a parent of which `isPart` says that it
 * belongs. Never past pid 1, a shell or a login, this process or one of its ancestors. Answers the process itself where
 * nothing is above it, or its number is another's in the table.
 */
export function climb(table: ProcessTable, from: ProcessStat, isPart: (parent: ProcessStat) => boolean): ProcessStat {
  const mine = new Set([process.pid, ...ancestors(table, table.get(process.pid)).map(({ pid }) => pid)]);
  let top = from;
  for (const parent of ancestors(table, from)) {
    if (parent.pid === 1 || mine.has(parent.pid) || seats.has(parent.comm)) break;
    const respawns = parent.comm === 'autossh' && top.comm === 'ssh';
    if (!respawns && !isPart(parent)) break;
    top = parent;
  }
  return top;
}

/** Where people sit: a marker in a shell's environment was inherited by accident. */
const seats: ReadonlySet<string> = new Set(
  'sh ash bash dash fish ksh mksh tcsh csh zsh busybox login sshd sshd-session su sudo doas tmux screen systemd'.split(
    ' ',
  ),
);
