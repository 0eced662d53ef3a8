import type { ProcessRef, ProcessStat, ProcessTable } from './stat.js';

/**
 * All that came from a process, parents before their children, itself left out. Pure. A "child" that is older than its
 * parent is a recycled number, not a child; a table that goes in a circle (rows read at different moments) ends.
 */
export function descendants(table: ProcessTable, root: ProcessRef): ProcessStat[] {
  const children = childrenOf(table);
  const found: ProcessStat[] = [];
  const seen = new Set([root.pid]);
  const queue: ProcessRef[] = [root];
  for (let parent = queue.shift(); parent; parent = queue.shift()) {
    for (const child of children.get(parent.pid) ?? []) {
      if (seen.has(child.pid) || child.startTicks < parent.startTicks) continue;
      seen.add(child.pid);
      found.push(child);
      queue.push(child);
    }
  }
  return found;
}

/** The parents, nearest first, up to pid 1 or to where the table ends. None where its number is another's. Pure. */
export function ancestors(table: ProcessTable, of: ProcessRef | undefined): ProcessStat[] {
  const found: ProcessStat[] = [];
  let child = of && table.get(of.pid);
  if (!child || child.startTicks !== of?.startTicks) return found;
  const seen = new Set([child.pid]);
  while (child) {
    const parent = table.get(child.ppid);
    if (!parent || seen.has(parent.pid) || parent.startTicks > child.startTicks) break;
    seen.add(parent.pid);
    found.push(parent);
    child = parent;
  }
  return found;
}

export function childrenOf(table: ProcessTable): Map<number, ProcessStat[]> {
  const children = new Map<number, ProcessStat[]>();
  for (const stat of table.values()) {
    const siblings = children.get(stat.ppid);
    if (siblings) siblings.push(stat);
    else children.set(stat.ppid, [stat]);
  }
  return children;
}
