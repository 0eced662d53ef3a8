/**
 * Everything that can have a port, one process each, as table 2.7 of what was measured lists them. In perl: Node always
 * sets SO_REUSEADDR, and takes ten times as long to start.
 */
import type { ChildProcess } from 'node:child_process';
import type { Reaper } from './reaper.js';
import { startScript } from './sockets.js';

export interface HolderOptions {
  readonly port: number;
  readonly address: string;
  readonly ipv6Only?: boolean;
  /** Sets SO_REUSEADDR before the bind: true as nearly every server does. */
  readonly reuseAddress?: boolean;
  /** Perl, once `$s` is bound. `listen($s, 5)` unless said otherwise. */
  readonly script?: string;
}

export type Held = ChildProcess & { readonly pid: number; readonly firstLine: string };

/** A process that has bound `address`, and does what `script` says before it is ready. */
export function startHolder(
  reaper: Reaper,
  { port, address, ipv6Only = false, reuseAddress = true, script = 'listen($s, 5) or die "listen: $!"' }: HolderOptions,
): Promise<Held> {
  const program = `use strict; use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6 IPV6_V6ONLY IPPROTO_IPV6); $| = 1;
    sub at { my ($address, $port) = @_; return $address =~ /:/
      ? pack_sockaddr_in6($port, inet_pton(AF_INET6, $address)) : sockaddr_in($port, inet_aton($address)) }
    sub newSocket { my ($address) = @_; socket(my $n, $address =~ /:/ ? PF_INET6 : PF_INET, SOCK_STREAM, 0) or die $!; $n }
    my $s = newSocket('${address}');
    ${reuseAddress ? 'setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1) or die $!;' : ''}
    ${address.includes(':') ? `setsockopt($s, IPPROTO_IPV6, IPV6_V6ONLY, ${ipv6Only ? 1 : 0}) or die $!;` : ''}
    bind($s, at('${address}', ${port})) or die "bind: $!";
    ${script}; print "ready\\n"; sleep 1 while 1`;
  return startScript(reaper, 'perl', ['-e', program]);
}

/** Bound to the port, and connected to another one. */
export function startOutgoing(
  reaper: Reaper,
  options: Omit<HolderOptions, 'script'> & { readonly to: number },
): Promise<Held> {
  return startHolder(reaper, {
    ...options,
    script: `connect($s, at('127.0.0.1', ${options.to})) or die "connect: $!"`,
  });
}

/** A connection whose own end has the port is over, and this process has ended it: TIME_WAIT for 60 s, and nobody's. */
export function startTimeWait(reaper: Reaper, options: Omit<HolderOptions, 'script'>): Promise<Held> {
  const script = `my $l = newSocket('127.0.0.1'); bind($l, at('127.0.0.1', 0)) or die $!; listen($l, 5) or die $!;
    connect($s, getsockname($l)) or die "connect: $!"; accept(my $a, $l) or die $!; close $s; sysread($a, my $b, 1); close $a`;
  return startHolder(reaper, { ...options, script });
}

/** A listener that has accepted a connection and closed: ESTABLISHED is left on its port, or TIME_WAIT when that ended too. */
export function startAccepted(
  reaper: Reaper,
  { left, ...options }: Omit<HolderOptions, 'script'> & { readonly left: 'ESTABLISHED' | 'TIME_WAIT' },
): Promise<Held> {
  const ended = left === 'TIME_WAIT' ? 'close $a; sysread($c, my $b, 1); close $c' : '1';
  const script = `listen($s, 5) or die $!; my $c = newSocket('127.0.0.1'); connect($c, at('127.0.0.1', ${options.port})) or die $!;
    accept(my $a, $s) or die $!; close $s; ${ended}`;
  return startHolder(reaper, { ...options, script });
}
