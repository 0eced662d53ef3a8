import type { EventSourceMessage } from 'eventsource-parser';
import type { DaemonEvent } from '../daemon/events.js';
import { nearest } from '../daemon/nearest.js';
import { isTunwardError, TunwardError } from '../errors.js';
import { systemClock } from '../time.js';
import { fromWire } from '../wire.js';
import { type DaemonOptions, findDaemon } from './address.js';
import type { Client, EventQuery } from './client.js';
import type { Context } from './context.js';
import { styled } from './render.js';
import { createStory, type ToldEvent } from './story.js';

/** Every type of event there is. */
export const eventTypes = Object.keys({
  'boot.swept': true,
  'config.loaded': true,
  'config.rejected': true,
  'config.unwatched': true,
  'daemon.ready': true,
  'daemon.stopped': true,
  'daemon.stopping': true,
  'hook.failed': true,
  'init.missing': true,
  'log.failed': true,
  'port.freed': true,
  'process.killed': true,
  'state.failed': true,
  'state.replaced': true,
  'tunnel.backoff': true,
  'tunnel.degraded': true,
  'tunnel.fatal': true,
  'tunnel.needs_auth': true,
  'tunnel.output': true,
  'tunnel.recovered': true,
  'tunnel.starting': true,
  'tunnel.stopped': true,
  'tunnel.stopping': true,
  'tunnel.up': true,
} satisfies Record<DaemonEvent['type'], true>);

/** `tunnel` for `tunnel.up` and its like. */
export const eventFamilies = [...new Set(eventTypes.map((type) => type.split('.')[0] ?? ''))];

export interface EventOptions extends DaemonOptions {
  /** Ids, names or prefixes. */
  readonly tunnel?: readonly string[];
  readonly type?: readonly string[];
}

/**
 * What happens, until Ctrl-C: a line for each event, or a record. A connection that breaks is made again, and what came
 * meanwhile is told then; where the daemon no longer knows that, it says so (`gap`).
 */
export async function events({ tunnel = [], type = [], ...options }: EventOptions, context: Context): Promise<number> {
  const { screen } = context;
  const unknown = type.find((each) => !eventTypes.includes(each) && !eventFamilies.includes(each));
  if (unknown !== undefined) throw unknownType(unknown);
  const client = await findDaemon(options, context);
  const meant = await Promise.all(tunnel.map((which) => client.tunnel(which)));
  const known = screen.json ? [] : meant.length > 0 ? meant : await client.tunnels();
  const tell = createStory((line) => screen.print(line), { names: known, isWhole: true });
  const wanted = { tunnels: meant.map(({ id }) => id), types: type };
  for await (const { event, data } of stayConnected(client, wanted, context)) {
    const fields = JSON.parse(data) as Record<string, unknown>;
    if (screen.json) screen.record({ type: event, ...fields });
    else if (event === 'gap') screen.print([styled('yellow', 'gap'), `  some events were not seen: ${fields.reason}`]);
    else tell(fromWire(fields) as ToldEvent);
  }
  return 0;
}

/** How long is waited before a connection is made again: at first, and at most, in milliseconds. */
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 5000;

/** The first connection has to succeed; after that only a signal ends it, or a daemon that refuses. */
async function* stayConnected(
  client: Client,
  wanted: EventQuery,
  { screen, signal }: Context,
): AsyncGenerator<EventSourceMessage> {
  let after: string | undefined;
  let waitMs = FIRST_WAIT_MS;
  for (let isFirst = true; ; isFirst = false) {
    try {
      for await (const message of client.events({ ...wanted, after })) {
        after = message.id ?? after;
        waitMs = FIRST_WAIT_MS;
        yield message;
      }
    } catch (error) {
      const isLost = isTunwardError(error, 'ERR_DAEMON_UNREACHABLE') || isTunwardError(error, 'ERR_TIMEOUT');
      if (!isLost || (isFirst && after === undefined)) throw error;
    }
    if (waitMs === FIRST_WAIT_MS) screen.say(styled('yellow', 'The daemon went away: waiting for it'));
    await systemClock.sleep(waitMs, signal);
    waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS);
  }
}

function unknownType(type: string): TunwardError {
  const hint = nearest(type, [...eventTypes, ...eventFamilies]);
  const remedy = hint === undefined ? `expected one of ${eventFamilies.join(', ')}` : `did you mean ${hint}?`;
  return new TunwardError('ERR_BAD_REQUEST', `There are no events of the type '${type}': ${remedy}`, { type });
}
