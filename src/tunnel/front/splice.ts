import type { Socket } from 'node:net';
import type { Clock } from '../../time.js';
import type { Remote } from './carrier.js';
import type { Meter } from './meter.js';
import type { Pourable, Sink } from './pour.js';

export interface SpliceOptions {
  readonly meter: Meter;
  readonly clock: Clock;
  /** Asked when the remote side ends: of a link that is gone, the end is not the target's. */
  readonly isAlive: () => boolean;
  /** Called once, when both sides are closed. */
  readonly onOver: () => void;
}

/** Two streams that are one connection. */
export interface Splice {
  /**
   * Ends both, the client by a TCP reset, {@link LINGER_MS} later: it has had time then for what came before, and to none it
   * looks like a whole answer. Idempotent.
   */
  breakOff(): void;
}

/**
 * The link is gone or given up, or the front closes: so long a client has for what came before, until it is reset. A reset that
 * finds data unread in the client's kernel is no reset to a client on libuv (1.46, say), which takes the hang-up that is polled
 * with it for an end.
 */
const LINGER_MS = 250;

/**
 * Joins a client, paused until now, and its connection to the target. Each direction ends by itself, and holds what one
 * read has brought at most. A side that errs, or closes before both directions are
 * done, resets the other one; an answer that is cut short never looks like a whole one.
 *
 * The client's `highWaterMark` is 1: its 'drain' then says that the kernel has taken all of it.
 *
 * @example
 * const spliced = splice(client, await carrier.open(address, signal), { meter, clock, isAlive, onOver });
 */
export function splice(
  client: Socket & Pourable,
  remote: Remote,
  { meter, clock, isAlive, onOver }: SpliceOptions,
): Splice {
  /** The target has ended, and means it. */
  let isAnswered = false;
  /** The link is gone: the client is about to be reset. */
  let isBroken = false;
  let isClientClosed = false;
  let isRemoteClosed = false;
  const linger = new AbortController();

  client
    .on('drain', () => {
      if (isAnswered) client.end();
      else remote.resume();
    })
    .on('end', endRemote)
    // It is followed by 'close', which acts.
    .on('error', () => undefined)
    .once('close', () => {
      isClientClosed = true;
      linger.abort();
      // A client that has read its whole answer and ended may be gone before the target has closed.
      if (!(client.readableEnded && client.writableFinished)) remote.destroy();
      leave();
    });

  remote
    .on('drain', () => client.resume())
    .on('end', () => {
      if (!isAlive()) return breakOff();
      isAnswered = true;
      // An end() that waits for data could no longer be turned into a reset: libuv refuses that during a shutdown.
      if (client.writableLength === 0) client.end();
    })
    .on('error', () => remote.destroy())
    .once('close', () => {
      isRemoteClosed = true;
      if (!isAnswered) breakOff();
      else if (!client.readableEnded) hangUp();
      leave();
    });

  flow(client, takeOut);
  flow(remote, takeIn);
  client.resume();
  remote.resume();
  // It may have ended, and the other one closed, before anybody listened.
  if (client.readableEnded) endRemote();
  if (remote.closed) {
    isRemoteClosed = true;
    breakOff();
  }
  return { breakOff };

  function endRemote(): void {
    if (!isRemoteClosed) remote.end();
  }

  function takeOut(pieces: readonly Uint8Array[]): boolean {
    // What the target no longer reads goes nowhere; the client learns of it when it has its answer.
    if (isRemoteClosed) return true;
    for (const piece of pieces) {
      meter.countOut(piece.length);
      remote.write(piece);
    }
    return remote.writableLength === 0;
  }

  /** One write for the kernel, however many pieces there are. */
  function takeIn(pieces: readonly Uint8Array[]): boolean {
    if (isClientClosed) return true;
    if (pieces.length > 1) client.cork();
    for (const piece of pieces) {
      meter.countIn(piece.length);
      client.write(piece);
    }
    if (pieces.length > 1) client.uncork();
    return client.writableLength === 0;
  }

  /** The answer is cut short. What there is of it is still handed over; a reset at once would take it away. */
  function breakOff(): void {
    if (isBroken || isClientClosed) return;
    isBroken = true;
    remote.destroy();
    // Nothing that could be taken for a whole answer: whoever has been given nothing is told at once.
    if (client.bytesWritten === 0) return resetNow();
    clock.sleep(LINGER_MS, linger.signal).then(resetNow, () => undefined);
  }

  /** The target has answered and closed, while the client still sends: it is told as soon as it has the answer. */
  function hangUp(): void {
    if (client.writableFinished) client.destroy();
    else client.once('finish', () => client.destroy()).resume();
  }

  function resetNow(): void {
    remote.destroy();
    // It has been given the whole answer and its end; a reset on top of that fails while the end is under way.
    if (client.writableEnded) client.destroy();
    else client.resetAndDestroy();
  }

  function leave(): void {
    if (isClientClosed && isRemoteClosed) onOver();
  }
}

function flow(from: Remote, sink: Sink): void {
  if (from.pour) from.pour(sink);
  else from.on('data', (piece: Buffer) => sink([piece]) || from.pause());
}
