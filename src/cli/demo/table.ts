import type { KilledProcess } from '../../kill.js';
import { type Line, layTable, type Span, styled } from '../render.js';
import { programOf } from '../units.js';

/** What one act came to: the row of the table at the end. Times in milliseconds, from the moment it was asked for. */
export interface Act {
  /** The tunnel, or the port where there is none. */
  readonly what: string;
  readonly heldBy: string;
  readonly killed: readonly KilledProcess[];
  readonly goneMs: number;
  /** null: the port is on the other side, and not ours to prove. */
  readonly freeMs: number | null;
  /** null: no tunnel was to come up. */
  readonly upMs: number | null;
  /** Requests answered meanwhile through all tunnels, and those that this tunnel could not take. null: none were sent. */
  readonly served: number | null;
  readonly lost: number | null;
}

/** Something that must hold, and whether it did. */
export interface Promised {
  readonly kept: boolean;
  readonly text: string;
}

/** Narrow enough for 80 columns: the programs stand in one column, their pids in the next. */
export function renderActs(acts: readonly Act[]): Line[] {
  const whole = hasTunnels(acts);
  const head = [
    whole ? 'TUNNEL' : 'PORT',
    'HELD BY',
    'KILLED',
    'GONE',
    'FREE',
    ...(whole ? ['UP', 'SERVED', 'LOST'] : []),
  ];
  return layTable(
    head,
    acts.map((act) => [
      styled('bold', act.what),
      act.heldBy,
      act.killed.map(({ pid }) => pid).join(', ') || 'nobody',
      duration(act.goneMs),
      styled('green', duration(act.freeMs)),
      ...(whole ? [styled('green', duration(act.upMs)), count(act.served), count(act.lost)] : []),
    ]),
  );
}

/** What the columns mean, for somebody who reads the table first. */
export function renderLegend(acts: readonly Act[]): Line[] {
  const columns = [
    ['KILLED', 'pids, each of them dead for certain'],
    ['GONE', 'ms until the last of what held the port was dead'],
    ['FREE', 'ms until tunward had bound the port itself, so the next one can'],
    ...(hasTunnels(acts)
      ? [
          ['', '(-: that port is on the SSH server)'],
          ['UP', 'ms until the new tunnel listened, login to the SSH server included'],
          ['SERVED', 'requests answered meanwhile, through all three tunnels'],
          ['LOST', 'requests to this very tunnel, refused or cut while it was down'],
        ]
      : []),
  ];
  return columns.map(([name = '', meaning = '']) => styled('dim', `${name.padEnd(8)}${meaning}`));
}

function hasTunnels(acts: readonly Act[]): boolean {
  return acts.some(({ upMs }) => upMs !== null);
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

function count(number: number | null): Span {
  return number === null ? '-' : String(number);
}
