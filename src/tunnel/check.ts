import net from 'node:net';
import { Duplex } from 'node:stream';
import { isErrno } from '../errors.js';
import { readUnread } from '../proc/net.js';
import type { Proc } from '../proc/read.js';
import { type Clock, createSlice, growing, until } from '../time.js';
import type { Link, Reason } from './engine.js';
import type { Carrier } from './front/carrier.js';
import { type CheckOptions, type Endpoint, formatEndpoint, type TunnelSpec } from './spec.js';

/**
 * What a check has found. `ok`: bytes go through to the target. `target`: they go through, and the target is not well.
 * `silent`: nothing shows that they go through. `unasked`: this process could not even ask.
 */
export interface CheckOutcome {
  readonly verdict: 'ok' | 'target' | 'silent' | 'unasked';
  readonly reason: Reason | null;
  readonly detail: string | null;
}

export interface CheckContext {
  readonly check: CheckOptions;
  readonly link: Pick<Link, 'refusals' | 'carrier'>;
  readonly proc: Proc;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/**
 * Sends something from one end of a tunnel to the other, and says what became of it; bounded by `timeoutMs`. Through a
 * local forward it goes in where its users do. A remote forward listens far away, so its target is asked from here; that
 * the link itself lives is for ssh's own keepalive to say.
 *
 * @throws the signal's reason when it aborts.
 */
export function checkTarget({ forward }: TunnelSpec, context: CheckContext): Promise<CheckOutcome> {
  const { carrier } = context.link;
  if (forward.side === 'remote') return checkBeside(forward.target, context);
  return carrier
    ? checkBy(carrier, forward.target, context)
    : checkThrough(entryOf(forward.listen), forward.target, context);
}

const OK: CheckOutcome = { verdict: 'ok', reason: null, detail: null };

function unwell(detail: string | null, reason: Reason = 'target_refused'): CheckOutcome {
  return { verdict: 'target', reason, detail: detail ?? 'closed without an answer' };
}

function unasked(detail: string | null): CheckOutcome {
  return { verdict: 'unasked', reason: null, detail };
}

/**
 * Through a local forward. Without `http` no byte reaches the target: the connection is only closed on our side. ssh
 * reads that end when the server has confirmed the channel, which it does once the target has accepted and not before,
 * and the kernel's table shows whether it has been read: a round trip through all of it, whatever is spoken there.
 */
async function checkThrough(entry: Endpoint, target: Endpoint, context: CheckContext): Promise<CheckOutcome> {
  const { check, link, signal, clock } = context;
  const before = link.refusals().count;
  const hasRefused = () => link.refusals().count > before;
  const talk = await (check.http === null ? knock(entry, context) : ask(entry, target, context));
  if (talk.end === 'answered') return judge(talk.detail);
  if (talk.end === 'unasked') return unasked(talk.detail);
  if (talk.end === 'silent') return { verdict: 'silent', reason: 'timeout', detail: missed(target, check) };
  // Nobody listens at our own entrance: whoever looks after its sockets knows more of that.
  if (talk.end === 'refused') return { verdict: 'silent', reason: 'timeout', detail: talk.detail };
  // ssh's line about it comes by another way than the end of the connection.
  await until(hasRefused, { timeoutMs: LINE_MS, signal, clock });
  if (hasRefused()) return unwell(link.refusals().last ?? 'the far end refused the connection');
  return check.http === null ? OK : unwell(talk.detail);
}

/** How long ssh's line about a refused connection may come after the connection's end. */
const LINE_MS = 200;

/**
 * By whatever carries the connections of a front. That may know whether the target has accepted. Where it does not, a
 * connection that we end tells: most targets end it as well, and one that does not says nothing about the way to it.
 */
async function checkBy(carrier: Carrier, target: Endpoint, context: CheckContext): Promise<CheckOutcome> {
  const { check, link, signal, clock } = context;
  const before = link.refusals().count;
  const hasRefused = () => link.refusals().count > before;
  const opened = await openWithin(carrier, context);
  if (opened === undefined) return { verdict: 'silent', reason: 'timeout', detail: missed(target, check) };
  if (opened instanceof Error) {
    // The far end's words, as they are for a link without a front, and not a sentence about this tunnel around them.
    return hasRefused() ? unwell(link.refusals().last) : judgeFailure(opened);
  }
  try {
    if (check.http === null && carrier.isConfirming) return OK;
    const talk = await (check.http === null ? hearEnd(opened, context) : ask(opened, target, context));
    if (talk.end === 'answered') return judge(talk.detail);
    if (talk.end === 'unasked') return unasked(talk.detail);
    if (talk.end === 'silent')
      return unasked("the target ends no connection that we end: ask it by 'check: {http: …}'");
    await until(hasRefused, { timeoutMs: LINE_MS, signal, clock });
    if (hasRefused()) return unwell(link.refusals().last ?? 'the far end refused the connection');
    return check.http === null ? OK : unwell(talk.detail);
  } finally {
    opened.destroy();
  }
}

function judgeFailure(error: Error): CheckOutcome {
  return isErrno(error, ...ownTroubles) ? unasked(error.message) : unwell(error.message);
}

/** Who we are to a server that wants to know. */
const OURSELVES = { address: '127.0.0.1', port: 0 };

/** A connection; or why there is none, which is undefined when nothing was heard in time. */
async function openWithin(
  carrier: Carrier,
  { check, clock, signal }: CheckContext,
): Promise<Duplex | Error | undefined> {
  let outcome: Duplex | Error | undefined;
  const over = new AbortController();
  carrier.open(OURSELVES, over.signal).then(
    (stream) => {
      // It may be destroyed with an error at any time, which whoever uses it hears as well.
      stream.on('error', () => undefined);
      if (over.signal.aborted) stream.destroy();
      else outcome = stream;
    },
    (error: Error) => {
      outcome = error;
    },
  );
  try {
    await until(() => outcome, { timeoutMs: check.timeoutMs, everyMs: growing(50), signal, clock });
    return outcome;
  } finally {
    if (outcome === undefined) over.abort(new Error('Nobody waits for this connection any more'));
  }
}

/** Ends our side, and waits for the other one to end. */
async function hearEnd(stream: Duplex, { check, clock, signal }: CheckContext): Promise<Talk> {
  let talk: Talk | undefined;
  stream.once('data', () => {
    talk ??= { end: 'answered', detail: null };
  });
  for (const end of ['end', 'close']) {
    stream.once(end, () => {
      talk ??= { end: 'closed', detail: null };
    });
  }
  stream.resume().end();
  await until(() => talk, { timeoutMs: check.timeoutMs, everyMs: growing(50), signal, clock });
  return talk ?? { end: 'silent', detail: null };
}

async function checkBeside(target: Endpoint, context: CheckContext): Promise<CheckOutcome> {
  const { check } = context;
  const talk = await (check.http === null ? reach(target, context) : ask(target, target, context));
  if (talk.end === 'answered') return judge(talk.detail);
  if (talk.end === 'unasked') return unasked(talk.detail);
  return talk.end === 'silent' ? unwell(missed(target, check), 'timeout') : unwell(talk.detail);
}

function missed(target: Endpoint, { timeoutMs }: CheckOptions): string {
  return `nothing came back from ${formatEndpoint(target)} within ${timeoutMs} ms`;
}

function judge(complaint: string | null): CheckOutcome {
  return complaint === null ? OK : unwell(complaint);
}

/** Where the users of a local forward come in. */
function entryOf({ host, port }: Endpoint): Endpoint {
  if (host === 'localhost' || host === '*' || host === '0.0.0.0') return { host: '127.0.0.1', port };
  return { host: host === '::' ? '::1' : host, port };
}

/** How a conversation went. `detail`: what is wrong with an answer, or how it ended before there was one. */
interface Talk {
  readonly end: 'answered' | 'closed' | 'refused' | 'silent' | 'unasked';
  readonly detail: string | null;
}

/** Connects, closes its side, and waits until that has been read: see {@link checkThrough}. */
async function knock(to: Endpoint, context: CheckContext): Promise<Talk> {
  const { check, clock, signal } = context;
  let talk: Talk | undefined;
  const socket = net.connect({ ...to, allowHalfOpen: true });
  socket.once('connect', () => socket.end());
  socket.once('data', () => {
    talk ??= { end: 'answered', detail: null };
  });
  socket.once('end', () => {
    talk ??= { end: 'closed', detail: null };
  });
  socket.once('error', (error) => {
    talk ??= failureOf(error);
  });
  // Before our own end has come there (CLOSE_WAIT), nothing unread says nothing.
  const isRead = async () => talk !== undefined || (await hasRead(socket, to, { ...context, state: 'CLOSE_WAIT' }));
  try {
    const isOver = await until(isRead, { timeoutMs: check.timeoutMs, everyMs: growing(1000), signal, clock });
    return talk ?? { end: isOver ? 'answered' : 'silent', detail: null };
  } finally {
    socket.destroy();
  }
}

/** Connects: that a process of this side, or of its network, accepts is all there is to know. */
async function reach(to: Endpoint, { check, clock, signal }: CheckContext): Promise<Talk> {
  let talk: Talk | undefined;
  const socket = net.connect(to);
  socket.once('connect', () => {
    talk ??= { end: 'answered', detail: null };
  });
  socket.once('error', (error) => {
    talk ??= failureOf(error);
  });
  try {
    await until(() => talk, { timeoutMs: check.timeoutMs, everyMs: growing(50), signal, clock });
    return talk ?? { end: 'silent', detail: null };
  } finally {
    socket.destroy();
  }
}

/** One request for a path. Any answer below 400 is well. */
async function ask(to: Endpoint | Duplex, target: Endpoint, context: CheckContext): Promise<Talk> {
  const { check, clock, signal } = context;
  const { default: http } = await import('node:http');
  const path = check.http ?? '/';
  let talk: Talk | undefined;
  const headers = { host: formatEndpoint(target), 'user-agent': 'tunward', connection: 'close' };
  // An agent of its own would make the connection itself.
  const way = to instanceof Duplex ? { createConnection: () => to } : { ...to, agent: false as const };
  const request = http.request({ ...way, path, headers });
  // It comes paused.
  if (to instanceof Duplex) request.once('socket', () => to.resume());
  request.once('response', ({ statusCode = 0 }) => {
    talk ??= { end: 'answered', detail: statusCode < 400 ? null : `GET ${path} answers ${statusCode}` };
  });
  request.on('error', (error) => {
    talk ??= failureOf(error);
  });
  request.end();
  try {
    await until(() => talk, { timeoutMs: check.timeoutMs, everyMs: growing(50), signal, clock });
    if (talk) return talk;
    // ssh has taken the request, so the target has accepted it: it is the target that does not answer.
    const isTaken =
      to instanceof Duplex ||
      (request.socket && (await hasRead(request.socket, to, { ...context, state: 'ESTABLISHED' })));
    const detail = `GET ${path} is not answered within ${check.timeoutMs} ms`;
    return isTaken ? { end: 'answered', detail } : { end: 'silent', detail: null };
  } finally {
    request.destroy();
  }
}

/** Has the process at the other end, which is on this host, read all that has come to it in that state? */
async function hasRead(
  { localPort, remoteAddress }: net.Socket,
  to: Endpoint,
  { proc, signal, state }: CheckContext & { readonly state: string },
): Promise<boolean> {
  if (localPort === undefined || remoteAddress === undefined) return false;
  const protocol = net.isIPv6(remoteAddress) ? 'tcp6' : 'tcp';
  const unread = await readUnread(proc, { protocol, port: to.port, remotePort: localPort }, createSlice(signal));
  return unread?.state === state && unread.bytes === 0;
}

function failureOf(error: Error): Talk {
  if (isErrno(error, ...ownTroubles)) return { end: 'unasked', detail: error.message };
  if (isErrno(error, 'ECONNREFUSED')) return { end: 'refused', detail: error.message };
  const isNoHttp = 'code' in error && String(error.code).startsWith('HPE_');
  return isNoHttp
    ? { end: 'answered', detail: 'it answers, and not in HTTP' }
    : { end: 'closed', detail: error.message };
}

/** No descriptor, no port, no memory is left for a connection: that says nothing of the other end. */
const ownTroubles = ['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM', 'EAGAIN', 'EADDRNOTAVAIL'];
