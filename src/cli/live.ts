import { openProc, type Proc } from '../proc/read.js';
import { createUsageReader, sumUsage } from '../proc/usage.js';
import { type Clock, systemClock } from '../time.js';
import type { Traffic } from '../tunnel/front/meter.js';
import type { TunnelStatus } from '../tunnel/runner.js';
import type { Size } from './area.js';
import type { Board } from './board.js';
import type { Context } from './context.js';
import { type Fitted, fitTunnels, goingOf, progressOf, type Room, renderProgress } from './live-view.js';
import type { Line } from './render.js';
import type { ToldEvent } from './story.js';

/** Who knows how the tunnels are at this moment. */
export interface Tunnels {
  list(): TunnelStatus[];
  /** What has passed through this process, by id. */
  traffic(): ReadonlyMap<string, Traffic>;
}

/** The tunnels on a terminal: how far they have come, then how they are, then how far they have gone. */
export interface Live {
  /** Before anybody says it: what is said goes above. */
  note(event: ToldEvent): void;
  /** The tunnels are there. */
  follow(tunnels: Tunnels): void;
  close(): Promise<void>;
}

/** How often it is looked whether anything is to be drawn, in milliseconds; and every how many times at what is used. */
const EVERY_MS = 500;
const USAGE_EVERY = 4;
/** Fewer rows than this are one line of counts. */
const FEW_ROWS = 6;

/** undefined: nobody reads it there, or it cannot be drawn there. */
export function openLive(board: Board, { screen, env }: Context, clock: Clock = systemClock): Live | undefined {
  const isDrawable = !screen.json && env.TERM !== undefined && env.TERM !== '' && env.TERM !== 'dumb';
  const area = isDrawable ? screen.openArea(render) : undefined;
  if (!area) return undefined;
  const { refresh, keep } = area;
  const proc = openProc();
  const usage = createUsageReader({ proc, clock });
  const isUnicode = /utf-?8/i.test(env.LC_ALL || env.LC_CTYPE || env.LANG || '');
  const over = new AbortController();
  let phase: 'before' | 'coming' | 'table' | 'going' = 'before';
  /** Tunnels have come or gone of which no event tells. */
  let isOutdated = false;
  let changes = 0;
  let picture: Picture = { key: '', lines: [], shown: [], widths: [], columns: 0 };
  return { note, follow, close };

  function note({ type }: ToldEvent): void {
    changes++;
    // A tunnel that leaves the configuration stops, and that is all it says; one that is not to start says nothing.
    if (type === 'config.loaded' || type === 'tunnel.stopped') isOutdated = true;
    if (type !== 'daemon.stopping') return;
    keep();
    phase = 'going';
  }

  function follow(tunnels: Tunnels): void {
    if (phase === 'before') phase = 'coming';
    isOutdated = true;
    watch(tunnels).catch((error: unknown) => {
      if (!over.signal.aborted) throw error;
    });
  }

  async function watch(tunnels: Tunnels): Promise<void> {
    for (let count = 1; ; count++) {
      if (phase !== 'going') look(tunnels, count % USAGE_EVERY === 0);
      refresh();
      await clock.sleep(EVERY_MS, over.signal);
    }
  }

  /** At all tunnels where that is needed; otherwise at what those use that are to be seen. */
  function look(tunnels: Tunnels, isTime: boolean): void {
    if (isOutdated) board.replace(tunnels.list());
    else if (isTime) lookAtUsage(tunnels, new Set(picture.shown.map(({ id }) => id)));
    if (isOutdated || isTime) changes++;
    isOutdated = false;
  }

  /** By the chains that are known: to look for their processes as well, as a whole status does, costs five times as much. */
  function lookAtUsage(tunnels: Tunnels, ids: ReadonlySet<string>): void {
    const traffic = tunnels.traffic();
    const seen = board.tunnels().filter(({ id }) => ids.has(id));
    const found = usage.read(seen.flatMap(({ chain }) => chain));
    for (const tunnel of seen) {
      const usage = sumUsage(tunnel.chain.flatMap(({ pid }) => found.get(pid) ?? []));
      board.set({ ...tunnel, usage, traffic: traffic.get(tunnel.id) ?? null });
    }
  }

  async function close(): Promise<void> {
    over.abort(new Error('the tunnels are shown no longer'));
    await area?.close();
  }

  function render({ columns, rows }: Size): readonly Line[] {
    if (phase === 'before' || columns === 0 || rows === 0 || !isInForeground(proc)) return [];
    // Every age goes on at the same moment, once a second.
    const now = Math.floor(clock.wallTime() / 1000) * 1000;
    const key = [now, changes, columns, rows].join();
    if (key !== picture.key) picture = { ...draw({ columns, rows }, now), key, columns };
    return picture.lines;
  }

  function draw({ columns, rows }: Size, now: number): Fitted {
    const all = board.tunnels();
    if (phase === 'coming' && !board.isComing()) phase = 'table';
    const widths = columns === picture.columns ? picture.widths : [];
    if (phase === 'table' && rows >= FEW_ROWS) return drawTable(all, { columns, rows, now, widths });
    const progress = phase === 'going' ? goingOf(all) : progressOf(all);
    const isOver = all.length === 0 || (phase === 'going' && progress.done === progress.total);
    return { lines: isOver ? [] : [renderProgress(progress, columns, isUnicode)], shown: [], widths };
  }
}

interface Picture extends Fitted {
  /** What it was drawn of. */
  readonly key: string;
  readonly columns: number;
}

/** Below an empty line, and so that some of what was said is still to be seen above that. */
function drawTable(tunnels: readonly TunnelStatus[], room: Room): Fitted {
  if (tunnels.length === 0) return { lines: [], shown: [], widths: [] };
  const kept = 1 + Math.max(1, Math.floor(room.rows / 8));
  const fitted = fitTunnels(tunnels, { ...room, rows: room.rows - kept });
  return { ...fitted, lines: ['', ...fitted.lines] };
}

/** Whether the terminal is ours now. Whoever runs in the background (`&`, or Ctrl-Z and `bg`) must not draw over the shell. */
function isInForeground(proc: Proc): boolean {
  const text = proc.text('self/stat');
  if (typeof text !== 'string') return true;
  const [, , group, , , foreground] = text
    .slice(text.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
  // 0 or below: no terminal controls this process, or the group is in another namespace.
  return foreground === undefined || foreground <= 0 || foreground === group;
}
