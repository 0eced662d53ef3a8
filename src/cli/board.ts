import type { TunnelStatus } from '../tunnel/runner.js';
import type { ToldEvent } from './story.js';

/** How a person counts a tunnel: what is tried again is waiting, also while it is being tried. */
export type Kind = 'up' | 'coming' | 'waiting' | 'failed' | 'stopped';

export type Counts = Readonly<Record<Kind, number>>;

/** What came of tunnels that were started together, when the last of them had its answer. */
export interface Settled {
  readonly tunnels: number;
  readonly tookMs: number;
}

/** How all tunnels are, as far as events have told it: a look at each of them costs 0.1 ms. */
export interface Board {
  /** Takes in what happened. Answers what came of a start of several tunnels, if this was the end of it. */
  note(event: ToldEvent): Settled | undefined;
  /** How a tunnel is at this moment, by a look at it. */
  set(status: TunnelStatus): void;
  /** These are all, in this order. */
  replace(tunnels: readonly TunnelStatus[]): void;
  tunnels(): readonly TunnelStatus[];
  /** Whether tunnels that somebody started are still on their first way up. */
  isComing(): boolean;
}

export function createBoard(): Board {
  let known = new Map<string, TunnelStatus>();
  /** Those that were told to start and have not had their answer. */
  const coming = new Set<string>();
  let started = { tunnels: 0, at: 0 };
  return {
    note,
    set: (status) => void known.set(status.id, status),
    replace(tunnels) {
      known = new Map(tunnels.map((status) => [status.id, status]));
    },
    tunnels: () => [...known.values()],
    isComing: () => coming.size > 0,
  };

  function note(event: ToldEvent): Settled | undefined {
    if (event.type === 'daemon.stopping') coming.clear();
    if (!('status' in event)) return undefined;
    known.set(event.tunnel, event.status);
    const { state } = event.status;
    const at = Date.parse(event.at ?? event.status.since);
    if (state === 'starting' && 'asked' in event && event.asked) {
      if (coming.size === 0) started = { tunnels: 0, at };
      if (!coming.has(event.tunnel)) started = { ...started, tunnels: started.tunnels + 1 };
      coming.add(event.tunnel);
    }
    if (state === 'starting' || state === 'stopping') return undefined;
    if (!coming.delete(event.tunnel) || coming.size > 0) return undefined;
    return { tunnels: started.tunnels, tookMs: at - started.at };
  }
}

export function countTunnels(tunnels: readonly TunnelStatus[]): Counts {
  const counts = { up: 0, coming: 0, waiting: 0, failed: 0, stopped: 0 };
  for (const tunnel of tunnels) counts[kindOf(tunnel)]++;
  return counts;
}

export function kindOf({ state, attempt }: Pick<TunnelStatus, 'state' | 'attempt'>): Kind {
  if (state === 'up' || state === 'stopped') return state;
  if (state === 'fatal') return 'failed';
  return state === 'backoff' || attempt > 0 ? 'waiting' : 'coming';
}
