import { AssertionError } from 'node:assert';
import { TunwardError } from '../errors.js';
import { type KillReport, killChains } from '../kill.js';
import { endpoint } from '../port/words.js';
import { readSocketInodes } from '../proc/fd.js';
import { createMarkerSearch } from '../proc/marker.js';
import { readListeners, type Socket } from '../proc/net.js';
import { known, openProc } from '../proc/read.js';
import { isGone, type ProcessRef, type ProcessStat, readCommand, readPids, readStat, readTable } from '../proc/stat.js';
import { descendants } from '../proc/tree.js';
import { assertMs, createSlice, growing, until } from '../time.js';
import { markEnvironment } from './environment.js';
import { isHeld } from './ports.js';

/** Something that was not there when the watch began, and is still there. */
export interface Leak {
  readonly kind: 'process' | 'listener' | 'handle';
  /** In words: `process 812 (node server.js), a child of this one, listens on 127.0.0.1:9443`. */
  readonly what: string;
  /** Of a process. */
  readonly ref?: ProcessRef;
  readonly command?: string;
  /** Of a process or a listener: the TCP ports it listens on. */
  readonly ports: readonly number[];
  /** Of a listener or a handle: its type as `process.getActiveResourcesInfo()` has it. */
  readonly type?: string;
}

/** What a test left behind. An AssertionError, so a test runner shows it as a failure and not as a crash. */
export class LeakError extends AssertionError {
  readonly leaks: readonly Leak[];

  constructor(leaks: readonly Leak[], head = `${leaks.length} ${leaks.length === 1 ? 'leak' : 'leaks'}`) {
    super({ message: `${head}:\n${leaks.map(({ what }) => `  ${what}`).join('\n')}` });
    this.leaks = leaks;
  }
}

export interface LeakOptions {
  /** How long what is on its way out may take. Default: 1000. */
  readonly waitMs?: number;
}

export interface LeakWatch {
  /** What is there at this moment and was not when the watch began. */
  find(): Promise<Leak[]>;
  /** @throws LeakError with every leak by pid, command and port, when one is still there after `waitMs`. */
  assertNoLeaks(options?: LeakOptions): Promise<void>;
}

/**
 * Begins a watch: what is there now does not count.
 *
 * - processes: everything below this one, and everything that it has started from now on wherever that has gone (a marker
 *   in the environment is inherited by what leaves the tree);
 * - listeners: the TCP ports that this process itself listens on, reservations that were not released among them;
 * - handles: what else keeps this process from ending (`process.getActiveResourcesInfo()`). Timers only by request,
 *   since a test runner has timers of its own: both ends of the watch must be at the same place of a run then.
 *
 * @example
 * const watch = watchLeaks();
 * await runWhatIsTested();
 * await watch.assertNoLeaks();
 */
export function watchLeaks({ timers = false } = {}): LeakWatch {
  const proc = openProc();
  const isOurs = known(proc.link('self')) === String(process.pid);
  const search = createMarkerSearch(proc, markEnvironment());
  const former = {
    processes: new Set(readPids(proc).map((pid) => idOf(readStat(proc, pid)))),
    listeners: new Set(isOurs ? ownListeners().map(({ inode }) => inode) : []),
    handles: countHandles(timers),
  };
  return { find, assertNoLeaks: assertNone };

  async function assertNone({ waitMs = 1000 }: LeakOptions = {}): Promise<void> {
    assertMs('waitMs', waitMs);
    let leaks: Leak[] = [];
    let empty = 0;
    const isClean = async () => {
      const found = await find();
      if (found.length > 0) leaks = found;
      empty = found.length > 0 ? 0 : empty + 1;
      return empty >= EMPTY_LOOKS;
    };
    const clean = await until(isClean, { timeoutMs: waitMs, everyMs: growing(50) });
    if (!clean && leaks.length > 0) throw new LeakError(leaks);
  }

  async function find(): Promise<Leak[]> {
    if (!isOurs) {
      const message = `Cannot look for leaks by ${proc.root}: it is not mounted, or shows another PID namespace`;
      throw new TunwardError('ERR_PROC_FORMAT', message, {});
    }
    const handles = findHandles();
    return [...(await findProcesses()), ...findListeners(), ...handles];
  }

  async function findProcesses(): Promise<Leak[]> {
    const slice = createSlice();
    const table = await readTable(proc, slice);
    const own = table.get(process.pid);
    // Pid 1 adopts the orphans of strangers: there the marker alone says whose a process is.
    const below = own && process.pid !== 1 ? descendants(table, own) : [];
    const carriers = await search.look(slice, table);
    const found = new Map<number, string>();
    for (const { pid, ppid } of below) {
      found.set(pid, ppid === process.pid ? 'a child of this one' : `below this one, a child of ${ppid}`);
    }
    for (const { pid } of carriers) if (!found.has(pid)) found.set(pid, 'started by this one, and gone its own way');
    for (const carrier of carriers) {
      for (const { pid, ppid } of descendants(table, carrier))
        if (!found.has(pid)) found.set(pid, `a child of ${ppid}`);
    }
    const alive = [...found].flatMap(([pid, why]) => describe(table.get(pid) ?? readStat(proc, pid), why));
    return alive.filter(({ ref }) => !former.processes.has(idOf(ref)) && ref.pid !== process.pid);
  }

  function describe(stat: ProcessStat | undefined, why: string): (Leak & { ref: ProcessRef })[] {
    if (isGone(stat)) return [];
    const { pid, startTicks } = stat;
    const command = readCommand(proc, stat);
    const listeners = listenersOf(stat);
    const listening = listeners.length > 0 ? `, listens on ${listeners.map(endpoint).join(' and ')}` : '';
    return [
      {
        kind: 'process',
        what: `process ${pid} (${command}), ${why}${listening}`,
        ref: { pid, startTicks },
        command,
        ports: listeners.map(({ port }) => port),
      },
    ];
  }

  function findListeners(): Leak[] {
    const fresh = ownListeners().filter(({ inode }) => !former.listeners.has(inode));
    return fresh.map((row) => ({
      kind: 'listener',
      what: isHeld(row.port)
        ? `port ${row.port} is reserved by this process and was never released`
        : `this process listens on ${endpoint(row)}`,
      ports: [row.port],
      type: 'TCPServerWrap',
    }));
  }

  function findHandles(): Leak[] {
    return [...countHandles(timers)].flatMap(([type, count]) => {
      const more = count - (former.handles.get(type) ?? 0);
      return more > 0
        ? [{ kind: 'handle', what: `${more} × ${type} keeps this process from ending`, ports: [], type }]
        : [];
    });
  }

  function ownListeners(): Socket[] {
    const stat = readStat(proc, process.pid);
    return stat ? listenersOf(stat) : [];
  }

  function listenersOf(stat: ProcessStat): Socket[] {
    const held = new Set(readSocketInodes(proc, stat));
    return held.size === 0 ? [] : readListeners(proc).filter(({ inode }) => held.has(inode));
  }
}

/**
 * Asserts that nothing is left of what was started since `tunward/testing` was loaded. See {@link watchLeaks}, which
 * begins later.
 *
 * @throws LeakError
 * @example
 * afterEach(() => assertNoLeaks());
 */
export function assertNoLeaks(options?: LeakOptions): Promise<void> {
  return sinceLoaded.assertNoLeaks(options);
}

/** Ends the processes among these leaks, and what they have started meanwhile. */
export async function endProcesses(leaks: readonly Leak[]): Promise<KillReport> {
  const targets = leaks.flatMap(({ ref }) => (ref ? [{ ref, why: 'left by a test', below: 'all' as const }] : []));
  return killChains(targets, { marker: markEnvironment() });
}

/** One empty look proves nothing against what forks and leaves. */
const EMPTY_LOOKS = 3;

/** Named otherwise (as a process, as a listener), or there and gone with each turn of the event loop. */
const notHandles: ReadonlySet<string> = new Set(['ProcessWrap', 'TCPServerWrap', 'TTYWrap', 'Immediate', 'TickObject']);

function countHandles(timers: boolean): Map<string, number> {
  const counts = new Map<string, number>();
  // They are opened when they are first asked for, and would look like something that a test has opened.
  for (const stream of ['stdout', 'stderr'] as const) void process[stream].isTTY;
  for (const type of process.getActiveResourcesInfo()) {
    if (notHandles.has(type) || (type === 'Timeout' && !timers)) continue;
    counts.set(type, (counts.get(type) ?? 0) + 1);
  }
  return counts;
}

function idOf(ref: ProcessRef | undefined): string {
  return ref ? `${ref.pid}:${ref.startTicks}` : '';
}

const sinceLoaded = watchLeaks();
