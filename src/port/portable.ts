import net from 'node:net';
import os from 'node:os';
import { TunwardError } from '../errors.js';
import { UNKNOWN } from '../proc/backend.js';
import { acceptsPortably, findHolderPortably } from '../proc/portable.js';
import type { ProcessInfo } from '../proc/stat.js';
import { type Clock, systemClock } from '../time.js';
import { assertPort, type HostProbe, probeAll, resolveHosts } from './probe.js';

/*
 * Ports where there is no /proc/net: what a bind and a connection tell, and the one holder that find-process names. The
 * shapes are those of listeners.ts and inspect.ts, which load this file when they need it.
 */

interface PortableOptions {
  readonly host?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly clock?: Clock | undefined;
}

/** An address at which somebody accepts. Who listens on several shows at each of them. */
interface PortableListener {
  readonly protocol: 'tcp' | 'tcp6';
  readonly address: string;
  readonly port: number;
  /** Not known here, nor is the user. */
  readonly inode: 0;
  readonly uid: typeof UNKNOWN;
  /** At most one: whom find-process names for the port, whatever the address. */
  readonly holders: readonly ProcessInfo[];
  readonly hidden?: string;
}

/**
 * Nobody is connected to where a bind succeeds: no listener is in the way there. A listener on an address that is on no
 * list of this host's (127.0.0.2) is found by that host alone; inspectPortably says that its port cannot be bound.
 */
export async function findListenersPortably(
  port: number,
  { protocol, ...options }: PortableOptions & { readonly protocol?: 'tcp' | 'tcp6' | undefined },
): Promise<PortableListener[]> {
  const { listeners } = await lookPortably(port, options);
  return listeners.filter((listener) => protocol === undefined || listener.protocol === protocol);
}

/** What is known: that somebody listens, and one of them. Clients are not. Nothing is free that could not be bound. */
export async function inspectPortably(port: number, options: PortableOptions) {
  const { host = null, clock = systemClock } = options;
  const began = clock.now();
  const look = await lookPortably(port, options);
  const tookMs = Math.round((clock.now() - began) * 100) / 100;
  return {
    port,
    host,
    ...judge(port, look),
    listeners: look.listeners,
    clients: [],
    respawner: null,
    kill: null,
    tookMs,
  };
}

/** Without a table of listeners, "every address" is every one that this host has. */
export async function isFreePortably(port: number, { host }: PortableOptions): Promise<boolean> {
  assertPort(port);
  const probes = await probeAll(hostsToBind(host), port);
  if (probes.some(({ probe }) => probe === 'forbidden')) {
    const message = `Cannot bind port ${port}: permission denied (ports below 1024 need a privilege)`;
    throw new TunwardError('ERR_ACCESS_DENIED', message, { port });
  }
  return probes.every(({ probe }) => probe !== 'busy');
}

/** By connecting alone: a bind might keep the very listener from its port that is waited for. */
export async function isListenedOnPortably(port: number, options: PortableOptions): Promise<boolean> {
  const accepting = await findAccepting(port, hostsToBind(options.host), options.signal);
  return accepting.length > 0;
}

interface PortableLook {
  readonly probes: readonly HostProbe[];
  /** Whom find-process names, listener or not. */
  readonly holder: ProcessInfo | undefined;
  readonly listeners: readonly PortableListener[];
}

async function lookPortably(port: number, { host, signal }: PortableOptions): Promise<PortableLook> {
  assertPort(port);
  const probes = await probeAll(hostsToBind(host), port);
  const unbound = probes.filter(({ probe }) => probe === 'busy' || probe === 'forbidden').map((each) => each.host);
  const accepting = await findAccepting(port, unbound, signal);
  const holder = unbound.length > 0 ? await findHolderPortably(port, { signal }) : undefined;
  return { probes, holder, listeners: accepting.map((address) => toListener(port, address, holder)) };
}

function toListener(port: number, address: string, holder: ProcessInfo | undefined): PortableListener {
  const protocol = net.isIPv6(address) ? 'tcp6' : 'tcp';
  const listener = { protocol, address, port, inode: 0, uid: UNKNOWN } as const;
  return holder ? { ...listener, holders: [holder] } : { ...listener, holders: [], hidden: NOT_NAMED };
}

const NOT_NAMED =
  'held by a process that find-process does not name: it may be of another user, or the programs are missing that it runs (ss, netstat or lsof)';

async function findAccepting(
  port: number,
  hosts: readonly string[],
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const addresses = [...new Set(hosts.flatMap(addressesBehind))];
  const accepts = await Promise.all(addresses.map((address) => acceptsPortably(address, port, { signal })));
  return addresses.filter((_address, at) => accepts[at]);
}

function hostsToBind(host: string | undefined): string[] {
  // On BSD the wildcard can be bound beside an address of its own, and on Linux it shows the others.
  return host === undefined
    ? [...new Set([...resolveHosts('localhost'), ...ownAddresses(), ...resolveHosts('*')])]
    : resolveHosts(host);
}

/** What can be connected to, for what can be bound; nothing for an address of another host. */
function addressesBehind(host: string): string[] {
  const own = ownAddresses();
  if (host === '0.0.0.0') return own.filter((address) => net.isIPv4(address));
  if (host === '::') return own.filter((address) => net.isIPv6(address));
  return host.startsWith('127.') || own.includes(host) ? [host] : [];
}

/** Not the link-local ones, which are addresses only with the name of an interface. */
function ownAddresses(): string[] {
  const all = Object.values(os.networkInterfaces()).flatMap((list) => list ?? []);
  return all.map(({ address }) => address).filter((address) => !address.startsWith('fe80:'));
}

function judge(port: number, { probes, holder, listeners }: PortableLook) {
  const [first] = listeners;
  const is = (probe: HostProbe['probe']) => probes.filter((each) => each.probe === probe).map(({ host }) => host);
  const named = holder && `pid ${holder.pid} (${shorten(holder.command)})`;
  if (first) {
    const known = named && `held by ${named}, as find-process says, which names one of perhaps several`;
    return { free: false, verdict: 'listening' as const, explanation: `Port ${port} is ${known ?? first.hidden}` };
  }
  if (is('busy').length > 0) {
    const who = named ? `find-process names ${named}` : 'find-process names nobody';
    const explanation = `Port ${port} cannot be bound on ${is('busy').join(', ')}, where nobody accepts a connection; ${who}`;
    return { free: false, verdict: 'hidden_bind' as const, explanation };
  }
  if (is('forbidden').length > 0) {
    const explanation = `Port ${port} may not be bound by this user: ports below 1024 need a privilege`;
    return { free: false, verdict: 'forbidden' as const, explanation };
  }
  if (is('free').length === 0) {
    const explanation = `This host has no address ${is('absent').join(', ')} to bind port ${port} on`;
    return { free: false, verdict: 'no_address' as const, explanation };
  }
  return { free: true, verdict: 'free' as const, explanation: `Port ${port} is free: it was bound` };
}

function shorten(command: string): string {
  return command.length > 60 ? `${command.slice(0, 59)}…` : command;
}
