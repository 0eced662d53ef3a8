import http from 'node:http';
import { errorCodes, isErrno, TunwardError } from '../errors.js';
import type { PortReport } from '../port/inspect.js';
import { systemClock } from '../time.js';
import type { OperationResult, TunnelStatus } from '../tunnel/runner.js';
import { fromProblem, fromWire } from '../wire.js';

/** Where a daemon answers: its unix socket, or TCP for whoever bears the token. */
export type Address = { readonly socket: string } | { readonly url: string; readonly token: string };

export type Verb = 'start' | 'stop' | 'restart';

export interface TunnelLog {
  readonly id: string;
  readonly logFile: string | null;
  readonly lines: readonly string[];
}

/** An older daemon says no more than its status. */
export interface Health {
  readonly status: string;
  readonly pid?: number;
  readonly pid1?: boolean;
  readonly zombies?: number;
  readonly advice?: string;
}

/** The daemon's API, as functions. What the daemon throws is thrown here, with its code; see the issue for the shapes. */
export interface Client {
  readonly address: Address;
  tunnels(): Promise<readonly TunnelStatus[]>;
  tunnel(which: string): Promise<TunnelStatus>;
  operate(verb: Verb, which: string, options?: { force?: boolean }): Promise<OperationResult>;
  /** Who holds a port where the daemon is. */
  port(port: number, host: string): Promise<PortReport>;
  logs(which: string, lines: number): Promise<TunnelLog>;
  health(): Promise<Health>;
  /** Asks it to end; answers before it has. */
  shutdown(): Promise<{ readonly status: string; readonly pid: number }>;
}

export interface ClientOptions {
  readonly signal?: AbortSignal | undefined;
  /** The bound on a question. Default 10 s. */
  readonly timeoutMs?: number | undefined;
  /**
   * The bound on a start, a stop or a restart. The daemon answers each within the tunnel's restart_timeout_ms, so this
   * only has to be more than anybody configures. Default 10 minutes.
   */
  readonly operationTimeoutMs?: number | undefined;
}

/**
 * Speaks with a daemon. Every call has a deadline; nothing is kept open between two calls.
 *
 * @throws TunwardError whatever the daemon answered; ERR_DAEMON_UNREACHABLE when none does, ERR_ACCESS_DENIED when its
 *   socket belongs to another user, ERR_TIMEOUT when it says nothing in time; the signal's reason when it aborts
 */
export function createClient(address: Address, options: ClientOptions = {}): Client {
  const { signal, timeoutMs = 10_000, operationTimeoutMs = 600_000 } = options;
  const get = <T>(path: string) => call<T>({ address, method: 'GET', path, timeoutMs, signal });
  const post = <T>(path: string, ms: number) => call<T>({ address, method: 'POST', path, timeoutMs: ms, signal });
  const at = (which: string) => `/v1/tunnels/${encodeURIComponent(which)}`;
  return {
    address,
    tunnels: async () => (await get<{ tunnels: TunnelStatus[] }>('/v1/tunnels')).tunnels,
    tunnel: (which) => get(at(which)),
    operate: (verb, which, { force = false } = {}) =>
      post(`${at(which)}/${verb}${force ? '?force=true' : ''}`, operationTimeoutMs),
    port: (port, host) => get(`/v1/ports/${port}?host=${encodeURIComponent(host)}`),
    logs: (which, lines) => get(`${at(which)}/logs?lines=${lines}`),
    health: () => get('/health'),
    shutdown: () => post('/v1/shutdown', timeoutMs),
  };
}

/** The address in words. */
export function formatAddress(address: Address): string {
  return 'socket' in address ? address.socket : address.url;
}

interface Call {
  readonly address: Address;
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** One question, one answer: data in camelCase, or the error that was thrown on the other side. */
async function call<T>(question: Call): Promise<T> {
  const { status, text } = await bounded(question);
  const body = parseJson(text, question);
  if (status >= 200 && status < 300) return fromWire(body) as T;
  if (hasKnownCode(body)) throw fromProblem(body, status);
  // Without a code it is no refusal but a fault of the other side: the caller did nothing wrong.
  throw new Error(`The daemon at ${formatAddress(question.address)} failed: ${fromProblem(body, status).message}`);
}

async function bounded(question: Call): Promise<Answer> {
  const { timeoutMs, signal, address } = question;
  const late = new AbortController();
  const answered = new AbortController();
  const deadline = systemClock.sleep(timeoutMs, answered.signal).then(
    () => late.abort(),
    () => undefined, // answered in time
  );
  try {
    return await exchange(question, signal ? AbortSignal.any([signal, late.signal]) : late.signal);
  } catch (error) {
    signal?.throwIfAborted();
    if (!late.signal.aborted) throw reasonFor(error, question);
    const message = `The daemon at ${formatAddress(address)} did not answer within ${timeoutMs} ms`;
    throw new TunwardError('ERR_TIMEOUT', message, { timeoutMs }, { cause: error });
  } finally {
    answered.abort();
    await deadline;
  }
}

function exchange({ address, method, path }: Call, signal: AbortSignal): Promise<Answer> {
  const body = method === 'POST' ? '{}' : undefined;
  const headers = {
    accept: 'application/json',
    ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': body.length }),
    ...('token' in address ? { authorization: `Bearer ${address.token}` } : {}),
  };
  // No name of a server: for one that is not given Node takes the host apart, by the largest of its regular expressions.
  const options = { method, headers, signal, agent: false, servername: '' };
  return new Promise((resolve, reject) => {
    const request =
      'socket' in address
        ? http.request({ ...options, socketPath: address.socket, path })
        : http.request(new URL(path, address.url), options);
    request.once('error', reject);
    request.once('response', (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.once('error', reject);
      response.once('end', () =>
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }),
      );
    });
    request.end(body);
  });
}

/** What a failed exchange means for the person. */
function reasonFor(error: unknown, { address }: Call): unknown {
  const where = formatAddress(address);
  if (isErrno(error, 'ECONNREFUSED', 'ENOENT', 'ENOTSOCK', 'EHOSTUNREACH', 'ENETUNREACH', 'ENOTFOUND')) {
    return unreachable(`No daemon answers at ${where}: start it with tunward up`, error);
  }
  if (isErrno(error, 'ECONNRESET', 'EPIPE')) {
    return unreachable(`The daemon at ${where} went away before it answered`, error);
  }
  if (isErrno(error, 'EACCES', 'EPERM')) {
    const message = `The daemon's socket ${where} may not be used by this user: it belongs to the daemon's own`;
    return new TunwardError('ERR_ACCESS_DENIED', message, { path: where }, { cause: error });
  }
  return error instanceof Error && 'code' in error && String(error.code).startsWith('HPE_')
    ? notOurs(where, error)
    : error;
}

function parseJson(text: string, { address }: Call): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw notOurs(formatAddress(address), error);
  }
}

function notOurs(where: string, cause: unknown): TunwardError {
  return unreachable(`What answers at ${where} is no tunward daemon`, cause);
}

function unreachable(message: string, cause: unknown): TunwardError {
  return new TunwardError('ERR_DAEMON_UNREACHABLE', message, {}, { cause });
}

function hasKnownCode(body: unknown): boolean {
  if (typeof body !== 'object' || body === null || !('code' in body)) return false;
  return typeof body.code === 'string' && body.code in errorCodes;
}
