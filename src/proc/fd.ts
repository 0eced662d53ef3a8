import type { Slice } from '../time.js';
import { denied, known, type Proc, type Read } from './read.js';
import {
  isGone,
  type ProcessStat,
  type ProcessTable,
  readDescriptorSlots,
  readPidsNewestFirst,
  readStat,
} from './stat.js';
import { descendants } from './tree.js';

/** A process that has some of the sockets open. One socket may be held by many: descriptors are inherited and passed on. */
export interface Holder {
  readonly stat: ProcessStat;
  readonly inodes: readonly number[];
  /** Where in /proc it shows them, to look there again; none of one that does not. */
  readonly places: readonly string[];
}

export interface HolderScan {
  /** Rows that were read just now. With them the likeliest come first; without, every row is left unread but the holders'. */
  readonly table?: ProcessTable | undefined;
  readonly slice: Slice;
}

/** How a scan ended: who would not show what it has open. */
export interface HolderScanEnd {
  readonly refusing: readonly number[];
}

/**
 * Finds the processes that hold these socket inodes, newest first; with a table the likeliest first: this process's own
 * offspring, every ssh and autossh, then those of this process's user. The caller stops when it has seen enough; only a
 * scan that ran to its end has seen every holder. Works on inodes, so a holder in another network namespace is found too.
 */
export async function* scanHolders(
  proc: Proc,
  inodes: ReadonlySet<number>,
  { table, slice }: HolderScan,
): AsyncGenerator<Holder, HolderScanEnd> {
  const refusing: number[] = [];
  // Made once: of a server's connections there may be 15,000, and of processes 2,000.
  const wanted = linksTo(inodes);
  for (const pid of table ? likeliestFirst(proc, table) : readPidsNewestFirst(proc)) {
    const held = await findLinked(proc, pid, wanted, slice);
    if (held === denied) refusing.push(pid);
    if (held === denied || held.size === 0) continue;
    const stat = table?.get(pid) ?? readStat(proc, pid);
    if (stat) yield { stat, inodes: [...held.keys()], places: [...held.values()] };
  }
  return { refusing };
}

/** Which of the inodes a process has open, each with where, or that it does not show them. */
export function findHeld(
  proc: Proc,
  pid: number,
  inodes: ReadonlySet<number>,
  slice: Slice,
): Promise<ReadonlyMap<number, string> | typeof denied> {
  return findLinked(proc, pid, linksTo(inodes), slice);
}

/** By what a descriptor of it leads to, each inode. */
function linksTo(inodes: ReadonlySet<number>): ReadonlyMap<string, number> {
  return new Map([...inodes].map((inode) => [`socket:[${inode}]`, inode]));
}

async function findLinked(
  proc: Proc,
  pid: number,
  wanted: ReadonlyMap<string, number>,
  slice: Slice,
): Promise<ReadonlyMap<number, string> | typeof denied> {
  const held = new Map<number, string>();
  let isDenied = false;
  for (const piece of walkLinks(proc, pid)) {
    if (piece === denied) isDenied = true;
    else noteHeld(proc, { held, wanted, piece });
    if (held.size === wanted.size) break;
    // A proxy has descriptors by the ten thousand, and each costs a call. Awaiting costs too, so only when it is due.
    const pause = slice();
    if (pause) await pause;
  }
  return isDenied && held.size === 0 ? denied : held;
}

function noteHeld(
  proc: Proc,
  { held, wanted, piece }: { held: Map<number, string>; wanted: ReadonlyMap<string, number>; piece: Piece },
): void {
  for (const link of piece.links) {
    const inode = wanted.get(link);
    if (inode === undefined || held.has(inode)) continue;
    const place = piece.paths().find((path) => proc.link(path) === link);
    if (place !== undefined) held.set(inode, place);
  }
}

/** Does this process hold one of the inodes now? */
export function holds(proc: Proc, { pid }: ProcessStat, inodes: ReadonlySet<number>): boolean {
  const wanted = linksTo(inodes);
  for (const piece of walkLinks(proc, pid)) {
    if (piece !== denied && piece.links.some((link) => wanted.has(link))) return true;
  }
  return false;
}

/**
 * The same of one that was found just now, for the re-check in the tick of a decision: where it was found first, since
 * to go through 20,000 descriptors takes 50 ms.
 */
export function stillHolds(proc: Proc, { stat, places }: Holder, inodes: ReadonlySet<number>): boolean {
  if (places.length === 0) return holdsUnshown(proc, stat, inodes);
  const wanted = linksTo(inodes);
  return places.some((path) => wanted.has(known(proc.link(path)) ?? '')) || holds(proc, stat, inodes);
}

/** Every socket inode that a process has open now; none where its descriptors may not be seen. */
export function readSocketInodes(proc: Proc, { pid }: ProcessStat): number[] {
  return [...walkLinks(proc, pid)].flatMap((piece) => (piece === denied ? [] : socketsIn(piece.links)));
}

/** Where a process has these sockets, by inode: the path in /proc of one descriptor of each. */
export function readPlaces(proc: Proc, { pid }: ProcessStat, inodes: ReadonlySet<number>): ReadonlyMap<number, string> {
  const held = new Map<number, string>();
  const wanted = linksTo(inodes);
  for (const piece of walkLinks(proc, pid)) if (piece !== denied) noteHeld(proc, { held, wanted, piece });
  return held;
}

/** The sockets of a process in slices. */
export async function findSocketInodes(proc: Proc, { pid }: ProcessStat, slice: Slice): Promise<number[]> {
  const inodes: number[] = [];
  for (const piece of walkLinks(proc, pid)) {
    if (piece !== denied) inodes.push(...socketsIn(piece.links));
    const pause = slice();
    if (pause) await pause;
  }
  return inodes;
}

/** The inodes of those links that lead to sockets. */
export function socketsIn(links: readonly string[]): number[] {
  return links.flatMap((link) => {
    const match = /^socket:\[(\d+)\]$/.exec(link);
    return match ? [Number(match[1])] : [];
  });
}

/** Whoever may be asked for first: a look-up that stops at the first holder mostly stops here. */
function* likeliestFirst(proc: Proc, table: ProcessTable): Generator<number> {
  const self = table.get(process.pid);
  const own = new Set(self ? descendants(table, self).map(({ pid }) => pid) : []);
  const isLikely = (pid: number) => own.has(pid) || tunnelPrograms.has(table.get(pid)?.comm ?? '');
  const pids = readPidsNewestFirst(proc);
  yield* pids.filter(isLikely);
  const uid = process.geteuid?.();
  const others: number[] = [];
  for (const pid of pids) {
    if (isLikely(pid) || table.get(pid)?.kernelThread) continue;
    if (known(proc.owner(String(pid))) === uid) yield pid;
    else others.push(pid);
  }
  yield* others;
}

const tunnelPrograms: ReadonlySet<string> = new Set(['ssh', 'autossh']);

/** What some descriptors lead to (`socket:[4711]`, `/dev/null`), and which they are: more than the links, if some are gone. */
interface Piece {
  readonly links: readonly string[];
  readonly paths: () => string[];
}

/** All of a process's, in pieces; or that it does not show them. */
function* walkLinks(proc: Proc, pid: number): Generator<Piece | typeof denied> {
  let shown = 0;
  let refused = false;
  for (const piece of walkDescriptors(proc, pid)) {
    if (piece === denied) refused = true;
    else {
      shown += piece.links.length;
      yield piece;
    }
  }
  if (shown > 0) return;
  // Of a leader that ended before its threads the folder is empty, and root's whoever owns the process; the threads' tell.
  const stat = readStat(proc, pid);
  if (isGone(stat) || stat.kernelThread) return;
  if (stat.state !== 'Z') {
    if (refused) yield denied;
    return;
  }
  for (const task of known(proc.list(`${pid}/task`)) ?? []) {
    const folder = `${pid}/task/${task}/fd`;
    yield* walkListed(proc, folder, proc.pieces(folder, MANY));
  }
}

function* walkDescriptors(proc: Proc, pid: number): Generator<Piece | typeof denied> {
  const folder = `${pid}/fd`;
  if (!proc.has(`${folder}/${MANY}`)) return yield* walkListed(proc, folder, [proc.list(folder)]);
  const slots = countSlots(proc, pid);
  if (slots === 0) return yield* walkListed(proc, folder, proc.pieces(folder, MANY));
  for (let at = 0; at < slots; at += PIECE) {
    const links = proc.numberedLinks(folder, at, at + PIECE);
    const paths = () => Array.from({ length: PIECE }, (_, nth) => `${folder}/${at + nth}`);
    yield links === denied ? denied : { links, paths };
  }
}

function* walkListed(proc: Proc, folder: string, pieces: Iterable<Read<string[]>>): Generator<Piece | typeof denied> {
  for (const names of pieces) {
    if (names === undefined) return;
    if (names === denied) yield names;
    else yield* walkNamed(proc, folder, names);
  }
}

function* walkNamed(proc: Proc, folder: string, names: readonly string[]): Generator<Piece | typeof denied> {
  for (let at = 0; at < names.length; at += PIECE) {
    const links = proc.links(folder, names, at, at + PIECE);
    const paths = () => names.slice(at, at + PIECE).map((name) => `${folder}/${name}`);
    yield links === denied ? denied : { links, paths };
  }
}

/**
 * How far the numbers of descriptors can go, where most of them are taken: then it is quicker
 * to ask for each than to have them listed. 0 where the list is.
 */
function countSlots(proc: Proc, pid: number): number {
  const slots = readDescriptorSlots(proc, pid) ?? 0;
  return (known(proc.size(`${pid}/fd`)) ?? 0) * 2 > slots ? slots : 0;
}

/** To list 15,000 descriptors takes 16 ms: who has this one has many, and they are not listed at one go. */
const MANY = 1024;
/** So many links are read in 0.1 ms. */
const PIECE = 64;

/**
 * The holders that their folder does not show: threads with descriptors of their own (unshare(2) with CLONE_FILES), and
 * rings of io_uring with whom a socket is registered, which needs no descriptor then. There are hardly any, and it takes
 * several calls for each descriptor that there is: for a listener that nobody else has.
 */
export async function* scanUnshown(proc: Proc, inodes: ReadonlySet<number>, slice: Slice): AsyncGenerator<Holder> {
  for (const pid of readPidsNewestFirst(proc)) {
    const stat = readStat(proc, pid);
    if (!stat || stat.kernelThread) continue;
    const held = new Set<number>();
    for (const inode of walkUnshown(proc, stat)) {
      if (inodes.has(inode)) held.add(inode);
      const pause = slice();
      if (pause) await pause;
    }
    if (held.size > 0) yield { stat, inodes: [...held], places: [] };
  }
}

/** Has it one of the inodes now, in a thread or in a ring? */
function holdsUnshown(proc: Proc, stat: ProcessStat, inodes: ReadonlySet<number>): boolean {
  for (const inode of walkUnshown(proc, stat)) if (inodes.has(inode)) return true;
  return false;
}

/** The sockets that threads and rings have, and -1 for each step between that found none. */
function* walkUnshown(proc: Proc, { pid, threads }: ProcessStat): Generator<number> {
  const folders =
    threads > 1 ? (known(proc.list(`${pid}/task`)) ?? []).map((task) => `${pid}/task/${task}`) : [`${pid}`];
  for (const folder of folders) {
    for (const fd of walkNumbers(proc, `${folder}/fd`)) {
      const link = known(proc.link(`${folder}/fd/${fd}`)) ?? '';
      yield Number(/^socket:\[(\d+)\]$/.exec(link)?.[1] ?? -1);
      if (link !== 'anon_inode:[io_uring]') continue;
      const registered = known(proc.text(`${folder}/fdinfo/${fd}`)) ?? '';
      for (const [, inode] of registered.matchAll(/^\s*\d+: socket:\[(\d+)\]/gm)) yield Number(inode);
    }
  }
}

/** The descriptors of a folder, of which there may be too many for one reading; none where they may not be seen. */
export function* walkNumbers(proc: Proc, folder: string): Generator<string> {
  for (const names of proc.pieces(folder, MANY)) yield* known(names) ?? [];
}
