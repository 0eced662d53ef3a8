import { timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import type { Clock } from '../../time.js';
import { makeAskpassFolder, sweepAskpassFolders } from './askpass-folder.js';
import type { Prompt } from './person.js';
import { HEADER_BYTES, type Request } from './program.js';
import { putQuestion } from './prompt.js';
import { LONGEST_ANSWER, printableLines, readQuestion } from './question.js';

export interface AskpassOptions {
  /** Where its own folder is made, and where those that a killed process has left are removed. */
  readonly folder: string;
  /** Is asked one question at a time. When it throws, or takes too long, nobody is asked any more. */
  readonly ask: Prompt;
  readonly clock: Clock;
  /** How long one answer may take, in milliseconds. */
  readonly idleMs: number;
  /** Something is to be said, and no answer wanted: that a security key waits to be touched. Default: it is not said. */
  readonly tell?: ((text: string) => unknown) | undefined;
  /**
   * Nobody answers any more, and why: what `ask` has thrown, or TunwardError ERR_TIMEOUT. ssh goes on without an answer for a
   * while, and tries an empty password: whoever has started it may end it. Must not throw.
   */
  readonly onGivenUp?: ((reason: unknown) => void) | undefined;
}

/** Asks for ssh what it wants to know. */
export interface Askpass {
  /** What ssh is to have in its environment. */
  readonly env: Record<string, string>;
  /** Whoever is asked just now need not answer any more; no ssh gets an answer; nothing of it is left on disk. Never rejects. */
  close(): Promise<void>;
}

/** A line of JSON may write a character of the question as six. */
const LONGEST_LINE = 65_536;
/** More than the hosts of a way can ask at a time. */
const MOST_AT_ONCE = 16;
/** The program has its question at hand when it connects. */
const HELLO_MS = 10_000;

/**
 * Lets somebody answer what ssh asks, without a terminal: ssh runs a program of ours for each question (SSH_ASKPASS), which
 * asks here through a unix socket that only this user can reach, and that only knows the program that was made for it.
 *
 * @throws TunwardError ERR_SPAWN_FAILED, ERR_ACCESS_DENIED where such a program cannot be made or run.
 * @example
 * const askpass = await openAskpass({ folder: os.tmpdir(), ask, clock: systemClock, idleMs: 120_000 });
 * spawn('ssh', [...words], { env: { ...env, ...askpass.env }, detached: true });
 */
export async function openAskpass(options: AskpassOptions): Promise<Askpass> {
  const { folder, ask, clock, idleMs, tell = () => undefined, onGivenUp = () => undefined } = options;
  await sweepAskpassFolders(folder, clock);
  const { socket: address, nonce, program, remove } = makeAskpassFolder(folder, idleMs * MOST_AT_ONCE);
  const expected = Buffer.from(nonce);
  const connections = new Set<net.Socket>();
  /** No more questions: it is closed, or nobody answers. */
  const over = new AbortController();
  let tail: Promise<unknown> = Promise.resolve();
  const server = net.createServer(accept);
  try {
    await listen(server, address);
  } catch (error) {
    remove();
    throw error;
  }
  let closing: Promise<void> | undefined;
  return {
    env: {
      SSH_ASKPASS: program,
      SSH_ASKPASS_REQUIRE: 'force',
      // Before 8.4 ssh knows no REQUIRE, and asks so where there is no terminal and this is set. No program finds a display by it.
      DISPLAY: ':none',
    },
    close: () => {
      closing ??= close();
      return closing;
    },
  };

  async function close(): Promise<void> {
    over.abort(new Error('The question is over: nobody waits for the answer'));
    const closed = new Promise((resolve) => server.close(resolve));
    for (const connection of connections) connection.destroy();
    // At once: a program that ends in this very turn leaves nothing either.
    remove();
    await closed;
  }

  function accept(socket: net.Socket): void {
    connections.add(socket);
    socket.once('close', () => connections.delete(socket));
    socket.on('error', () => undefined); // its `close` says it all
    if (connections.size > MOST_AT_ONCE || over.signal.aborted) socket.destroy();
    else void serve(socket).finally(() => socket.destroy());
  }

  async function serve(socket: net.Socket): Promise<void> {
    const gone = new AbortController();
    socket.once('close', () => gone.abort(new Error('The question is over: ssh does not wait for the answer')));
    const request = parseRequest(await readLine(socket, clock));
    if (!request || !isExpected(request)) return;
    if (request.hint === 'none') {
      tell(printableLines(request.text));
      return send(socket, Buffer.alloc(0));
    }
    const turn = tail.then(() => answerTo(request, gone.signal));
    tail = turn;
    const answer = await turn;
    if (answer) await send(socket, answer);
  }

  function isExpected(request: Request): boolean {
    const given = Buffer.from(request.nonce);
    return given.length === expected.length && timingSafeEqual(given, expected);
  }

  /** Undefined: nobody waits for it, or nobody answers. Never rejects. */
  async function answerTo(request: Request, gone: AbortSignal): Promise<Uint8Array | undefined> {
    if (gone.aborted || over.signal.aborted) return undefined;
    const signal = AbortSignal.any([gone, over.signal]);
    try {
      return toBytes(await putQuestion(ask, readQuestion(request.text, request.hint), { signal, idleMs, clock }));
    } catch (error) {
      if (!signal.aborted) giveUp(error);
      return undefined;
    }
  }

  function giveUp(reason: unknown): void {
    over.abort(reason);
    onGivenUp(reason);
  }
}

async function listen(server: net.Server, address: string): Promise<void> {
  server.listen({ path: address });
  await once(server, 'listening');
  fs.chmodSync(address, 0o600);
}

/** The first line; undefined when it is too long, or does not come. From then on what comes is dropped. */
function readLine(socket: net.Socket, clock: Clock): Promise<string | undefined> {
  return new Promise((resolve) => {
    const over = new AbortController();
    let text = '';
    const end = (line?: string) => {
      over.abort();
      resolve(line);
    };
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      if (over.signal.aborted) return;
      text += chunk;
      const at = text.indexOf('\n');
      if (at !== -1) end(text.slice(0, at));
      else if (text.length > LONGEST_LINE) end();
    });
    socket.once('close', () => end());
    clock.sleep(HELLO_MS, over.signal).then(
      () => end(),
      () => undefined, // called off: the line is there
    );
  });
}

function parseRequest(line: string | undefined): Request | undefined {
  let given: Partial<Record<keyof Request, unknown>> | null;
  try {
    given = JSON.parse(line ?? 'null');
  } catch {
    return undefined; // a stranger
  }
  const { nonce, text, hint } = given ?? {};
  if (typeof nonce !== 'string' || typeof text !== 'string' || typeof hint !== 'string') return undefined;
  return { nonce, text, hint };
}

/**
 * Wiped as soon as it is in the kernel's hands. V8 keeps a buffer of up to 64 bytes among its objects, moves it as it does
 * them, and leaves what was there: so the room is a large one.
 */
async function send(socket: net.Socket, answer: Uint8Array): Promise<void> {
  const room = Buffer.alloc(HEADER_BYTES + LONGEST_ANSWER);
  room.writeUInt32BE(answer.length);
  room.set(answer, HEADER_BYTES);
  answer.fill(0);
  await new Promise<void>((resolve) => {
    // Called with an error as well, when the program is gone.
    socket.write(room.subarray(0, HEADER_BYTES + answer.length), () => resolve());
  });
  room.fill(0);
}

/** The same bytes, never by way of their ArrayBuffer: to ask for that copies a small one. @throws for what ssh would not take. */
function toBytes(answer: unknown): Uint8Array {
  if (typeof answer !== 'string' && !(answer instanceof Uint8Array)) {
    const given = answer === null ? 'null' : typeof answer;
    throw new TypeError(`Cannot answer ssh with ${given}: expected a string or a Buffer`);
  }
  const bytes = typeof answer === 'string' ? Buffer.from(answer) : answer;
  if (bytes.length <= LONGEST_ANSWER) return bytes;
  bytes.fill(0);
  const why = 'it would cut off what follows, in silence';
  throw new RangeError(`Cannot answer ssh with more than ${LONGEST_ANSWER} bytes: ${why}`);
}
