import { checkMarker } from '../proc/marker.js';
import { known, type Proc } from '../proc/read.js';
import { isGone, isSame, type ProcessRef, type ProcessStat, type ProcessTable } from '../proc/stat.js';
import { markerOf } from './chain.js';

/** The root of a chain that was started, as it is kept for the next life. */
export interface ChainRecord extends ProcessRef {
  readonly tunnel: string;
  /** The installation's mark at that time. */
  readonly instance: string;
}

/** What this installation has started and not ended, where it outlives the program. */
export interface Ledger {
  /** What a former life has left there, of this boot and this PID namespace. */
  readonly former: readonly ChainRecord[];
  /** Resolves when it is kept, or cannot be. */
  record(tunnel: string, root: ProcessRef): Promise<void>;
  erase(gone: readonly ProcessRef[]): void;
}

/**
 * Which of the recorded processes are there, and are what was recorded. A record is a hint, and no more: a file can be
 * old, copied or forged. So it is that process only where its start is the recorded one and its environment carries the
 * mark it was given; and whose daemon lives (another life has lost its mark, and both run) is in that daemon's care.
 */
export async function findRecorded(
  records: readonly ChainRecord[],
  { proc, table, instance, isLiving }: RecordSearch,
): Promise<ProcessStat[]> {
  const found: ProcessStat[] = [];
  for (const record of records) {
    const stat = table.get(record.pid);
    if (isGone(stat) || !isSame(stat, record)) continue;
    if (known(proc.owner(String(stat.pid))) !== process.geteuid?.()) continue;
    if (checkMarker(proc, stat.pid, markerOf(record.tunnel, record.instance)) !== 'carries') continue;
    if (record.instance === instance || !(await isLiving(record.instance))) found.push(stat);
  }
  return found;
}

export interface RecordSearch {
  readonly proc: Proc;
  readonly table: ProcessTable;
  /** The mark of the present life. */
  readonly instance: string;
  /** Is there another daemon of that instance now? */
  readonly isLiving: (instance: string) => Promise<boolean>;
}
