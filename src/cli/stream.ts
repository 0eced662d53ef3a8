import type { IncomingMessage } from 'node:http';
import { createParser, type EventSourceMessage } from 'eventsource-parser';
import { isTunwardError } from '../errors.js';
import { systemClock } from '../time.js';
import {
  bounded,
  formatAddress,
  notOurs,
  parseJson,
  type Question,
  readAll,
  refusalOf,
  request,
  unreachable,
} from './exchange.js';

/**
 * Server-sent events, as they come; ends when the other side ends. The bound is on the time until it begins, and on that
 * in which not even a heartbeat comes.
 *
 * @throws as {@link ask}; ERR_DAEMON_UNREACHABLE also for a connection that breaks, or says nothing any more
 */
export async function* listen(question: Question): AsyncGenerator<EventSourceMessage> {
  const { address, signal } = question;
  const response = await bounded(question, (bound) => request(question, bound));
  try {
    const status = response.statusCode ?? 0;
    if (status !== 200) throw refusalOf({ status, body: parseJson(await readAll(response), question) }, address);
    if (!response.headers['content-type']?.startsWith('text/event-stream')) throw notOurs(formatAddress(address));
    const heard = endWhenSilent(response);
    const events: EventSourceMessage[] = [];
    const parser = createParser({ onEvent: (event) => events.push(event), maxBufferSize: MAX_EVENT });
    for await (const chunk of response.setEncoding('utf8')) {
      heard();
      parser.feed(chunk);
      yield* events.splice(0);
    }
  } catch (error) {
    signal?.throwIfAborted();
    if (isTunwardError(error)) throw error;
    throw unreachable(`The daemon at ${formatAddress(address)} went away`, error);
  } finally {
    response.destroy();
  }
}

/** Three heartbeats of the daemon, in milliseconds; and the largest event that is waited for. */
const SILENT_MS = 45_000;
const MAX_EVENT = 8 * 2 ** 20;

/**
 * A connection of which the other side has vanished without a word stays open for hours. Answers what to call when
 * something has come.
 */
function endWhenSilent(response: IncomingMessage): () => void {
  const over = new AbortController();
  response.once('close', () => over.abort());
  return watchSilence(SILENT_MS, over.signal, () => {
    response.destroy(new Error(`nothing came for ${SILENT_MS} ms`));
  });
}

/** Calls `act` whenever nothing has come for longer than that, until it is over. Answers what to call when something has. */
export function watchSilence(silentMs: number, over: AbortSignal, act: () => void): () => void {
  let last = systemClock.now();
  const watch = async () => {
    for (;;) {
      await systemClock.sleep(silentMs / 3, over);
      if (systemClock.now() - last > silentMs) act();
    }
  };
  watch().catch((error: unknown) => {
    if (!over.aborted) throw error;
  });
  return () => {
    last = systemClock.now();
  };
}
