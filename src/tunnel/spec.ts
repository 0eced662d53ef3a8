import { createHash } from 'node:crypto';
import { isIP, isIPv6, SocketAddress } from 'node:net';
import { isDeepStrictEqual } from 'node:util';

/** Which end of the SSH connection a forward listens on. `local` is `ssh -L`, `remote` is `ssh -R`. */
export type Side = 'local' | 'remote';

export type Direction = 'remote_to_local' | 'local_to_remote';
export type DirectionMode = 'default' | 'ssh-standard';
/** A program that makes tunnels. */
export type ProgramName = 'ssh' | 'autossh';
/** What keeps the link of a tunnel: a program, or an SSH client inside this process. */
export type EngineName = ProgramName | 'embedded';
export type EngineChoice = 'auto' | EngineName;

/** How far the clean-up before a start may go: own processes; ssh and autossh chains in the way; anyone. */
export type Takeover = 'own' | 'tunnels' | 'any';

/**
 * A host as written (a name, an address without brackets, `localhost` or `*`) and a port from 1 to 65535; 0 where a
 * server is to choose the port that a remote forward listens on.
 */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

export interface Forward {
  /** Where it listens. */
  readonly side: Side;
  readonly listen: Endpoint;
  /** What it connects to, as seen from the other side. */
  readonly target: Endpoint;
}

/** A host on the way to the destination: `[user@]host`, and its port where one is written. */
export interface Hop {
  /** An IPv6 address without brackets, as ssh wants it. */
  readonly destination: string;
  readonly port: number | null;
}

export interface BackoffOptions {
  readonly minMs: number;
  readonly maxMs: number;
  /** A tunnel that stayed up this long has proved stable: its next failure counts as the first. */
  readonly stableMs: number;
}

/** How a tunnel that this process listens for treats its clients while its link is exchanged. */
export interface SeamlessOptions {
  /** How long connections may go on over a link that has been replaced, before they are cut. */
  readonly drainMs: number;
  /** How long a new connection waits for a link, where there is none, before it is turned away. */
  readonly connectWaitMs: number;
}

/** Asks now and then whether bytes go through to the target. */
export interface CheckOptions {
  /** A path to GET; null: to connect is enough. */
  readonly http: string | null;
  readonly everyMs: number;
  /** What has not come through by then does not. */
  readonly timeoutMs: number;
}

/** What is wanted of one tunnel: plain data, the same whether it came from a file, the API or a program. */
export interface TunnelSpec {
  /** 32 hexadecimal digits, see {@link tunnelId}. */
  readonly id: string;
  readonly name: string;
  /** What ssh is given as its destination: `[user@]host`, or an alias of ssh_config. */
  readonly remoteHost: string;
  readonly direction: Direction;
  /** As configured: `port` or `host:port`. */
  readonly remotePort: string;
  /** As configured: `port` or `host:port`. */
  readonly localPort: string;
  readonly forward: Forward;
  /** Needs a person at every start: loaded, never started by itself. */
  readonly interactive: boolean;
  readonly engine: EngineChoice;
  /** `ssh -F`; null: the person's own. */
  readonly sshConfig: string | null;
  /** `ssh -i`; null: the person's own. */
  readonly identityFile: string | null;
  /** `ssh -o`, names from {@link allowedSshOptions} only. */
  readonly sshOptions: Readonly<Record<string, string>>;
  /** The hosts that ssh goes through, the first one first; none: as ssh_config says. */
  readonly jump: readonly Hop[];
  /** Labels, for commands that are meant for several tunnels. */
  readonly groups: readonly string[];
  /** Not enabled: known, and started by hand alone. */
  readonly enabled: boolean;
  readonly takeover: Takeover;
  readonly startTimeoutMs: number;
  readonly restartTimeoutMs: number;
  readonly backoff: BackoffOptions;
  /** After a login that was refused: `slow`, by a schedule of minutes, or `never` by itself. */
  readonly authRetry: 'slow' | 'never';
  /** Its connection to the server may carry other tunnels there as well. Only the embedded engine can. */
  readonly share: boolean;
  /** Of a local forward: this process listens, and hands each connection to the link. null: the link itself listens. */
  readonly seamless: SeamlessOptions | null;
  /** null: nothing is sent, and up is what the listening sockets say. */
  readonly check: CheckOptions | null;
}

/** One address that a tunnel listens on. The whole of them is its bind set: what has to be free before a start. */
export interface Bind {
  readonly side: Side;
  readonly host: string;
  readonly port: number;
}

/**
 * The addresses a forward binds. `localhost` or no host means 127.0.0.1 and, where this host has it, ::1, each bound
 * explicitly: ssh counts a forward as made when any one family could be bound, and would stay up half-bound.
 * On the far side, whose addresses cannot be known from here, `localhost` is 127.0.0.1.
 */
export function bindSet({ side, listen }: Forward, hasIpv6Loopback: boolean): Bind[] {
  const v6 = side === 'local' && hasIpv6Loopback;
  const hosts =
    listen.host === 'localhost'
      ? ['127.0.0.1', ...(v6 ? ['::1'] : [])]
      : listen.host === '*' && side === 'local'
        ? ['0.0.0.0', ...(v6 ? ['::'] : [])]
        : [normalizeAddress(listen.host)];
  return hosts.map((host) => ({ side, host, port: listen.port }));
}

/**
 * An IPv6 address as the kernel's tables are read: `0:0::1` and `::1` are one listener. Anything else as it is, also an
 * address with a zone (`fe80::1%eth0`), which would lose it.
 */
export function normalizeAddress(host: string): string {
  if (!isIPv6(host) || host.includes('%')) return host;
  return new SocketAddress({ address: host, family: 'ipv6' }).address;
}

/** `host:port`, an IPv6 address in brackets. */
export function formatEndpoint({ host, port }: Endpoint): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * Reads `port`, `host:port` or `[v6]:port`. Without a host, or with an empty one, the host is `localhost`. Port 0, where
 * it may be, is any. Answers a sentence that says what is wrong instead of throwing.
 */
export function parseEndpoint(text: string, leastPort: 0 | 1 = 1): Endpoint | string {
  const match = /^(?:(?:\[([^\]]*)\]|([^:[\]]*)):)?(\d+)$/.exec(text.trim());
  if (!match) return `expected a port, host:port or [IPv6 address]:port, found '${text}'`;
  const [, bracketed, plain, digits] = match;
  const port = Number(digits);
  if (port < leastPort || port > 65535) return `expected a port from 1 to 65535, found ${digits}`;
  if (bracketed !== undefined && !isIPv6(bracketed))
    return `expected an IPv6 address in brackets, found '${bracketed}'`;
  const host = bracketed ?? (plain || 'localhost');
  if (host !== '*' && !isIP(host) && !isSafeName(host)) return `expected a host name or an address, found '${host}'`;
  return { host, port };
}

/** A listening address must be one that can be bound and probed: an IP address, `localhost`, or `*` for all. */
export function isListenHost(host: string): boolean {
  return host === 'localhost' || host === '*' || isIP(host) !== 0;
}

/**
 * A host, user or alias that is safe as an argument of ssh: letters, digits, `.`, `_`, `-`, not beginning with `-` or `.`.
 * `--` does not protect: autossh's getopt swallows it, and `-oProxyCommand=…` as a host would then be run.
 */
export function isSafeName(text: string): boolean {
  return /^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$/.test(text);
}

/** `[user@]host` as ssh's destination, a host being a safe name or an IP address (IPv6 with or without brackets). */
export function isSafeDestination(text: string): boolean {
  const at = text.lastIndexOf('@');
  const user = at === -1 ? undefined : text.slice(0, at);
  const host = text.slice(at + 1).replace(/^\[(.*)\]$/, '$1');
  return (user === undefined || isSafeName(user)) && (isSafeName(host) || isIP(host) !== 0);
}

/**
 * Reads `[user@]host[:port]`, an IPv6 address with a port in brackets. Answers a sentence that says what is wrong
 * instead of throwing.
 */
export function parseHop(text: string): Hop | string {
  const complaint = `expected [user@]host[:port], an IPv6 address in brackets, found '${text}'`;
  const at = text.lastIndexOf('@') + 1;
  const [user, rest] = [text.slice(0, at), text.slice(at)];
  const match = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::(\d+))?$/.exec(rest);
  const [, bracketed, plain, digits] = match ?? [undefined, undefined, rest, undefined];
  if (bracketed !== undefined && !isIPv6(bracketed)) return complaint;
  const destination = `${user}${bracketed ?? plain ?? ''}`;
  if (!isSafeDestination(destination)) return complaint;
  const port = digits === undefined ? null : Number(digits);
  if (port !== null && (port < 1 || port > 65535)) return `expected a port from 1 to 65535, found ${digits}`;
  return { destination, port };
}

/** The way back: `user@host:2222`, `[::1]:2222`. */
export function formatHop({ destination, port }: Hop): string {
  if (port === null) return destination;
  const at = destination.lastIndexOf('@') + 1;
  return destination.slice(0, at) + formatEndpoint({ host: destination.slice(at), port });
}

/** The six fields that make a tunnel's id, as written in the configuration, defaults filled in. */
export interface IdFields {
  readonly name: string;
  readonly remoteHost: string;
  readonly remotePort: string;
  readonly localPort: string;
  readonly direction: string;
  readonly interactive: string;
}

/**
 * The id: MD5 over the six fields, joined by `|`. It is a name, not a secret.
 *
 * @example
 * tunnelId({ name: 'unnamed', remoteHost: 'user@remote-host1', remotePort: '8000', localPort: '8001',
 *   direction: 'remote_to_local', interactive: 'false' }); // '76692f8a1adb8d8bee5f3b29e1b42602'
 */
export function tunnelId(fields: IdFields): string {
  const { name, remoteHost, remotePort, localPort, direction, interactive } = fields;
  const text = [name, remoteHost, remotePort, localPort, direction, interactive].join('|');
  return createHash('md5').update(text).digest('hex');
}

/**
 * Which side listens. By default the names are read as "from the service to its user": remote_to_local brings a remote
 * service here (`-L`), local_to_remote offers a local one there (`-R`). `ssh-standard` reads them the other way round.
 */
export function forwardOf(direction: Direction, mode: DirectionMode, local: Endpoint, remote: Endpoint): Forward {
  const listensHere = (direction === 'remote_to_local') === (mode === 'default');
  return listensHere
    ? { side: 'local', listen: local, target: remote }
    : { side: 'remote', listen: remote, target: local };
}

/**
 * `-o` names that a configuration may set. What runs a program, brings in another configuration or moves the listener is
 * not here.
 */
export const allowedSshOptions: readonly string[] = [
  'AddressFamily',
  'BindAddress',
  'BindInterface',
  'CASignatureAlgorithms',
  'CertificateFile',
  'Ciphers',
  'Compression',
  'ConnectTimeout',
  'ConnectionAttempts',
  'GSSAPIAuthentication',
  'HostKeyAlgorithms',
  'HostKeyAlias',
  'HostName',
  'IPQoS',
  'IdentitiesOnly',
  'IdentityAgent',
  'KexAlgorithms',
  'MACs',
  'NumberOfPasswordPrompts',
  'Port',
  'PreferredAuthentications',
  'PubkeyAcceptedAlgorithms',
  'PubkeyAuthentication',
  'RekeyLimit',
  'RequiredRSASize',
  'ServerAliveCountMax',
  'ServerAliveInterval',
  'StrictHostKeyChecking',
  'TCPKeepAlive',
  'User',
  'UserKnownHostsFile',
  'VerifyHostKeyDNS',
];

/** Those of them that name a file: a key's certificate, an agent's socket, and what a host key is written into. */
export const fileSshOptions: readonly string[] = ['CertificateFile', 'IdentityAgent', 'UserKnownHostsFile'];

/** The line that begins a tunnel's log: `(remote to local): localhost:9443 <- cloud.kor1:9443`, addresses as configured. */
export function describeSpec(spec: TunnelSpec): string {
  const local = spec.localPort.includes(':') ? spec.localPort : `localhost:${spec.localPort}`;
  const remote = `${spec.remoteHost}:${spec.remotePort}`;
  return spec.direction === 'remote_to_local'
    ? `(remote to local): ${local} <- ${remote}`
    : `(local to remote): ${local} -> ${remote}`;
}

/**
 * What tells one SSH server from another, as far as a configuration says it: another sshd on the same machine is
 * another server, another login there is not. Behind another jump host the same address may be another machine.
 */
export function serverOf({
  remoteHost,
  sshOptions,
  jump,
}: Pick<TunnelSpec, 'remoteHost' | 'sshOptions' | 'jump'>): string {
  const host = sshOptions.HostName ?? hostOf(remoteHost);
  const server = sshOptions.Port === undefined ? host.toLowerCase() : `${host.toLowerCase()} ${sshOptions.Port}`;
  return jump.length === 0 ? server : `${server} via ${jump.map(formatHop).join()}`;
}

/** The server that is connected to from here, and that all these connections come to: the first one on the way. */
export function entryOf(spec: Pick<TunnelSpec, 'remoteHost' | 'sshOptions' | 'jump'>): string {
  const [first] = spec.jump;
  if (!first) return serverOf(spec);
  const host = hostOf(first.destination).toLowerCase();
  return first.port === null ? host : `${host} ${first.port}`;
}

/** What decides where a spec's connection goes and how it logs in: those of one such text can have one connection. */
export function connectionOf(spec: TunnelSpec): string {
  const { remoteHost, sshConfig, identityFile, sshOptions, jump, interactive, check } = spec;
  return JSON.stringify([remoteHost, sshConfig, identityFile, sshOptions, jump, interactive, check !== null]);
}

function hostOf(destination: string): string {
  return destination.slice(destination.lastIndexOf('@') + 1);
}

/**
 * Two specs that ask for the same thing, in whatever order: nothing has to be restarted when one replaces the other. How
 * it is grouped, and whether it starts by itself, is not what it is; nor, of one that is interactive, is what concerns its
 * next start alone: that takes a person, who would have to log in again for nothing.
 */
export function isSameSpec(one: TunnelSpec, other: TunnelSpec): boolean {
  const { groups, enabled, takeover, startTimeoutMs, restartTimeoutMs, backoff, authRetry } = one;
  const ofNextStart = one.interactive ? { takeover, startTimeoutMs, restartTimeoutMs, backoff, authRetry } : {};
  return isDeepStrictEqual(one, { ...other, groups, enabled, ...ofNextStart });
}
