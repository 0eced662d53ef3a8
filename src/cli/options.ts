import { InvalidArgumentError } from 'commander';
import { assertPort, resolveHosts } from '../port/probe.js';
import { assertPid } from '../proc/pid.js';
import { parseForward } from '../tunnel/arguments.js';
import { type EngineChoice, type Forward, formatEndpoint, parseEndpoint } from '../tunnel/spec.js';

/*
 * What stands on the command line, as data. Everything wrong is a usage error here, before anything is done, so that a
 * TypeError later is a mistake of ours and not the person's.
 */

/** What makes a tunnel, by ssh's own letters and those of ours: as it was typed, and checked. */
export interface TunnelOptions {
  readonly sshConfig?: string;
  readonly identity?: string;
  readonly port?: string;
  readonly option?: Readonly<Record<string, string>>;
  readonly jump?: string;
  readonly engine?: EngineChoice;
  readonly seamless?: boolean;
}

/** A port, and the host it was named with: none is every address. */
export interface PortTarget {
  readonly port: number;
  readonly host: string | undefined;
}

/** `9443`, `127.0.0.1:9443`, `[::1]:9443`, `localhost:9443`, `*:9443`. */
export function parsePortTarget(text: string): PortTarget {
  if (/^\d+$/.test(text)) {
    const port = Number(text);
    asUsage(() => assertPort(port));
    return { port, host: undefined };
  }
  const endpoint = parseEndpoint(text);
  if (typeof endpoint === 'string') throw new InvalidArgumentError(capitalize(endpoint));
  asUsage(() => resolveHosts(endpoint.host));
  return endpoint;
}

/** For an argument that may be repeated. */
export function parsePortTargets(text: string, before: readonly PortTarget[] | undefined): PortTarget[] {
  return [...(before ?? []), parsePortTarget(text)];
}

export function parsePid(text: string): number {
  const pid = Number(text);
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('Expected a pid, which is a whole number above 0.');
  asUsage(() => assertPid(pid));
  return pid;
}

/** Whole milliseconds, at most a day. */
export function parseMs(text: string): number {
  const ms = Number(text);
  if (/^\d+$/.test(text) && ms <= 86_400_000) return ms;
  throw new InvalidArgumentError('Expected whole milliseconds, from 0 to 86400000.');
}

/** How many lines of a log: as many as the daemon hands out at once. */
export function parseLineCount(text: string): number {
  const count = Number(text);
  if (/^\d+$/.test(text) && count >= 1 && count <= 10_000) return count;
  throw new InvalidArgumentError('Expected a number from 1 to 10000.');
}

/** ssh's `[bind:]port:host:hostport`. */
export function parseForwardOption(side: Forward['side']): (text: string) => Forward {
  return (text) => {
    const forward = parseForward(side, text);
    if (!forward) throw new InvalidArgumentError('Expected [bind:]port:host:port, an IPv6 address in brackets.');
    for (const end of [forward.listen, forward.target]) {
      // As with ssh: port 0 of a -R lets the server choose.
      const isChosenThere = side === 'remote' && end === forward.listen;
      const endpoint = parseEndpoint(formatEndpoint(end), isChosenThere ? 0 : 1);
      if (typeof endpoint === 'string') throw new InvalidArgumentError(capitalize(endpoint));
    }
    return forward;
  };
}

/** A forward of ssh's as the keys of a tunnel, read as `direction_mode: default` has them. */
export function endsOf({ side, listen, target }: Forward) {
  // ssh's default for the listening end is written as tunward's: no host is both loopback addresses.
  const listening = listen.host === 'localhost' ? String(listen.port) : formatEndpoint(listen);
  const far = formatEndpoint(target);
  return side === 'local'
    ? { direction: 'remote_to_local' as const, localPort: listening, remotePort: far }
    : { direction: 'local_to_remote' as const, localPort: far, remotePort: listening };
}

/** ssh's `-o name=value`, repeatable. */
export function parseSshOption(text: string, before: Readonly<Record<string, string>> = {}): Record<string, string> {
  const [, name, value] = /^\s*([A-Za-z0-9]+)\s*[= ]\s*(.+)$/.exec(text) ?? [];
  if (name === undefined || value === undefined) throw new InvalidArgumentError('Expected name=value.');
  return { ...before, [name]: value };
}

export function parseSshPort(text: string): string {
  return String(parsePortTarget(text).port);
}

function asUsage(check: () => void): void {
  try {
    check();
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof RangeError)) throw error;
    throw new InvalidArgumentError(`${error.message}.`);
  }
}

function capitalize(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
