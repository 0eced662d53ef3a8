import type { KillReport } from '../kill.js';
import { usesPortable } from '../proc/backend.js';
import { readListeners, readSockets, type Socket } from '../proc/net.js';
import { openProc, type Proc } from '../proc/read.js';
import type { ProcessInfo } from '../proc/stat.js';
import { type Clock, createSlice, systemClock } from '../time.js';
import { clientsOf, ownersOf, type PortClient } from './clients.js';
import {
  conflicting,
  hostOf,
  hostsToProve,
  type Listener,
  listenersInTheWay,
  type PortOptions,
  withHolders,
} from './listeners.js';
import { assertPort, type HostProbe, probeAll, probeEverywhere, resolveHosts } from './probe.js';
import { judgeListeners, judgeProbes, judgeSockets, type Verdict } from './verdict.js';
import { endpoint } from './words.js';

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
  /** Who starts the holder again: with the verdict `respawned`, and otherwise null. */
  readonly respawner: ProcessInfo | null;
  /** null: nobody was to be killed. With `dryRun` it is the plan, and nothing of it was done. */
  readonly kill: KillReport | null;
  readonly tookMs: number;
}

/** The library's {@link import('../door.js').inspectPort}. */
export async function inspectPort(port: number, options: PortOptions = {}): Promise<PortReport> {
  assertPort(port);
  if (usesPortable(options)) return (await import('./portable.js')).inspectPortably(port, options);
  const proc = options.proc ?? openProc();
  const clock = options.clock ?? systemClock;
  const began = clock.now();
  const { host, signal } = options;
  const report = await describePort(proc, await lookAtPort(proc, port, host), signal);
  const clients = await findClients(proc, report, signal);
  return { ...report, clients, tookMs: since(clock, began) };
}

/** One look at a port: what a bind of every address says, and which listeners are in the way of one. */
export interface PortLook {
  readonly port: number;
  readonly host: string | null;
  readonly probes: readonly HostProbe[];
  readonly rows: readonly Socket[];
  /** Without a host: an address that was not asked for keeps the port from being bound on all of them at once. */
  readonly isTakenElsewhere?: boolean;
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
  const rows = isKnown ? present : await listenersInTheWay(proc, port, unbound);
  const isTakenElsewhere = rows.length === 0 && unbound.length === 0 && (await probeEverywhere(port)) === 'busy';
  return { port, host: null, probes, rows, isTakenElsewhere };
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

/** The report of a look, with every holder. Nobody has been killed in it. */
export async function describePort(proc: Proc, first: PortLook, signal: AbortSignal | undefined): Promise<PortReport> {
  let look = first;
  let listeners = await withHolders(proc, look.rows, signal);
  // All of them have closed meanwhile: that look is over. A service that comes and goes is looked at so often, not for ever.
  for (let again = 0; look.rows.length > 0 && listeners.length === 0 && again < 3; again++) {
    look = await lookAtPort(proc, look.port, look.host ?? undefined);
    listeners = await withHolders(proc, look.rows, signal);
  }
  const { port, host, probes } = look;
  const base = { port, host, free: false, listeners: [], clients: [], respawner: null, kill: null, tookMs: 0 };
  const target = host === null ? String(port) : endpoint({ address: host, port });
  if (listeners.length > 0) return { ...base, listeners, ...judgeListeners(proc, listeners, target) };
  const busy = probes.filter(({ probe }) => probe === 'busy').map((probe) => probe.host);
  if (busy.length > 0) return { ...base, ...(await describeConflict(proc, port, busy, signal)) };
  const judgement = judgeProbes(proc, port, look);
  return { ...base, ...judgement, free: judgement.verdict === 'free' };
}

/** Not to be bound, and nobody listens: a connection has the port as its own end, or the tables do not know. */
async function describeConflict(proc: Proc, port: number, busy: readonly string[], signal: AbortSignal | undefined) {
  const sockets = await readSockets(proc, port, createSlice(signal));
  const near = sockets.filter((row) => row.port === port && row.state !== 'LISTEN');
  const rows = [...new Set(busy.flatMap((host) => conflicting(near, host)))];
  const live = rows.filter(({ inode }) => inode !== 0);
  const owners = await ownersOf(proc, live, signal);
  const judgement = judgeSockets(
    port,
    rows,
    owners.map(({ info }) => info),
  );
  return { ...judgement, clients: owners.map(({ client }) => client) };
}

/** Those of its listeners; where there is none, those who hold the port as their own end are in the report already. */
export async function findClients(proc: Proc, report: PortReport, signal: AbortSignal | undefined) {
  return report.listeners.length > 0 ? clientsOf(proc, report.listeners, signal) : report.clients;
}

export function since(clock: Clock, began: number): number {
  return Math.round((clock.now() - began) * 100) / 100;
}
