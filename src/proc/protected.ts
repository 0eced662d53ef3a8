import { isPid } from './pid.js';
import type { Proc } from './read.js';
import { type ProcessStat, readLeader, readStat } from './stat.js';

/**
 * Why a process may not be signalled, whoever asks for it; undefined when it may. Every pid passes here before it is
 * sent anything: it is a number that can be a pid, no thread's, and neither pid 1 nor the kernel's nor ours.
 *
 * @example
 * whyProtected(proc, stat); // 'protected: an ancestor of this process'
 */
export function whyProtected(proc: Proc, { pid, kernelThread }: ProcessStat): string | undefined {
  if (!isPid(pid)) return 'protected: no pid';
  if (pid === 1) return 'protected: pid 1';
  if (kernelThread) return 'protected: kernel thread';
  if (pid === process.pid) return 'protected: this very process';
  const leader = readLeader(proc, pid);
  if (leader !== undefined && leader !== pid) return `protected: a thread of pid ${leader}, and no process`;
  return isAbove(proc, pid) ? 'protected: an ancestor of this process' : undefined;
}

/** Read anew each time: by an older table the line to an ancestor may have broken, at a parent that has left. */
function isAbove(proc: Proc, pid: number): boolean {
  const seen = new Set<number>();
  for (let above = process.ppid; above > 0 && !seen.has(above); above = readStat(proc, above)?.ppid ?? 0) {
    if (above === pid) return true;
    seen.add(above);
  }
  return false;
}
