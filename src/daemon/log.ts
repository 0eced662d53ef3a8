import fs from 'node:fs';
import path from 'node:path';
import { isErrno } from '../errors.js';
import type { KillReport } from '../kill.js';
import type { TunnelStatus } from '../tunnel/runner.js';
import { describeSpec, type TunnelSpec } from '../tunnel/spec.js';
import type { JournalEntry } from './events.js';
import { makePrivateFolder, openForAppend } from './files.js';

/** The log files of the tunnels: `<dir>/tunnel_<id>.log`, and the four before it as `.log.1` to `.log.4`. */
export interface TunnelLogs {
  fileOf(id: string): string;
  /** A reader of the journal. */
  write(entry: JournalEntry): void;
  /** The last lines of the present file, oldest first; none when there is no file. */
  tail(id: string, lines: number): string[];
  close(): void;
}

const KEPT_FILES = 5;
const TAIL_BYTES = 1_048_576;

/** Renders the journal into a file for each tunnel. A start that was asked for begins a new file; a retry goes on in it. */
export function createTunnelLogs(dir: string, specOf: (id: string) => TunnelSpec | undefined): TunnelLogs {
  makePrivateFolder(dir);
  const open = new Map<string, number>();
  const fileOf = (id: string) => path.join(dir, `tunnel_${id}.log`);
  return { fileOf, write, tail, close };

  function write(entry: JournalEntry): void {
    if (!('tunnel' in entry)) return;
    const spec = specOf(entry.tunnel);
    const line = spec && renderEntry(entry, spec);
    if (!line) return;
    if (entry.type === 'tunnel.starting' && entry.asked) begin(entry.tunnel);
    const fd = open.get(entry.tunnel) ?? openForAppend(fileOf(entry.tunnel));
    open.set(entry.tunnel, fd);
    fs.writeSync(fd, `[${localTime(new Date(entry.at))}] ${line}\n`);
  }

  function begin(id: string): void {
    const fd = open.get(id);
    if (fd !== undefined) fs.closeSync(fd);
    open.delete(id);
    for (let number = KEPT_FILES - 1; number >= 1; number--) {
      const older = number === 1 ? fileOf(id) : `${fileOf(id)}.${number - 1}`;
      renameIfThere(older, `${fileOf(id)}.${number}`);
    }
  }

  function tail(id: string, lines: number): string[] {
    const text = readEnd(fileOf(id));
    return text.split('\n').slice(0, -1).slice(-lines);
  }

  function close(): void {
    for (const fd of open.values()) fs.closeSync(fd);
    open.clear();
  }
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
      return `Up: ${entry.status.chain.map(({ pid }) => `pid ${pid}`).join(', ')}`;
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
    case 'tunnel.output':
      return entry.line;
    case 'process.killed':
      return renderKill(entry.kill);
    default:
      return undefined;
  }
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

function renameIfThere(from: string, to: string): void {
  try {
    fs.renameSync(from, to);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
}

function readEnd(file: string): string {
  let fd: number;
  try {
    fd = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ELOOP')) return '';
    throw error;
  }
  try {
    const { size } = fs.fstatSync(fd);
    const buffer = Buffer.alloc(Math.min(size, TAIL_BYTES));
    return buffer.toString('utf8', 0, fs.readSync(fd, buffer, 0, buffer.length, Math.max(0, size - buffer.length)));
  } finally {
    fs.closeSync(fd);
  }
}
