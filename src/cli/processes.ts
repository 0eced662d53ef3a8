import { TunwardError } from '../errors.js';
import { isForbidden } from '../hunt.js';
import { type KillReport, killChains, killTree } from '../kill.js';
import { requireLinux } from '../proc/backend.js';
import { type ProcessTree, readProcessTree } from '../proc/family.js';
import { openProc, type Proc } from '../proc/read.js';
import { hidesOthers } from '../proc/rights.js';
import { isGone, type ProcessStat, readLeader, readStat } from '../proc/stat.js';
import { readTunnelProcesses, type TunnelProcess } from '../tunnel/processes.js';
import { type Forward, formatEndpoint } from '../tunnel/spec.js';
import { confirm } from './confirm.js';
import { backendOf, type Context } from './context.js';
import { survivorFact } from './port-view.js';
import { withProgress } from './progress.js';
import { drawTree, indent, type Line, layTable, styled } from './render.js';
import { formatAge, formatBytes, formatMs, programOf } from './units.js';
import { mayKillOthers, nameVictims, renderVictims, strangersOf } from './victims.js';

/** Every ssh and autossh: whose it is, where it goes, what it forwards and holds. */
export async function ps(context: Context): Promise<number> {
  const { screen, signal } = context;
  requireLinux('list ssh and autossh', { backend: backendOf(context) });
  const processes = await readTunnelProcesses({ signal });
  if (screen.json) screen.data({ processes });
  else if (processes.length > 0) screen.rows(...layTable(psHead, processes.map(psRow)));
  else screen.say('No ssh and no autossh runs here');
  if (hidesOthers(openProc())) screen.say('Those of other users are not seen: this /proc hides them (hidepid)');
  return 0;
}

/** A process and all below it. ERR_PROCESS_UNKNOWN (4) when there is none, ERR_ACCESS_DENIED (5) when it is hidden. */
export async function tree(pid: number, context: Context): Promise<number> {
  const { screen, signal } = context;
  const root = await readProcessTree(pid, { signal, backend: backendOf(context) });
  if (!root) throw unknown(openProc(), pid);
  if (screen.json) screen.data(root);
  else screen.rows(...drawTree(root, treeLabel));
  return 0;
}

export interface KillOptions {
  readonly grace?: number;
  readonly timeout?: number;
}

/** Kills a process and all below it. 1 when something survives, 5 when that is for want of permission. */
export async function kill(pid: number, options: KillOptions, context: Context): Promise<number> {
  const { screen, signal } = context;
  requireLinux(`kill pid ${pid}`, { backend: backendOf(context) });
  const proc = openProc();
  const stat = readStat(proc, pid);
  const isThread = (readLeader(proc, pid) ?? pid) !== pid;
  if (isThread || (isGone(stat) && !isHidden(proc, pid))) throw unknown(proc, pid);
  if (stat && !(await mayKill(stat, context))) return 1;
  const how = { graceMs: options.grace, timeoutMs: options.timeout, signal };
  const report = await withProgress(
    () => `killing pid ${pid}`,
    context,
    () => killTree(stat ?? pid, how),
  );
  if (screen.json) screen.data(report);
  else screen.rows(...renderKill(pid, report));
  return exitOf(report);
}

async function mayKill(target: ProcessStat, context: Context): Promise<boolean> {
  if (context.consent.isGiven || !mayKillOthers()) return true;
  const { signal } = context;
  const plan = await killChains([{ ref: target, why: 'target', below: 'all' }], { dryRun: true, signal });
  const strangers = strangersOf(plan);
  if (strangers.length === 0) return true;
  return confirm({ act: `kill ${nameVictims(strangers)}`, facts: renderVictims(strangers) }, context);
}

/** There, and not in this /proc: a signal would be refused, and that is not "no such process". */
function isHidden(proc: Proc, pid: number): boolean {
  return readStat(proc, pid) === undefined && isForbidden(pid);
}

/** The number of a thread looks like that of a process: `top` and others show it. */
function unknown(proc: Proc, pid: number): TunwardError {
  if (isHidden(proc, pid)) {
    const message = `Cannot look at pid ${pid}: it belongs to another user, and this /proc hides it (hidepid): look again as root`;
    return new TunwardError('ERR_ACCESS_DENIED', message, { pid });
  }
  const leader = readLeader(proc, pid);
  const why = leader === undefined || leader === pid ? '' : `: it is a thread of pid ${leader}`;
  return new TunwardError('ERR_PROCESS_UNKNOWN', `No process has the pid ${pid}${why}`, { pid });
}

function exitOf({ survivors }: KillReport): number {
  if (survivors.length === 0) return 0;
  return survivors.some(({ why }) => /^(not permitted|protected)/.test(why)) ? 5 : 1;
}

function renderKill(pid: number, report: KillReport): Line[] {
  const groups = [
    ...report.killed.map((process) => ({ ...process, label: 'killed' })),
    ...report.left.map((process) => ({ ...process, label: 'left alone' })),
    ...report.survivors.map(survivorFact),
  ];
  const rows = groups.map(({ label, pid: number, command, why }) => [
    styled('dim', label),
    styled('bold', `${programOf(command)} ${number}`),
    why,
    styled('dim', command),
  ]);
  return [headOf(pid, report), ...indent(layTable(['', '', '', ''], rows).slice(1))];
}

function headOf(pid: number, { killed, survivors, tookMs }: KillReport): Line {
  const after = `after ${formatMs(tookMs)}`;
  if (survivors.length === 0) return [styled('green', '✔ '), `pid ${pid} and all below it are gone ${after}`];
  if (killed.length === 0) return [styled('red', '✖ '), `pid ${pid} is still there, and nobody was killed`];
  return [styled('red', '✖ '), `${killed.length} killed, ${survivors.length} still there ${after}`];
}

function treeLabel({ pid, state, command, ageS, rssBytes, ports }: ProcessTree): Line {
  const facts = `  ${state}  ${formatAge(ageS)}  ${formatBytes(rssBytes)}`;
  const held = ports.map((port) => `:${port}`).join(' ');
  return [
    styled('bold', `${programOf(command)} ${pid}`),
    styled(state === 'D' || state === 'Z' ? 'red' : 'dim', facts),
    styled('cyan', held && `  ${held}`),
    `  ${command}`,
  ];
}

const psHead = ['PID', 'PROGRAM', 'USER', 'AGE', 'WHOSE', 'DESTINATION', 'FORWARDS', 'PORTS', 'CHAIN', 'COMMAND'];

function psRow({ pid, program, user, ageS, ports, chain, command, ...process }: TunnelProcess) {
  return [
    styled('bold', pid),
    program,
    user,
    formatAge(ageS),
    whose(process.tunnelId),
    process.destination ?? '-',
    describeForwards(process.forwards) || '-',
    ports.join(', ') || '-',
    chain.join(' → '),
    styled('dim', command),
  ];
}

/** A tunnel of tunward by the first digits of its id, which are enough for every command. */
function whose(tunnelId: string | null): string {
  return tunnelId === null ? '-' : `tunnel ${tunnelId.slice(0, 8)}`;
}

/** As ssh takes them; the pair that tunward writes for both loopback addresses as the one forward that it is. */
function describeForwards(forwards: readonly Forward[]): string {
  const isPair = ({ side, listen, target }: Forward, host: string) =>
    forwards.some(
      (other) =>
        other.side === side &&
        other.listen.host === host &&
        other.listen.port === listen.port &&
        formatEndpoint(other.target) === formatEndpoint(target),
    );
  return forwards
    .filter((forward) => forward.listen.host !== '::1' || !isPair(forward, '127.0.0.1'))
    .map((forward) => {
      const { side, listen, target } = forward;
      const host = listen.host === '127.0.0.1' && isPair(forward, '::1') ? 'localhost' : listen.host;
      return `${side === 'local' ? '-L' : '-R'} ${formatEndpoint({ ...listen, host })}:${formatEndpoint(target)}`;
    })
    .join(', ');
}
