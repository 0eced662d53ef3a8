import { createSlice, type Slice } from '../time.js';
import { type BackendOptions, type ProcessTree, usesPortable } from './backend.js';
import { findSocketInodes } from './fd.js';
import { readAllListeners } from './net.js';
import { openProc, type Proc } from './read.js';
import { describeProcess, isGone, type ProcessStat, readTable } from './stat.js';
import { descendants } from './tree.js';

export type { ProcessTree } from './backend.js';

export interface ReadTreeOptions extends BackendOptions {
  readonly signal?: AbortSignal | undefined;
}

/** The library's {@link import('../door.js').readProcessTree}. */
export async function readProcessTree(pid: number, options: ReadTreeOptions = {}): Promise<ProcessTree | undefined> {
  if (usesPortable(options)) return (await import('./portable.js')).readTreePortably(pid, options);
  const proc = options.proc ?? openProc();
  const slice = createSlice(options.signal);
  const table = await readTable(proc, slice);
  const root = table.get(pid);
  if (isGone(root)) return undefined;
  const portsOf = await createPortReader(proc, slice);
  const children = new Map<number, ProcessTree[]>();
  // Leaf first, so that a node is made when all its children are.
  for (const stat of descendants(table, root).reverse()) {
    const node = toNode(proc, stat, { ports: await portsOf(stat), children: children.get(stat.pid) ?? [] });
    children.set(stat.ppid, [node, ...(children.get(stat.ppid) ?? [])]);
    await slice();
  }
  return toNode(proc, root, { ports: await portsOf(root), children: children.get(root.pid) ?? [] });
}

export type PortReader = (stat: ProcessStat) => Promise<number[]>;

/** Answers the TCP ports that a process listens on. The tables of sockets are read once, now. */
export async function createPortReader(proc: Proc, slice: Slice): Promise<PortReader> {
  const ports = new Map((await readAllListeners(proc, slice)).map(({ inode, port }) => [inode, port]));
  return async (stat) => {
    const held = (await findSocketInodes(proc, stat, slice)).flatMap((inode) => ports.get(inode) ?? []);
    return [...new Set(held)].sort((one, other) => one - other);
  };
}

function toNode(proc: Proc, stat: ProcessStat, rest: Pick<ProcessTree, 'ports' | 'children'>): ProcessTree {
  const { pid, startTicks, command, ageS } = describeProcess(proc, stat);
  return { pid, startTicks, state: stat.state, command, ageS, rssBytes: stat.rssBytes, ...rest };
}
