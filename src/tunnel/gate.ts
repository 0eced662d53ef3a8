import type { Clock } from '../time.js';

export interface GateOptions {
  /** Starts under way at once, in all and to one destination: sshd's MaxStartups (10:30:100) drops what is more. */
  readonly concurrency: number;
  readonly perHost: number;
  /** The least time between two starts, in milliseconds. */
  readonly intervalMs: number;
}

/** A place among the starts that are under way. */
export interface Place {
  /** Gives the place back. A server that refused halves what its destination may have next; a success doubles it. */
  release(outcome: 'up' | 'refused' | 'other'): void;
}

export interface EnterOptions {
  /** Asked until a place is given: somebody waits for the answer (now, or since this began), so it gets one at once. */
  readonly urgent: () => boolean;
  /** Those that share one connection: while one of them has a place, so many others need none of their own. */
  readonly party?: string | undefined;
  readonly signal: AbortSignal;
}

/** Of a party inside at once: each still has an address to prove free, and a socket to open. */
const PARTY = 64;

export interface Gate {
  /** Waits for a place, without a bound of its own: the wait ends with the start that asked for it, by its signal. */
  enter(host: string, options: EnterOptions): Promise<Place>;
  /**
   * Resolves when the next one of that party has come up: the connection that they share is there.
   *
   * @throws the signal's reason.
   */
  whenUp(party: string, signal: AbortSignal): Promise<void>;
}

interface Lane {
  used: number;
  limit: number;
}

interface Waiting {
  readonly lane: Lane;
  readonly party: string | undefined;
  readonly urgent: () => boolean;
  readonly letIn: () => void;
}

/** How often it is asked whether somebody has become urgent, or the interval is over. */
const ASK_MS = 10;

/** Keeps a boot of a hundred tunnels from being dropped by the server it goes to. One timer for all who wait. */
export function createGate(options: GateOptions, clock: Clock): Gate {
  let all = 0;
  let lastStart = Number.NEGATIVE_INFINITY;
  const lanes = new Map<string, Lane>();
  /** How many of each are inside. */
  const parties = new Map<string, number>();
  /** In the order in which they came. */
  const queue = new Set<Waiting>();
  /** Those who wait for one of a party to come up. */
  const hopeful = new Map<string, Set<() => void>>();
  let pause: AbortController | undefined;
  return { enter, whenUp };

  function enter(host: string, { urgent, party, signal }: EnterOptions): Promise<Place> {
    const lane = lanes.get(host) ?? { used: 0, limit: options.perHost };
    lanes.set(host, lane);
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const leave = () => {
        signal.removeEventListener('abort', abort);
        queue.delete(waiting);
      };
      const abort = () => {
        leave();
        reject(signal.reason);
        askLater();
      };
      const letIn = () => {
        leave();
        resolve(count(party, isAccompanied(party) ? beside() : occupy(lane)));
      };
      const waiting = { lane, party, urgent, letIn };
      signal.addEventListener('abort', abort);
      queue.add(waiting);
      ask();
    });
  }

  /** Looked at and let in one by one: a hundred who come in one turn would all see the same free place. */
  function ask(): void {
    for (const { lane, party, urgent, letIn } of queue) {
      if (isAccompanied(party) || isOpen(lane) || urgent()) letIn();
    }
    askLater();
  }

  function askLater(): void {
    if (queue.size === 0) {
      pause?.abort();
      pause = undefined;
    } else if (!pause) {
      const own = new AbortController();
      pause = own;
      clock.sleep(ASK_MS, own.signal).then(
        () => {
          pause = undefined;
          ask();
        },
        () => undefined, // nobody waits any more
      );
    }
  }

  function isOpen(lane: Lane): boolean {
    return all < options.concurrency && lane.used < lane.limit && clock.now() - lastStart >= options.intervalMs;
  }

  function isAccompanied(party: string | undefined): boolean {
    const inside = party === undefined ? 0 : (parties.get(party) ?? 0);
    return inside > 0 && inside < PARTY;
  }

  function count(party: string | undefined, place: Place): Place {
    if (party === undefined) return place;
    parties.set(party, (parties.get(party) ?? 0) + 1);
    let held = true;
    return {
      release(outcome) {
        if (!held) return;
        held = false;
        const left = (parties.get(party) ?? 1) - 1;
        if (left > 0) parties.set(party, left);
        else parties.delete(party);
        place.release(outcome);
        if (outcome === 'up') for (const tell of hopeful.get(party) ?? []) tell();
      },
    };
  }

  function whenUp(party: string, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const others = hopeful.get(party) ?? new Set();
      hopeful.set(party, others);
      const leave = () => {
        signal.removeEventListener('abort', abort);
        others.delete(tell);
        if (others.size === 0) hopeful.delete(party);
      };
      const abort = () => {
        leave();
        reject(signal.reason);
      };
      const tell = () => {
        leave();
        resolve();
      };
      signal.addEventListener('abort', abort);
      others.add(tell);
    });
  }

  /** It takes nobody's place, and makes room for those who wait for the party to be smaller. */
  function beside(): Place {
    return { release: () => queueMicrotask(ask) };
  }

  function occupy(lane: Lane): Place {
    all++;
    lane.used++;
    lastStart = clock.now();
    let held = true;
    return {
      release(outcome) {
        if (!held) return;
        held = false;
        all--;
        lane.used--;
        if (outcome === 'refused') lane.limit = Math.max(1, Math.floor(lane.limit / 2));
        if (outcome === 'up') lane.limit = Math.min(options.perHost, lane.limit * 2);
        // When this turn is over: of those who leave in it the last one may be the one that was refused.
        queueMicrotask(ask);
      },
    };
  }
}
