import { lookup } from 'node:dns/promises';
import net from 'node:net';
import type { Duplex } from 'node:stream';
import type { Channel, NegotiatedAlgorithms, TcpConnectionDetails } from 'ssh2';
import type { Clock } from '../../time.js';
import { until } from '../../time.js';
import type { LinkExit } from '../engine.js';
import type { ClientAddress, Remote } from '../front/carrier.js';
import type { Endpoint } from '../spec.js';
import { type Algorithms, chooseAlgorithms, findMismatch } from './algorithms.js';
import { guardChannel } from './breach.js';
import { joinChannel } from './channel.js';
import type { HostFacts } from './facts.js';
import { createGreeting } from './greeting.js';
import { checkHostKey, knownNameOf, readHostKey } from './host-key.js';
import type { KnownHosts } from './known-hosts.js';
import { createLogin } from './login.js';
import type { Questions } from './questions.js';
import type { Ssh2 } from './ssh2.js';
import { ConnectionError, explainConnect, nameServer } from './trouble.js';

/** One connection to one server, logged in. */
export interface Connection {
  isAlive(): boolean;
  /** Resolves once, when it is there no more, with why. Never rejects. */
  readonly ended: Promise<LinkExit>;
  /**
   * Has the server connect to a target, of whom it is told that `client` asks. The stream is destroyed with an error when
   * the connection breaks off.
   *
   * @throws ConnectionError `target_refused` with the server's words, or why the connection is over; the signal's reason.
   */
  open(client: ClientAddress, target: Endpoint, signal: AbortSignal): Promise<Remote>;
  /**
   * Has the server listen; resolves to the port, which it chooses where `port` is 0. Who connects there is handed in.
   *
   * @throws ConnectionError `remote_port_busy`, or why the connection is over.
   */
  listen(host: string, port: number, onIncoming: (incoming: Incoming) => void): Promise<number>;
  /** The server listens there no more. Never rejects; bounded. */
  unlisten(host: string, port: number): Promise<void>;
  /** Ends it; resolves when its socket is gone. Bounded; idempotent. */
  close(): Promise<void>;
}

/** Somebody who has connected to a port that a server listens on. */
export interface Incoming {
  accept(): Remote;
  reject(): void;
}

export interface ConnectionOptions {
  readonly ssh2: Ssh2;
  readonly facts: HostFacts;
  readonly known: KnownHosts;
  readonly questions: Questions | undefined;
  readonly clock: Clock;
  /** A line that the server has said to whoever logs in. */
  readonly say: (line: string) => void;
  /** Makes what it goes through, within `timeoutMs`: a socket, or a channel of the connection before it. */
  readonly reach: (options: { readonly signal: AbortSignal; readonly timeoutMs: number }) => Promise<Wire>;
  readonly signal: AbortSignal;
}

/** What a connection goes through. */
export interface Wire extends Duplex {
  /** Whether nothing of what 'data' brings is kept by who listens, beyond the event: then one buffer is read into again and again. */
  reuse?(isAllowed: boolean): void;
}

/** What is read at once from a server: little, until there has been more. */
const FIRST_READ = 16_384;
const FULL_READ = 262_144;
/** How long a server may take to hang up when it has been told goodbye. */
const FAREWELL_MS = 500;
/** What waits to be sent on one connection; who has more to say waits. */
const MOST_UNSENT = 1024 * 1024;
/** After so many failed logins sshd (9.8 and later, PerSourcePenalties) turns an address away for at least that long. */
const PENALTY_MS = 30_000;
/** "As long as the system has it": Linux gives a connection up after two minutes. */
const SYSTEM_MS = 130_000;
/** Pings are ssh2's, and whether they are heard is counted here. */
const NEVER = 2 ** 31;

/**
 * Goes to a server, checks that it is the one, and logs in. `connectTimeoutMs` is for all of it up to the first question to
 * a person, and then for what follows each answer.
 *
 * @throws ConnectionError; TunwardError ERR_SPAWN_FAILED `{reason: 'bad_spec'}`; the signal's reason.
 */
export async function openConnection(options: ConnectionOptions): Promise<Connection> {
  const { ssh2, facts, known, questions, clock, say, reach, signal } = options;
  const { host, port } = knownNameOf(facts);
  const algorithms = chooseAlgorithms(facts, known.typesOf(host, port));
  const server = nameServer(facts);
  /** Ends whatever waits here: it has failed, or was closed. */
  const over = new AbortController();
  let failure: Error | undefined;
  let phase: 'connect' | 'version' | 'keys' | 'login' | 'up' = 'connect';
  let stream: Wire | undefined;
  let isClosing = false;
  /** The server's key, once it is known to be the right one. */
  let accepted: Buffer | undefined;
  /** A new exchange of keys is under way; aborted when it is over. */
  let exchange: AbortController | undefined;
  let onReady: () => void = () => undefined;
  let onFailure: (error: Error) => void = () => undefined;
  let tellEnd: (exit: LinkExit) => void = () => undefined;
  const ended = new Promise<LinkExit>((resolve) => {
    tellEnd = (exit) => resolve(exit);
  });
  const streams = new Set<Duplex>();
  const waiting: (() => void)[] = [];
  const incoming = new Map<string, (incoming: Incoming) => void>();
  const greeting = createGreeting();
  const client = new ssh2.Client();
  const login = createLogin({ ssh2, facts, questions, onFailed: fail });
  const abort = () => fail(signal.reason instanceof Error ? signal.reason : new Error('called off'));
  signal.throwIfAborted();
  signal.addEventListener('abort', abort, { once: true });
  try {
    void watchDeadline();
    stream = await reach({ signal: over.signal, timeoutMs: facts.connectTimeoutMs || SYSTEM_MS });
    if (failure) throw failure;
    phase = 'version';
    await new Promise<void>((resolve, reject) => {
      onReady = () => resolve();
      onFailure = (error) => reject(error);
      if (stream) begin(stream);
    });
  } catch (error) {
    fail(error instanceof Error ? error : new Error(String(error)));
    // It may have come about in the very turn in which the time was over.
    stream?.destroy();
    await gone();
    throw failure ?? error;
  } finally {
    signal.removeEventListener('abort', abort);
  }
  if (facts.aliveIntervalMs > 0) void keepAlive(facts.aliveIntervalMs, Math.max(1, facts.aliveCountMax));
  return { isAlive: () => phase === 'up' && !failure && !isClosing, ended, open, listen, unlisten, close };

  /** The first failure is the one that counts. Nothing is left of it afterwards. */
  function fail(error: Error): void {
    if (failure) return;
    failure = error;
    over.abort(error);
    exchange?.abort();
    login.close();
    for (const each of streams) each.destroy(error);
    for (const done of waiting.splice(0)) done();
    stream?.destroy();
    onFailure(error);
    tellEnd(error instanceof ConnectionError ? error.exit : exitOf(error));
  }

  function begin(wire: Wire): void {
    const listenIn = (chunk: Buffer) => {
      if (!greeting.take(chunk)) wire.off('data', listenIn);
      if (phase === 'version' && greeting.hasVersion()) phase = 'keys';
    };
    client
      .on('error', (error) => {
        // One way to log in less; the next one is tried.
        if ('level' in error && (error.level === 'agent' || error.level === 'client-authentication')) return;
        fail(explain(error));
      })
      .on('banner', (text) => say(text))
      .on('change password', () => fail(login.explain('the password has expired, and is to be changed there first')))
      .on('tcp connection', onIncoming)
      .on('handshake', ({ sc }: NegotiatedAlgorithms) => {
        // Of these ssh2 copies what it needs later; chacha20-poly1305 waits with a view of the packet for the end of its MAC.
        wire.reuse?.(/^aes\d+-(gcm|ctr)/.test(sc.cipher));
        exchange?.abort();
        exchange = undefined;
        release();
      })
      .once('handshake', () => {
        // Not before: what comes is then taken by ssh2 first. Nobody but the server begins a new exchange.
        wire.on('data', () => {
          if (phase === 'up' && !failure && !exchange && isExchanging(client)) void watchExchange();
        });
      })
      .once('ready', () => {
        phase = 'up';
        onReady();
      });
    wire
      .on('drain', release)
      .on('error', (error) => fail(explain(error)))
      .once('close', () => fail(explain()));
    client.connect({
      sock: wire as net.Socket,
      username: facts.user,
      readyTimeout: 0,
      keepaliveInterval: facts.aliveIntervalMs,
      keepaliveCountMax: NEVER,
      algorithms: toSsh2(algorithms, facts),
      authHandler: login.authHandler,
      hostVerifier: verify,
    } as Parameters<typeof client.connect>[0]);
    wire.on('data', listenIn);
  }

  /** Asked at every exchange of keys: the first time it is looked up, and from then on it must stay the same. */
  function verify(blob: Buffer, answer: (isRight: boolean) => void): void {
    if (accepted) return answer(accepted.equals(blob));
    const key = readHostKey(Buffer.from(blob));
    checkHostKey(key, { facts, known, questions }).then(
      (write) => {
        if (failure) return;
        accepted = key.blob;
        client.once('handshake', () => {
          phase = 'login';
          try {
            write();
          } catch (error) {
            if (error instanceof ConnectionError) fail(error);
            else say(error instanceof Error ? error.message : String(error));
          }
        });
        answer(true);
      },
      (error: Error) => {
        fail(error);
        answer(false);
      },
    );
  }

  /** What has gone wrong, by how far it had come. */
  function explain(error?: Error & { readonly code?: unknown; readonly level?: unknown }): Error {
    if (failure) return failure;
    // Of the host before it on the way.
    if (error instanceof ConnectionError) return error;
    const ofServer = error && typeof error.code === 'number' ? error : undefined;
    const isReset = error !== undefined && ['ECONNRESET', 'EPIPE'].includes(String(error.code));
    const ending = ofServer
      ? `Received disconnect from ${server}: ${ofServer.message}`
      : `Connection ${isReset ? 'reset' : 'closed'} by ${server}`;
    if (phase === 'up') {
      if (String(error?.code) === 'ETIMEDOUT') return new ConnectionError('timeout', `${server} is not responding`);
      const isProtocol = error?.level === 'protocol' || error?.level === 'handshake';
      return new ConnectionError('exited', isProtocol ? `${server}: ${error?.message}` : ending);
    }
    if (phase === 'login') {
      if (ofServer && /authentication failures|auth/i.test(ofServer.message)) return login.explain(ofServer.message);
      return new ConnectionError('refused', `${ending}, at the login`);
    }
    const offer = greeting.offer();
    const mismatch = offer && findMismatch(facts, algorithms, offer);
    if (mismatch && /no matching/i.test(error?.message ?? '')) {
      const sentence = `Unable to negotiate with ${server}: ${mismatch.sentence}`;
      return new ConnectionError(mismatch.isConfigured ? 'bad_spec' : 'refused', sentence);
    }
    if (phase === 'keys') {
      const why = error && !ofServer && !isReset ? `: ${error.message}` : '';
      return new ConnectionError('refused', `${ending}, in the middle of the key exchange${why}`);
    }
    return explainSilence(ending, error);
  }

  /** It has not even said who it is. */
  function explainSilence(ending: string, error?: Error): Error {
    const [first] = greeting.preamble();
    if (first === undefined) return new ConnectionError('refused', `${ending}, before it said anything`);
    const said = first.slice(0, 100);
    if (/^Not allowed at this time/i.test(said)) {
      const sentence = `${ending}; the server says: Not allowed at this time`;
      return new ConnectionError('refused', sentence, { retryAfterMs: PENALTY_MS });
    }
    if (/^Exceeded MaxStartups/i.test(said)) {
      return new ConnectionError('refused', `${ending}; the server says: Exceeded MaxStartups`);
    }
    const isEnd = error === undefined || /^(read|write) |before handshake/.test(error.message);
    const what = isEnd ? ending : `${server} does not speak SSH`;
    return new ConnectionError('refused', `${what}; it says: ${said}`);
  }

  async function watchDeadline(): Promise<void> {
    const timeoutMs = facts.connectTimeoutMs || SYSTEM_MS;
    const began = clock.now();
    for (let leftMs = timeoutMs; leftMs > 0 && phase !== 'up'; ) {
      await clock.sleep(leftMs, over.signal).catch(() => undefined); // it has failed before that
      if (failure) return;
      leftMs = Math.max(began, questions?.openUntil() ?? began) + timeoutMs - clock.now();
    }
    if (phase === 'up') return;
    const late: Readonly<Record<Exclude<typeof phase, 'up'>, string>> = {
      connect: `connect to host ${server}: Connection timed out`,
      version: `${server} is connected, and timed out: it did not say within ${timeoutMs} ms that it speaks SSH`,
      keys: `${server}: the key exchange timed out after ${timeoutMs} ms`,
      login: `${server}: the login timed out after ${timeoutMs} ms`,
    };
    fail(new ConnectionError('timeout', late[phase]));
  }

  /**
   * The keys are to be exchanged within the time that a connection may take, counted from when all is sent that was to be
   * sent before it: a slow line is given that. To the keepalive any byte is a sign of life, also of a server that never ends it.
   */
  async function watchExchange(): Promise<void> {
    exchange = new AbortController();
    const { signal: done } = exchange;
    const timeoutMs = facts.connectTimeoutMs || SYSTEM_MS;
    for (let before = Infinity; ; ) {
      await clock.sleep(timeoutMs, done).catch(() => undefined); // it is over before that
      if (done.aborted) return;
      const unsent = stream?.writableLength ?? 0;
      if (unsent === 0 || unsent >= before) break;
      before = unsent;
    }
    fail(new ConnectionError('timeout', `${server}: a new key exchange timed out after ${timeoutMs} ms`));
  }

  /** ssh2 asks the server for a sign of life; anything that comes from it is one, as for ssh. */
  async function keepAlive(everyMs: number, countMax: number): Promise<void> {
    let heard = 0;
    stream?.on('data', () => {
      heard++;
    });
    for (let silent = 0, seen = 0; ; ) {
      const isOver = await clock.sleep(everyMs, over.signal).then(
        () => false,
        () => true,
      );
      if (isOver) return;
      silent = heard === seen ? silent + 1 : 0;
      seen = heard;
      if (silent > countMax) return fail(new ConnectionError('timeout', `Timeout, server ${server} not responding.`));
    }
  }

  function whenRoom(done: () => void): void {
    if (hasRoom()) done();
    else waiting.push(done);
  }

  function together(send: () => void): void {
    stream?.cork();
    try {
      send();
    } finally {
      stream?.uncork();
    }
  }

  function hasRoom(): boolean {
    if (!stream || failure) return true;
    return stream.writableLength < MOST_UNSENT && !isExchanging(client);
  }

  function release(): void {
    // If there is none yet: 'drain' or the end of the exchange comes later.
    if (hasRoom()) for (const done of waiting.splice(0)) done();
  }

  function join(channel: Channel): Remote {
    guardChannel(channel, (what) => fail(new ConnectionError('exited', `${server} ${what}: it is left`)));
    const joined = joinChannel(channel, { whenRoom, together });
    streams.add(joined);
    joined.once('close', () => streams.delete(joined));
    return joined;
  }

  function open({ address, port: from }: ClientAddress, target: Endpoint, asked: AbortSignal): Promise<Remote> {
    return new Promise((resolve, reject) => {
      asked.throwIfAborted();
      requireConnection();
      const leave = () => reject(asked.reason);
      asked.addEventListener('abort', leave, { once: true });
      client.forwardOut(address, from, target.host, target.port, (error, channel) => {
        asked.removeEventListener('abort', leave);
        if (error) return reject(failure ?? explainRefusal(error));
        const joined = join(channel);
        if (!asked.aborted && !failure) return resolve(joined);
        joined.destroy();
        reject(failure ?? asked.reason);
      });
    });
  }

  /** Its end may be known below, and not have been told here yet: ssh2 throws then. */
  function requireConnection(): void {
    if (!failure && !stream?.writable) fail(explain());
    if (failure) throw failure;
  }

  function listen(bindHost: string, bindPort: number, onOne: (incoming: Incoming) => void): Promise<number> {
    return new Promise((resolve, reject) => {
      requireConnection();
      const address = onTheWire(bindHost);
      client.forwardIn(address, bindPort, (error, chosen) => {
        if (error) {
          const sentence = `remote port forwarding failed for listen port ${bindPort}`;
          return reject(failure ?? new ConnectionError('remote_port_busy', sentence));
        }
        incoming.set(`${address}:${chosen}`, onOne);
        resolve(chosen);
      });
    });
  }

  async function unlisten(bindHost: string, bindPort: number): Promise<void> {
    const address = onTheWire(bindHost);
    incoming.delete(`${address}:${bindPort}`);
    if (failure || isClosing || !stream?.writable) return;
    let isDone = false;
    client.unforwardIn(address, bindPort, () => {
      isDone = true;
    });
    await until(() => isDone || failure, { timeoutMs: FAREWELL_MS, clock });
  }

  function onIncoming({ destIP, destPort }: TcpConnectionDetails, accept: () => Channel, reject: () => void): void {
    const onOne = incoming.get(`${destIP}:${destPort}`);
    if (onOne) onOne({ accept: () => join(accept()), reject });
    else reject();
  }

  async function close(): Promise<void> {
    if (!failure && !isClosing) {
      isClosing = true;
      for (const each of streams) each.destroy(new ConnectionError('killed', 'the tunnel was stopped'));
      client.end();
      await until(() => stream?.closed, { timeoutMs: FAREWELL_MS, clock });
    }
    fail(new ConnectionError('killed', 'stopped'));
    await gone();
  }

  /** A socket that is destroyed is gone a turn later. */
  async function gone(): Promise<void> {
    await until(() => !stream || stream.closed, { timeoutMs: FAREWELL_MS, everyMs: 1, clock });
  }
}

/**
 * Are keys being exchanged? ssh2 keeps what is sent meanwhile in a list of its own, without a bound and without a word to
 * whoever sends: nothing but this field of its protocol, its own KEXINIT, tells.
 */
function isExchanging(client: object): boolean {
  const { _protocol: protocol } = client as { readonly _protocol?: { readonly _kexinit?: unknown } };
  return protocol?._kexinit !== undefined;
}

/** Every address of the far side is the empty one there (RFC 4254, section 7.1). */
function onTheWire(host: string): string {
  return host === '*' ? '' : host;
}

function exitOf(error: Error): LinkExit {
  return new ConnectionError('exited', error.message).exit;
}

/** RFC 4254, section 5.1, in ssh's words. */
const refusalsOfChannels: Readonly<Record<number, string>> = {
  1: 'administratively prohibited',
  2: 'connect failed',
  3: 'unknown channel type',
  4: 'resource shortage',
};

function explainRefusal(error: Error & { readonly reason?: unknown }): ConnectionError {
  const why = typeof error.reason === 'number' ? refusalsOfChannels[error.reason] : undefined;
  const said = error.message.replace(/^\(SSH\) Channel open failure: /, '').slice(0, 200);
  return new ConnectionError('target_refused', `open failed: ${why ?? 'refused'}: ${said}`);
}

function toSsh2({ kex, hostKey, cipher, mac }: Algorithms, { compression }: HostFacts) {
  const compress = compression ? ['zlib@openssh.com', 'none'] : ['none'];
  return { kex, serverHostKey: hostKey, cipher, hmac: mac, compress };
}

/** One address after another, as ssh does; the time that is left is shared among those that are left. */
export async function connectSocket(
  { host, port, family, bindAddress, tcpKeepAlive }: HostFacts,
  { signal, timeoutMs, clock }: { readonly signal: AbortSignal; readonly timeoutMs: number; readonly clock: Clock },
): Promise<net.Socket> {
  const deadline = clock.now() + timeoutMs;
  const server = { host, port };
  const addresses = await resolve(host, family, signal).catch((error: Error) => {
    signal.throwIfAborted();
    throw explainConnect(error, server);
  });
  let last: Error = new ConnectionError('unreachable', `Could not resolve hostname ${host}: it has no address`);
  for (const [at, address] of addresses.entries()) {
    const shareMs = (deadline - clock.now()) / (addresses.length - at);
    const socket = startSocket({ host: address, port, ...(bindAddress === null ? {} : { localAddress: bindAddress }) });
    try {
      await connected(socket, { signal, clock, timeoutMs: at === addresses.length - 1 ? Infinity : shareMs });
      return socket.setNoDelay(true).setKeepAlive(tcpKeepAlive);
    } catch (error) {
      socket.on('error', () => undefined).destroy();
      signal.throwIfAborted();
      last = explainConnect(error instanceof Error ? error : new Error(String(error)), server);
    }
  }
  throw last;
}

/**
 * Reads into one buffer again and again, and more at once than the 64 KB of a socket's own: more packets are whole in it, and
 * for those of each read there is one write. It comes paused, since nothing of it is kept for who listens later.
 */
function startSocket(to: net.TcpNetConnectOpts): Wire & net.Socket {
  let isKept = true;
  let buffer = Buffer.allocUnsafeSlow(FIRST_READ);
  let isFull = false;
  const onread = {
    // Asked after each read, for the next one.
    buffer: () => {
      if (isFull && buffer.length < FULL_READ) buffer = Buffer.allocUnsafeSlow(FULL_READ);
      return buffer;
    },
    callback: (length: number, chunk: Uint8Array) => {
      isFull = length === chunk.length;
      const piece = Buffer.from(chunk.buffer, chunk.byteOffset, length);
      socket.emit('data', isKept ? Buffer.from(piece) : piece);
      return true;
    },
  };
  const socket = Object.assign(net.connect({ ...to, onread }), {
    reuse(isAllowed: boolean) {
      isKept = !isAllowed;
      // The one so far may have been kept in part.
      buffer = Buffer.allocUnsafeSlow(FIRST_READ);
    },
  });
  socket.pause();
  return socket;
}

async function resolve(host: string, family: 0 | 4 | 6, signal: AbortSignal): Promise<string[]> {
  if (net.isIP(host) !== 0) return [host];
  const found = await unlessAborted(lookup(host, { all: true, family, verbatim: true }), signal);
  return found.map(({ address }) => address);
}

/** The last address may take what is left: whoever asked has the deadline. */
function connected(
  socket: net.Socket,
  { signal, timeoutMs, clock }: { readonly signal: AbortSignal; readonly timeoutMs: number; readonly clock: Clock },
): Promise<void> {
  const done = new AbortController();
  const settled = new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve).once('error', reject);
    const leave = () => reject(signal.reason);
    if (signal.aborted) leave();
    signal.addEventListener('abort', leave, { once: true, signal: done.signal });
    const late = () => reject(Object.assign(new Error('timed out'), { code: 'ETIMEDOUT' }));
    if (timeoutMs !== Infinity) clock.sleep(timeoutMs, done.signal).then(late, () => undefined); // it was in time
  });
  return settled.finally(() => done.abort());
}

/** The work's result, or the signal's reason as soon as it aborts; the work itself goes on to its own end. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const done = new AbortController();
  const settled = new Promise<T>((resolve, reject) => {
    const leave = () => reject(signal.reason);
    if (signal.aborted) leave();
    signal.addEventListener('abort', leave, { once: true, signal: done.signal });
    work.then(resolve, reject);
  });
  return settled.finally(() => done.abort());
}
