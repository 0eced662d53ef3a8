import type { KillReport } from '../kill.js';
import type { Clock } from '../time.js';
import type { TunnelSpec } from '../tunnel/spec.js';
import type { SupervisorEvent } from '../tunnel/supervisor.js';
import type { StopReport } from './shutdown.js';

/** A tunnel as an event names it. Two may bear one name, so it is the id that counts. */
export type TunnelName = Pick<TunnelSpec, 'id' | 'name'>;

/** How a configuration differs from the one before it. */
export interface TunnelChanges {
  readonly added: readonly TunnelName[];
  readonly removed: readonly TunnelName[];
  readonly changed: readonly TunnelName[];
}

/** What the daemon itself has to say. */
export type DaemonEvent =
  | SupervisorEvent
  | {
      readonly type: 'daemon.ready';
      readonly pid: number;
      readonly socket: string;
      readonly url: string | null;
      /** Where the token for `url` stands. */
      readonly tokenFile: string | null;
      readonly tunnels: number;
    }
  | {
      /** Somebody wanted a port free. */
      readonly type: 'port.freed';
      readonly port: number;
      readonly free: boolean;
      readonly explanation: string;
      readonly kill: KillReport | null;
      readonly layers: { readonly asked: number };
    }
  | { readonly type: 'daemon.stopping' }
  | ({ readonly type: 'daemon.stopped' } & StopReport)
  | {
      readonly type: 'config.loaded';
      readonly file: string;
      readonly warnings: readonly string[];
      /** What became of the tunnels; null at the start, when all of them are new. */
      readonly changes: TunnelChanges | null;
    }
  | { readonly type: 'config.rejected'; readonly file: string; readonly message: string }
  | { readonly type: 'config.unwatched'; readonly file: string; readonly message: string }
  | { readonly type: 'log.failed'; readonly message: string }
  | { readonly type: 'state.failed'; readonly message: string }
  | {
      /** An address was not told that this tunnel waits for a person. Of the address no more than its origin. */
      readonly type: 'hook.failed';
      readonly tunnel: string;
      readonly url: string;
      /** The last answer; null: there was none. */
      readonly httpStatus: number | null;
      readonly tries: number;
      readonly message: string;
    }
  | {
      /** This process is pid 1, and nobody takes away the dead. */
      readonly type: 'init.missing';
      readonly pid: number;
      readonly zombies: number;
      readonly message: string;
    }
  | { readonly type: 'state.replaced'; readonly file: string; readonly message: string };

/** An event as it is kept: numbered from 1, with the time it happened (ISO 8601, UTC). */
export type JournalEntry = DaemonEvent & { readonly id: number; readonly at: string };

export interface Journal {
  append(event: DaemonEvent): void;
  /** The last entries, oldest first; a bounded ring. */
  recent(): readonly JournalEntry[];
  /** Calls for every entry from now on; answers how to stop. A reader that throws must not stop the others. */
  subscribe(reader: (entry: JournalEntry) => void): () => void;
}

/** One stream of facts with many readers: log files, the API, the terminal. */
export function createJournal(clock: Clock, kept = 1000): Journal {
  const ring: JournalEntry[] = [];
  const readers = new Set<(entry: JournalEntry) => void>();
  let id = 0;
  return { append, recent: () => [...ring], subscribe };

  function append(event: DaemonEvent): void {
    const entry = { ...event, id: ++id, at: new Date(clock.wallTime()).toISOString() };
    ring.push(entry);
    if (ring.length > kept) ring.shift();
    const failure = tell(entry);
    // A full disk must not stop a tunnel; it is a fact like others. That it cannot be told everywhere is no new fact.
    if (failure !== undefined && event.type !== 'log.failed') append({ type: 'log.failed', message: failure });
  }

  /** Every reader hears it, whatever becomes of the others; answers what went wrong. */
  function tell(entry: JournalEntry): string | undefined {
    let failure: string | undefined;
    for (const reader of readers) {
      try {
        reader(entry);
      } catch (error) {
        failure = error instanceof Error ? error.message : String(error);
      }
    }
    return failure;
  }

  function subscribe(reader: (entry: JournalEntry) => void): () => void {
    readers.add(reader);
    return () => readers.delete(reader);
  }
}
