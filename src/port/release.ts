import { climb, type KillChainsOptions, type KillReport, type KillTarget, killChains } from '../kill.js';
import { findHeld, type Holder, type HolderScan, holds, scanHolders, scanUnshown, stillHolds } from '../proc/fd.js';
import { checkMarker, readMarker } from '../proc/marker.js';
import type { Socket } from '../proc/net.js';
import { denied, type Proc } from '../proc/read.js';
import {
  describeProcess,
  type ProcessInfo,
  type ProcessStat,
  type ProcessTable,
  readCommand,
  readTable,
  readUptimeTicks,
} from '../proc/stat.js';
import { ancestors } from '../proc/tree.js';
import { type Clock, createSlice, growing, type Slice, until } from '../time.js';
import { readLocks } from './daemons.js';
import { describePort, isReleased, lookAtPort, type PortLook } from './inspect.js';
import { type Listener, listenersInTheWay, mayBeUnshown, toListener } from './listeners.js';
import { comesBack, findRespawner, isKeeper, type Suspicion, suspect } from './respawn.js';
import { holdersOf, readAncestors, WHY_DAEMON } from './verdict.js';

export interface FreeContext {
  readonly proc: Proc;
  readonly clock: Clock;
  /** The first look: its addresses are those that must be bound in the end. */
  readonly look: PortLook;
  readonly tree: boolean;
  readonly dryRun: boolean;
  readonly respawner: boolean;
  /** Nobody of another user is a target. */
  readonly user: string | undefined;
  readonly deadline: number;
  readonly signal: AbortSignal | undefined;
  readonly kills: KillReport[];
  /** By inode, every listener that was in the way, with those of its holders that were met. */
  readonly seen: Map<number, Listener>;
  /** Who may start again what was killed. */
  readonly suspicions: Suspicion[];
  readonly sinceTicks: number;
}

export function openContext(rest: Omit<FreeContext, 'kills' | 'seen' | 'suspicions' | 'sinceTicks'>): FreeContext {
  const sinceTicks = readUptimeTicks(rest.proc) ?? 0;
  return { ...rest, kills: [], seen: new Map(), suspicions: [], sinceTicks };
}

/** What would be done, and to whom it would not. */
export async function planKill(
  rest: Pick<FreeContext, 'proc' | 'clock' | 'look' | 'tree' | 'user' | 'signal'>,
): Promise<KillReport | null> {
  const deadline = Number.POSITIVE_INFINITY;
  const context = openContext({ ...rest, deadline, dryRun: true, respawner: false });
  await killHolders(context, context.look.rows);
  return mergeReports(context.kills, 0);
}

export interface Outcome {
  readonly released: boolean;
  readonly respawner?: ProcessInfo;
}

/** Look, kill, prove, and again: what a chain held may hide who else does. Ends when nothing more can be done. */
export async function killUntilReleased(context: FreeContext): Promise<Outcome> {
  const { proc, clock, look, deadline, signal, kills } = context;
  const { port } = look;
  for (let { rows } = look; ; { rows } = await lookAtPort(proc, port, look.host ?? undefined)) {
    const before = kills.length;
    await killHolders(context, rows);
    const acted = kills.slice(before).some(({ killed }) => killed.length > 0);
    // What was killed is gone, but sockets in other hands may take an instant more.
    const timeoutMs = Math.min(acted ? 100 : 20, deadline - clock.now());
    const released = await until(() => isReleased(proc, look), { timeoutMs, everyMs: growing(10), signal, clock });
    if (released && !(await isTakenAgain(context))) return { released: true };
    const respawner = await whoStartsItAgain(context);
    if (respawner && !(await killRespawner(context, respawner))) return { released: false, respawner };
    if ((!acted && !released) || clock.now() >= deadline) return { released: false };
  }
}

async function isTakenAgain({ proc, look, suspicions, ...rest }: FreeContext): Promise<boolean> {
  const hosts = look.host === null ? undefined : look.probes.map(({ host }) => host);
  const isHeld = async () => (await listenersInTheWay(proc, look.port, hosts)).length > 0;
  return comesBack(suspicions, { ...rest, proc, isHeld });
}

/** The parent of a holder that came after the kill. */
async function whoStartsItAgain({ proc, look, suspicions, sinceTicks, signal }: FreeContext) {
  if (suspicions.length === 0) return undefined;
  const again = await lookAtPort(proc, look.port, look.host ?? undefined);
  const { listeners } = await describePort(proc, again, signal);
  return findRespawner(proc, suspicions, { holders: holdersOf(listeners), sinceTicks });
}

/** Only when asked, and only what is nobody else's keeper. False: it lives, and starts the holder again. */
async function killRespawner(context: FreeContext, respawner: ProcessInfo): Promise<boolean> {
  const { proc, clock, look, tree, signal, deadline, kills } = context;
  const isKept = isKeeper(proc, respawner) || readAncestors(proc).includes(respawner.pid);
  if (!context.respawner || isKept || isStranger(context, respawner) || clock.now() >= deadline) return false;
  const table = await readTable(proc, createSlice(signal));
  const stat = table.get(respawner.pid);
  const above = stat && suspect(proc, table, stat);
  if (above) context.suspicions.push(above);
  const why = `starts again what listens on port ${look.port}`;
  const options = { proc, clock, table, timeoutMs: Math.max(1, deadline - clock.now()), signal };
  const report = await killChains([{ ref: respawner, why, below: tree ? 'all' : 'session' }], options);
  kills.push(report);
  return report.killed.length > 0;
}

/** Holders are killed as they are found; a bind that succeeds afterwards replaces the rest of the scan. */
async function killHolders(context: FreeContext, rows: readonly Socket[]): Promise<void> {
  const { proc, look, dryRun, signal, kills, clock, deadline } = context;
  if (rows.length === 0) return;
  noteRows(context, rows);
  const inodes = inodesOf(rows);
  const slice = createSlice(signal);
  const table = await readTable(proc, slice);
  const kill = async (targets: readonly KillTarget[], rest: KillChainsOptions): Promise<void> => {
    const timeoutMs = Math.max(1, deadline - clock.now());
    kills.push(await killChains(targets, { proc, clock, table, timeoutMs, signal, dryRun, ...rest }));
  };
  const daemons = await findDaemons(proc, table, { inodes, slice });
  const untouchable = [...daemons, ...(await protectedHolders(proc, table, { inodes, slice }))];
  const dealWith = async (holder: Holder): Promise<void> => {
    const { stat } = holder;
    noteHolder(context, holder);
    if (daemons.some(({ pid }) => pid === stat.pid)) return void kills.push(spare(proc, stat, WHY_DAEMON));
    const targets = targetsFor(context, table, stat);
    if (untouchable.includes(stat)) return kill(targets, { dryRun: true });
    if (untouchable[0]) return void kills.push(spare(proc, stat, hasToo(untouchable[0])));
    const info = describeProcess(proc, stat);
    if (isStranger(context, info)) return void kills.push(spare(proc, stat, `spared, since it is ${info.user}'s`));
    const suspicion = suspect(proc, table, table.get(targets[0]?.ref.pid ?? 0) ?? stat);
    // The socket may have changed hands since the scan saw it: looked at again in the tick of the first signal.
    await kill(targets, { confirm: () => stillHolds(proc, holder, inodes) });
    if (suspicion) context.suspicions.push(suspicion);
  };
  for await (const holder of findHolders(proc, rows, { table, slice })) {
    if (clock.now() >= deadline) return;
    await dealWith(holder);
    if (!dryRun && !untouchable[0] && (await isReleased(proc, look))) return;
  }
}

/** Everyone who has one of the sockets. Those whose descriptors do not show it only when nobody else has any. */
async function* findHolders(proc: Proc, rows: readonly Socket[], scan: HolderScan): AsyncGenerator<Holder> {
  let found = false;
  for await (const holder of scanHolders(proc, inodesOf(rows), scan)) {
    found = true;
    yield holder;
  }
  const unshown = rows.filter(mayBeUnshown);
  if (!found && unshown.length > 0) yield* scanUnshown(proc, inodesOf(unshown), scan.slice);
}

function inodesOf(rows: readonly Socket[]): Set<number> {
  return new Set(rows.map(({ inode }) => inode));
}

function isStranger({ user }: FreeContext, process: ProcessInfo): boolean {
  return user !== undefined && process.user !== user;
}

function hasToo({ pid }: ProcessStat): string {
  return `spared, since pid ${pid} has the port too and is never killed`;
}

/** Whoever else has the port, it stays bound: nobody has to die for that. */
function spare(proc: Proc, stat: ProcessStat, why: string): KillReport {
  const left = [{ pid: stat.pid, startTicks: stat.startTicks, command: readCommand(proc, stat), why }];
  return { killed: [], left, survivors: [], tookMs: 0 };
}

/**
 * This very process, one above it, or pid 1 has the socket too: it stays bound whoever else is killed, so nobody is.
 * A service whose socket pid 1 opened for it would die for nothing.
 */
async function protectedHolders(
  proc: Proc,
  table: ProcessTable,
  { inodes, slice }: { readonly inodes: ReadonlySet<number>; readonly slice: Slice },
): Promise<ProcessStat[]> {
  const self = table.get(process.pid);
  const first = table.get(1);
  const untouchable = new Set([...(self ? [self] : []), ...ancestors(table, self), ...(first ? [first] : [])]);
  const holding: ProcessStat[] = [];
  for (const stat of untouchable) {
    const held = await findHeld(proc, stat.pid, inodes, slice);
    if (held !== denied && held.size > 0) holding.push(stat);
  }
  return holding;
}

/** Those of them who are a tunward daemon: nobody dies for the port of a tunnel that can be stopped. */
async function findDaemons(
  proc: Proc,
  table: ProcessTable,
  { inodes, slice }: { readonly inodes: ReadonlySet<number>; readonly slice: Slice },
): Promise<ProcessStat[]> {
  const locks = readLocks(proc);
  const missing = new Set(locks);
  const holding: ProcessStat[] = [];
  if (locks.size === 0) return holding;
  for await (const { stat, inodes: held } of scanHolders(proc, locks, { table, slice })) {
    if (holds(proc, stat, inodes)) holding.push(stat);
    for (const inode of held) missing.delete(inode);
    if (missing.size === 0) break;
  }
  return holding;
}

/**
 * The chain of a holder: from its top down; below ssh and autossh all, below anyone else its own session. The holder also
 * for itself: its top may end in this very moment, and would take nobody with it.
 */
function targetsFor({ proc, tree, look }: FreeContext, table: ProcessTable, stat: ProcessStat): KillTarget[] {
  const top = climbFrom(proc, table, stat);
  const isTunnel = stat.comm === 'ssh' || stat.comm === 'autossh';
  const below = tree || isTunnel ? 'all' : 'session';
  const holder: KillTarget = { ref: stat, why: `listens on port ${look.port}`, below };
  const why = `starts ${stat.pid} again, which listens on port ${look.port}`;
  return top.pid === stat.pid ? [holder] : [{ ref: top, why, below }, holder];
}

/** Up from a holder to what is known to start it again: an autossh above an ssh, or a parent of the same tunnel. */
export function climbFrom(proc: Proc, table: ProcessTable, stat: ProcessStat): ProcessStat {
  const marker = readMarker(proc, stat.pid, TUNNEL_MARKER);
  return climb(table, stat, ({ pid }) => marker !== undefined && checkMarker(proc, pid, marker) === 'carries');
}

/** What each process of a tunnel has in its environment: of which tunnel, and of which installation. */
const TUNNEL_MARKER = ['TUNNEL_ID', 'TUNWARD_INSTANCE'];

function noteRows({ seen }: FreeContext, rows: readonly Socket[]): void {
  for (const row of rows) {
    if (seen.has(row.inode)) continue;
    seen.set(row.inode, { ...toListener(row), hidden: 'free before its holder was looked for' });
  }
}

function noteHolder({ proc, seen }: FreeContext, { stat, inodes }: Holder): void {
  for (const inode of inodes) {
    const listener = seen.get(inode);
    if (!listener || listener.holders.some(({ pid }) => pid === stat.pid)) continue;
    const { hidden: _hidden, ...rest } = listener;
    seen.set(inode, { ...rest, holders: [...listener.holders, describeProcess(proc, stat)] });
  }
}

/** Several kills as one report. Someone who survived one and died in a later one has died. */
export function mergeReports(reports: readonly KillReport[], tookMs: number): KillReport | null {
  if (reports.length === 0) return null;
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
