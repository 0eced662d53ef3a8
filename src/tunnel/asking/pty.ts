import { createRequire } from 'node:module';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { isErrno } from '../../errors.js';
import { systemClock } from '../../time.js';
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

/** Lines of ssh that may wait until the terminal takes them, in bytes. */
const MOST_NOTES = 65_536;

/** Joins a helper, just started with pipes at 0, 1 and 2 and a channel at 3, and somebody's terminal. */
export function joinTerminal(helper: Helper, terminal: Terminal): Pty {
  let exit: ReturnType<Pty['exit']>;
  let isReleased = false;
  let noted = 0;
  let pending = 0;
  /** What is drawn is drawn one after another. */
  let drawn: Promise<void> = Promise.resolve();
  const { stdin: keys, stdout: screen } = helper;
  for (const stream of [keys, screen]) stream?.on('error', () => undefined); // its end is told by the helper's exit
  const started = new Promise<string | undefined>((resolve) => {
    helper.on('message', (message: FromHelper) => {
      if (message.type === 'started') resolve(undefined);
      else if (message.type === 'unavailable') resolve(message.message);
      else exit = message;
    });
    helper.once('exit', () => resolve('its helper has ended'));
  });
  screen?.on('data', (bytes: Buffer) => {
    screen.pause();
    pending++;
    // What ssh said before it asked has come by another way, and may be read in this very turn: it is drawn first.
    void systemClock
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
      if (isReleased || !keys?.writable) passed();
      else keys.write(bytes, passed);
    });
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
