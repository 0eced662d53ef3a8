import { Refusal } from './api.js';
import { type CallOff, every } from './clock.js';
import type { Connection } from './connection.js';
import type { Panel, Sample } from './model.js';
import type { TrafficAnswer } from './types.js';

/** Bytes in a second, on the average of the time up to that moment; undefined: that is not known. */
export interface Rate {
  readonly atMs: number;
  readonly bytesIn: number | undefined;
  readonly bytesOut: number | undefined;
}

/** How much of the past is kept, and drawn. */
export const PAST_MS = 120_000;
const SAMPLE_MS = 2000;
/** After a longer silence (a page that nobody saw, a daemon that was away) nobody knows what went on meanwhile. */
const GAP_MS = 3 * SAMPLE_MS;

/** Asks for the counters of all tunnels every two seconds, as long as somebody sees what becomes of them. */
export function createTrafficWatch(panel: Panel, connection: Connection): (isSeen: boolean) => void {
  const { api, model, update } = panel;
  let callOff: CallOff | undefined;
  let isAsking = false;
  return (isSeen) => {
    if (isSeen === (callOff !== undefined)) return;
    callOff?.();
    callOff = isSeen ? every(SAMPLE_MS, () => void look()) : undefined;
    if (isSeen) void look();
  };

  async function look(): Promise<void> {
    // A daemon that is slow is not asked more and more.
    if (isAsking) return;
    isAsking = true;
    try {
      const answer = await api.call<TrafficAnswer>('/v1/traffic');
      update({ traffic: withSamples(model().traffic, answer) });
    } catch (error) {
      if (!(error instanceof Refusal) || error.problem.status === 401) connection.suspect(error);
    } finally {
      isAsking = false;
    }
  }
}

/** One sample more of each tunnel in the answer, without those that are too old; of the others nothing is kept. */
export function withSamples(
  known: ReadonlyMap<string, readonly Sample[]>,
  { at, tunnels }: TrafficAnswer,
): ReadonlyMap<string, readonly Sample[]> {
  const atMs = Date.parse(at);
  const entries = Object.entries(tunnels).map(([id, traffic]): [string, readonly Sample[]] => {
    // Of samples that would be later than this one (the daemon's clock was set) nothing can be said.
    const past = (known.get(id) ?? []).filter((sample) => sample.atMs < atMs && sample.atMs >= atMs - PAST_MS - GAP_MS);
    return [id, [...past, { atMs, traffic }]];
  });
  return new Map(entries);
}

/** One rate for each sample but the first. Counters that went back are those of another life of the daemon. */
export function ratesOf(samples: readonly Sample[]): readonly Rate[] {
  return samples.slice(1).map(({ atMs, traffic }, at) => {
    const before = samples[at];
    const passedMs = before ? atMs - before.atMs : 0;
    const bytesIn = before ? traffic.bytes_in - before.traffic.bytes_in : -1;
    const bytesOut = before ? traffic.bytes_out - before.traffic.bytes_out : -1;
    const isKnown = passedMs > 0 && passedMs <= GAP_MS && bytesIn >= 0 && bytesOut >= 0;
    if (!isKnown) return { atMs, bytesIn: undefined, bytesOut: undefined };
    return { atMs, bytesIn: (bytesIn * 1000) / passedMs, bytesOut: (bytesOut * 1000) / passedMs };
  });
}
