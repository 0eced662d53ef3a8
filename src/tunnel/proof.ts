import { isDaemon, readLocks } from '../port/daemons.js';
import { findListeners } from '../port/listeners.js';
import { busyHosts, hasIpv6Loopback } from '../port/probe.js';
import { WHY_DAEMON } from '../port/verdict.js';
import type { Proc } from '../proc/read.js';
import type { ProcessInfo } from '../proc/stat.js';
import { type Clock, growing, until } from '../time.js';
import { bindSet, type TunnelSpec } from './spec.js';

export interface ProofOptions {
  readonly proc: Proc;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** How long a port may take to be free once its holders are gone. Whoever holds it then is somebody else. */
const RELEASE_MS = 50;

/** Waits, bounded, until every local address of a tunnel can be bound. Nothing has to be for a remote forward. */
export async function waitUntilFree(spec: TunnelSpec, clock: Clock, signal?: AbortSignal): Promise<boolean> {
  const isFree = async () => (await findBusy(spec)).length === 0;
  return (await until(isFree, { timeoutMs: RELEASE_MS, everyMs: growing(10), signal, clock })) === true;
}

/**
 * Proves that a tunnel can bind what it will: undefined, or those who hold what could not be bound. None, where it is
 * held and nobody who does can be seen.
 */
export async function findHolders(spec: TunnelSpec, options: ProofOptions): Promise<ProcessInfo[] | undefined> {
  const { proc, clock, signal } = options;
  if (await waitUntilFree(spec, clock, signal)) return undefined;
  const busy = await findBusy(spec);
  if (busy.length === 0) return undefined;
  const { port } = spec.forward.listen;
  const listeners = await Promise.all(busy.map((host) => findListeners(port, { host, signal, proc })));
  const holders = listeners.flat().flatMap((listener) => listener.holders);
  return [...new Map(holders.map((holder) => [holder.pid, holder])).values()];
}

/** Is one of them a tunward daemon? No takeover goes as far as that. */
export function hasDaemon(proc: Proc, holders: readonly ProcessInfo[]): boolean {
  const locks = readLocks(proc);
  return holders.some((holder) => isDaemon(proc, holder, locks));
}

/** `port 9443 is held by pid 812 (ssh -N …) of root, 3 s old`. */
export function describeHolders(
  port: number,
  { holders, isDaemons }: { readonly holders: readonly ProcessInfo[]; readonly isDaemons: boolean },
): string {
  const [who] = holders;
  if (!who) return `port ${port} cannot be bound, and whoever holds it cannot be seen`;
  const age = who.ageS === null ? '' : `, ${Math.round(who.ageS)} s old`;
  return `port ${port} is held by pid ${who.pid} (${who.command}) of ${who.user}${age}${isDaemons ? `, ${WHY_DAEMON}` : ''}`;
}

async function findBusy({ forward }: TunnelSpec): Promise<string[]> {
  if (forward.side === 'remote') return [];
  const hosts = bindSet(forward, hasIpv6Loopback()).map(({ host }) => host);
  return busyHosts(hosts, forward.listen.port);
}
