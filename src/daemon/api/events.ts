import { randomBytes } from 'node:crypto';
import * as z from 'zod';
import { TunwardError } from '../../errors.js';
import type { Supervisor } from '../../tunnel/supervisor.js';
import type { Journal, JournalEntry } from '../events.js';
import { type Route, route } from './route.js';
import { list } from './shapes.js';
import { type Frame, toFrame } from './stream.js';

export interface EventContext {
  readonly journal: Pick<Journal, 'recent' | 'subscribe'>;
  readonly supervisor: Pick<Supervisor, 'status'>;
}

const MAX_STREAMS = 400;

/** What happens, to whoever listens. */
export function eventRoutes({ journal, supervisor }: EventContext): Route[] {
  /** The numbers begin at 1 in each life of the daemon: of which one is in the id. */
  const epoch = randomBytes(4).toString('hex');
  const readers = new Set<(entry: JournalEntry, frame: () => Frame) => void>();
  journal.subscribe((entry) => {
    // Put into words once for all who read it, and not at all when nobody does.
    let made: Frame | undefined;
    const frame = () => {
      made ??= frameOf(entry);
      return made;
    };
    for (const tell of readers) tell(entry, frame);
  });
  return [
    route({
      method: 'GET',
      path: '/v1/events',
      scope: 'read',
      about:
        'What happens from now on, as server-sent events. Whoever comes back with Last-Event-ID is told what came meanwhile, or by `gap` that this is no longer known: then everything is to be read again',
      query: z.strictObject({
        tunnel: list.optional().describe('Of these tunnels alone: ids, names or prefixes'),
        type: list.optional().describe('Of these types alone: `tunnel.up`, or a whole family, `tunnel`'),
        after: z.string().max(100).optional().describe('As the header Last-Event-ID, for whoever cannot send it'),
      }),
      answers: {
        200: {
          about: '`id: <epoch>-<n>`, `event: <type>`, `data: {id, at, type, tunnel?, …}`',
          type: 'text/event-stream',
        },
      },
      errors: ['ERR_TUNNEL_UNKNOWN', 'ERR_TUNNEL_AMBIGUOUS', 'ERR_DAEMON_BUSY'],
      async handle({ query: { tunnel, type, after }, incoming: { headers } }) {
        if (readers.size >= MAX_STREAMS) {
          throw new TunwardError('ERR_DAEMON_BUSY', `Expected at most ${MAX_STREAMS} readers of events at once`, {});
        }
        const isWanted = createFilter(
          tunnel?.map((which) => supervisor.status(which).id),
          type,
        );
        const last = headers['last-event-id'] ?? after;
        return {
          stream: (stream) => {
            const tell = (entry: JournalEntry, frame: () => Frame) => {
              if (isWanted(entry)) stream.write(frame());
            };
            const { missed, gap } = since(last === undefined ? undefined : String(last));
            if (gap !== undefined) stream.send('gap', { reason: gap }, idOf(journal.recent().at(-1)?.id ?? 0));
            for (const entry of missed) tell(entry, () => frameOf(entry));
            readers.add(tell);
            return () => readers.delete(tell);
          },
        };
      },
    }),
  ];

  function idOf(id: number): string {
    return `${epoch}-${id}`;
  }

  function frameOf(entry: JournalEntry): Frame {
    return toFrame(entry.type, entry, idOf(entry.id));
  }

  /** What somebody who has seen that event has missed, or why nobody knows. */
  function since(last: string | undefined): { missed: readonly JournalEntry[]; gap?: string } {
    if (last === undefined) return { missed: [] };
    const [, life, digits] = /^([0-9a-f]{8})-(\d{1,15})$/.exec(last) ?? [];
    if (life !== epoch) return { missed: [], gap: 'the daemon has been started again since' };
    const recent = journal.recent();
    const seen = Number(digits);
    const oldest = recent[0]?.id ?? 1;
    if (seen + 1 < oldest) return { missed: [], gap: `only the last ${recent.length} events are kept` };
    return { missed: recent.filter(({ id }) => id > seen) };
  }
}

function createFilter(tunnels: readonly string[] | undefined, types: readonly string[] | undefined) {
  const ids = tunnels && new Set(tunnels);
  return (entry: JournalEntry): boolean => {
    if (ids && !('tunnel' in entry && ids.has(entry.tunnel))) return false;
    return types?.some((type) => entry.type === type || entry.type.startsWith(`${type}.`)) ?? true;
  };
}
