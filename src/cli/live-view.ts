import type { TunnelStatus } from '../tunnel/runner.js';
import { type Counts, countTunnels, kindOf, type Settled } from './board.js';
import { type Line, type Span, styled } from './render.js';
import { layTunnels, troubleOf } from './tunnel-view.js';
import { formatMs } from './units.js';
import { widthOfText } from './width.js';

/** How far something has come, in one line. */
export interface Progress {
  readonly done: number;
  readonly total: number;
  /** What those are that are done. */
  readonly word: string;
  readonly notes: readonly Span[];
}

/** `▕██████░░░░▏ 37/100 up  2 waiting  1 failed`; without blocks where the locale has none, without a bar where there is no room. */
export function renderProgress({ done, total, word, notes }: Progress, columns: number, isUnicode: boolean): Line {
  const text: Span[] = [`${done}/${total} ${word}`, ...notes.flatMap((note) => ['  ', note])];
  const room = columns - text.reduce((sum, span) => sum + widthOfText(typeof span === 'string' ? span : span.text), 0);
  const cells = Math.min(24, room - 3);
  if (cells < 5) return text;
  const filled = total === 0 ? 0 : Math.floor((done / total) * cells);
  const [begin, full, empty, end] = isUnicode ? ['▕', '█', '░', '▏'] : ['[', '#', '.', ']'];
  const bar = [styled('green', full.repeat(filled)), styled('dim', empty.repeat(cells - filled))];
  return [begin, ...bar, `${end} `, ...text];
}

/** How many of those that are wanted are up, and what is with the others. */
export function progressOf(tunnels: readonly TunnelStatus[]): Progress {
  const counts = countTunnels(tunnels);
  return { done: counts.up, total: tunnels.length - counts.stopped, word: 'up', notes: notesOf(counts) };
}

/** How many have ended. */
export function goingOf(tunnels: readonly TunnelStatus[]): Progress {
  return { done: countTunnels(tunnels).stopped, total: tunnels.length, word: 'stopped', notes: [] };
}

/** `2 waiting`, `1 failed`: the trouble that there is. */
export function notesOf({ waiting, failed }: Pick<Counts, 'waiting' | 'failed'>): Span[] {
  const notes = [
    waiting > 0 && styled('yellow', `${waiting} waiting`),
    failed > 0 && styled('red', `${failed} failed`),
  ];
  return notes.filter((note) => note !== false);
}

/** `up 97 of 100 after 3.2 s; 2 waiting, 1 failed` */
export function describeSettled({ tookMs }: Settled, tunnels: readonly TunnelStatus[]): Span[] {
  const { done, total, notes } = progressOf(tunnels);
  const words = notes.flatMap((note, at) => [at === 0 ? '; ' : ', ', note]);
  return [`up ${done} of ${total} after ${formatMs(tookMs)}`, ...words];
}

export interface Room {
  readonly rows: number;
  readonly columns: number;
  /** Milliseconds since the epoch. */
  readonly now: number;
  /** How wide the columns were before: they become wider, and never narrower, under a person's eyes. */
  readonly widths: readonly number[];
}

/** The table of `ls`, as much of it as there is room for. */
export interface Fitted {
  readonly lines: readonly Line[];
  /** Those that are to be seen in it. */
  readonly shown: readonly TunnelStatus[];
  readonly widths: readonly number[];
}

/** All tunnels in their order; where that is too long those in trouble first, and a line that counts the others. */
export function fitTunnels(tunnels: readonly TunnelStatus[], { rows, now, ...room }: Room): Fitted {
  const height = (tunnel: TunnelStatus) => 1 + troubleOf(tunnel, now).length;
  const isAll = tunnels.reduce((sum, tunnel) => sum + height(tunnel), 1) <= rows;
  const order = isAll ? tunnels : [...tunnels].sort((one, other) => rankOf(one) - rankOf(other));
  let left = rows - (isAll ? 1 : 2);
  const end = order.findIndex((tunnel) => {
    left -= height(tunnel);
    return left < 0;
  });
  const shown = isAll ? order : order.slice(0, end);
  const table = layTunnels(shown, now, room);
  const rest = isAll ? [] : [styled('dim', describeRest(order.slice(end)))];
  return { lines: [...table.lines, ...rest], shown, widths: table.widths };
}

/** `… and 80 more, all up`, `… and 80 more: 78 up, 2 stopped`. */
function describeRest(rest: readonly TunnelStatus[]): string {
  const counts = Object.entries(countTunnels(rest)).filter(([, count]) => count > 0);
  const [[only = ''] = []] = counts;
  if (counts.length === 1) return `… and ${rest.length} more, all ${only}`;
  return `… and ${rest.length} more: ${counts.map(([kind, count]) => `${count} ${kind}`).join(', ')}`;
}

/** The less, the sooner a person must see it. What waits keeps its place while it is tried again. */
function rankOf(tunnel: TunnelStatus): number {
  const { health, reason } = tunnel;
  const kind = kindOf(tunnel);
  if (kind === 'failed') return 0;
  if (kind === 'waiting') return 1;
  if (kind === 'up') return health === 'degraded' ? 2 : 5;
  if (kind === 'coming') return 3;
  return reason === null ? 6 : 4;
}
