import type { ServerResponse } from 'node:http';
import { TunwardError } from '../../errors.js';
import { type Clock, systemClock } from '../../time.js';
import { toJson } from '../../wire.js';

/** An answer that goes on: server-sent events, as the HTML standard has them. */
export interface EventStream {
  /** `data` is put on the wire as JSON; what is several times the same may be handed over as a {@link Frame}. */
  send(type: string, data: unknown, id?: string): void;
  write(frame: Frame): void;
}

/** The text of one event, made once for all who read it. */
export type Frame = string & { readonly frame: true };

/** Is handed the stream, and says at once all there is to say; answers what is called when nobody reads any more. */
export type Begin = (stream: EventStream) => () => void;

export interface StreamOptions {
  readonly clock?: Clock;
  /** How often a comment is sent, so that nobody on the way takes the connection for dead. */
  readonly heartbeatMs?: number;
  /** Whoever has not read that much is dropped: the rest of the readers, and the memory, are worth more. */
  readonly maxBuffered?: number;
}

/** How soon a reader who lost the connection comes back, in milliseconds. */
const RETRY_MS = 1000;

/**
 * Begins the answer, so that the other side knows it is connected. What `begin` says in its own turn goes out as one
 * text, and nobody is dropped for its length; when `begin` throws, nothing has been sent.
 *
 * @throws TunwardError ERR_BAD_REQUEST: it would stand behind an answer that is not over
 */
export function openEventStream(outgoing: ServerResponse, begin: Begin, options: StreamOptions = {}): void {
  const { clock = systemClock, heartbeatMs = 15_000, maxBuffered = 1_048_576 } = options;
  // Hung up meanwhile, and that has been told: it would not be told again.
  if (outgoing.destroyed) return;
  // Without a connection of its own nobody says when that is gone.
  if (!outgoing.socket) throw new TunwardError('ERR_BAD_REQUEST', 'Expected a stream alone on its connection', {});
  const over = new AbortController();
  let first: string[] | undefined = [`retry: ${RETRY_MS}\n\n`];
  let most = maxBuffered;
  const isHead = outgoing.req.method === 'HEAD';
  const end = isHead ? () => undefined : begin({ send: (type, data, id) => put(toFrame(type, data, id)), write: put });
  outgoing.on('error', close).on('close', close);
  outgoing.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    'x-accel-buffering': 'no',
    'x-content-type-options': 'nosniff',
  });
  if (isHead) return void outgoing.end();
  const text = first.join('');
  first = undefined;
  if (!outgoing.write(text)) {
    most += outgoing.writableLength;
    outgoing.once('drain', () => {
      most = maxBuffered;
    });
  }
  beat().catch((error: unknown) => {
    if (!over.signal.aborted) throw error;
  });

  async function beat(): Promise<void> {
    for (;;) {
      await clock.sleep(heartbeatMs, over.signal);
      put(':\n\n');
    }
  }

  function put(text: string): void {
    if (over.signal.aborted) return;
    if (first) first.push(text);
    else if (outgoing.writableLength <= most) outgoing.write(text);
    else {
      close();
      // Not in order: what is still to be sent would have to be read first.
      outgoing.destroy();
    }
  }

  function close(): void {
    if (over.signal.aborted) return;
    over.abort(new Error('nobody reads this any more'));
    end();
  }
}

/** One event. JSON has no line ends of its own, so the data is one line. */
export function toFrame(type: string, data: unknown, id?: string): Frame {
  return `${id === undefined ? '' : `id: ${id}\n`}event: ${type}\ndata: ${toJson(data)}\n\n` as Frame;
}
