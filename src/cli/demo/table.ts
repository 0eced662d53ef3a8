import type { KilledProcess } from '../../kill.js';
import { type Line, layTable, styled } from '../render.js';
import { programOf } from '../units.js';

/** What one act came to: the row of the table at the end. Times in milliseconds, from the moment it was asked for. */
export interface Act {
  /** The tunnel. */
  readonly what: string;
  readonly heldBy: string;
  readonly killed: readonly Pick<KilledProcess, 'pid' | 'command'>[];
  /** null: it went on until the next one had taken over. */
  readonly goneMs: number | null;
  /** null: the port is on the other side, and not ours to prove, or it was never let go. */
  readonly freeMs: number | null;
  readonly upMs: number;
  /** Requests answered meanwhile through all tunnels, and those that this tunnel could not take. */
  readonly served: number;
  readonly lost: number;
}

/** Something that must hold, and whether it did. */
export interface Promised {
  readonly kept: boolean;
  readonly text: string;
}

/** Narrow enough for 80 columns: the programs stand in one column, their pids in the next. */
export function renderActs(acts: readonly Act[]): Line[] {
  return layTable(
    ['TUNNEL', 'HELD BY', 'KILLED', 'GONE', 'FREE', 'UP', 'SERVED', 'LOST'],
    acts.map(({ what, heldBy, killed, goneMs, freeMs, upMs, served, lost }) => [
      styled('bold', what),
      heldBy,
      killed.map(({ pid }) => pid).join(', ') || 'nobody',
      duration(goneMs),
      styled('green', duration(freeMs)),
      styled('green', duration(upMs)),
      String(served),
      String(lost),
    ]),
  );
}

/** What the columns mean, for somebody who reads the table first. */
export function renderLegend(): Line[] {
  const columns = [
    ['KILLED', 'pids, each of them dead for certain'],
    ['GONE', 'ms until the last of what held the port was gone'],
    ['FREE', 'ms until tunward had bound the port itself, so the next one can'],
    ['', '(-: that port is on the SSH server, or is never let go)'],
    ['UP', 'ms until the new tunnel was up, any login to the SSH server included'],
    ['SERVED', 'requests answered meanwhile, through all tunnels'],
    ['LOST', 'requests to this very tunnel, refused or cut while it was down'],
  ];
  return columns.map(([name = '', meaning = '']) => styled('dim', `${name.padEnd(8)}${meaning}`));
}

export function renderPromises(promises: readonly Promised[]): Line[] {
  return promises.map(({ kept, text }) => [kept ? styled('green', '✔ ') : styled('red', '✖ '), text]);
}

/** `autossh 900, ssh 903` */
export function namesOf(processes: readonly { readonly pid: number; readonly command: string }[]): string {
  return processes.map(({ pid, command }) => `${programOf(command)} ${pid}`).join(', ') || 'nobody';
}

function duration(ms: number | null): string {
  if (ms === null) return '-';
  return String(ms < 10 ? Math.round(ms * 10) / 10 : Math.round(ms));
}
