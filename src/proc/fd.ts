import type { Slice } from '../time.js';
import { denied, known, type Proc } from './read.js';
import { type ProcessStat, type ProcessTable, readPidsNewestFirst, readStat } from './stat.js';

/** A process that has a socket open. One socket may be held by many: descriptors are inherited and passed on. */
export interface Holder {
  readonly inode: number;
  readonly stat: ProcessStat;
}

export interface HolderScan {
  /** Rows that were read just now; the others are read on the way. */
  readonly table?: ProcessTable | undefined;
  readonly slice: Slice;
}

/** How a scan ended: how many processes would not show their descriptors. */
export interface HolderScanEnd {
  readonly deniedCount: number;
}

/**
 * Finds the processes that hold these socket inodes, likeliest first: every ssh and autossh, then the rest, both from
 * the newest to the oldest. The caller stops when it has seen enough; only a scan that ran to its end has seen every
 * holder. Works on inodes, so a holder in another network namespace is found too.
 */
export async function* scanHolders(
  proc: Proc,
  inodes: ReadonlySet<number>,
  { table, slice }: HolderScan,
): AsyncGenerator<Holder, HolderScanEnd> {
  let deniedCount = 0;
  for await (const stat of likeliestFirst(proc, table, slice)) {
    const held = new Set<number>();
    for (const inode of walkSockets(proc, stat)) {
      if (inode === denied) deniedCount++;
      else if (inode !== undefined && inodes.has(inode)) held.add(inode);
      if (held.size === inodes.size) break;
      // A proxy has descriptors by the ten thousand, and each costs a call.
      await slice();
    }
    for (const inode of held) yield { inode, stat };
  }
  return { deniedCount };
}

/** Does this process hold one of the inodes now? For the re-check right before a decision. */
export function holds(proc: Proc, stat: ProcessStat, inodes: ReadonlySet<number>): boolean {
  for (const inode of walkSockets(proc, stat)) if (typeof inode === 'number' && inodes.has(inode)) return true;
  return false;
}

/** Every socket inode that a process has open now; none where its descriptors may not be seen. */
export function readSocketInodes(proc: Proc, stat: ProcessStat): number[] {
  return [...walkSockets(proc, stat)].filter((inode) => typeof inode === 'number');
}

async function* likeliestFirst(proc: Proc, table: ProcessTable | undefined, slice: Slice): AsyncGenerator<ProcessStat> {
  const others: ProcessStat[] = [];
  for (const pid of readPidsNewestFirst(proc)) {
    const stat = table?.get(pid) ?? readStat(proc, pid);
    if (stat && (stat.comm === 'ssh' || stat.comm === 'autossh')) yield stat;
    else if (stat && !stat.kernelThread) others.push(stat);
    await slice();
  }
  yield* others;
}

/** The open descriptors one by one: a socket's inode, or undefined for what is no socket. */
function* walkSockets(proc: Proc, stat: ProcessStat): Generator<number | undefined | typeof denied> {
  for (const folder of descriptorFolders(proc, stat)) {
    const names = proc.list(folder);
    if (names === denied) {
      // Of a process whose leader has ended that one's folder is root's, whoever owns the process: the others tell.
      yield denied;
      continue;
    }
    for (const name of names ?? []) {
      const match = /^socket:\[(\d+)\]$/.exec(known(proc.link(`${folder}/${name}`)) ?? '');
      yield match ? Number(match[1]) : undefined;
    }
  }
}

/** A leader that ended before its threads shows no descriptors of its own; those of its threads are the process's. */
function descriptorFolders(proc: Proc, { pid, state, threads }: ProcessStat): string[] {
  if (state !== 'Z' || threads <= 1) return [`${pid}/fd`];
  return (known(proc.list(`${pid}/task`)) ?? []).map((task) => `${pid}/task/${task}/fd`);
}
