import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import { isTunwardError } from '../../errors.js';
import { type Clock, createSlice } from '../../time.js';
import type { TunnelStatus } from '../../tunnel/runner.js';
import type { TunnelSpec } from '../../tunnel/spec.js';
import type { Supervisor } from '../../tunnel/supervisor.js';
import { toJson } from '../../wire.js';
import type { Journal } from '../events.js';

/** All tunnels as an answer, made once for all who ask at about the same time. */
export interface ListAnswer {
  /** Another one whenever the answer is another. */
  readonly etag: string;
  readonly json: Buffer;
  gzip(): Promise<Buffer>;
}

export interface Overview {
  list(): Promise<ListAnswer>;
  statuses(): Promise<readonly TunnelStatus[]>;
}

export interface OverviewOptions {
  readonly supervisor: Pick<Supervisor, 'specs' | 'status'>;
  readonly journal: Pick<Journal, 'subscribe'>;
  readonly clock: Clock;
}

/** What was seen is as good as new for so long; then it is looked at again while the old one is still given out… */
const FRESH_MS = 1000;
/** …but nothing older than that. */
const STALE_MS = 2000;

interface Entry {
  readonly status: TunnelStatus;
  readonly json: string;
}

/**
 * How all tunnels are. Their states are those of this moment, since every change of one is an event; their processes and
 * what those use are what was seen in the last one or two seconds: to look at 500 chains costs 60 ms, and fifty clients
 * may ask at once.
 */
export function createOverview({ supervisor, journal, clock }: OverviewOptions): Overview {
  /** Of the answers of another daemon's life none is ours. */
  const epoch = randomBytes(6).toString('hex');
  const entries = new Map<string, Entry>();
  /** The tunnels of the last look, in the order of the configuration. */
  let known: readonly TunnelSpec[] = [];
  let seenAt = Number.NEGATIVE_INFINITY;
  let looking: Promise<void> | undefined;
  /** Counts what has changed. */
  let version = 0;
  let answer: (ListAnswer & { readonly version: number }) | undefined;
  /** What has come by an event since a look began: newer than what the look has seen. */
  const newer = new Map<string, Entry>();
  journal.subscribe((event) => {
    if (!('status' in event)) return;
    const { status } = event;
    const entry = { status, json: toJson(status) };
    newer.set(status.id, entry);
    // Of one that is new the next look will tell; one that has left is not to come back.
    if (!entries.has(status.id)) return;
    entries.set(status.id, entry);
    version++;
  });
  return { list, statuses };

  async function list(): Promise<ListAnswer> {
    await refresh();
    if (answer?.version === version) return answer;
    const json = Buffer.from(`{"tunnels":[${known.flatMap(({ id }) => entries.get(id)?.json ?? []).join()}]}`);
    answer = { etag: `W/"${epoch}-${version}"`, json, gzip: once(() => gzip(json)), version };
    return answer;
  }

  async function statuses(): Promise<readonly TunnelStatus[]> {
    await refresh();
    return known.flatMap(({ id }) => entries.get(id)?.status ?? []);
  }

  /** Looks when that is due. An edit that adds, removes or labels tunnels is no event of theirs: it is due at once then. */
  async function refresh(): Promise<void> {
    for (let hasLooked = false; ; hasLooked = true) {
      const age = clock.now() - seenAt;
      const isKnown = isSameList(supervisor.specs(), known);
      if (isKnown && hasLooked) return;
      if (!isKnown || age >= FRESH_MS) looking ??= look().finally(() => (looking = undefined));
      if (isKnown && age < STALE_MS) {
        // Told by whoever waits for it: the next one who asks.
        looking?.catch(() => undefined);
        return;
      }
      await looking;
    }
  }

  /** Taken over as a whole: an answer between two slices of it is made of what was there before, and made once. */
  async function look(): Promise<void> {
    const began = clock.now();
    const slice = createSlice(undefined, { clock });
    const seen: Entry[] = [];
    newer.clear();
    const specs = supervisor.specs();
    for (const { id } of specs) {
      const status = statusOf(id);
      if (status) seen.push({ status, json: toJson(status) });
      await slice();
    }
    for (const entry of seen) entries.set(entry.status.id, newer.get(entry.status.id) ?? entry);
    const ids = new Set(specs.map(({ id }) => id));
    for (const id of entries.keys()) if (!ids.has(id)) entries.delete(id);
    known = specs;
    seenAt = began;
    version++;
  }

  /** undefined: gone meanwhile, by a configuration that was read again. */
  function statusOf(id: string): TunnelStatus | undefined {
    try {
      return supervisor.status(id);
    } catch (error) {
      if (isTunwardError(error, 'ERR_TUNNEL_UNKNOWN')) return undefined;
      throw error;
    }
  }
}

function isSameList(some: readonly TunnelSpec[], others: readonly TunnelSpec[]): boolean {
  return some.length === others.length && some.every((spec, at) => spec === others[at]);
}

const gzip = (bytes: Buffer): Promise<Buffer> => promisify(zlib.gzip)(bytes, { level: 1 });

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make();
    return made;
  };
}
