import { createKeyReader, type Key } from './keys.js';
import { createLine } from './line.js';
import { LONGEST_ANSWER } from './question.js';

/** One answer on its way: what has been typed of it, and what is to be seen of that. */
export interface Typing {
  /** Takes a byte from the keyboard; answers what is to be drawn. */
  readonly take: (byte: number) => string;
  /** How it ended, if it has: what comes then is not taken. */
  readonly end: () => 'entered' | 'given-up' | undefined;
  /** A copy, which is the caller's to wipe. */
  readonly answer: () => Buffer;
  readonly wipe: () => void;
}

export interface TypingOptions {
  /** Is what is typed seen? */
  readonly echo: boolean;
  /** What stands before it on its row. */
  readonly lastRow: string;
  readonly columns: () => number;
}

const newLine = '\r\n';
const bell = '\x07';

/**
 * Seen is the answer to a question of yes and no alone, or a fingerprint: these are ASCII, and what is not is not taken
 * there. Of all else every byte is taken, in whatever encoding the terminal has it.
 */
export function createTyping({ echo, lastRow, columns }: TypingOptions): Typing {
  const line = createLine(LONGEST_ANSWER);
  const readKey = createKeyReader();
  let end: ReturnType<Typing['end']>;
  const acts: Record<Key, (byte: number) => string> = {
    text: add,
    enter: () => finish('entered'),
    erase: () => erase(line.erase),
    'erase-word': () => erase(line.eraseWord),
    'erase-all': () => erase(line.wipe),
    interrupt: () => finish('given-up', '^C'),
    end: () => (line.size() === 0 ? finish('given-up') : ''),
    nothing: () => '',
  };
  return {
    take: (byte) => (end ? '' : acts[readKey(byte)](byte)),
    end: () => end,
    answer: line.copy,
    wipe: line.wipe,
  };

  function add(byte: number): string {
    // A full line that took no notice would be another answer than the one that was typed.
    if ((echo && byte >= 0x80) || !line.add(byte)) return bell;
    return echo ? String.fromCharCode(byte) : '';
  }

  function erase(act: () => void): string {
    const before = line.size();
    act();
    if (!echo) return '';
    // A backspace does not go back to the row above: there the last row of the question is drawn anew.
    if (lastRow.length + before < columns()) return '\b \b'.repeat(before - line.size());
    return `${newLine}${lastRow}${line.copy()}`;
  }

  function finish(how: 'entered' | 'given-up', sign = ''): string {
    end = how;
    return `${sign}${newLine}`;
  }
}
