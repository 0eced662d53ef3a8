/** What a person sees: a terminal's screen, and programs that run on one. */
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import xterm from '@xterm/headless';
import type { Reaper } from './reaper.js';

/** A terminal's screen, made of the bytes that were written to it. */
export interface Display {
  write(data: string | Uint8Array): void;
  /** The rows that are to be seen, top to bottom, without the blanks at their ends; once all that was written is drawn. */
  rows(): Promise<string[]>;
  /** The same with what has scrolled out of sight above them, without the empty rows at the end. */
  all(): Promise<string[]>;
  /** Where the cursor is: its row among `rows()`. */
  cursorRow(): Promise<number>;
  resize(columns: number, rows: number): void;
}

export function createDisplay(columns: number, rows: number): Display {
  const terminal = new xterm.Terminal({ cols: columns, rows, scrollback: 10_000, allowProposedApi: true });
  const { active } = terminal.buffer;
  const drawn = () => new Promise<void>((resolve) => terminal.write('', resolve));
  const row = (at: number) => active.getLine(at)?.translateToString(true) ?? '';
  const read = async (from: () => number) => {
    await drawn();
    return Array.from({ length: active.baseY + terminal.rows - from() }, (_, at) => row(from() + at));
  };
  return {
    write: (data) => terminal.write(data),
    rows: () => read(() => active.baseY),
    async all() {
      const lines = await read(() => 0);
      return lines.slice(0, lines.findLastIndex((line) => line !== '') + 1);
    },
    async cursorRow() {
      await drawn();
      return active.cursorY;
    },
    resize: (to, high) => terminal.resize(to, high),
  };
}

/** A program on a terminal of its own. */
export interface OnTerminal extends Display {
  readonly pid: number;
  /** Every byte that was written to the terminal. */
  bytes(): string;
  /** As if typed. */
  type(keys: string): void;
  /** From now on it takes nothing that is written to it, as one behind a connection that hangs; and takes it again. */
  pause(): void;
  resume(): void;
  /** The window is closed. */
  close(): void;
  /** Its exit code. */
  readonly ended: Promise<number>;
}

export interface TerminalOptions {
  readonly columns?: number;
  readonly rows?: number;
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** First `need(this, 'pty')`. NO_COLOR and the like are not handed on, and TERM is that of a terminal with colours. */
export function runOnTerminal(reaper: Reaper, command: readonly string[], options: TerminalOptions = {}): OnTerminal {
  const { columns = 80, rows = 24, cwd = tmpdir() } = options;
  const [file = '', ...args] = command;
  // Node takes a terminal under CI for one without colours.
  const { NO_COLOR: _no, FORCE_COLOR: _force, CI: _ci, ...own } = process.env;
  const settings = { ...own, ...reaper.env, TERM: 'xterm-256color', LC_ALL: 'C.UTF-8', ...options.env };
  const env = Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined));
  const pty = loadPty().spawn(file, args, { cols: columns, rows, cwd, env });
  reaper.ownPid(pty.pid);
  const display = createDisplay(columns, rows);
  let bytes = '';
  pty.onData((data) => {
    bytes += data;
    display.write(data);
  });
  return {
    ...display,
    pid: pty.pid,
    bytes: () => bytes,
    type: (keys) => pty.write(keys),
    pause: () => pty.pause(),
    resume: () => pty.resume(),
    close: () => pty.destroy(),
    resize(to, high) {
      display.resize(to, high);
      pty.resize(to, high);
    },
    // Of one that a signal has ended node-pty says 0, and which.
    ended: new Promise((resolve) => pty.onExit(({ exitCode, signal }) => resolve(signal ? 128 + signal : exitCode))),
  };
}

/** The part of node-pty that is used here: its own types are none under nodenext. */
interface Pty {
  readonly pid: number;
  onData(tell: (data: string) => void): void;
  onExit(tell: (end: { exitCode: number; signal?: number }) => void): void;
  write(data: string): void;
  resize(columns: number, rows: number): void;
  pause(): void;
  resume(): void;
  destroy(): void;
}

function loadPty(): {
  spawn(
    file: string,
    args: string[],
    options: { cols: number; rows: number; cwd: string; env: NodeJS.ProcessEnv },
  ): Pty;
} {
  return createRequire(import.meta.url)('node-pty');
}
