import type { KillReport } from '../kill.js';
import type { Listener } from '../port/listeners.js';
import { endpoint } from '../port/words.js';
import { known, openProc, type Proc } from '../proc/read.js';
import { CAP_KILL, hasCapability } from '../proc/rights.js';
import { describeProcess, isSame, type ProcessInfo, type ProcessRef, readStat } from '../proc/stat.js';
import { type Line, layTable, styled } from './render.js';
import { formatAge, programOf } from './units.js';

/** A process that would be killed, and where it listens. */
export interface Victim extends Pick<ProcessInfo, 'pid' | 'startTicks' | 'user' | 'command' | 'ageS'> {
  readonly addresses: readonly string[];
}

/** Root, and who bears CAP_KILL: everybody else is refused another user's process by the kernel, and need not be asked. */
export function mayKillOthers(proc: Proc = openProc()): boolean {
  return hasCapability(proc, CAP_KILL) === true;
}

/** Those of a plan who are another user's. */
export function strangersOf({ killed }: Pick<KillReport, 'killed'>, listeners: readonly Listener[] = []): Victim[] {
  const proc = openProc();
  const own = process.geteuid?.();
  const isOthers = ({ pid }: ProcessRef) => (known(proc.owner(String(pid))) ?? own) !== own;
  return killed.filter(isOthers).flatMap((process) => describe(proc, process, listeners));
}

/** Everybody who listens. */
export function holdersAsVictims(listeners: readonly Listener[]): Victim[] {
  const holders = new Map(listeners.flatMap((listener) => listener.holders.map((holder) => [holder.pid, holder])));
  return [...holders.values()].map((holder) => ({ ...holder, addresses: addressesOf(listeners, holder.pid) }));
}

/** As `free --dry-run` has it: `PID USER CMD ADDR STARTED`. */
export function renderVictims(victims: readonly Victim[]): Line[] {
  const rows = victims.map(({ pid, user, command, addresses, ageS }) => [
    styled('bold', pid),
    user,
    programOf(command),
    addresses.join(', ') || '-',
    ageS === null ? '-' : `${formatAge(ageS)} ago`,
    styled('dim', command),
  ]);
  return layTable(['PID', 'USER', 'CMD', 'ADDR', 'STARTED', 'COMMAND'], rows);
}

/** `pid 812 (nginx) of www-data`, `3 processes of www-data and redis`. */
export function nameVictims(victims: readonly Victim[]): string {
  const [first] = victims;
  if (victims.length === 1 && first) return `pid ${first.pid} (${programOf(first.command)}) of ${first.user}`;
  return `${victims.length} processes of ${[...new Set(victims.map(({ user }) => user))].join(' and ')}`;
}

function describe(proc: Proc, process: ProcessRef, listeners: readonly Listener[]): Victim[] {
  const stat = readStat(proc, process.pid);
  if (!stat || !isSame(stat, process)) return [];
  return [{ ...describeProcess(proc, stat), addresses: addressesOf(listeners, process.pid) }];
}

function addressesOf(listeners: readonly Listener[], pid: number): string[] {
  const own = listeners.filter(({ holders }) => holders.some((holder) => holder.pid === pid));
  return [...new Set(own.map(endpoint))];
}
