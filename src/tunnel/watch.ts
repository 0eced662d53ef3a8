import { isErrno } from '../errors.js';
import { readPlaces, readSocketInodes, socketsIn } from '../proc/fd.js';
import { findListener, findUnixListener } from '../proc/net.js';
import { known, type Pin, type Proc } from '../proc/read.js';
import { isSame, type ProcessRef, type ProcessStat, readFamily, readPinned } from '../proc/stat.js';
import type { Clock } from '../time.js';
import type { LinkState } from './engine.js';
import type { Bind } from './spec.js';

/** Looks at one chain, again and again. */
export interface Watch {
  look(): LinkState;
  /**
   * Are its listening sockets where they were when it was last ready? Asked for each connection that ends: an ssh that dies
   * closes what it has open one by one while it still shows as running (in 20 of 36 cases when the end of a connection was
   * read), its listening sockets before or with its connections.
   */
  isAlive(): boolean;
  /** The chain is over: nothing is kept open for it any more. */
  close(): void;
}

export interface WatchOptions {
  readonly proc: Proc;
  readonly clock: Clock;
  readonly root: ProcessRef | undefined;
  /** The local addresses that it has to listen on. */
  readonly binds: readonly Bind[];
  /** The path of a unix socket that it has to listen on instead; not given: none. */
  readonly socket?: string | undefined;
  /** What else must be so before it is ready. */
  readonly isGranted: () => boolean;
  readonly pins: PinBudget;
}

/** How many descriptors may be kept for looks, by all watches together. */
export interface PinBudget {
  left: number;
}

/** A quarter of all that this process may have: the rest is for what cannot do without. */
export function createPinBudget(proc: Proc): PinBudget {
  const most = /^Max open files +(\d+)/m.exec(known(proc.text('self/limits')) ?? '')?.[1] ?? '1024';
  return { left: Math.floor(Number(most) / 4) };
}

/** A chain that was ready when it was last looked at as a whole. */
interface Calm {
  readonly pins: readonly Pin[];
  readonly places: readonly Place[];
  readonly until: number;
}

/** Where a process of the chain has one of its LISTEN sockets. */
interface Place {
  readonly pid: number;
  readonly path: string;
  readonly link: string;
}

/** How long a chain that stays as it is goes without a whole look. */
const CALM_MS = 10_000;

/**
 * Ready means that our own processes hold the LISTEN socket of every address, not that somebody answers there. To see it
 * takes a walk over the chain and all that it has open, and the kernel's tables of sockets. Once it was so it is so as
 * long as the same processes run and have the same sockets in the same places: what was listening is so until its
 * descriptor is gone. Then a look is at those alone, through descriptors that are kept. The whole look comes again when
 * anything else is seen there (one is stopped, or has ended), and every 10 s, for whoever has joined the chain since.
 */
export function createWatch({ isGranted, pins: budget, ...options }: WatchOptions): Watch {
  const { proc, clock, root } = options;
  const findPlaces = createListenCheck(options);
  let calm: Calm | undefined;
  let last: readonly Place[] = [];
  return { look, close, isAlive: () => last.length > 0 && last.every(({ path, link }) => proc.link(path) === link) };

  function look(): LinkState {
    if (calm && clock.now() < calm.until && isCalm(proc, calm)) return 'ready';
    close();
    const family = root ? readFamily(proc, root) : [];
    if (family.some(({ state }) => state === 'T')) return 'frozen';
    if (family.length === 0 || !isGranted()) return 'waiting';
    const places = findPlaces(family);
    if (!places) return 'waiting';
    last = places;
    const pins = pinAll(family);
    if (pins) calm = { pins, places, until: clock.now() + CALM_MS };
    return 'ready';
  }

  /** Undefined: one has gone meanwhile, or there are no descriptors for it, and the next look is a whole one again. */
  function pinAll(family: readonly ProcessStat[]): Pin[] | undefined {
    if (family.length > budget.left) return undefined;
    const pins = family.map(({ pid }) => pinIfPossible(proc, pid)).filter((pin) => pin !== undefined);
    if (pins.length === family.length && pins.every((pin, at) => isSame(readPinned(proc, pin), family[at]))) {
      budget.left -= pins.length;
      return pins;
    }
    for (const pin of pins) pin.close();
    return undefined;
  }

  function close(): void {
    for (const pin of calm?.pins ?? []) pin.close();
    budget.left += calm?.pins.length ?? 0;
    calm = undefined;
  }
}

/** The places before the processes: while a pin answers, the number by which the places were read was its own. */
function isCalm(proc: Proc, { places, pins }: Calm): boolean {
  return places.every(({ path, link }) => proc.link(path) === link) && pins.every(isRunning);
}

/** The state stands behind the name, which may hold anything. */
function isRunning(pin: Pin): boolean {
  const text = known(pin.stat()) ?? '';
  const state = text.charAt(text.lastIndexOf(')') + 2);
  return state !== '' && !'TZX'.includes(state);
}

function pinIfPossible(proc: Proc, pid: number): Pin | undefined {
  try {
    return known(proc.pin(pid));
  } catch (error) {
    if (isErrno(error, 'EMFILE', 'ENFILE')) return undefined;
    throw error;
  }
}

/**
 * Asked every few milliseconds by every tunnel that starts: the kernel's tables, the dear part, are read only when the
 * chain has enough sockets that are not known to be something else (its connection to the server, its stderr).
 */
function createListenCheck({ proc, clock, root, ...wanted }: Omit<WatchOptions, 'isGranted' | 'pins'>) {
  const count = wanted.binds.length + (wanted.socket === undefined ? 0 : 1);
  const ours = root ? socketsIn([known(proc.link(`${root.pid}/fd/2`)) ?? '']) : [];
  let places: readonly Place[] = [];
  let opened = { count: '', until: 0 };
  let before: ReadonlySet<number> = new Set();
  let others: ReadonlySet<number> = new Set(ours);
  let forgetAt = Number.POSITIVE_INFINITY;
  return (family: readonly ProcessStat[]): readonly Place[] | undefined => {
    const isThere = ({ pid, path, link }: Place) => family.some((stat) => stat.pid === pid) && proc.link(path) === link;
    if (places.length === count && places.every(isThere)) return places;
    // What was there has gone, whatever has come instead of it.
    if (places.length > 0) opened = { count: '', until: 0 };
    places = [];
    const open = countOpen(proc, family);
    if (open !== undefined && open === opened.count && clock.now() < opened.until) return undefined;
    opened = { count: open ?? '', until: clock.now() + SAME_COUNT_MS };
    const held = new Set(family.flatMap((stat) => readSocketInodes(proc, stat)));
    const lasting = before;
    before = held;
    if (clock.now() >= forgetAt) others = new Set(ours);
    if ([...held].filter((inode) => !others.has(inode)).length < count) return undefined;
    const listening = findListening(proc, wanted, held);
    if (listening.size === count) places = locate(proc, family, listening);
    // One that has just come may be between its making and its listen(2), which lasts microseconds.
    others = new Set([...ours, ...[...held].filter((inode) => !listening.has(inode) && lasting.has(inode))]);
    forgetAt = clock.now() + OTHERS_MS;
    return places.length === count ? places : undefined;
  };
}

/** As many as before may be others by now. */
const SAME_COUNT_MS = 50;

/** How many descriptors each of them has, which takes a tenth of a walk over them; undefined before Linux 6.2. */
function countOpen(proc: Proc, family: readonly ProcessStat[]): string | undefined {
  const counts = family.map(({ pid }) => known(proc.size(`${pid}/fd`)) ?? 0);
  return counts.includes(0) ? undefined : counts.join();
}

/** Who was kept from its listen(2) for longer than from one look to the next is found all the same. */
const OTHERS_MS = 1000;

/** The sockets among these that listen on the addresses, one for each, in the order of their making: up to a missing one. */
function findListening(
  proc: Proc,
  { binds, socket }: Pick<WatchOptions, 'binds' | 'socket'>,
  held: ReadonlySet<number>,
): ReadonlySet<number> {
  const found = new Set<number>();
  for (const bind of binds) {
    const inode = findListener(proc, bind, held);
    if (inode === undefined) break;
    found.add(inode);
  }
  const inode = socket === undefined ? undefined : findUnixListener(proc, socket, held);
  return inode === undefined ? found : found.add(inode);
}

/** One place of each: several processes of a chain may have the same socket. */
function locate(proc: Proc, family: readonly ProcessStat[], inodes: ReadonlySet<number>): Place[] {
  const found = new Map<number, Place>();
  for (const stat of family) {
    for (const [inode, path] of readPlaces(proc, stat, inodes)) {
      if (!found.has(inode)) found.set(inode, { pid: stat.pid, path, link: `socket:[${inode}]` });
    }
  }
  return [...found.values()];
}
