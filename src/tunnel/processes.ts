import { climb } from '../kill.js';
import { createPortReader } from '../proc/family.js';
import { readVariable } from '../proc/marker.js';
import { openProc, type Proc } from '../proc/read.js';
import {
  describeProcess,
  isGone,
  type ProcessInfo,
  type ProcessStat,
  type ProcessTable,
  readArguments,
  readTable,
} from '../proc/stat.js';
import { ancestors } from '../proc/tree.js';
import { createSlice } from '../time.js';
import { describeSshCommand } from './arguments.js';
import type { Forward, ProgramName } from './spec.js';

/** An ssh or an autossh of this host, whoever started it. */
export interface TunnelProcess extends ProcessInfo {
  readonly ppid: number;
  readonly program: ProgramName;
  /** The tunnel and the installation of tunward that it belongs to; null for one that somebody else started. */
  readonly tunnelId: string | null;
  readonly instance: string | null;
  /** `[user@]host` as written; null where its command line does not show it. */
  readonly destination: string | null;
  readonly forwards: readonly Forward[];
  /** The TCP ports that it listens on here, ascending. */
  readonly ports: readonly number[];
  /** The pids from what would start it again (its autossh) down to itself. */
  readonly chain: readonly number[];
}

/**
 * Every ssh and autossh there is: whose it is, where it goes, what it forwards, what it holds. By pid. Works in slices.
 *
 * @throws the signal's reason when it aborts.
 */
export async function readTunnelProcesses(
  options: { readonly proc?: Proc | undefined; readonly signal?: AbortSignal | undefined } = {},
): Promise<TunnelProcess[]> {
  const proc = options.proc ?? openProc();
  const slice = createSlice(options.signal);
  const table = await readTable(proc, slice);
  const portsOf = await createPortReader(proc, slice);
  const found: TunnelProcess[] = [];
  for (const stat of table.values()) {
    if (isGone(stat) || (stat.comm !== 'ssh' && stat.comm !== 'autossh')) continue;
    const identity = readIdentity(proc, stat, table);
    found.push({ ...identity, ...readCommandLine(proc, stat, stat.comm), ports: await portsOf(stat) });
    await slice();
  }
  return found;
}

function readIdentity(proc: Proc, stat: ProcessStat, table: ProcessTable) {
  const tunnelId = readVariable(proc, stat.pid, 'TUNNEL_ID') ?? null;
  const instance = readVariable(proc, stat.pid, 'TUNWARD_INSTANCE') ?? null;
  const isPart = ({ pid }: ProcessStat) => tunnelId !== null && readVariable(proc, pid, 'TUNNEL_ID') === tunnelId;
  const top = climb(table, stat, isPart);
  const above = ancestors(table, stat).map(({ pid }) => pid);
  const chain = top.pid === stat.pid ? [] : above.slice(0, above.indexOf(top.pid) + 1).reverse();
  return { ...describeProcess(proc, stat), ppid: stat.ppid, tunnelId, instance, chain: [...chain, stat.pid] };
}

function readCommandLine(proc: Proc, { pid }: ProcessStat, program: ProgramName) {
  return { program, ...describeSshCommand(readArguments(proc, pid), program) };
}
