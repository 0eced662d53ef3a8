import type { ServerResponse } from 'node:http';
import { type Clock, systemClock } from '../../time.js';
import { toJson } from '../../wire.js';

/** An answer that goes on: server-sent events, as the HTML standard has them. */
export interface EventStream {
  /** `data` is put on the wire as JSON; what is several times the same may be handed over as a {@link Frame}. */
  send(type: string, data: unknown, id?: string): void;
  write(frame: Frame): void;
  close(): void;
}

/** The text of one event, made once for all who read it. */
export type Frame = string & { readonly frame: true };

export interface StreamOptions {
  readonly clock?: Clock;
  /** How often a comment is sent, so that nobody on the way takes the connection for dead. */
  readonly heartbeatMs?: number;
  /** Whoever has not read that much is dropped: the rest of the readers, and the memory, are worth more. */
  readonly maxBuffered?: number;
  readonly onClose: () => void;
}

/** How soon a reader who lost the connection comes back, in milliseconds. */
const RETRY_MS = 1000;

/** Begins the answer at once, so that the other side knows it is connected. */
export function openEventStream(outgoing: ServerResponse, options: StreamOptions): EventStream {
  const { clock = systemClock, heartbeatMs = 15_000, maxBuffered = 1_048_576, onClose } = options;
  const over = new AbortController();
  outgoing.on('error', close).on('close', close);
  outgoing.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    'x-accel-buffering': 'no',
    'x-content-type-options': 'nosniff',
  });
  put(`retry: ${RETRY_MS}\n\n`);
  beat().catch((error: unknown) => {
    if (!over.signal.aborted) throw error;
  });
  return { send: (type, data, id) => write(toFrame(type, data, id)), write, close };

  async function beat(): Promise<void> {
    for (;;) {
      await clock.sleep(heartbeatMs, over.signal);
      put(':\n\n');
    }
  }

  function write(frame: Frame): void {
    put(frame);
  }

  function put(text: string): void {
    if (over.signal.aborted) return;
    if (outgoing.writableLength > maxBuffered) {
      close();
      // Not in order: what is still to be sent would have to be read first.
      outgoing.destroy();
      return;
    }
    outgoing.write(text);
  }

  function close(): void {
    if (over.signal.aborted) return;
    over.abort(new Error('nobody reads this any more'));
    onClose();
    if (!outgoing.writableEnded) outgoing.end();
  }
}

/** One event. JSON has no line ends of its own, so the data is one line. */
export function toFrame(type: string, data: unknown, id?: string): Frame {
  return `${id === undefined ? '' : `id: ${id}\n`}event: ${type}\ndata: ${toJson(data)}\n\n` as Frame;
}
