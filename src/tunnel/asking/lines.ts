import { TunwardError } from '../../errors.js';
import type { Clock } from '../../time.js';
import type { Prompt, Terminal } from './person.js';
import { printableLines } from './question.js';
import { createTyping, type Typing } from './typing.js';

/** Somebody at a terminal who answers questions by typing lines. */
export interface LineReader {
  /**
   * Draws the question and answers with the line that is typed then: a Buffer that whoever has it wipes.
   *
   * Rejects with the signal's reason; with TunwardError ERR_TIMEOUT when no key was pressed for `idleMs`; and with a
   * DOMException `AbortError`, as an AbortController has it, when Ctrl-C, or Ctrl-D on an empty line, gives it up.
   */
  readonly prompt: Prompt;
  /** Draws something that wants no answer. */
  readonly tell: (text: string) => Promise<void>;
}

export interface LineReaderOptions {
  readonly clock: Clock;
  /** Without a key pressed, in milliseconds. */
  readonly idleMs: number;
}

/** A question that can be answered now. */
interface Asking {
  readonly typing: Typing;
  /** A key was pressed, whichever. */
  readonly touch: () => void;
  readonly settle: () => void;
}

/**
 * Listens to a terminal from now on. What is typed while nothing is asked is wiped and forgotten: somebody who types a
 * password too early must not have it shown, or taken for the answer to another question.
 *
 * Keys: Backspace, Ctrl-U (all), Ctrl-W (a word), Enter; Ctrl-C and Ctrl-D give up. Sequences, such as arrows, are ignored.
 */
export function createLineReader(terminal: Terminal, { clock, idleMs }: LineReaderOptions): LineReader {
  let asking: Asking | undefined;
  let { columns } = terminal;
  let tail: Promise<unknown> = Promise.resolve();

  terminal.listen({
    async type(bytes) {
      const drawing = take(bytes);
      bytes.fill(0);
      if (drawing !== '') await show(drawing);
    },
    resize(width) {
      columns = width;
    },
  });

  return {
    prompt(question) {
      const turn = tail.then(() => ask(question));
      tail = turn.catch(() => undefined); // told by `turn`
      return turn;
    },
    tell: (text) => show(`${onTerminal(printableLines(text))}\r\n`),
  };

  function show(text: string): Promise<void> {
    return terminal.show(Buffer.from(text));
  }

  function take(bytes: Buffer): string {
    const now = asking;
    now?.touch();
    let drawing = '';
    for (const byte of bytes) drawing += now?.typing.take(byte) ?? '';
    // At once: what is typed from here on is ahead of the next question.
    if (now?.typing.end()) now.settle();
    return drawing;
  }

  function ask({ text, echo, signal }: Parameters<Prompt>[0]): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const lastRow = text.slice(text.lastIndexOf('\n') + 1);
      const typing = createTyping({ echo, lastRow, columns: () => columns });
      let idle = new AbortController();
      let isOver = false;
      const touch = () => {
        idle.abort();
        idle = new AbortController();
        clock.sleep(idleMs, idle.signal).then(
          () => fail(new TunwardError('ERR_TIMEOUT', `Nothing was typed for ${idleMs} ms`, { timeoutMs: idleMs })),
          () => undefined, // another key, or the end
        );
      };
      const end = () => {
        isOver = true;
        idle.abort();
        signal.removeEventListener('abort', abort);
        typing.wipe();
        asking = undefined;
      };
      const settle = () => {
        if (typing.end() === 'entered') resolve(typing.answer());
        else reject(new DOMException('Given up at the terminal', 'AbortError'));
        end();
      };
      const fail = (reason: unknown) => {
        reject(reason);
        end();
        void show('\r\n');
      };
      const abort = () => fail(signal.reason);
      signal.addEventListener('abort', abort, { once: true });
      touch();
      // Typed before the question could be read, it answers something else.
      void show(onTerminal(text)).then(() => {
        if (!isOver) asking = { typing, touch, settle };
      });
    });
  }
}

function onTerminal(text: string): string {
  return text.replaceAll('\n', '\r\n');
}
