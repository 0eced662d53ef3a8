import http, { type IncomingMessage } from 'node:http';
import net from 'node:net';
import { errorCodes, isErrno, TunwardError } from '../errors.js';
import { systemClock } from '../time.js';
import { fromProblem, fromWire } from '../wire.js';

/** Where a daemon answers: its unix socket, or TCP for whoever bears the token. */
export type Address = { readonly socket: string } | { readonly url: string; readonly token: string };

/** The address in words. */
export function formatAddress(address: Address): string {
  return 'socket' in address ? address.socket : address.url;
}

export interface Question {
  readonly address: Address;
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly path: string;
  /** As it is on the wire: the names in some of its records are not ours to spell. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** One question, one answer: data in camelCase, or the error that was thrown on the other side. */
export async function ask<T>(question: Question): Promise<T> {
  const { status, text } = await bounded(question, async (signal) => {
    const response = await request(question, signal);
    return { status: response.statusCode ?? 0, text: await readAll(response) };
  });
  const body = parseJson(text, question);
  if (status >= 200 && status < 300) return fromWire(body) as T;
  throw refusalOf({ status, body }, question.address);
}

/** One act within its bound; what it throws, as a person should read it. */
export async function bounded<T>(question: Question, act: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const { timeoutMs, signal, address } = question;
  const late = new AbortController();
  const answered = new AbortController();
  const deadline = systemClock.sleep(timeoutMs, answered.signal).then(
    () => late.abort(),
    () => undefined, // answered in time
  );
  try {
    return await act(signal ? AbortSignal.any([signal, late.signal]) : late.signal);
  } catch (error) {
    signal?.throwIfAborted();
    if (!late.signal.aborted) throw await reasonFor(error, question);
    const message = `The daemon at ${formatAddress(address)} did not answer within ${timeoutMs} ms: tunward doctor looks at it`;
    throw new TunwardError('ERR_TIMEOUT', message, { timeoutMs }, { cause: error });
  } finally {
    answered.abort();
    await deadline;
  }
}

/** Begins an answer. */
export function request(
  { address, method, path, body, ...given }: Question,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const text = method === 'GET' ? undefined : JSON.stringify(body ?? {});
  const content = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text ?? '') };
  const headers = {
    accept: 'application/json',
    ...(text === undefined ? {} : content),
    ...('token' in address ? { authorization: `Bearer ${address.token}` } : {}),
    ...given.headers,
  };
  // No name of a server: for one that is not given Node takes the host apart, by the largest of its regular expressions.
  const options = { method, headers, signal, agent: false, servername: '' };
  return new Promise((resolve, reject) => {
    const asking =
      'socket' in address
        ? http.request({ ...options, socketPath: address.socket, path })
        : http.request(new URL(path, address.url), options);
    asking.once('error', reject).once('response', resolve).end(text);
  });
}

export async function readAll(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

/** What an answer that is none of success means. */
export function refusalOf({ status, body }: { status: number; body: unknown }, address: Address): Error {
  if (hasKnownCode(body)) return fromProblem(body, status);
  // Without a code it is no refusal but a fault of the other side: the caller did nothing wrong.
  return new Error(`The daemon at ${formatAddress(address)} failed: ${fromProblem(body, status).message}`);
}

/** What a failed exchange means for the person. */
async function reasonFor(error: unknown, { address }: Question): Promise<unknown> {
  const where = formatAddress(address);
  if (isErrno(error, 'ECONNREFUSED', 'ENOENT', 'ENOTSOCK', 'EHOSTUNREACH', 'ENETUNREACH', 'ENOTFOUND')) {
    return unreachable(`No daemon answers at ${where}: start it with tunward up`, error);
  }
  if (isErrno(error, 'ECONNRESET', 'EPIPE')) {
    if (await hangsUp(address)) {
      const why = 'it has no descriptor left (raise its ulimit -n), or too many clients';
      const message = `The daemon at ${where} is there, and hangs up on whoever asks: ${why}`;
      return new TunwardError('ERR_DAEMON_UNREACHABLE', message, { hangsUp: true }, { cause: error });
    }
    return unreachable(`The daemon at ${where} went away before it answered: its log says why`, error);
  }
  if (isErrno(error, 'EACCES', 'EPERM')) {
    const message = `The daemon's socket ${where} may not be used by this user: ask as the one that the daemon runs as`;
    return new TunwardError('ERR_ACCESS_DENIED', message, { path: where }, { cause: error });
  }
  return error instanceof Error && 'code' in error && String(error.code).startsWith('HPE_')
    ? notOurs(where, error)
    : error;
}

/** How long one that takes connections may take to end this one. */
const HANGUP_MS = 500;

/** Does somebody listen there who ends every connection at once? One that has ended lets nobody connect. */
async function hangsUp(address: Address): Promise<boolean> {
  const done = new AbortController();
  const caller = net.connect('socket' in address ? { path: address.socket } : endpointOf(address.url));
  let isConnected = false;
  const outcome = new Promise<boolean>((resolve) => {
    caller.once('connect', () => {
      isConnected = true;
    });
    // A reset may come before it is told that it was connected.
    caller.once('error', (error) => resolve(isErrno(error, 'ECONNRESET', 'EPIPE')));
    caller.resume().once('close', () => resolve(isConnected));
  });
  const late = systemClock.sleep(HANGUP_MS, done.signal).then(
    () => false,
    () => false, // called off: it was in time
  );
  try {
    return await Promise.race([outcome, late]);
  } finally {
    done.abort();
    caller.destroy();
  }
}

function endpointOf(url: string): net.TcpNetConnectOpts {
  const { hostname, port } = new URL(url);
  return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 80) };
}

export function parseJson(text: string, { address }: Question): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw notOurs(formatAddress(address), error);
  }
}

export function notOurs(where: string, cause?: unknown): TunwardError {
  return unreachable(`What answers at ${where} is no tunward daemon: name its socket with --socket or -c`, cause);
}

export function unreachable(message: string, cause?: unknown): TunwardError {
  return new TunwardError('ERR_DAEMON_UNREACHABLE', message, {}, { cause });
}

function hasKnownCode(body: unknown): boolean {
  if (typeof body !== 'object' || body === null || !('code' in body)) return false;
  return typeof body.code === 'string' && body.code in errorCodes;
}
