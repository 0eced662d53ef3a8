import { climb } from '../kill.js';
import type { PortReport } from '../port/inspect.js';
import type { Listener } from '../port/listeners.js';
import { resolveHosts } from '../port/probe.js';
import { openProc, type Proc } from '../proc/read.js';
import {
  describeProcess,
  isSame,
  type ProcessInfo,
  type ProcessStat,
  type ProcessTable,
  readTable,
} from '../proc/stat.js';
import { childrenOf, descendants } from '../proc/tree.js';
import { createSlice } from '../time.js';
import { drawTree, indent, type Line, layTable, type Span, styled } from './render.js';
import { formatAge, formatMs, programOf } from './units.js';

/** Each listener with its holders in their chains, then who is connected. Looks at the process table again. */
export async function renderHeld(report: PortReport, signal: AbortSignal): Promise<Line[]> {
  const proc = openProc();
  const table: ProcessTable = report.listeners.length > 0 ? await readTable(proc, createSlice(signal)) : new Map();
  const listeners = groupByHolders(report.listeners).flatMap((group) => ['', ...drawListeners(proc, table, group)]);
  if (report.clients.length === 0) return listeners;
  const rows = report.clients.map(({ pid, state, command }) => [String(pid), state, command]);
  return [...listeners, '', 'connected (not touched)', ...indent(layTable(['PID', 'STATE', 'COMMAND'], rows))];
}

/** What held the port, what was killed and why, and how its release was proved: or why it was not. */
export function renderFreed(report: PortReport, dryRun: boolean): { head: Line; details: Line[] } {
  const { kill, listeners, clients } = report;
  const facts: Fact[] = [
    ...listeners.flatMap((listener) => listener.holders.map((holder) => heldBy(listener, holder))),
    ...(kill?.killed ?? []).map((process) => factOf(dryRun ? 'would kill' : 'killed', process)),
    ...(kill?.left ?? []).map((process) => factOf('left alone', process)),
    ...(kill?.survivors ?? []).map((process) => factOf('still there', process)),
    ...clients.map((client) => factOf('not touched', { ...client, why: client.state })),
  ];
  const columns = facts.map(({ label, pid, command, why }) => [
    styled('dim', label),
    styled('bold', `${programOf(command)} ${pid}`),
    why,
    styled('dim', command),
  ]);
  // The first row of a table is its head: facts need none.
  return { head: headOf(report, dryRun), details: indent(layTable(['', '', '', ''], columns).slice(1)) };
}

interface Fact {
  readonly label: string;
  readonly pid: number;
  readonly command: string;
  readonly why: string;
}

function factOf(label: string, { pid, command, why }: { pid: number; command: string; why: string }): Fact {
  return { label, pid, command, why };
}

function heldBy(listener: Listener, { pid, command, user, ageS }: ProcessInfo): Fact {
  return { label: 'held by', pid, command, why: `${addressOf(listener)}, ${user}, ${formatAge(ageS)}` };
}

function headOf(report: PortReport, dryRun: boolean): Line {
  const { port, free, kill, explanation, tookMs } = report;
  const name = styled('bold', port);
  const proof = styled('dim', `, proved by binding ${provedHosts(report).join(', ')}`);
  if (free && !kill?.killed.length) return [styled('green', '✔ '), name, ' was free', proof];
  if (free) return [styled('green', '✔ '), name, ` is free after ${formatMs(tookMs)}`, proof];
  if (dryRun) return [styled('yellow', '○ '), explanation, styled('dim', ' (a dry run: nobody was touched)')];
  return [styled('red', '✖ '), explanation, styled('dim', ` (after ${formatMs(tookMs)})`)];
}

/** Without a host the loopback addresses and whatever was listened on: what the library binds. */
function provedHosts({ host, listeners }: PortReport): string[] {
  if (host !== null) return resolveHosts(host);
  return [...new Set([...resolveHosts('localhost'), ...listeners.map(({ address }) => address)])];
}

function addressOf({ address, port }: Pick<Listener, 'address' | 'port'>): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** One process that listens on both loopback addresses is shown once. */
function groupByHolders(listeners: readonly Listener[]): Listener[][] {
  const groups = new Map<string, Listener[]>();
  for (const listener of listeners) {
    const key = listener.holders.map(({ pid }) => pid).join() || String(listener.inode);
    groups.set(key, [...(groups.get(key) ?? []), listener]);
  }
  return [...groups.values()];
}

function drawListeners(proc: Proc, table: ProcessTable, group: readonly Listener[]): Line[] {
  const head = ['listening on ', styled('cyan', group.map(addressOf).join(', '))];
  const hidden = group.flatMap((listener) => listener.hidden ?? []);
  if (hidden.length > 0) return [head, ...indent(hidden)];
  const chains = findChains(proc, table, group[0]?.holders ?? []);
  return [head, ...chains.flatMap((chain) => indent(drawTree(chain, labelOf)))];
}

/** One process around a holder: above it what would start it again, below it what it started. */
interface ChainNode {
  /** undefined: it stands for `more` processes that are not shown. */
  readonly info: ProcessInfo | undefined;
  readonly holds: boolean;
  readonly more: number;
  readonly children: readonly ChainNode[];
}

/** More than these are counted, not shown: a service manager has hundreds below it. */
const SHOWN = 24;

/** The chains of the holders, each once. A holder that is gone by now stands alone. */
function findChains(proc: Proc, table: ProcessTable, holders: readonly ProcessInfo[]): ChainNode[] {
  const present = holders.flatMap((holder) => {
    const stat = table.get(holder.pid);
    return isSame(stat, holder) && stat ? [climb(table, stat, () => false)] : [];
  });
  const gone = holders.filter((holder) => !isSame(table.get(holder.pid), holder));
  // A holder below another one is drawn with it.
  const below = new Set(present.flatMap((top) => descendants(table, top).map(({ pid }) => pid)));
  const tops = [...new Set(present)].filter(({ pid }) => !below.has(pid));
  const grow = createGrower(proc, table, holders);
  return [...tops.map(grow), ...gone.map((info) => ({ info, holds: true, more: 0, children: [] }))];
}

function createGrower(proc: Proc, table: ProcessTable, holders: readonly ProcessInfo[]) {
  const children = childrenOf(table);
  let room = SHOWN;
  return function grow(stat: ProcessStat): ChainNode {
    room--;
    const own = (children.get(stat.pid) ?? []).filter((child) => child.startTicks >= stat.startTicks);
    const shown: ChainNode[] = [];
    for (const child of own) if (room > 0) shown.push(grow(child));
    const more = own.length - shown.length;
    if (more > 0) shown.push({ info: undefined, holds: false, more, children: [] });
    const holds = holders.some((holder) => isSame(holder, stat));
    return { info: describeProcess(proc, stat), holds, more: 0, children: shown };
  };
}

function labelOf({ info, holds, more }: ChainNode): Line {
  if (!info) return styled('dim', `and ${more} more`);
  const { pid, user, ageS, command } = info;
  const name = `${programOf(command)} ${pid}`;
  const rest: Span[] = [`  ${user}, ${formatAge(ageS)}  `, styled('dim', command)];
  return holds ? [styled('bold', name), styled('yellow', ' holds it'), ...rest] : [name, ...rest];
}
