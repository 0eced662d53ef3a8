import { climb, type KillChainsOptions, type KillReport, type KillTarget, killChains } from '../kill.js';
import { holds, readSocketInodes, scanHolders } from '../proc/fd.js';
import { checkMarker, readMarker } from '../proc/marker.js';
import type { Socket } from '../proc/net.js';
import { openProc, type Proc } from '../proc/read.js';
import { describeProcess, type ProcessStat, type ProcessTable, readTable } from '../proc/stat.js';
import { ancestors } from '../proc/tree.js';
import { assertMs, type Clock, createSlice, growing, systemClock, until } from '../time.js';
import {
  describePort,
  explainHeld,
  isReleased,
  lookAtPort,
  type PortLook,
  type PortReport,
  since,
  type Verdict,
} from './inspect.js';
import { type Listener, type PortOptions, toListener } from './listeners.js';
import { assertPort } from './probe.js';

export interface FreePortOptions extends PortOptions {
  /** The bound on everything, in milliseconds. Default 5000. */
  readonly timeoutMs?: number | undefined;
  /** Say what would be killed, and kill nobody. */
  readonly dryRun?: boolean | undefined;
  /** Below a holder that is no ssh or autossh kill every descendant, not only those in the holder's session. */
  readonly tree?: boolean | undefined;
}

/**
 * Frees a port and proves it: whoever LISTENs on it is killed with its chain (an autossh above an ssh, all below), the
 * clients are left alone, and the port counts as free when every address of it could be bound. Resolves with a report
 * whatever the outcome; `report.free` is the answer and `report.explanation` the sentence for a person.
 *
 * @throws RangeError, TypeError for a bad port or host; the signal's reason when it aborts.
 * @example
 * const report = await freePort(9443);
 * if (!report.free) throw new Error(report.explanation);
 */
export async function freePort(port: number, options: FreePortOptions = {}): Promise<PortReport> {
  assertPort(port);
  const { host, timeoutMs = 5000, signal, dryRun = false, tree = false } = options;
  assertMs('timeoutMs', timeoutMs);
  signal?.throwIfAborted();
  const proc = options.proc ?? openProc();
  const clock = options.clock ?? systemClock;
  const began = clock.now();
  const look = await lookAtPort(proc, port, host);
  const report = await describePort(proc, look, { signal, wholeScan: dryRun });
  const done = (rest: Partial<PortReport>): PortReport => ({ ...report, ...rest, tookMs: since(clock, began) });
  if (report.free || report.verdict === 'no_address' || report.verdict === 'forbidden') return done({});
  const rest = { deadline: began + timeoutMs, kills: [], seen: new Map() };
  const context: FreeContext = { proc, clock, port, host, look, tree, dryRun, signal, ...rest };
  const released = await killUntilReleased(context);
  const kill = context.kills.length > 0 ? mergeReports(context.kills, since(clock, began)) : null;
  if (dryRun) return done({ kill });
  const survived = kill !== null && kill.survivors.length > 0;
  if (released && !survived) {
    const listeners = [...context.seen.values()];
    return done({ free: true, verdict: 'free', explanation: explainFreed(port, kill), listeners, kill });
  }
  const after = await describePort(proc, await lookAtPort(proc, port, host), { signal, wholeScan: true });
  const { listeners, clients } = after;
  const verdict = survived ? verdictOfSurvivors(kill, after.verdict) : after.verdict;
  const explanation = explainHeld(port, verdict, after, kill);
  return done({ free: after.free && !survived, verdict, explanation, listeners, clients, kill });
}

interface FreeContext {
  readonly proc: Proc;
  readonly clock: Clock;
  readonly port: number;
  readonly host: string | undefined;
  /** The first look: its addresses are those that must be bound in the end. */
  readonly look: PortLook;
  readonly tree: boolean;
  readonly dryRun: boolean;
  readonly deadline: number;
  readonly signal: AbortSignal | undefined;
  readonly kills: KillReport[];
  /** By inode, every listener that was in the way, with those of its holders that were met. */
  readonly seen: Map<number, Listener>;
}

/** Look, kill, prove, and again: what a chain held may hide who else does. Ends when nothing more can be done. */
async function killUntilReleased(context: FreeContext): Promise<boolean> {
  const { proc, clock, port, host, look, deadline, signal, kills, dryRun } = context;
  for (let { rows } = look; ; { rows } = await lookAtPort(proc, port, host)) {
    const before = kills.length;
    await killHolders(context, rows);
    if (dryRun) return false;
    const acted = kills.slice(before).some(({ killed }) => killed.length > 0);
    // What was killed is gone, but sockets in other hands may take an instant more.
    const timeoutMs = Math.min(acted ? 100 : 20, deadline - clock.now());
    if (await until(() => isReleased(proc, look), { timeoutMs, everyMs: growing(10), signal, clock })) return true;
    if (!acted || clock.now() >= deadline) return false;
  }
}

/** Holders are killed as they are found; a bind that succeeds afterwards replaces the rest of the scan. */
async function killHolders(context: FreeContext, rows: readonly Socket[]): Promise<void> {
  const { proc, look, dryRun, signal, kills, clock, deadline } = context;
  if (rows.length === 0) return;
  noteRows(context, rows);
  const inodes = new Set(rows.map(({ inode }) => inode));
  const slice = createSlice(signal);
  const table = await readTable(proc, slice);
  const kill = async (target: KillTarget, rest: KillChainsOptions): Promise<void> => {
    const timeoutMs = Math.max(1, deadline - clock.now());
    kills.push(await killChains([target], { proc, clock, table, timeoutMs, signal, dryRun, ...rest }));
  };
  const untouchable = protectedHolders(proc, table, inodes);
  for (const stat of untouchable) {
    noteHolder(context, stat);
    await kill(targetFor(context, table, stat), { dryRun: true });
  }
  if (untouchable.length > 0) return;
  const met = new Set<number>();
  for await (const { stat } of scanHolders(proc, inodes, { table, slice })) {
    if (clock.now() >= deadline) return;
    if (met.has(stat.pid)) continue;
    met.add(stat.pid);
    noteHolder(context, stat);
    // The socket may have changed hands since the scan saw it: looked at again in the tick of the first signal.
    await kill(targetFor(context, table, stat), { confirm: () => holds(proc, stat, inodes) });
    if (!dryRun && (await isReleased(proc, look))) return;
  }
}

/**
 * This very process, one above it, or pid 1 has the socket too: it stays bound whoever else is killed, so nobody is.
 * A service whose socket pid 1 opened for it would die for nothing.
 */
function protectedHolders(proc: Proc, table: ProcessTable, inodes: ReadonlySet<number>): ProcessStat[] {
  const self = table.get(process.pid);
  const first = table.get(1);
  const untouchable = new Set([...(self ? [self] : []), ...ancestors(table, self), ...(first ? [first] : [])]);
  return [...untouchable].filter((stat) => holds(proc, stat, inodes));
}

/**
 * The chain of a holder: up to what would start it again, an autossh above an ssh or a parent of the same tunnel; and
 * below ssh and autossh all, below anyone else its own session.
 */
function targetFor({ proc, tree, port }: FreeContext, table: ProcessTable, stat: ProcessStat): KillTarget {
  const marker = readMarker(proc, stat.pid, TUNNEL_MARKER);
  const isPart = ({ pid }: ProcessStat) => marker !== undefined && checkMarker(proc, pid, marker) === 'carries';
  const top = climb(table, stat, isPart);
  const isTunnel = stat.comm === 'ssh' || stat.comm === 'autossh';
  const why =
    top.pid === stat.pid ? `listens on port ${port}` : `starts ${stat.pid} again, which listens on port ${port}`;
  return { ref: top, why, below: tree || isTunnel ? 'all' : 'session' };
}

/** What each process of a tunnel has in its environment: of which tunnel, and of which installation. */
const TUNNEL_MARKER = ['TUNNEL_ID', 'TUNWARD_INSTANCE'];

function noteRows({ proc, seen }: FreeContext, rows: readonly Socket[]): void {
  for (const row of rows) {
    if (seen.has(row.inode)) continue;
    seen.set(row.inode, { ...toListener(proc, row, [], false), hidden: 'free before its holder was looked for' });
  }
}

function noteHolder({ proc, seen }: FreeContext, stat: ProcessStat): void {
  for (const inode of readSocketInodes(proc, stat)) {
    const listener = seen.get(inode);
    if (!listener || listener.holders.some(({ pid }) => pid === stat.pid)) continue;
    const { hidden: _hidden, ...rest } = listener;
    seen.set(inode, { ...rest, holders: [...listener.holders, describeProcess(proc, stat)] });
  }
}

function verdictOfSurvivors(kill: KillReport, otherwise: Verdict): Verdict {
  const whys = kill.survivors.map(({ why }) => why);
  if (whys.some((why) => why.includes('pid 1'))) return 'pid1';
  if (whys.some((why) => why.startsWith('protected'))) return 'protected';
  if (whys.some((why) => why.startsWith('not permitted'))) return 'other_user';
  if (whys.some((why) => why.startsWith('stuck'))) return 'stuck';
  return otherwise === 'free' ? 'stuck' : otherwise;
}

function explainFreed(port: number, kill: KillReport | null): string {
  const pids = kill?.killed.map(({ pid }) => pid) ?? [];
  return pids.length > 0
    ? `Port ${port} is free: killed ${pids.length === 1 ? 'pid' : 'pids'} ${pids.join(', ')}, then bound it`
    : `Port ${port} is free: it was bound`;
}

/** Several kills as one report. Someone who survived one and died in a later one has died. */
function mergeReports(reports: readonly KillReport[], tookMs: number): KillReport {
  const killed = reports.flatMap((report) => report.killed);
  const dead = new Set(killed.map(({ pid }) => pid));
  const once = <T extends { pid: number }>(list: readonly T[]) => [
    ...new Map(list.map((item) => [item.pid, item])).values(),
  ];
  return {
    killed: once(killed),
    left: once(reports.flatMap(({ left }) => left).filter(({ pid }) => !dead.has(pid))),
    survivors: once(reports.flatMap(({ survivors }) => survivors).filter(({ pid }) => !dead.has(pid))),
    tookMs,
  };
}
