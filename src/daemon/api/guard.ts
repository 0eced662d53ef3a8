import type { IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import net from 'node:net';
import { TunwardError } from '../../errors.js';
import type { Access, Scope } from './route.js';
import type { Failures, Sessions, Tokens } from './tokens.js';
import { asksForWebSocket } from './upgrade.js';

/** Throws why a request is not answered. */
export interface Guard {
  /** Is it this host that is meant, and is the page that asks, if one does, of this host? Before there is a route. */
  readonly checkHost: (request: IncomingMessage) => void;
  /** Who asks, and whether he may. */
  readonly identify: (request: IncomingMessage, scope: Scope) => Access | null;
}

/** A head that says a thing twice says two things: which of them somebody on the way has believed is anybody's guess. */
const single = new Set([
  ...['host', 'origin', 'authorization', 'cookie', 'content-type', 'content-length', 'if-match'],
  ...['upgrade', 'sec-websocket-key', 'sec-websocket-version'],
]);

/** More than any client sends. What is above the server's own limit Node drops without a word, an Origin perhaps. */
export const MAX_HEADERS = 200;

/**
 * What holds for every request at any door: a plain path, one Host, nothing said twice. Before anything else looks at
 * it, the router included.
 *
 * @throws TunwardError ERR_BAD_REQUEST
 */
export function checkHead({ url = '', rawHeaders, headers }: IncomingMessage): void {
  if (!/^\/(?!\/)[!-~]*$/.test(url)) {
    throw bad(`Expected a path that begins with one slash, of printable ASCII, found '${url.slice(0, 80)}'`);
  }
  if (headers.host === undefined) throw bad('Expected a header Host, found none');
  if (rawHeaders.length > 2 * MAX_HEADERS) throw bad(`Expected at most ${MAX_HEADERS} headers, found more`);
  const seen = new Set<string>();
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = (rawHeaders[at] ?? '').toLowerCase();
    if (single.has(name) && seen.has(name)) throw bad(`Expected one header ${name}, found two`);
    seen.add(name);
  }
}

/**
 * At the unix socket its file says who may. But somebody may have put it on a port (`ssh -L 7420:/run/tunward/…`), where
 * pages in a browser reach it: so the host must be this one by name, and the page its own.
 */
export function createSocketGuard(): Guard {
  return {
    checkHost: (request) => {
      const { host = '' } = request.headers;
      if (!/^(localhost|127\.0\.0\.1|\[::1\]|tunward)(:\d{1,5})?$/.test(host)) throw misdirected(host);
      checkOrigin(request, host);
    },
    identify: () => ({ rights: 'all', via: 'socket' }),
  };
}

export interface TcpGuardOptions {
  readonly tokens: Tokens;
  readonly sessions: Sessions;
  readonly failures: Failures;
  /** What it is called by those who come in through something in between: `tunnels.example`, `tunnels.example:8443`. */
  readonly hosts: readonly string[];
  /** Where it listens, once it does. */
  readonly address: () => AddressInfo;
}

/** On TCP: this very host, a page of ours or none, and the bearer of a token or of a session. */
export function createTcpGuard({ tokens, sessions, failures, hosts, address }: TcpGuardOptions): Guard {
  return { checkHost, identify };

  function checkHost(request: IncomingMessage): void {
    const { host = '' } = request.headers;
    const name = host.toLowerCase();
    if (!ownHosts(request, address()).includes(name) && !hosts.includes(name)) throw misdirected(host);
    checkOrigin(request, host);
  }

  function identify(request: IncomingMessage, scope: Scope): Access | null {
    if (scope === 'open') return null;
    const access = readAccess(request);
    if (scope === 'act' && access.rights !== 'all') {
      throw new TunwardError('ERR_FORBIDDEN', 'This token is for looking only: its scope is read', {});
    }
    return access;
  }

  function readAccess(request: IncomingMessage): Access {
    const { authorization, cookie } = request.headers;
    if (authorization === undefined) {
      const rights = sessions.rightsOf(sessionOf(cookie, address().port) ?? '');
      if (rights === undefined) throw unauthorized('Expected a bearer token, found none');
      checkPage(request);
      return { rights, via: 'cookie' };
    }
    refuseIfTooMany(failures, request);
    const token = /^Bearer +(\S+)$/i.exec(authorization)?.[1];
    const rights = token === undefined ? undefined : tokens.rightsOf(token);
    if (rights !== undefined) return { rights, via: 'token' };
    failures.note(request.socket.remoteAddress);
    throw unauthorized('Expected a bearer token of this daemon, found another text');
  }
}

/** @throws TunwardError ERR_TOO_MANY_REQUESTS: this address has been wrong too often; the right one waits as well. */
export function refuseIfTooMany(failures: Failures, { socket }: IncomingMessage): void {
  const waitMs = failures.waitOf(socket.remoteAddress);
  if (waitMs <= 0) return;
  const retryAfterS = Math.ceil(waitMs / 1000);
  const message = `Too many wrong tokens came from this address: try again in ${retryAfterS} s`;
  throw new TunwardError('ERR_TOO_MANY_REQUESTS', message, { retryAfterS });
}

/** The cookies of a host are for all its ports: the port is in the name. */
export function cookieName(port: number): string {
  return `tunward_${port}`;
}

export function sessionOf(cookie: string | undefined, port: number): string | undefined {
  const pairs = (cookie ?? '').split(';').map((pair) => pair.trim().split('='));
  return pairs.find(([name]) => name === cookieName(port))?.[1];
}

/** A browser sends a cookie for whatever page: only one of ours may have asked for this. */
function checkPage(request: IncomingMessage): void {
  const site = request.headers['sec-fetch-site'];
  const isOurs = site === undefined || site === 'same-origin' || site === 'none';
  // Every browser says where a request that may change something comes from, and always where a WebSocket is wanted.
  const isHarmless = (request.method === 'GET' || request.method === 'HEAD') && !asksForWebSocket(request);
  if (!isOurs || !(isHarmless || request.headers.origin !== undefined)) throw foreign();
}

/** An origin leaves its usual port out, and is lower case; a Host that a proxy has written need not be so. */
function checkOrigin({ headers: { origin } }: IncomingMessage, host: string): void {
  const name = host.toLowerCase();
  const own = [`http://${name.replace(/:80$/, '')}`, `https://${name.replace(/:443$/, '')}`];
  if (origin !== undefined && !own.includes(origin)) throw foreign();
}

/**
 * What this listener is called without a name service, which may be lied to: its address, the one that this connection
 * came to, and the names of the loopback interface.
 */
function ownHosts({ socket }: IncomingMessage, { address, port }: AddressInfo): string[] {
  const names = ['127.0.0.1', '[::1]', 'localhost', bracket(address), bracket(socket.localAddress ?? address)];
  return names.flatMap((name) => (port === 80 ? [name, `${name}:80`] : [`${name}:${port}`]));
}

function bracket(address: string): string {
  const plain = address.replace(/^::ffff:(?=\d+\.)/, '');
  return net.isIPv6(plain) ? `[${plain}]` : plain;
}

function misdirected(host: string): TunwardError {
  const message = `This daemon does not answer for the host '${host.slice(0, 80)}': name it in api.hosts, if it is to`;
  return new TunwardError('ERR_MISDIRECTED', message, {});
}

function foreign(): TunwardError {
  return new TunwardError('ERR_FORBIDDEN', 'This daemon does not answer to pages of other origins', {});
}

function unauthorized(what: string): TunwardError {
  return new TunwardError('ERR_UNAUTHORIZED', `${what}: it stands in the file that api.token_file names`, {});
}

function bad(message: string): TunwardError {
  return new TunwardError('ERR_BAD_REQUEST', message, {});
}
