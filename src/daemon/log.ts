import path from 'node:path';
import { isTunwardError } from '../errors.js';
import type { KillReport } from '../kill.js';
import type { Clock } from '../time.js';
import { whichOf } from '../tunnel/remedy.js';
import type { TunnelStatus } from '../tunnel/runner.js';
import { describeSpec, type TunnelSpec } from '../tunnel/spec.js';
import { printable } from '../wire.js';
import type { JournalEntry } from './events.js';
import { appendLine, isRefusal, type LogLimits, readLastLines } from './logfile.js';

/** The log files of the tunnels: `<dir>/tunnel_<id>.log`, and those before it as `.log.1`, `.log.2` and so on. */
export interface TunnelLogs {
  fileOf(id: string): string;
  /** A reader of the journal. Throws when a line cannot be written, but not again and again for the same reason. */
  write(entry: JournalEntry): void;
  /** The last lines, oldest first, of the present file and of those before it; none when there is no file. */
  tail(id: string, lines: number): string[];
  /** Calls for every line that is written from now on; answers how to stop. */
  follow(id: string, tell: (line: string) => void): () => void;
}

export interface TunnelLogOptions {
  readonly specOf: (id: string) => TunnelSpec | undefined;
  /** As they are now: a configuration that is read again may change them. */
  readonly limits: () => LogLimits;
  readonly clock: Clock;
}

/** Renders the journal into a file for each tunnel. A start that was asked for begins a new file; a retry goes on in it. */
export function createTunnelLogs(dir: string, { specOf, limits, clock }: TunnelLogOptions): TunnelLogs {
  const complain = createComplaints(clock);
  /** How many lines each tunnel's log lacks: its next line says so. */
  const lost = new Map<string, number>();
  const fileOf = (id: string) => path.join(dir, `tunnel_${id}.log`);
  const followers = new Map<string, Set<(line: string) => void>>();
  return { fileOf, write, tail: (id, lines) => readLastLines(fileOf(id), lines), follow };

  function follow(id: string, tell: (line: string) => void): () => void {
    const all = followers.get(id) ?? new Set();
    followers.set(id, all.add(tell));
    return () => {
      all.delete(tell);
      if (all.size === 0) followers.delete(id);
    };
  }

  function write(entry: JournalEntry): void {
    if (!('tunnel' in entry)) return;
    const spec = specOf(entry.tunnel);
    const line = spec && renderEntry(entry, spec);
    if (!line) return;
    const gap = lost.get(entry.tunnel);
    const missing = gap === undefined ? [] : [`… ${gap} line${gap === 1 ? '' : 's'} could not be written`];
    const stamp = localTime(new Date(entry.at));
    const lines = [...missing, line].map((each) => `[${stamp}] ${printable(each)}`);
    for (const tell of followers.get(entry.tunnel) ?? []) for (const each of lines) tell(each);
    const isFresh = entry.type === 'tunnel.starting' && entry.asked;
    const file = fileOf(entry.tunnel);
    try {
      const problem = appendLine(file, lines.join('\n'), { ...limits(), isFresh });
      lost.delete(entry.tunnel);
      if (problem) complain(`Cannot begin a new file after ${file}`, problem);
    } catch (error) {
      if (!isRefusal(error) && !isTunwardError(error, 'ERR_ACCESS_DENIED')) throw error;
      lost.set(entry.tunnel, (gap ?? 0) + 1);
      complain(`Cannot write ${file}`, error);
    }
  }
}

/** How often the same trouble is told. */
const COMPLAIN_EVERY_MS = 60_000;

/** A full disk refuses every line of every tunnel: that is told once, and once a minute while it lasts. */
function createComplaints(clock: Clock): (what: string, why: Error) => void {
  const told = new Map<string, { readonly at: number; unsaid: number }>();
  return (what, why) => {
    const text = isTunwardError(why) ? why.message : `${what}: ${why.message}`;
    const kind = codeOf(isTunwardError(why) ? why.cause : why) ?? text;
    const last = told.get(kind);
    if (last && clock.now() - last.at < COMPLAIN_EVERY_MS) {
      last.unsaid++;
      return;
    }
    told.set(kind, { at: clock.now(), unsaid: 0 });
    const more = last?.unsaid ? ` (and ${last.unsaid} times more since that was said last)` : '';
    throw new Error(`${text}${more}`, { cause: why });
  };
}

/** `ENOSPC`: what the kernel said. Undefined for what we refuse ourselves. */
function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}

/** One line for a person; undefined for what is no news in a log. */
function renderEntry(entry: JournalEntry, spec: TunnelSpec): string | undefined {
  switch (entry.type) {
    case 'tunnel.starting':
      if (entry.asked) return `Starting tunnel ${describeSpec(spec)}`;
      return entry.from === 'up'
        ? `No longer forwarding: ${reasonOf(entry.status)}`
        : `Reconnecting (attempt ${entry.status.attempt})`;
    case 'tunnel.up':
      return `Up: ${describeCarrier(entry.status)}`;
    case 'tunnel.backoff':
      return `Not up: ${reasonOf(entry.status)}; next try at ${entry.status.nextRetryAt ?? 'once'}${adviceOf(entry.status)}`;
    case 'tunnel.fatal':
      return `Given up: ${reasonOf(entry.status)}${adviceOf(entry.status)}`;
    case 'tunnel.degraded':
      return `Degraded: ${entry.status.healthReason}`;
    case 'tunnel.recovered':
      return 'Well again';
    case 'tunnel.stopping':
      return entry.status.desired === 'down' ? 'Stopping' : undefined;
    case 'tunnel.stopped':
      return 'Stopped';
    case 'tunnel.needs_auth':
      return `${entry.why === 'lost' ? 'Lost: it waits' : 'Waits'} for a person: tunward auth ${whichOf(spec)}`;
    case 'hook.failed':
      return `Nobody was told: ${entry.message}`;
    case 'tunnel.output':
      return entry.line;
    case 'process.killed':
      return renderKill(entry.kill);
    default:
      return undefined;
  }
}

/** The processes of its chain; of an engine that has none, that it is one of this process. */
function describeCarrier({ chain, engine }: TunnelStatus): string {
  return chain.length === 0 ? `by the engine ${engine}` : chain.map(({ pid }) => `pid ${pid}`).join(', ');
}

function reasonOf({ reason, lastError }: TunnelStatus): string {
  return `${reason ?? 'unknown'}${lastError ? ` (${lastError})` : ''}`;
}

function adviceOf({ remedy }: TunnelStatus): string {
  return remedy === null ? '' : `; ${remedy}`;
}

function renderKill({ killed, survivors }: KillReport): string {
  const dead = killed.map(({ pid, why }) => `pid ${pid} (${why})`).join(', ');
  const alive = survivors.map(({ pid, why }) => `pid ${pid} survived (${why})`).join(', ');
  return [dead && `Killed ${dead}`, alive].filter(Boolean).join('; ');
}

/** `2026-01-16 11:00:30` in the time of this host, as people compare it with their other logs. */
function localTime(at: Date): string {
  const two = (value: number) => String(value).padStart(2, '0');
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}
