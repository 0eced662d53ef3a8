import type { PortReport } from '../port/inspect.js';
import { climbFrom } from '../port/release.js';
import { holdersOf } from '../port/verdict.js';
import { endpoint } from '../port/words.js';
import { readVariable } from '../proc/marker.js';
import { openProc, type Proc } from '../proc/read.js';
import {
  describeProcess,
  isSame,
  type ProcessInfo,
  type ProcessStat,
  type ProcessTable,
  readTable,
} from '../proc/stat.js';
import { ancestors, childrenOf } from '../proc/tree.js';
import { createSlice } from '../time.js';
import { type Line, layTable, type Span, styled } from './render.js';
import { formatAge, programOf } from './units.js';

/** One process around a holder: those above it, itself, and what it has started. */
export interface ChainProcess extends ProcessInfo {
  readonly ppid: number;
  readonly role: 'above' | 'holds' | 'below';
  /** The addresses that it listens on. */
  readonly holds: readonly string[];
  /** Of one above a holder: is it known to start that again, or may it? */
  readonly startsAgain: 'yes' | 'maybe' | null;
  /** The tunnel of tunward that it belongs to. */
  readonly tunnel: { readonly id: string; readonly instance: string; readonly daemonRuns: boolean } | null;
}

export interface Chain {
  /** Parents before their children. */
  readonly processes: readonly ChainProcess[];
  /** How many below the holders are not listed. */
  readonly unlisted: number;
}

/** More than these below the holders are counted, not shown: a service manager has hundreds. */
const SHOWN = 24;

/** What is around the holders of a report, by the process table as it is now. A holder that is gone by now stands alone. */
export async function readChain(report: PortReport, signal: AbortSignal): Promise<Chain> {
  const holders = holdersOf(report.listeners);
  if (holders.length === 0) return { processes: [], unlisted: 0 };
  const proc = openProc();
  const table = await readTable(proc, createSlice(signal));
  const present = holders.flatMap((holder) => table.get(holder.pid) ?? []).filter((stat) => isOneOf(holders, stat));
  const above = new Map<number, ChainProcess['startsAgain']>();
  for (const stat of present) {
    for (const [pid, starts] of whoIsAbove(proc, table, stat)) above.set(pid, above.get(pid) ?? starts);
  }
  const { below, unlisted } = findBelow(table, present);
  const gone = holders.filter(({ pid }) => !present.some((stat) => stat.pid === pid));
  const listed = [...table.values()].filter(({ pid }) => above.has(pid) || below.has(pid) || isHolder(pid));
  const describe = async (stat: ProcessStat): Promise<ChainProcess> => ({
    ...describeProcess(proc, stat),
    ppid: stat.ppid,
    role: isHolder(stat.pid) ? 'holds' : above.has(stat.pid) ? 'above' : 'below',
    holds: addressesOf(report, stat.pid),
    startsAgain: isHolder(stat.pid) ? null : (above.get(stat.pid) ?? null),
    tunnel: await readTunnel(proc, stat.pid),
  });
  const processes = await Promise.all(listed.map(describe));
  const alone = gone.map((info) => ({
    ...info,
    ppid: 0,
    role: 'holds' as const,
    holds: addressesOf(report, info.pid),
  }));
  return { processes: [...processes, ...alone.map((one) => ({ ...one, startsAgain: null, tunnel: null }))], unlisted };

  function isHolder(pid: number): boolean {
    return present.some((stat) => stat.pid === pid);
  }
}

function isOneOf(holders: readonly ProcessInfo[], stat: ProcessStat): boolean {
  return holders.some((holder) => isSame(holder, stat));
}

/** Those above, without pid 1, from the nearest; and what is known of each about starting its child again. */
function whoIsAbove(proc: Proc, table: ProcessTable, holder: ProcessStat): [number, ChainProcess['startsAgain']][] {
  const line = ancestors(table, holder).filter(({ pid }) => pid !== 1);
  const top = climbFrom(proc, table, holder);
  const sure = top.pid === holder.pid ? 0 : line.findIndex(({ pid }) => pid === top.pid) + 1;
  return line.map((stat, at) => {
    const child = line[at - 1] ?? holder;
    return [stat.pid, at < sure ? 'yes' : at === sure && mayStart(stat, child) ? 'maybe' : null];
  });
}

/** Supervisors, and shells that run a script: one that a person types in gives each job a group of its own. */
function mayStart(parent: ProcessStat, child: ProcessStat): boolean {
  if (/^(systemd|supervisord|runsv|s6-supervise|PM2|monit|nodemon|forever)/.test(parent.comm)) return true;
  return /^(a|ba|da|z|k)?sh$/.test(parent.comm) && parent.pgid === child.pgid;
}

function findBelow(table: ProcessTable, holders: readonly ProcessStat[]) {
  const children = childrenOf(table);
  const below = new Set<number>();
  let unlisted = 0;
  const seen = new Set(holders.map(({ pid }) => pid));
  const queue = [...holders];
  for (let parent = queue.shift(); parent; parent = queue.shift()) {
    for (const child of children.get(parent.pid) ?? []) {
      if (seen.has(child.pid) || child.startTicks < parent.startTicks) continue;
      seen.add(child.pid);
      queue.push(child);
      if (below.size < SHOWN) below.add(child.pid);
      else unlisted++;
    }
  }
  return { below, unlisted };
}

async function readTunnel(proc: Proc, pid: number): Promise<ChainProcess['tunnel']> {
  const id = readVariable(proc, pid, 'TUNNEL_ID');
  const instance = readVariable(proc, pid, 'TUNWARD_INSTANCE');
  if (!id || !instance) return null;
  const { isLiving } = await import('../daemon/instance.js');
  return { id, instance, daemonRuns: await isLiving(instance) };
}

function addressesOf({ listeners }: PortReport, pid: number): string[] {
  return listeners.filter(({ holders }) => holders.some((holder) => holder.pid === pid)).map(endpoint);
}

/** The chain as a tree in columns: who it is, what it has to do with the port, whose, how old, what it runs. */
export function drawChain({ processes, unlisted }: Chain): Line[] {
  const pids = new Set(processes.map(({ pid }) => pid));
  const several = new Set(processes.filter(({ role }) => role === 'holds').map(({ holds }) => holds.join())).size > 1;
  const rows: Span[][] = [];
  const draw = (one: ChainProcess, branch: string, rest: string): void => {
    rows.push(rowOf(one, branch, several));
    const children = processes.filter(({ ppid }) => ppid === one.pid);
    for (const [at, child] of children.entries()) {
      const last = at === children.length - 1;
      draw(child, `${rest}${last ? '└─ ' : '├─ '}`, `${rest}${last ? '   ' : '│  '}`);
    }
  };
  for (const root of processes.filter(({ ppid }) => !pids.has(ppid))) draw(root, '', '');
  if (unlisted > 0) rows.push([styled('dim', `and ${unlisted} more below`), '', '', '', '']);
  return layTable(['PROCESS', '', 'USER', 'AGE', 'COMMAND'], rows);
}

function rowOf(one: ChainProcess, branch: string, several: boolean): Span[] {
  const name = `${branch}${programOf(one.command)} ${one.pid}`;
  const facts = [one.user, formatAge(one.ageS), one.command];
  if (one.role === 'above' && one.startsAgain === null) return [name, '', ...facts].map((text) => styled('dim', text));
  const role =
    one.role === 'holds'
      ? styled('yellow', several ? `holds ${one.holds.join(', ')}` : 'holds it')
      : styled(
          'magenta',
          { yes: 'would start it again', maybe: 'may start it again', no: '' }[one.startsAgain ?? 'no'],
        );
  const [user = '', age = '', command = ''] = facts;
  return [one.role === 'holds' ? styled('bold', name) : name, role, user, age, styled('dim', command)];
}

/** Whose the holders are, as far as tunward has something to do with it. */
export function drawTunnels({ processes }: Chain): Line[] {
  const holders = processes.filter(({ role }) => role === 'holds');
  const tunnels = new Map(holders.flatMap(({ tunnel }) => (tunnel ? [[tunnel.id, tunnel] as const] : [])));
  if (tunnels.size === 0) {
    const isSsh = holders.some(({ command }) => /^(auto)?ssh$/.test(programOf(command)));
    return isSsh ? ['no tunnel of tunward: somebody else has started it'] : [];
  }
  return [...tunnels.values()].map(({ id, daemonRuns }) =>
    daemonRuns
      ? `tunnel ${id.slice(0, 8)} of a tunward daemon that runs: tunward stop ${id.slice(0, 8)} ends it for good`
      : `tunnel ${id.slice(0, 8)} of a tunward daemon that is gone`,
  );
}
