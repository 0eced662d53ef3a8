import { type Clock, until } from '../time.js';

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
  readonly signal: AbortSignal;
}

export interface Gate {
  /** Waits for a place, without a bound of its own: the wait ends with the start that asked for it, by its signal. */
  enter(host: string, options: EnterOptions): Promise<Place>;
}

interface Lane {
  used: number;
  limit: number;
}

/** Keeps a boot of a hundred tunnels from being dropped by the server it goes to. */
export function createGate(options: GateOptions, clock: Clock): Gate {
  let all = 0;
  let lastStart = Number.NEGATIVE_INFINITY;
  const lanes = new Map<string, Lane>();
  return { enter };

  async function enter(host: string, { urgent, signal }: EnterOptions): Promise<Place> {
    const lane = lanes.get(host) ?? { used: 0, limit: options.perHost };
    lanes.set(host, lane);
    // Looked at and taken in one: a hundred starts that begin in one turn would all see the same free place.
    const take = () => {
      if (!isOpen(lane) && !urgent()) return false;
      all++;
      lane.used++;
      lastStart = clock.now();
      return true;
    };
    await until(take, { timeoutMs: Number.POSITIVE_INFINITY, everyMs: 10, signal, clock });
    return occupy(lane);
  }

  function isOpen(lane: Lane): boolean {
    return all < options.concurrency && lane.used < lane.limit && clock.now() - lastStart >= options.intervalMs;
  }

  function occupy(lane: Lane): Place {
    let held = true;
    return {
      release(outcome) {
        if (!held) return;
        held = false;
        all--;
        lane.used--;
        if (outcome === 'refused') lane.limit = Math.max(1, Math.floor(lane.limit / 2));
        if (outcome === 'up') lane.limit = Math.min(options.perHost, lane.limit * 2);
      },
    };
  }
}
