import type { Terminal } from '@xterm/xterm';
import { after, type CallOff } from './clock.js';
import { visible } from './units.js';

export interface Speech {
  /** Something was drawn. */
  hear(): void;
  stop(): void;
}

/** Lines that come together are said together. */
const GATHER_MS = 250;
/** Nobody can listen to more. */
const MOST_LINES = 8;

/** Says what has come to stand on a terminal since it last did, to those who do not see it. */
export function createSpeech(terminal: Pick<Terminal, 'buffer'>, say: (text: string) => void): Speech {
  let waiting: CallOff | undefined;
  /** The line that the cursor was at, and what stood there. */
  let line = 0;
  let known = '';
  return {
    hear() {
      waiting ??= after(GATHER_MS, read);
    },
    stop: () => waiting?.(),
  };

  function read(): void {
    waiting = undefined;
    const { active } = terminal.buffer;
    const end = active.baseY + active.cursorY;
    const begin = Math.max(Math.min(line, end), end - MOST_LINES + 1);
    const texts = Array.from(
      { length: end - begin + 1 },
      (_, at) => active.getLine(begin + at)?.translateToString(true) ?? '',
    );
    const [first = '', last = ''] = [texts[0], texts.at(-1)];
    // Of a line that has grown, what is new: whoever types a word there is not told all of it with each letter.
    if (begin === line && first.startsWith(known)) texts[0] = first.slice(known.length);
    [line, known] = [end, last];
    const text = visible(texts.map((each) => each.trim()).join(' ')).trim();
    if (text !== '') say(text);
  }
}
