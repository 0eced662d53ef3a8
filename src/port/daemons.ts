import { holds, scanHolders } from '../proc/fd.js';
import { known, type Proc } from '../proc/read.js';
import { type ProcessRef, readStat } from '../proc/stat.js';
import { createSlice } from '../time.js';

/** What the name of a daemon's lock begins with, an abstract socket; 32 hexadecimal digits follow (daemon/instance.ts). */
export const LOCK_PREFIX = 'tunward-';

/**
 * The inodes of the locks that daemons in this network namespace hold: a process that has one open is a daemon, whatever
 * it is called. It takes its lock before it listens for any tunnel, and gives it to no child. Read after the listeners.
 *
 * @example
 * isDaemon(proc, holder, readLocks(proc));
 */
export function readLocks(proc: Proc): ReadonlySet<number> {
  const table = known(proc.text('net/unix')) ?? '';
  return new Set([...table.matchAll(LOCK_ROW)].map(([, inode]) => Number(inode)));
}

/** One that listens (`__SO_ACCEPTCON`): a connection to it has its name as well. Some versions fill the name with NULs, shown as `@`. */
const LOCK_ROW = new RegExp(`^\\S+: \\S+ \\S+ 00010000 0001 \\S+ +(\\d+) @(${LOCK_PREFIX}[0-9a-f]{32})@*$`, 'gm');

/** Does this process hold one of the locks now? Not of one whose descriptors may not be seen. */
export function isDaemon(proc: Proc, { pid }: Pick<ProcessRef, 'pid'>, locks: ReadonlySet<number>): boolean {
  if (locks.size === 0) return false;
  const stat = readStat(proc, pid);
  return stat !== undefined && holds(proc, stat, locks);
}

/** The daemon that has the lock of this name; undefined: none, or its descriptors may not be seen. */
export async function findLockHolder(proc: Proc, name: string): Promise<number | undefined> {
  const table = known(proc.text('net/unix')) ?? '';
  const inodes = [...table.matchAll(LOCK_ROW)].flatMap(([, inode, lock]) => (lock === name ? [Number(inode)] : []));
  if (inodes.length === 0) return undefined;
  for await (const { stat } of scanHolders(proc, new Set(inodes), { slice: createSlice() })) return stat.pid;
  return undefined;
}
