import net from 'node:net';
import os from 'node:os';
import { isErrno, TunwardError } from '../errors.js';
import { systemClock } from '../time.js';

/** What a bind of one address says. `absent`: this host has no such address, so nothing can hold it. */
export type Probe = 'free' | 'busy' | 'absent' | 'forbidden';

export interface HostProbe {
  readonly host: string;
  readonly probe: Probe;
}

/**
 * Binds one address for an instant. A stranger who connects in that instant is cut off; it cannot keep the probe.
 * Numbers only: a name would be probed at the first of its addresses alone.
 *
 * @throws TunwardError ERR_TIMEOUT, should the bind be unanswered after a second; a probe never hangs.
 */
export function probeAddress(host: string, port: number): Promise<Probe> {
  // `::` without ipv6Only would also claim 0.0.0.0, which is an address of its own in the bind set.
  return inTurn(port, () => bindOnce({ host, port, ipv6Only: net.isIPv6(host) }));
}

/**
 * Binds every address of both families at once: `::`, and 0.0.0.0 where the kernel has no IPv6. No holder escapes this
 * one bind, so when it succeeds no table needs to be read. When it does not, the one in the way may be on an address
 * that nobody asked for.
 */
export function probeEverywhere(port: number): Promise<Probe> {
  return inTurn(port, async () => {
    const both = await bindOnce({ host: '::', port, ipv6Only: false });
    return both === 'absent' ? bindOnce({ host: '0.0.0.0', port, ipv6Only: false }) : both;
  });
}

/**
 * The probes of one port take turns, as long as there are any: two binds at a time would take each other for a holder,
 * also those of 127.0.0.1 and 0.0.0.0. What a process binds is shared by all of it, so this is too.
 */
function inTurn(port: number, bind: () => Promise<Probe>): Promise<Probe> {
  const probe = (turns.get(port) ?? Promise.resolve()).then(bind);
  const over: Promise<void> = probe.then(
    () => leave(),
    () => leave(),
  );
  const leave = () => {
    if (turns.get(port) === over) turns.delete(port);
  };
  turns.set(port, over);
  return probe;
}

const turns = new Map<number, Promise<void>>();

interface Bind {
  readonly host: string;
  readonly port: number;
  readonly ipv6Only: boolean;
}

/** A bind is one call that the kernel answers at once. Should it ever not be, this bound keeps its successors from waiting. */
const PROBE_MS = 1000;

async function bindOnce(where: Bind): Promise<Probe> {
  const bind = tryBind(where);
  // Answered in this very turn; a timer for each would cost three times as much as the bind.
  return (await Promise.race([bind, systemClock.sleep(0)])) ?? boundedBy(PROBE_MS, bind, where);
}

async function boundedBy(timeoutMs: number, bind: Promise<Probe>, { host, port }: Bind): Promise<Probe> {
  const answered = new AbortController();
  const late = systemClock.sleep(timeoutMs, answered.signal).then(() => {
    const message = `Cannot tell whether ${host} port ${port} is free: the bind was not answered within ${timeoutMs} ms`;
    throw new TunwardError('ERR_TIMEOUT', message, { timeoutMs });
  });
  try {
    return await Promise.race([bind, late]);
  } finally {
    answered.abort();
  }
}

function tryBind(where: Bind): Promise<Probe> {
  return new Promise((resolve, reject) => {
    const server = net.createServer((stranger) => stranger.destroy());
    server.once('error', (error) => {
      if (isErrno(error, 'EADDRINUSE')) resolve('busy');
      else if (isErrno(error, 'EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EINVAL')) resolve('absent');
      else if (isErrno(error, 'EACCES', 'EPERM')) resolve('forbidden');
      else reject(error);
    });
    server.listen({ ...where, exclusive: true }, () => {
      // The descriptor is closed in this call; what close() would wait for is connections, and those are destroyed.
      server.close();
      resolve('free');
    });
  });
}

export async function probeAll(hosts: readonly string[], port: number): Promise<HostProbe[]> {
  return Promise.all(hosts.map(async (host) => ({ host, probe: await probeAddress(host, port) })));
}

/** Of the addresses that must be free, those that are not. */
export async function busyHosts(hosts: readonly string[], port: number): Promise<string[]> {
  return (await probeAll(hosts, port)).filter(({ probe }) => probe === 'busy').map(({ host }) => host);
}

/** The addresses that a host option stands for. */
export function resolveHosts(host: string): string[] {
  const v6 = hasIpv6Loopback();
  if (host === 'localhost') return v6 ? ['127.0.0.1', '::1'] : ['127.0.0.1'];
  if (host === '*') return v6 ? ['0.0.0.0', '::'] : ['0.0.0.0'];
  const bare = host.replace(/^\[(.*)\]$/, '$1');
  if (net.isIP(bare) === 0) {
    throw new TypeError(`Cannot use '${host}' as a host: expected an IP address, 'localhost' or '*'`);
  }
  return [canonical(bare)];
}

/** As the kernel's tables are read: `0:0:0:0:0:0:0:1` is `::1`, and an IPv4 address in IPv6 clothes is one of IPv4. */
function canonical(address: string): string {
  if (net.isIPv4(address)) return address;
  const [bare = '', zone] = address.split('%');
  const plain = new net.SocketAddress({ address: bare, family: 'ipv6' }).address;
  const v4 = plain.replace(/^::ffff:/, '');
  if (net.isIPv4(v4)) return v4;
  return zone === undefined ? plain : `${plain}%${zone}`;
}

/**
 * One answer for a whole turn of the event loop: a list of 500 tunnels asks for each, and a look at all interfaces takes
 * 50 µs where there are two.
 */
export function hasIpv6Loopback(): boolean {
  if (ipv6Loopback === undefined) {
    const lists = Object.values(os.networkInterfaces());
    ipv6Loopback = lists.some((list) => list?.some(({ address }) => address === '::1'));
    queueMicrotask(() => {
      ipv6Loopback = undefined;
    });
  }
  return ipv6Loopback;
}

let ipv6Loopback: boolean | undefined;

export function assertPort(port: number): void {
  if (typeof port !== 'number') throw new TypeError(`Cannot use a ${typeof port} as a port: expected a number`);
  if (!Number.isInteger(port) || port < 1 || port > 65535) {
    throw new RangeError(`Cannot use ${port} as a port: expected an integer from 1 to 65535`);
  }
}
