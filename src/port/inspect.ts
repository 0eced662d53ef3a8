import net from 'node:net';
import os from 'node:os';
import type { KillReport } from '../kill.js';
import { scanHolders } from '../proc/fd.js';
import { readListeners, readSockets, type Socket } from '../proc/net.js';
import { openProc, type Proc } from '../proc/read.js';
import { describeProcess, printable } from '../proc/stat.js';
import { type Clock, createSlice, systemClock } from '../time.js';
import {
  conflicting,
  hostOf,
  hostsToProve,
  type Listener,
  listenersInTheWay,
  type PortOptions,
  v4Of,
  withHolders,
} from './listeners.js';
import { assertPort, type HostProbe, probeAll, probeEverywhere, resolveHosts } from './probe.js';

export type Verdict =
  | 'free'
  | 'listening'
  | 'respawned'
  | 'client_holds'
  | 'time_wait'
  | 'hidden_bind'
  | 'other_user'
  | 'outside_pid_namespace'
  | 'in_flight_fd'
  | 'pid1'
  | 'kernel'
  | 'stuck'
  | 'protected'
  | 'forbidden'
  | 'no_address';

/** A process at the other end of the port's connections, or one that uses the port as its own end. Never killed. */
export interface PortClient {
  readonly pid: number;
  readonly command: string;
  readonly state: string;
}

export interface PortReport {
  readonly port: number;
  /** The host that was asked for; null: every local address. */
  readonly host: string | null;
  readonly free: boolean;
  readonly verdict: Verdict;
  /** What is known and what to do, in one sentence. */
  readonly explanation: string;
  readonly listeners: readonly Listener[];
  readonly clients: readonly PortClient[];
  /** null: nobody was to be killed. With `dryRun` it is the plan, and nothing of it was done. */
  readonly kill: KillReport | null;
  readonly tookMs: number;
}

/**
 * Who holds a port, and who is connected to it: the same report as {@link freePort}'s, and nobody is touched.
 *
 * @example
 * const { listeners } = await inspectPort(9443);
 * for (const { pid, command } of listeners.flatMap((listener) => listener.holders)) console.log(pid, command);
 */
export async function inspectPort(port: number, options: PortOptions = {}): Promise<PortReport> {
  assertPort(port);
  const proc = options.proc ?? openProc();
  const clock = options.clock ?? systemClock;
  const began = clock.now();
  const { host, signal } = options;
  const report = await describePort(proc, await lookAtPort(proc, port, host), { signal, wholeScan: true });
  const clients = await findClients(proc, port, report, signal);
  return { ...report, clients, tookMs: since(clock, began) };
}

/** One look at a port: what a bind of every address says, and which listeners are in the way of one. */
export interface PortLook {
  readonly port: number;
  readonly host: string | null;
  readonly probes: readonly HostProbe[];
  readonly rows: readonly Socket[];
}

/**
 * A conflict of which the tables know nothing is looked at twice: another process that probes the port, as this one
 * does, has it for some microseconds.
 */
export async function lookAtPort(proc: Proc, port: number, host: string | undefined): Promise<PortLook> {
  const look = await lookOnce(proc, port, host);
  if (look.rows.length > 0 || look.probes.every(({ probe }) => probe !== 'busy')) return look;
  await systemClock.sleep(2);
  return lookOnce(proc, port, host);
}

async function lookOnce(proc: Proc, port: number, host: string | undefined): Promise<PortLook> {
  if (host === undefined) return lookEverywhere(proc, port);
  const probes = await probeAll(resolveHosts(host), port);
  const unbound = unboundOf(probes);
  const rows = unbound.length > 0 ? await listenersInTheWay(proc, port, unbound) : [];
  return { port, host, probes, rows };
}

/** One bind that nobody escapes comes first: where it succeeds, the port is free and no table was read. */
async function lookEverywhere(proc: Proc, port: number): Promise<PortLook> {
  if ((await probeEverywhere(port)) === 'free') {
    const probes = resolveHosts('localhost').map((address) => ({ host: address, probe: 'free' as const }));
    return { port, host: null, probes, rows: [] };
  }
  const listened = readListeners(proc, port);
  const probes = await probeAll(hostsToProve(listened), port);
  const unbound = unboundOf(probes);
  // Who has gone since the table was read is in nobody's way.
  const free = new Set(probes.filter(({ probe }) => probe === 'free').map((probe) => probe.host));
  const present = listened.filter((row) => !free.has(hostOf(row)));
  const isKnown = present.length > 0 || unbound.length === 0;
  return { port, host: null, probes, rows: isKnown ? present : await listenersInTheWay(proc, port, unbound) };
}

/** A privileged port cannot be bound by an ordinary user, held or not: the tables tell then. */
function unboundOf(probes: readonly HostProbe[]): string[] {
  return probes.filter(({ probe }) => probe === 'busy' || probe === 'forbidden').map(({ host }) => host);
}

/** Is a look's port free by now? Proved by binding; by the tables only where an address cannot be bound at all. */
export async function isReleased(proc: Proc, { port, host, probes }: PortLook): Promise<boolean> {
  if (host === null && (await probeEverywhere(port)) === 'free') return true;
  const hosts = probes.map((probe) => probe.host);
  const now = await probeAll(hosts, port);
  if (now.some(({ probe }) => probe === 'busy')) return false;
  const unbound = now.filter(({ probe }) => probe === 'forbidden' || (probe === 'absent' && host === null));
  if (unbound.length === 0) return true;
  const rows = await listenersInTheWay(proc, port, host === null ? undefined : unbound.map((probe) => probe.host));
  return rows.length === 0;
}

interface DescribeOptions {
  readonly signal: AbortSignal | undefined;
  /** Find every holder. Otherwise none is looked for: a caller that kills finds them itself, and stops early. */
  readonly wholeScan: boolean;
}

export async function describePort(proc: Proc, look: PortLook, options: DescribeOptions): Promise<PortReport> {
  const { port, host, probes, rows } = look;
  const base = { port, host, free: false, listeners: [], clients: [], kill: null, tookMs: 0 };
  const busy = probes.filter(({ probe }) => probe === 'busy').map((probe) => probe.host);
  if (rows.length > 0) {
    const listeners = await withHolders(proc, rows, options.signal, options.wholeScan);
    const verdict = verdictOfListeners(listeners, options.wholeScan);
    const report: PortReport = { ...base, listeners, verdict, explanation: '' };
    return { ...report, explanation: explainHeld(port, verdict, report, null) };
  }
  if (busy.length > 0) return { ...base, ...(await verdictWithoutListener(proc, port, busy, options.signal)) };
  return { ...base, ...verdictOfProbes(port, probes) };
}

function verdictOfProbes(port: number, probes: readonly HostProbe[]) {
  if (probes.every(({ probe }) => probe === 'absent')) {
    const hosts = probes.map(({ host }) => host).join(', ');
    return { verdict: 'no_address' as const, explanation: `This host has no address ${hosts} to bind port ${port} on` };
  }
  if (probes.some(({ probe }) => probe === 'forbidden')) {
    const explanation = `Port ${port} may not be bound by this user: ports below 1024 need a privilege`;
    return { verdict: 'forbidden' as const, explanation };
  }
  return { free: true, verdict: 'free' as const, explanation: `Port ${port} is free: it was bound` };
}

function verdictOfListeners(listeners: readonly Listener[], scanned: boolean): Verdict {
  if (!scanned) return 'listening';
  const holders = listeners.flatMap((listener) => listener.holders);
  if (holders.length === 0) {
    return listeners.some(({ hidden }) => hidden?.includes('only that user')) ? 'other_user' : 'outside_pid_namespace';
  }
  if (holders.some(({ pid }) => pid === 1)) return 'pid1';
  if (holders.every(({ pid }) => pid === process.pid)) return 'protected';
  return 'listening';
}

async function verdictWithoutListener(
  proc: Proc,
  port: number,
  busy: readonly string[],
  signal: AbortSignal | undefined,
) {
  const near = (await readSockets(proc, port, createSlice(signal))).filter(
    (row) => row.port === port && row.state !== 'LISTEN',
  );
  const rows = [...new Set(busy.flatMap((host) => conflicting(near, host)))];
  const live = rows.filter(({ inode }) => inode !== 0);
  if (live.length > 0) {
    const clients = await clientsOf(proc, live, signal);
    const who =
      clients.map(({ pid, command }) => `pid ${pid} (${shorten(command)})`).join(', ') || 'a process that is hidden';
    const explanation = `Port ${port} is the near end of a connection of ${who}: it is free again when that ends`;
    return { verdict: 'client_holds' as const, explanation, clients };
  }
  const [ended] = rows;
  if (ended) {
    const explanation = `Port ${port} was the near end of a connection that has ended (${ended.state}): wait, 60 s at most`;
    return { verdict: 'time_wait' as const, explanation };
  }
  const explanation = `Port ${port} is bound by a socket that does not listen; the kernel's tables do not name its owner`;
  return { verdict: 'hidden_bind' as const, explanation };
}

/** Who is connected to the port: the far ends of its listeners' connections, as far as they are on this host. */
async function findClients(
  proc: Proc,
  port: number,
  report: PortReport,
  signal: AbortSignal | undefined,
): Promise<readonly PortClient[]> {
  if (report.listeners.length === 0) return report.clients;
  const own = Object.values(os.networkInterfaces()).flatMap((list) => list?.map(({ address }) => address) ?? []);
  const rows = (await readSockets(proc, port, createSlice(signal))).filter(
    (row) => row.remotePort === port && row.inode !== 0 && reaches(report.listeners, own, row.remoteAddress),
  );
  return clientsOf(proc, rows, signal);
}

/** A listener on all addresses is reached by those of this host alone: elsewhere the same port is another's. */
function reaches(listeners: readonly Listener[], own: readonly string[], to: string): boolean {
  const address = v4Of(to) ?? to;
  const isLocal = own.includes(address) || address.startsWith('127.');
  return listeners.some((listener) => {
    const at = v4Of(listener.address) ?? listener.address;
    return at === address || (isLocal && (at === '::' || (at === '0.0.0.0' && net.isIPv4(address))));
  });
}

async function clientsOf(proc: Proc, rows: readonly Socket[], signal: AbortSignal | undefined): Promise<PortClient[]> {
  if (rows.length === 0) return [];
  const states = new Map(rows.map(({ inode, state }) => [inode, state]));
  const clients: PortClient[] = [];
  for await (const { inode, stat } of scanHolders(proc, new Set(states.keys()), { slice: createSlice(signal) })) {
    const command = describeProcess(proc, stat).command;
    clients.push({ pid: stat.pid, command, state: states.get(inode) ?? 'ESTABLISHED' });
  }
  return clients;
}

export function explainHeld(port: number, verdict: Verdict, report: PortReport, kill: KillReport | null): string {
  const survivor = kill?.survivors[0];
  if (survivor) {
    const { pid, command, why } = survivor;
    if (report.free) return `Port ${port} was bound, but pid ${pid} (${shorten(command)}) of its chain is left: ${why}`;
    return `Cannot free port ${port}: pid ${pid} (${shorten(command)}) still listens; ${why}`;
  }
  if (verdict === 'protected') return `Port ${port} is held by this very process, which it will not kill`;
  const holders = report.listeners.flatMap((listener) => listener.holders);
  const first = holders[0];
  if (first) {
    const others = new Set(holders.map(({ pid }) => pid)).size - 1;
    const more = others > 0 ? ` and ${others} more` : '';
    return `Port ${port} is held by pid ${first.pid} (${shorten(first.command)}) of ${first.user}${more}`;
  }
  const hidden = report.listeners.find((listener) => listener.hidden)?.hidden;
  return hidden ? `Port ${port} is ${hidden}` : report.explanation || `Port ${port} is listened on`;
}

function shorten(command: string): string {
  const text = printable(command);
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}

export function since(clock: Clock, began: number): number {
  return Math.round((clock.now() - began) * 100) / 100;
}
