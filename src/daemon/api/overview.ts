import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import { isTunwardError } from '../../errors.js';
import { type Clock, createSlice } from '../../time.js';
import type { TunnelStatus } from '../../tunnel/runner.js';
import type { Supervisor } from '../../tunnel/supervisor.js';
import { toJson } from '../../wire.js';
import type { Journal } from '../events.js';

/** All tunnels as an answer, made once for all who ask at about the same time. */
export interface ListAnswer {
  /** Another one whenever the answer is another. */
  readonly etag: string;
  readonly json: string;
  gzip(): Promise<Uint8Array>;
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
  let seenAt = Number.NEGATIVE_INFINITY;
  let looking: Promise<void> | undefined;
  /** Counts what has changed. */
  let version = 0;
  let answer: (ListAnswer & { readonly version: number; readonly order: string }) | undefined;
  journal.subscribe((entry) => {
    if ('status' in entry) note(entry.status);
  });
  return { list, statuses };

  function note(status: TunnelStatus): void {
    entries.set(status.id, { status, json: toJson(status) });
    version++;
  }

  async function list(): Promise<ListAnswer> {
    const ids = await refresh();
    const order = ids.join();
    if (answer?.version === version && answer.order === order) return answer;
    const json = `{"tunnels":[${ids.flatMap((id) => entries.get(id)?.json ?? []).join()}]}`;
    answer = { etag: `W/"${epoch}-${version}"`, json, gzip: once(() => gzip(json)), version, order };
    return answer;
  }

  async function statuses(): Promise<readonly TunnelStatus[]> {
    return (await refresh()).flatMap((id) => entries.get(id)?.status ?? []);
  }

  /** Looks when that is due; answers who there is, in the order of the configuration. */
  async function refresh(): Promise<string[]> {
    const age = clock.now() - seenAt;
    const ids = supervisor.specs().map(({ id }) => id);
    if (age >= FRESH_MS) looking ??= look().finally(() => (looking = undefined));
    if (age < STALE_MS && ids.every((id) => entries.has(id))) {
      // Told by whoever waits for it: the next one who asks.
      looking?.catch(() => undefined);
      return ids;
    }
    await (looking ?? look());
    return supervisor.specs().map(({ id }) => id);
  }

  async function look(): Promise<void> {
    const began = clock.now();
    const slice = createSlice(undefined, { clock });
    for (const { id } of supervisor.specs()) {
      const status = statusOf(id);
      if (status) note(status);
      await slice();
    }
    const ids = new Set(supervisor.specs().map(({ id }) => id));
    for (const id of entries.keys()) if (!ids.has(id)) entries.delete(id);
    seenAt = began;
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

const gzip = (text: string): Promise<Uint8Array> => promisify(zlib.gzip)(text, { level: 1 });

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make();
    return made;
  };
}
