import { createRequire } from 'node:module';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { isErrno } from '../../errors.js';
import { type Clock, systemClock } from '../../time.js';
import type { Terminal } from './person.js';

/** What the daemon says to a helper: how large the window is; that the person is not needed any more. */
export type ToHelper =
  | { readonly type: 'resize'; readonly columns: number; readonly rows: number }
  | { readonly type: 'release' };

/** What a helper says: ssh runs on a terminal; it cannot; how ssh ended. */
export type FromHelper =
  | { readonly type: 'started' }
  | { readonly type: 'unavailable'; readonly message: string }
  | { readonly type: 'exited'; readonly code: number | null; readonly signal: NodeJS.Signals | null };

/** Either of them makes pseudo-terminals; the second one brings what is compiled along, and runs no script when it is installed. */
const packages = ['node-pty', '@lydell/node-pty'];

/** What somebody is told who would have a terminal and has not installed what makes one. */
export const ADD_PTY =
  "'npm i node-pty' adds a real terminal, or 'npm i node-pty@npm:@lydell/node-pty', which is compiled already";

/** The file of the first of the packages that is installed; undefined: none is. Nothing of it is loaded here. */
export function findPty(): string | undefined {
  const { resolve } = createRequire(import.meta.url);
  for (const name of packages) {
    try {
      return resolve(name);
    } catch (error) {
      if (!isErrno(error, 'MODULE_NOT_FOUND', 'ERR_PACKAGE_PATH_NOT_EXPORTED')) throw error;
    }
  }
  return undefined;
}

/** The command line that runs another one on a terminal. */
export function ptyCommand(pty: string, { columns, rows }: Terminal, command: readonly string[]): string[] {
  const helper = fileURLToPath(new URL('pty-process.js', import.meta.url));
  return [helper, pty, String(columns), String(rows), ...command];
}

/** What is used of a helper's process: pipes, and a channel. */
export interface Helper {
  readonly stdin: Writable | null;
  readonly stdout: Readable | null;
  readonly connected: boolean;
  send(message: ToHelper, done: () => void): boolean;
  on(event: 'message', listener: (message: FromHelper) => void): unknown;
  once(event: 'exit', listener: () => void): unknown;
}

/** The daemon's end of a helper. */
export interface Pty {
  /** Resolves to undefined when ssh runs on the terminal, or to why it cannot. */
  readonly started: Promise<string | undefined>;
  /** How ssh ended; undefined while it runs, and when the helper could not say. */
  exit(): { readonly code: number | null; readonly signal: string | null } | undefined;
  /** Draws a line that ssh has said elsewhere. Dropped where the person's terminal is that far behind. */
  note(line: string): void;
  /** All that was to be drawn is drawn. */
  isDrawn(): boolean;
  /** Lets go of the person: nothing is drawn and nothing is taken from here on. Idempotent. */
  release(): void;
}

/** A helper is a program of Node's, which is there in 50 ms, and in seconds where all start at once. */
const START_MS = 15_000;
/** ssh would dump its memory at a Ctrl-\, with what was typed in it: for the person it is one more way to give up. */
const [CTRL_C, CTRL_BACKSLASH] = [0x03, 0x1c];
const [LINE_FEED, ENTER, BLANK] = [0x0a, 0x0d, 0x20];
/** Lines of ssh that may wait until the terminal takes them, in bytes. */
const MOST_NOTES = 65_536;

/** Joins a helper, just started with pipes at 0, 1 and 2 and a channel at 3, and somebody's terminal. */
export function joinTerminal(helper: Helper, terminal: Terminal, clock: Clock = systemClock): Pty {
  let exit: ReturnType<Pty['exit']>;
  let isReleased = false;
  let noted = 0;
  let pending = 0;
  /** Something was drawn since Enter was pressed. */
  let isAsked = false;
  /** What is drawn is drawn one after another. */
  let drawn: Promise<void> = Promise.resolve();
  const { stdin: keys, stdout: screen } = helper;
  for (const stream of [keys, screen]) stream?.on('error', () => undefined); // its end is told by the helper's exit
  const started = new Promise<string | undefined>((resolve) => {
    const over = new AbortController();
    const end = (trouble?: string) => {
      over.abort();
      resolve(trouble);
    };
    helper.on('message', (message: FromHelper) => {
      if (message.type === 'started') end();
      else if (message.type === 'unavailable') end(message.message);
      else exit = message;
    });
    helper.once('exit', () => end('its helper has ended'));
    clock.sleep(START_MS, over.signal).then(
      () => end(`its helper has said nothing for ${START_MS / 1000} s`),
      () => undefined, // called off: it has said how it is
    );
  });
  screen?.on('data', (bytes: Buffer) => {
    screen.pause();
    pending++;
    isAsked ||= bytes.some((byte) => byte > BLANK);
    // What ssh said before it asked has come by another way, and may be read in this very turn: it is drawn first.
    void clock
      .sleep(0)
      .then(() => draw(bytes))
      .then(() => {
        pending--;
        screen.resume();
      });
  });
  terminal.listen({ type, resize });
  return { started, exit: () => exit, note, isDrawn: () => pending === 0, release };

  function draw(bytes: Buffer): Promise<void> {
    pending++;
    drawn = drawn.then(async () => {
      if (!isReleased) await terminal.show(bytes);
      bytes.fill(0);
      pending--;
    });
    return drawn;
  }

  function note(line: string): void {
    const bytes = Buffer.from(`${line}\r\n`);
    if (isReleased || noted + bytes.length > MOST_NOTES) return;
    noted += bytes.length;
    void draw(bytes).then(() => {
      noted -= bytes.length;
    });
  }

  function type(bytes: Buffer): Promise<void> {
    return new Promise((resolve) => {
      const passed = () => {
        bytes.fill(0);
        resolve();
      };
      const size = isReleased || !keys?.writable ? 0 : answerIn(bytes);
      if (size === 0) passed();
      else keys?.write(bytes.subarray(0, size), passed);
    });
  }

  /**
   * How much of it, from its beginning, is for ssh. A terminal shows what is typed until ssh has it hide that, which it does
   * just before it asks; and it forgets then what it has not read. So what is typed between two questions is of no use, and
   * a secret that is typed too early would be seen.
   */
  function answerIn(bytes: Buffer): number {
    if (bytes.includes(CTRL_C) || bytes.includes(CTRL_BACKSLASH)) {
      bytes[0] = CTRL_C;
      return 1;
    }
    if (!isAsked) return 0;
    const end = bytes.findIndex((byte) => byte === ENTER || byte === LINE_FEED);
    isAsked = end === -1;
    return isAsked ? bytes.length : end + 1;
  }

  function resize(columns: number, rows: number): void {
    tell({ type: 'resize', columns, rows });
  }

  function release(): void {
    if (isReleased) return;
    isReleased = true;
    tell({ type: 'release' });
    keys?.destroy();
    screen?.destroy();
  }

  function tell(message: ToHelper): void {
    if (helper.connected) helper.send(message, () => undefined); // one that is gone needs to know nothing
  }
}
