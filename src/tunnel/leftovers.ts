import path from 'node:path';
import { climb, type KillReport, type KillTarget } from '../kill.js';
import { isDaemon, readLocks } from '../port/daemons.js';
import { listenersInTheWay } from '../port/listeners.js';
import { busyHosts, hasIpv6Loopback } from '../port/probe.js';
import { endpoint } from '../port/words.js';
import type { Census } from '../proc/census.js';
import { scanHolders } from '../proc/fd.js';
import { checkMarker, createMarkerSearch, type Marker, readVariable } from '../proc/marker.js';
import { known, type Proc } from '../proc/read.js';
import { type ProcessStat, type ProcessTable, readArguments, updateTable } from '../proc/stat.js';
import { ancestors } from '../proc/tree.js';
import { createSlice, until } from '../time.js';
import { isSameListeningEnd, parseSshCommand } from './arguments.js';
import { type ChainRecord, findRecorded } from './ledger.js';
import { bindSet, type Takeover, type TunnelSpec } from './spec.js';

export type Layer = 'marker' | 'ledger' | 'forward' | 'port' | 'anyone';

/** A chain that a former life, or somebody else, left in a tunnel's way. */
export interface Leftover {
  readonly layer: Layer;
  readonly target: KillTarget;
}

/** How many processes were killed by what they were found by: `chain` are those below, and a chain of our own. */
export type LayerCounts = Readonly<Partial<Record<Layer | 'chain', number>>>;

/** What became of leftovers. */
export interface Cleared {
  readonly kill: KillReport;
  readonly layers: LayerCounts;
}

/** Whose death is whose doing: the top of each leftover counts as what it was found by. */
export function countLayers({ killed }: KillReport, leftovers: readonly Leftover[]): LayerCounts {
  const layers = new Map(leftovers.map(({ layer, target }) => [target.ref.pid, layer]));
  const counts: Partial<Record<Layer | 'chain', number>> = {};
  for (const { pid } of killed) {
    const layer = layers.get(pid) ?? 'chain';
    counts[layer] = (counts[layer] ?? 0) + 1;
  }
  return counts;
}

export interface LeftoverOptions {
  readonly proc: Proc;
  /** The value of TUNWARD_INSTANCE of this installation. */
  readonly instance: string;
  readonly takeover: Takeover;
  /** What carries this is ours, whatever else it is. */
  readonly marker: Marker;
  /** Where a command line of ssh goes, as `user@host:port`; undefined when ssh cannot tell. Nothing is connected. */
  readonly resolve: (words: readonly string[]) => Promise<string | undefined>;
  /** Where the spec's own ssh goes, the same way. */
  readonly resolveSpec: (spec: TunnelSpec) => Promise<string | undefined>;
  /** Is there a daemon of that instance now? */
  readonly isLiving: (instance: string) => Promise<boolean>;
  /** What others have seen just now. */
  readonly census?: Census | undefined;
  /** What a former life has written down. */
  readonly records?: readonly ChainRecord[] | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * What has to go before these tunnels can start, in layers as far as `takeover` allows: what carries our marker, or
 * was written down by a former life; ssh and autossh that go to the same place with the same forward; ssh and autossh that listen on a port of ours; anyone
 * who does. The port of a remote forward is never looked up here: on this side it belongs to the service that is
 * being exposed. Another daemon's chain, and another user's, is covered by `any` alone.
 */
export async function findLeftovers(specs: readonly TunnelSpec[], options: LeftoverOptions): Promise<Leftover[]> {
  const { proc, takeover, signal, census } = options;
  const slice = createSlice(signal);
  const table = census?.table() ?? new Map<number, ProcessStat>();
  await updateTable(proc, table, slice);
  const carriers = await findCarriers(table, options);
  const isOurs = (stat: ProcessStat) => checkMarker(proc, stat.pid, options.marker) === 'carries';
  const found = new Map<number, Leftover>();
  const note = (layer: Layer, stat: ProcessStat, why: string, below: KillTarget['below'] = 'all') => {
    const top = climb(table, stat, isOurs);
    if (!found.has(top.pid)) found.set(top.pid, { layer, target: { ref: top, why, below } });
  };
  const nearest = aboveAndSelf(table);
  for (const stat of carriers) {
    // A manager that was itself started inside of a tunnel's environment carries the marker, and so do its parents.
    if (!nearest.has(stat.pid)) note('marker', stat, `carries ${options.marker.join(' and ')}`);
  }
  for (const stat of await findRecorded(options.records ?? [], { ...options, table })) {
    if (!nearest.has(stat.pid)) note('ledger', stat, 'was started by a former life of this daemon');
  }
  if (takeover === 'own') return [...found.values()];
  for (const { stat, why } of await findSameForwards(specs, table, options)) note('forward', stat, why);
  for (const { stat, why, isTunnel } of await findPortHolders(specs, options)) {
    if (isTunnel && (takeover === 'any' || (await isUnclaimed(stat, options)))) note('port', stat, why);
    else if (takeover === 'any') note('anyone', stat, why, isTunnel ? 'all' : 'session');
  }
  return [...found.values()];
}

/** Who is inside execve at the first look shows no environment: it is looked at until it has one, or is known to have none. */
async function findCarriers(table: ProcessTable, options: LeftoverOptions): Promise<ProcessStat[]> {
  const { proc, marker, census, signal } = options;
  const slice = createSlice(signal);
  const search = createMarkerSearch(proc, marker, { memory: census?.markers });
  const found = new Map<number, ProcessStat>();
  const isComplete = async () => {
    for (const stat of await search.look(slice, table)) found.set(stat.pid, stat);
    return !search.isPending();
  };
  await until(isComplete, { timeoutMs: EXECVE_BOUND_MS, everyMs: 1, signal });
  return [...found.values()];
}

/** Nobody is taken to be inside execve for longer than a fraction of that. */
const EXECVE_BOUND_MS = 1000;

/** ssh and autossh whose listening end and destination are a spec's: compared field by field, never as text. */
async function findSameForwards(specs: readonly TunnelSpec[], table: ProcessTable, options: LeftoverOptions) {
  const same: { stat: ProcessStat; why: string }[] = [];
  const isOurs = (stat: ProcessStat) =>
    options.census?.markers.recall(stat, [`TUNWARD_INSTANCE=${options.instance}`]) === 'carries';
  for (const stat of table.values()) {
    if (stat.comm !== 'ssh' && stat.comm !== 'autossh') continue;
    // Where 500 are in our own care, to take their command lines apart is 15 ms.
    if (options.takeover !== 'any' && isOurs(stat)) continue;
    const command = parseSshCommand(readArguments(options.proc, stat.pid), stat.comm);
    if (!command) continue;
    const rivals = specs.filter((spec) =>
      command.forwards.some((forward) => isSameListeningEnd(forward, spec.forward)),
    );
    // Another user's ssh reads another configuration, and to resolve by it would run its `Match exec` as this user.
    if (rivals.length === 0 || !isOwnUsers(stat, options)) continue;
    if (options.takeover !== 'any' && !(await isUnclaimed(stat, options))) continue;
    const words = absoluteWords(options.proc, stat.pid, command.destinationWords);
    const goesTo = await options.resolve([...words, '--', command.destination]);
    for (const spec of rivals) {
      if (goesTo === undefined || goesTo !== (await options.resolveSpec(spec))) continue;
      same.push({ stat, why: `is a ${stat.comm} with the same forward to ${goesTo}` });
    }
  }
  return same;
}

/** A file that is named relative to the process's own folder is meant from there. */
function absoluteWords(proc: Proc, pid: number, words: readonly string[]): string[] {
  return words.map((word, at) =>
    words[at - 1] === '-F' && word !== 'none' ? path.resolve(known(proc.link(`${pid}/cwd`)) ?? '/', word) : word,
  );
}

async function findPortHolders(specs: readonly TunnelSpec[], { proc, signal }: LeftoverOptions) {
  const holders: { stat: ProcessStat; why: string; isTunnel: boolean }[] = [];
  const ports = new Map<number, string>();
  for (const { forward } of specs) {
    if (forward.side !== 'local') continue;
    const hosts = bindSet(forward, hasIpv6Loopback()).map(({ host }) => host);
    const busy = await busyHosts(hosts, forward.listen.port);
    for (const row of busy.length > 0 ? await listenersInTheWay(proc, forward.listen.port, busy) : []) {
      ports.set(row.inode, endpoint(row));
    }
  }
  if (ports.size === 0) return holders;
  const locks = readLocks(proc);
  for await (const { stat, inodes } of scanHolders(proc, new Set(ports.keys()), { slice: createSlice(signal) })) {
    // Whatever is taken over: with another daemon all its tunnels would die.
    if (isDaemon(proc, stat, locks)) continue;
    const isTunnel = stat.comm === 'ssh' || stat.comm === 'autossh';
    holders.push({ stat, why: `listens on ${inodes.map((inode) => ports.get(inode)).join(' and ')}`, isTunnel });
  }
  return holders;
}

/** Ours to take: of our own user, and no daemon that lives (this one included) has it in its care. */
async function isUnclaimed(stat: ProcessStat, options: LeftoverOptions): Promise<boolean> {
  if (!isOwnUsers(stat, options)) return false;
  const owner = readVariable(options.proc, stat.pid, 'TUNWARD_INSTANCE');
  return owner === undefined || (owner !== options.instance && !(await options.isLiving(owner)));
}

function isOwnUsers({ pid }: ProcessStat, { proc }: LeftoverOptions): boolean {
  return known(proc.owner(String(pid))) === process.geteuid?.();
}

function aboveAndSelf(table: ProcessTable): ReadonlySet<number> {
  const self = table.get(process.pid);
  return new Set([process.pid, ...(self ? ancestors(table, self).map(({ pid }) => pid) : [])]);
}
