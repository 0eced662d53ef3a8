import { TunwardError } from '../errors.js';
import { type Clock, systemClock } from '../time.js';
import { printable } from '../wire.js';
import { type ProcessTree, UNKNOWN, type Usage } from './backend.js';
import { askFindProcess, askPidusage, askPsTree, askTcpPortUsed, type PsRow } from './packages.js';
import { type ProcessInfo, readUserName } from './stat.js';

/*
 * The readers for systems without a Linux /proc. They run other programs, connect, and know less than /proc does. What
 * they answer is for looking: there is no identity in it to kill by.
 */

export interface PortableOptions {
  readonly signal?: AbortSignal | undefined;
  readonly clock?: Clock | undefined;
}

/** A process and everything below it. Its ports are not known. */
export function readTreePortably(pid: number, options: PortableOptions): Promise<ProcessTree | undefined> {
  const act = `read the tree of pid ${pid}`;
  return bounded(act, options, async () => {
    const usage = (await askPidusage(act, [pid])).find((each) => each.pid === pid);
    const rows = usage ? await readBelow(act, usage) : [];
    const [root] = rows;
    if (!root || root.state === 'Z') return undefined;
    const usages = await askPidusage(
      act,
      rows.map((row) => row.pid),
    );
    return grow(root, rows, new Map(usages.map((each) => [each.pid, each])));
  });
}

/** What a process uses. `cpu` is the average since its start; where `ps` counts whole seconds, so do the times. */
export async function readUsagePortably(pid: number, options: PortableOptions): Promise<Usage | undefined> {
  const act = `read the usage of pid ${pid}`;
  const usages = await bounded(act, options, () => askPidusage(act, [pid]));
  return usages.find((usage) => usage.pid === pid);
}

/** One process that has the port; undefined is "not known", never "nobody". There may be more of them. */
export async function findHolderPortably(port: number, options: PortableOptions): Promise<ProcessInfo | undefined> {
  const act = `find the holder of port ${port}`;
  const found = await bounded(act, options, () => askFindProcess(act, port));
  if (!found) return undefined;
  const user = found.uid === undefined ? 'unknown' : readUserName(found.uid);
  return { pid: found.pid, startTicks: UNKNOWN, command: printable(found.cmd), user, ageS: null };
}

/** Does somebody listen on this address of this host? It is asked by connecting, which a listener sees. */
export function acceptsPortably(host: string, port: number, options: PortableOptions): Promise<boolean> {
  const act = `connect to port ${port} of ${host}`;
  return bounded(act, options, () => askTcpPortUsed(act, { host, port }));
}

/** So many `ps` at a time. */
const AT_ONCE = 4;

/**
 * A process, first, and all below it. ps-tree is asked again for each one that it found, until nobody new appears: of
 * those further down it loses some.
 */
async function readBelow(act: string, { pid, ppid }: Usage): Promise<PsRow[]> {
  const ask = (of: number) => askPsTree(act, of);
  // A process has no row among those below it; among its parent's it has.
  const root = (await ask(ppid)).find((row) => row.pid === pid);
  const found = new Map(root ? [[pid, root]] : []);
  for (let next = [...found.keys()]; next.length > 0; ) {
    const rows = (await Promise.all(next.slice(0, AT_ONCE).map(ask))).flat();
    const fresh = rows.filter((row) => !found.has(row.pid));
    for (const row of fresh) found.set(row.pid, row);
    next = [...next.slice(AT_ONCE), ...new Set(fresh.map((row) => row.pid))];
  }
  return [...found.values()];
}

/** Whoever has ended since the rows were read, as every `ps` has, has no usage, and is left out with what was below it. */
function grow(row: PsRow, rows: readonly PsRow[], usages: ReadonlyMap<number, Usage>): ProcessTree | undefined {
  const usage = usages.get(row.pid);
  if (!usage) return undefined;
  const children = rows.filter((child) => child.ppid === row.pid && child.pid !== row.pid);
  return {
    pid: row.pid,
    startTicks: UNKNOWN,
    state: row.state,
    command: printable(row.command),
    ageS: usage.elapsed / 1000,
    rssBytes: usage.memory,
    ports: [],
    children: children.flatMap((child) => grow(child, rows, usages) ?? []),
  };
}

/** `ps` may hang, on a dead file server for one, and none of the packages has a deadline. */
const LATE_MS = 10_000;

async function bounded<T>(
  act: string,
  { signal, clock = systemClock }: PortableOptions,
  ask: () => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const over = new AbortController();
  const late = clock.sleep(LATE_MS, signal ? AbortSignal.any([signal, over.signal]) : over.signal).then(() => {
    throw new TunwardError('ERR_TIMEOUT', `Cannot ${act}: no answer after ${LATE_MS} ms`, { timeoutMs: LATE_MS });
  });
  const answer = ask();
  answer.catch(() => undefined); // given up: nobody waits for it any more
  try {
    return await Promise.race([answer, late]);
  } finally {
    late.catch(() => undefined); // called off: the answer came in time
    over.abort();
  }
}
