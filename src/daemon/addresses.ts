import { isIP, isIPv6, SocketAddress } from 'node:net';
import type { ConfigProblem } from '../errors.js';
import { hasIpv6Loopback } from '../port/probe.js';
import { known, openProc } from '../proc/read.js';
import { findProgram, hasShell } from '../tunnel/chain.js';
import { bindSet, type Endpoint, type Forward, formatEndpoint, isListenHost } from '../tunnel/spec.js';
import type { ConfigDocument, Path } from './document.js';
import { noListenHost, show } from './schema.js';

/** One tunnel's forward, and where in the file it stands. */
export interface Place {
  readonly index: number;
  readonly name: string;
  readonly forward: Forward;
  /** What tells one SSH server from another; for a forward that listens here it does not matter. */
  readonly server: string;
  /** One that is not takes no address from another: somebody who starts it is told who has it. */
  readonly enabled: boolean;
}

/** What the check has to know of this host. */
export interface HostFacts {
  /** The first and the last port of net.ipv4.ip_local_port_range. */
  readonly ephemeralRange?: readonly [number, number] | undefined;
  readonly hasIpv6Loopback: boolean;
  /** Default: there is one. */
  readonly hasShell?: boolean | undefined;
  /** Is one on PATH? What leaves the engine to us is a client of our own where there is none. Default: there is one. */
  readonly hasSsh?: boolean | undefined;
}

/** What this host says of itself. */
export function readHostFacts(env: NodeJS.ProcessEnv): HostFacts {
  // The ports that the kernel gives to clients (ip(7)): a listener there can find its port taken by anybody.
  const text = known(openProc().text('sys/net/ipv4/ip_local_port_range')) ?? '';
  const [first, last] = text.trim().split(/\s+/).map(Number);
  return {
    ephemeralRange: first && last ? [first, last] : undefined,
    hasIpv6Loopback: hasIpv6Loopback(),
    hasShell: hasShell(),
    hasSsh: findProgram('ssh', env) !== undefined,
  };
}

/**
 * What is wrong with the addresses of all tunnels together. Errors: an address that cannot be listened on or connected
 * to, and twins, which would take it from one another. Warnings: ports that anybody may hold by accident.
 */
export function checkAddresses(
  document: ConfigDocument,
  places: readonly Place[],
  { apiListen, ...host }: HostFacts & { readonly apiListen: Endpoint | null },
): { errors: ConfigProblem[]; warnings: ConfigProblem[] } {
  const at = (place: Place, message: string) => document.problem(listenPath(place), message);
  const sound = places.filter(canListen);
  const local = sound.filter(({ forward }) => forward.side === 'local');
  const errors = [
    ...places.filter((place) => !canListen(place)).map((place) => at(place, noListenHost(place.forward.listen.host))),
    ...places
      .filter(({ forward }) => forward.target.host === '*')
      .map((place) => document.problem(targetPath(place), "expected a host to connect to, found '*'")),
    ...places
      .filter(({ forward }) => forward.target.port === 0)
      .map((place) => document.problem(targetPath(place), noChoice)),
    ...twins(sound.filter(({ enabled }) => enabled)).map(([place, twin]) =>
      at(place, twinMessage(document, place, twin)),
    ),
    ...local.filter(({ forward }) => clash(forward.listen, apiListen)).map((place) => at(place, apiMessage(place))),
  ];
  const warnings = local.flatMap((place) => hostWarnings(place, host).map((message) => at(place, message)));
  return { errors, warnings };
}

const noChoice =
  'expected a port from 1 to 65535, found 0: only a port that a server is to listen on can be its choice';

/** The key that says where a tunnel listens. */
function listenPath({ index, forward }: Place): Path {
  return ['tunnels', index, forward.side === 'local' ? 'local_port' : 'remote_port'];
}

function targetPath({ index, forward }: Place): Path {
  return ['tunnels', index, forward.side === 'local' ? 'remote_port' : 'local_port'];
}

/** On the far side a plain name may be listened on: what it means is that host's business. */
function canListen({ forward }: Place): boolean {
  return forward.side === 'remote' || isListenHost(forward.listen.host);
}

function apiMessage({ forward }: Place): string {
  return `expected an address apart from that of api.listen, found ${formatEndpoint(forward.listen)}`;
}

function hostWarnings({ forward }: Place, { ephemeralRange, hasIpv6Loopback }: HostFacts): string[] {
  const { host, port } = forward.listen;
  const warnings: string[] = [];
  const [first, last] = ephemeralRange ?? [0, -1];
  if (port >= first && port <= last) {
    const remedy = `choose one below ${first}, or add it to net.ipv4.ip_local_reserved_ports`;
    const why = 'which any outgoing connection may take';
    warnings.push(`expected a port outside the ephemeral range ${first}-${last}, found ${port}, ${why}: ${remedy}`);
  }
  if (canonical(host) === '::1' && !hasIpv6Loopback) {
    warnings.push(
      `expected an address of this host, found ${formatEndpoint(forward.listen)}, and there is no IPv6 here`,
    );
  }
  return warnings;
}

/** Each place that overlaps an earlier one, with the first such. */
function twins(places: readonly Place[]): [Place, Place][] {
  const pairs: [Place, Place][] = [];
  const byPort = new Map<string, { place: Place; hosts: string[] }[]>();
  for (const place of places) {
    const { side, listen } = place.forward;
    if (listen.port === 0) continue;
    const key = `${side} ${side === 'remote' ? place.server : ''} ${listen.port}`;
    const earlier = byPort.get(key) ?? [];
    const hosts = boundBy(listen);
    const twin = earlier.find((other) => overlap(hosts, other.hosts));
    if (twin) pairs.push([place, twin.place]);
    earlier.push({ place, hosts });
    byPort.set(key, earlier);
  }
  return pairs;
}

function twinMessage(document: ConfigDocument, place: Place, twin: Place): string {
  const describe = (one: Place) => {
    const { line } = document.problem(listenPath(one), '');
    return `${formatEndpoint(one.forward.listen)} of tunnel ${show(one.name)} (line ${line})`;
  };
  const owner = place.forward.side === 'remote' ? ' of its server' : '';
  const wanted = `expected an address${owner} that no other tunnel listens on`;
  return `${wanted}, found ${describe(place)}, which overlaps ${describe(twin)}`;
}

/**
 * The addresses for the comparison: as on a host with IPv6, on either side. A file must not be right on one host and
 * wrong on the next, and sshd without GatewayPorts binds both loopback addresses.
 */
function boundBy(listen: Endpoint): string[] {
  return bindSet({ side: 'local', listen, target: listen }, true).map(({ host }) => canonical(host));
}

/** One spelling for each address: `0:0::1` is `::1`, and an IPv4 address in IPv6 clothes is that IPv4 address. */
function canonical(host: string): string {
  if (!isIPv6(host)) return host.toLowerCase();
  const [address = '', zone] = host.split('%');
  const short = new SocketAddress({ address, family: 'ipv6' }).address;
  const mapped = short.replace(/^::ffff:(?=\d+\.)/, '');
  return zone === undefined ? mapped : `${mapped}%${zone}`;
}

function clash(listen: Endpoint, other: Endpoint | null): boolean {
  return other !== null && other.port === listen.port && overlap(boundBy(listen), boundBy(other));
}

function overlap(some: readonly string[], others: readonly string[]): boolean {
  return some.some((one) => others.some((other) => one === other || covers(one, other) || covers(other, one)));
}

/** A wildcard covers its whole family; a name may be of either. */
function covers(wildcard: string, host: string): boolean {
  const family = { '0.0.0.0': 4, '::': 6 }[wildcard];
  return family !== undefined && [0, family].includes(isIP(host));
}
