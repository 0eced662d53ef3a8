import fs from 'node:fs';
import { isErrno } from '../errors.js';
import { type Clock, systemClock, until } from '../time.js';

/** A stream that may be a terminal. */
export interface Terminal extends NodeJS.WritableStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
  readonly fd?: number;
}

/** What there is room for; 0 where a terminal does not say how large it is. */
export interface Size {
  readonly columns: number;
  readonly rows: number;
}

/** Lines at the bottom of a terminal, in the place of which new ones are drawn, while all that is said scrolls above them. */
export interface Area {
  /** Draws again, if anything looks different. */
  refresh(): void;
  /** Text that ends with a newline. It is there within some 30 ms. */
  say(text: string): void;
  /** What is shown stays where it is, as something said; what comes goes below it. */
  keep(): void;
  /** Leaves what is shown, and the cursor below it. Bounded, also where the terminal takes nothing. */
  close(): Promise<void>;
}

export interface AreaOptions {
  readonly terminal: Terminal;
  /** The lines as they are now, ready to be written: none wider than the room, no more than there are rows. */
  readonly render: (size: Size) => readonly string[];
  /** The terminal is gone. */
  readonly onError: (error: NodeJS.ErrnoException) => void;
  readonly clock?: Clock;
}

/** How long lines wait for each other, so that many of them are one write, in milliseconds. */
const GATHER_MS = 30;
/** How many writes wait for a terminal that takes none. */
const MOST_UNSAID = 1000;
/** How long the end waits for such a terminal, in milliseconds. */
const CLOSE_MS = 1000;

/*
 * Between two frames the cursor stands at the beginning of the lines, not at their end: a terminal that is made narrower
 * breaks them anew, and the place where they begin is the one that is still known then. What a stranger writes (a ^C,
 * a warning of Node's) lands on the first line, and is above the lines after the next frame.
 */
const frameBegin = '\u001b[?2026h';
const frameEnd = '\u001b[?2026l';
const hideCursor = '\u001b[?25l';
const showCursor = '\u001b[?25h';
/** A line that is measured wrongly must not become two. */
const wrapOff = '\u001b[?7l';
const wrapOn = '\u001b[?7h';
const eraseBelow = '\u001b[J';
const eraseRight = '\u001b[K';

export function createArea({ terminal, render, onError, clock = systemClock }: AreaOptions): Area {
  const writer = openWriter(terminal);
  /** What the terminal has not taken yet of the last frame. */
  let rest = Buffer.alloc(0);
  let unsaid: string[] = [];
  let shown: readonly string[] = [];
  let isStale = false;
  let isGathering = false;
  let isEnding = false;
  let isOver = false;
  terminal.on('resize', onResize);
  process.on('exit', onExit).on('SIGTSTP', onSuspend);
  return { refresh, say, keep, close };

  function refresh(): void {
    attempt(() => flush() && draw(look()));
  }

  function say(text: string): void {
    unsaid.push(text.endsWith('\n') ? text : `${text}\n`);
    if (unsaid.length > MOST_UNSAID) unsaid.splice(0, 2, '…\n');
    gather();
  }

  function keep(): void {
    unsaid.push(...shown.map((row) => `${row}\n`));
    shown = [];
    isStale = true;
  }

  async function close(): Promise<void> {
    refresh();
    keep();
    isEnding = true;
    const isSaid = () => {
      refresh();
      return isOver || (rest.length === 0 && unsaid.length === 0);
    };
    await until(isSaid, { timeoutMs: CLOSE_MS, everyMs: 10, clock });
    end();
  }

  function end(): void {
    if (!isOver) writer.close();
    isOver = true;
    terminal.off('resize', onResize);
    process.off('exit', onExit).off('SIGTSTP', onSuspend);
  }

  function gather(): void {
    if (isGathering) return;
    isGathering = true;
    clock.sleep(GATHER_MS).then(() => {
      isGathering = false;
      refresh();
    }, onError);
  }

  /** A mistake of ours in a picture is no reason to end what it is of: it is told, and there is no picture any more. */
  function look(): readonly string[] {
    if (isEnding) return [];
    try {
      return render(sizeOf(terminal));
    } catch (error) {
      isEnding = true;
      say(`error: nothing more can be shown here: ${error instanceof Error ? error.stack : error}`);
      return [];
    }
  }

  /** What goes wrong with the terminal is told once; then there is none. */
  function attempt(act: () => void): void {
    if (isOver) return;
    try {
      act();
    } catch (error) {
      if (!isErrno(error, 'EIO', 'EPIPE')) throw error;
      end();
      onError(error);
    }
  }

  function draw(rows: readonly string[]): void {
    if (!isStale && unsaid.length === 0 && isSame(rows, shown)) return;
    rest = Buffer.from(frameOf(rows, unsaid.join('')));
    [unsaid, shown, isStale] = [[], rows, false];
    flush();
  }

  /** Whether the terminal has taken everything. */
  function flush(): boolean {
    if (rest.length > 0) rest = rest.subarray(writer.some(rest));
    return rest.length === 0;
  }

  function onResize(): void {
    isStale = true;
    gather();
  }

  /** Also when the program ends in the middle of something: the shell wants its cursor. */
  function onExit(): void {
    keep();
    attempt(() => flush() && draw([]));
  }

  /**
   * Ctrl-Z. The terminal is the shell's then; what was drawn is history when this program has it again. Whether it stops
   * is for the kernel to say, as it always is: where no shell could continue it, it does not.
   */
  function onSuspend(): void {
    onExit();
    process.off('SIGTSTP', onSuspend);
    process.kill(process.pid, 'SIGTSTP');
    process.on('SIGTSTP', onSuspend);
  }
}

/** One write: what was said, then the rows, and back to where they begin. */
function frameOf(rows: readonly string[], said: string): string {
  const above = said === '' ? '' : `${eraseBelow}${said}`;
  const back = rows.length > 1 ? `\u001b[${rows.length - 1}A` : '';
  const drawn = `${wrapOff}${rows.map((row) => `${row}${eraseRight}`).join('\r\n')}${eraseBelow}${wrapOn}${back}\r`;
  const cursor = rows.length > 0 ? hideCursor : showCursor;
  return `${frameBegin}\r${above}${drawn}${cursor}${frameEnd}`;
}

/** A row that fills a line to its last column leaves the cursor on that column, and what is erased there is its last character. */
function sizeOf({ columns = 0, rows = 0 }: Terminal): Size {
  return { columns: Math.max(0, columns - 1), rows };
}

function isSame(rows: readonly string[], others: readonly string[]): boolean {
  return rows.length === others.length && rows.every((row, at) => row === others[at]);
}

export interface Writer {
  /** Answers how many bytes were taken. */
  some(data: Uint8Array): number;
  close(): void;
}

/**
 * Node writes to a terminal until that has taken everything, and one that is stopped (Ctrl-S) or belongs to a connection
 * that hangs takes nothing for hours: a daemon would stand still so long. So it is opened once more, not to wait.
 */
export function openWriter(terminal: Terminal): Writer {
  const fd = reopen(terminal.fd);
  if (fd === undefined)
    return {
      some(data) {
        terminal.write(data);
        return data.length;
      },
      close: () => undefined,
    };
  return {
    some(data) {
      try {
        return fs.writeSync(fd, data);
      } catch (error) {
        if (isErrno(error, 'EAGAIN')) return 0;
        throw error;
      }
    },
    close: () => fs.closeSync(fd),
  };
}

/** undefined: it may not be opened by us (a terminal of another user's, after su), or there is no /dev/fd. */
function reopen(fd: number | undefined): number | undefined {
  if (fd === undefined) return undefined;
  const { O_WRONLY, O_NONBLOCK, O_NOCTTY } = fs.constants;
  try {
    return fs.openSync(`/dev/fd/${fd}`, O_WRONLY | O_NONBLOCK | O_NOCTTY);
  } catch (error) {
    if (isErrno(error, 'EACCES', 'EPERM', 'ENOENT', 'ENXIO', 'EIO')) return undefined;
    throw error;
  }
}
