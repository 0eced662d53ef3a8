import type { LinkExit } from '../engine.js';
import type { Connection } from './connection.js';

/** The connections of all tunnels, so that those to one destination can share one. */
export interface Pool {
  /**
   * Joins the connection of that key, or makes one: who comes while it is being made waits for the same handshake. A tunnel
   * gets no connection that it has had before: its start is to be a new one. What the server says goes to all.
   *
   * A login by a person is for tunnels that have a person, and for those that come later: nobody waits while somebody
   * thinks. They also use, without a question, what is up already.
   */
  join(guest: Guest): Membership;
}

export interface Guest {
  readonly tunnel: string;
  /** What tells one destination from another; null: it shares with nobody. */
  readonly key: string | null;
  readonly isAttended: boolean;
  readonly say: (line: string) => void;
  readonly make: (options: {
    readonly say: (line: string) => void;
    readonly signal: AbortSignal;
  }) => Promise<Connection>;
}

export interface Membership {
  /** Rejects with what `make` has thrown. */
  readonly connection: Promise<Connection>;
  /** Leaves; whoever is the last one ends it. Resolves when this one has nothing to do with it any more. Idempotent. */
  leave(): Promise<void>;
}

/** One connection, being made or up. */
interface Shared {
  readonly made: Promise<Connection>;
  readonly calledOff: AbortController;
  readonly guests: Set<Guest>;
  /** The tunnels that it has been given to. */
  readonly seen: Set<string>;
  isUp: boolean;
}

export function createPool(): Pool {
  /** By key: the one that newcomers join. */
  const current = new Map<string, Shared>();
  return { join };

  function join(guest: Guest): Membership {
    const shared = find(guest) ?? make(guest);
    shared.guests.add(guest);
    shared.seen.add(guest.tunnel);
    let leaving: Promise<void> | undefined;
    return {
      connection: shared.made,
      leave: () => {
        leaving ??= leave(shared, guest);
        return leaving;
      },
    };
  }

  function find({ tunnel, key, isAttended }: Guest): Shared | undefined {
    if (key === null) return undefined;
    const places = isAttended ? [placeOf(key, true), placeOf(key, false)] : [placeOf(key, false)];
    const candidates = places.flatMap((place) => current.get(place) ?? []);
    return candidates.find(({ seen, isUp }) => !seen.has(tunnel) && (isUp || !isAttended));
  }

  function make(guest: Guest): Shared {
    const { key, isAttended } = guest;
    const guests = new Set<Guest>();
    const calledOff = new AbortController();
    const say = (line: string) => {
      for (const each of guests) each.say(line);
    };
    const made = guest.make({ say, signal: calledOff.signal });
    const shared: Shared = { made, calledOff, guests, seen: new Set(), isUp: false };
    const place = key === null ? undefined : placeOf(key, isAttended);
    const forget = () => {
      if (place !== undefined && current.get(place) === shared) current.delete(place);
    };
    if (place !== undefined && !isAttended) current.set(place, shared);
    made.then((connection) => {
      shared.isUp = true;
      if (place !== undefined && guests.size > 0) current.set(place, shared);
      return connection.ended.then(forget);
    }, forget);
    calledOff.signal.addEventListener('abort', forget, { once: true });
    return shared;
  }

  async function leave({ made, calledOff, guests }: Shared, guest: Guest): Promise<void> {
    guests.delete(guest);
    if (guests.size > 0) return;
    calledOff.abort(new Error('Nobody waits for this connection any more'));
    await made.then(
      (connection) => connection.close(),
      () => undefined, // it was not made, and says so to whoever waits
    );
  }
}

function placeOf(key: string, isAttended: boolean): string {
  return `${isAttended ? 'a person' : 'nobody'} ${key}`;
}

/** What a link ends with that was stopped. */
export const stopped: LinkExit = { code: null, signal: null, reason: 'killed', lastError: null };
