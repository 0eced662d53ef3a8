import type { ReadStream } from 'node:tty';
import { isErrno, TunwardError } from '../errors.js';
import { growing, systemClock, until } from '../time.js';
import type { TunnelStatus } from '../tunnel/runner.js';
import { type DaemonOptions, findDaemon } from './address.js';
import type { Size } from './area.js';
import type { Client } from './client.js';
import { type Context, Interruption } from './context.js';
import { createFilter } from './filter.js';
import { styled, type Window } from './render.js';
import { routeOf } from './story.js';
import type { Draw, FarTerminal } from './terminal-client.js';
import { formatMs } from './units.js';

/**
 * Starts a tunnel that asks: ssh asks on this terminal, in which every key goes to it but Ctrl-C, Ctrl-\ and Ctrl-Z. What
 * is asked goes where talk goes (stderr), so that the result is alone on stdout, as everywhere.
 */
export async function auth(which: string, options: DaemonOptions, context: Context): Promise<number> {
  const { screen, consent } = context;
  const window = consent.input && screen.openWindow();
  if (!consent.input || !window) {
    const message =
      "Nobody can be asked here what ssh wants to know: run it on a terminal (stdin and stderr) without --no-input, or answer in the panel, or by the library's prompt";
    throw new TunwardError('ERR_BAD_REQUEST', message, {});
  }
  const began = systemClock.now();
  try {
    const client = await findDaemon(options, context);
    screen.say(`ssh asks here what it needs for ${which}; Ctrl-C gives up`);
    const tunnel = await converse(client, which, { ...context, input: consent.input, window });
    const { id, name, state } = tunnel;
    const tookMs = Math.round(systemClock.now() - began);
    if (screen.json) screen.data({ id, name, state, tookMs, tunnel });
    else screen.print(renderUp(tunnel, tookMs));
    return 0;
  } catch (error) {
    const why = context.signal.aborted ? context.signal.reason : error;
    if (!(why instanceof Interruption)) throw error;
    screen.say('given up');
    return why.exit;
  } finally {
    window.close();
  }
}

function renderUp(tunnel: TunnelStatus, tookMs: number) {
  const { name, state } = tunnel;
  const how = `  ${state} in ${formatMs(tookMs)}  ${routeOf(tunnel)}`;
  return [styled('green', '✔ '), styled('bold', name), how];
}

interface Conversation extends Context {
  readonly input: ReadStream;
  readonly window: Window;
}

/**
 * Until it is up, fails, or is given up: the terminal is as it was then, and the cursor at the beginning of a line. It is
 * raw before anything is asked, so that what is typed too early is not to be seen either.
 */
async function converse(client: Client, which: string, conversation: Conversation): Promise<TunnelStatus> {
  const { input, window, signal } = conversation;
  const giveUp = new AbortController();
  const over = AbortSignal.any([signal, giveUp.signal]);
  const printer = createPrinter(window, (why) => giveUp.abort(why));
  let far: FarTerminal | undefined;
  const onKeys = (keys: Buffer) => {
    const isEnough = keys.includes(ctrlC) || keys.includes(ctrlBackslash);
    if (isEnough) giveUp.abort(new Interruption('Ctrl-C', 130));
    if (isEnough || !far) keys.fill(0);
    else far.type(withoutSuspend(keys));
  };
  const onGone = () => giveUp.abort(new Interruption('the terminal is gone', 129));
  try {
    input.on('error', onGone).setRawMode(true);
    input.on('data', onKeys).on('end', onGone);
    const size = sizeOf(window);
    far = await client.terminal(which, size, printer.draw, over);
    const { resize, ended } = far;
    window.onResize(() => resize(sizeOf(window)));
    if (!isSameSize(size, sizeOf(window))) resize(sizeOf(window));
    return await Promise.race([ended, rejectedBy(over)]);
  } finally {
    far?.close();
    input.off('data', onKeys).off('end', onGone).pause();
    if (!over.aborted) await printer.flush();
    printer.end();
    input.setRawMode(false);
  }
}

/*
 * ssh would dump its memory at a Ctrl-\, with what was typed in it, and a login that Ctrl-Z has stopped would be given up
 * while nobody sees it: the one ends it as Ctrl-C does, the other does nothing.
 */
const [ctrlC, ctrlZ, ctrlBackslash] = [0x03, 0x1a, 0x1c];

/** The same buffer, or a copy without that key; what is not passed on is wiped. */
function withoutSuspend(keys: Buffer): Buffer {
  if (!keys.includes(ctrlZ)) return keys;
  const rest = Buffer.from(keys.filter((key) => key !== ctrlZ));
  keys.fill(0);
  return rest;
}

/** What the daemon takes for a window: 1 to 1000 each way, 80 by 24 where this terminal does not say. */
function sizeOf(window: Window): Size {
  const { columns, rows } = window.size();
  return { columns: Math.min(columns || 80, 1000), rows: Math.min(rows || 24, 1000) };
}

function isSameSize(one: Size, other: Size): boolean {
  return one.columns === other.columns && one.rows === other.rows;
}

function rejectedBy(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    else signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

/** So much waits for a terminal that takes nothing before the daemon is kept waiting, and from so little on it goes on; in bytes. */
const HIGH = 2 ** 18;
const LOW = 2 ** 16;
/** How often a terminal is asked at the least that took nothing, and how long the end waits for it, in milliseconds. */
const EVERY_MS = 10;
const FLUSH_MS = 1000;

interface Printer {
  readonly draw: Draw;
  /** Waits until all is drawn. Bounded. */
  flush(): Promise<void>;
  /** Draws nothing more, but for what puts the cursor at the beginning of a line. */
  end(): void;
}

/**
 * Draws on a terminal that may take its time: Node would wait in the write until it has taken everything, and hear neither
 * a Ctrl-C nor a signal meanwhile.
 */
function createPrinter(window: Window, onGone: (why: Interruption) => void): Printer {
  const filter = createFilter();
  const queue: Buffer[] = [];
  let waiting = 0;
  let room: { readonly promise: Promise<void>; readonly resolve: () => void } | undefined;
  let isWriting = false;
  let isOver = false;
  /** What has to be undone at the end. */
  let isAtBegin = true;
  let isColoured = false;
  return { draw, flush, end };

  function draw(bytes: Uint8Array): Promise<void> | undefined {
    const text = filter(bytes);
    if (text === '' || isOver) return undefined;
    isAtBegin = text.endsWith('\n');
    isColoured ||= text.includes('\u001b');
    const drawn = Buffer.from(text);
    queue.push(drawn);
    waiting += drawn.length;
    if (!isWriting) write().catch(gone);
    if (waiting > HIGH) room ??= createRoom();
    return room?.promise;
  }

  async function write(): Promise<void> {
    isWriting = true;
    const pause = growing(EVERY_MS);
    let refused = 0;
    try {
      for (let [next] = queue; next && !isOver; [next] = queue) {
        const taken = window.some(next);
        waiting -= taken;
        if (taken === next.length) queue.shift();
        else queue[0] = next.subarray(taken);
        if (waiting <= LOW) makeRoom();
        refused = taken === 0 ? refused + 1 : 0;
        if (refused > 0) await systemClock.sleep(pause(refused));
      }
    } finally {
      isWriting = false;
    }
  }

  async function flush(): Promise<void> {
    await until(() => waiting === 0 || isOver, { timeoutMs: FLUSH_MS, everyMs: EVERY_MS });
  }

  function end(): void {
    if (isOver) return;
    try {
      if (isColoured) window.some(Buffer.from('\u001b[m'));
      if (!isAtBegin) window.some(Buffer.from('\n'));
    } catch (error) {
      gone(error);
    }
    isOver = true;
    makeRoom();
  }

  function gone(error: unknown): void {
    isOver = true;
    makeRoom();
    if (!isErrno(error, 'EIO', 'EPIPE')) throw error;
    onGone(new Interruption('the terminal is gone', 129));
  }

  function makeRoom(): void {
    room?.resolve();
    room = undefined;
  }
}

function createRoom() {
  let resolve = () => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
