import type { WebSocket } from 'ws';
import * as z from 'zod';
import type { Clock } from '../../time.js';
import type { Keyboard, Terminal } from '../../tunnel/asking/person.js';
import { toJson } from '../../wire.js';
import { MAX_MESSAGE } from './upgrade.js';

/** A {@link Terminal} at the other end of a WebSocket. */
export interface SocketTerminal {
  readonly terminal: Terminal;
  /** Aborts as soon as nobody is there any more, for whatever reason. */
  readonly gone: AbortSignal;
  /** Sends a message as JSON, behind all that has been drawn. */
  readonly tell: (message: unknown) => void;
  /** The same with the last message, and hangs up. Resolves when that has been said, or cannot be. Never rejects. */
  readonly end: (message: unknown) => Promise<void>;
}

/** Somebody is asked so often whether they are still there, and has so long to answer. */
const PING_MS = 5000;
/** Typing more than is kept waits so long, and no longer: as long as nothing is read, nobody sees whether the client leaves. */
const STUCK_MS = 1000;
/** The last message is taken within that, or not at all. */
const END_MS = 5000;
/** The least that a message costs: there may be a thousand of one byte. */
const MESSAGE_COST = 64;

const size = () => z.int().min(1).max(1000);
const resize = z.strictObject({ type: z.literal('resize'), columns: size(), rows: size() });

interface Size {
  readonly columns: number;
  readonly rows: number;
}

export function openSocketTerminal(socket: WebSocket, first: Size, clock: Clock): SocketTerminal {
  const over = new AbortController();
  let size = first;
  let keyboard: Keyboard | undefined;
  /** What was typed and nobody has taken. Each is wiped by whoever takes it, or here. */
  const typed: Buffer[] = [];
  let kept = 0;
  let isPassing = false;
  let stuck: AbortController | undefined;
  /** What is sent goes one after another, each when the one before has been taken. */
  let sent: Promise<void> = Promise.resolve();
  let release: (() => void) | undefined;
  let hasAnswered = true;

  // In pieces, as they came: put together they would be in memory twice, and be wiped once.
  socket.binaryType = 'fragments';
  socket.on('message', (data, isBinary) => {
    hasAnswered = true;
    if (isBinary) take(data as Buffer[]);
    else read(data as Buffer);
  });
  socket.on('pong', () => {
    hasAnswered = true;
  });
  socket.on('error', leave).on('close', leave);
  beat().catch((error: unknown) => {
    if (!over.signal.aborted) throw error;
  });
  const terminal: Terminal = {
    get columns() {
      return size.columns;
    },
    get rows() {
      return size.rows;
    },
    show: put,
    listen(given) {
      keyboard = given;
      // Resized meanwhile: how large it was first is known already.
      if (size !== first) given.resize(size.columns, size.rows);
      void pass();
    },
  };
  return { terminal, gone: over.signal, tell, end };

  // What is drawn and told.

  function tell(message: unknown): void {
    void put(toJson(message));
  }

  async function end(message: unknown): Promise<void> {
    clock.sleep(END_MS, over.signal).then(
      () => socket.terminate(),
      () => undefined, // called off: it has ended
    );
    await put(toJson(message));
    socket.close(1000);
  }

  function put(data: Uint8Array | string): Promise<void> {
    sent = sent.then(() => hand(data));
    return sent;
  }

  /** One message of 64 KiB at a time: it is kept until the socket has taken it. */
  async function hand(data: Uint8Array | string): Promise<void> {
    if (typeof data === 'string') return send(data);
    for (let at = 0; at < data.length; at += MAX_MESSAGE) await send(data.subarray(at, at + MAX_MESSAGE));
  }

  function send(data: Uint8Array | string): Promise<void> {
    if (over.signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      release = resolve;
      socket.send(data, (error) => {
        // At once: whoever draws in a loop leaves no turn for the end of the connection to be told.
        if (error) leave();
        resolve();
      });
    });
  }

  // What is typed.

  function take(pieces: readonly Buffer[]): void {
    for (const bytes of pieces) {
      if (over.signal.aborted) {
        bytes.fill(0);
        continue;
      }
      typed.push(bytes);
      kept += costOf(bytes);
    }
    void pass();
    if (kept > MAX_MESSAGE && !over.signal.aborted) wait();
  }

  async function pass(): Promise<void> {
    if (!keyboard || isPassing) return;
    isPassing = true;
    for (let bytes = typed.shift(); bytes; bytes = typed.shift()) {
      await keyboard.type(bytes);
      bytes.fill(0);
      kept -= costOf(bytes);
      if (kept <= MAX_MESSAGE) goOn();
    }
    isPassing = false;
  }

  function wait(): void {
    if (stuck) return;
    stuck = new AbortController();
    socket.pause();
    clock.sleep(STUCK_MS, stuck.signal).then(
      () => refuse(1008, 'more is typed than is read'),
      () => undefined, // called off: it was read
    );
  }

  function goOn(): void {
    if (!stuck) return;
    stuck.abort();
    stuck = undefined;
    socket.resume();
  }

  /** The one message that is a text. */
  function read(text: Buffer): void {
    const [message, code] = parse(text);
    // Somebody may have typed by a text what was to be typed by bytes.
    text.fill(0);
    if (over.signal.aborted) return;
    if (!message) return refuse(code, 'expected {"type":"resize","columns":80,"rows":24}');
    size = message;
    keyboard?.resize(message.columns, message.rows);
  }

  // Who is there.

  async function beat(): Promise<void> {
    for (;;) {
      await clock.sleep(PING_MS, over.signal);
      if (!hasAnswered) return socket.terminate();
      hasAnswered = false;
      socket.ping();
    }
  }

  function refuse(code: number, reason: string): void {
    socket.close(code, reason);
    leave();
  }

  function leave(): void {
    if (over.signal.aborted) return;
    over.abort(new Error('Nobody is at the terminal any more'));
    for (const bytes of typed.splice(0)) bytes.fill(0);
    release?.();
    goOn();
  }
}

function costOf({ length }: Buffer): number {
  return Math.max(MESSAGE_COST, length);
}

const OPENING_BRACE = 0x7b;

/** The message, or by which code the connection is closed: 1007, what is no object of JSON; 1008, another message. */
function parse(text: Buffer): [message: Size, code: 0] | [message: undefined, code: number] {
  // No string is made of what was meant for ssh: that could not be wiped.
  if (text[0] !== OPENING_BRACE) return [undefined, 1007];
  try {
    const { data } = resize.safeParse(JSON.parse(text.toString()));
    return data ? [data, 0] : [undefined, 1008];
  } catch {
    return [undefined, 1007];
  }
}
