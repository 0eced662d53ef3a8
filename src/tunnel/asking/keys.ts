/** What a byte that came from a keyboard means for a line; `text`: it is a part of it. */
export type Key = 'text' | 'enter' | 'erase' | 'erase-word' | 'erase-all' | 'interrupt' | 'end' | 'nothing';

const controls: ReadonlyMap<number, Key> = new Map([
  [0x03, 'interrupt'], // Ctrl-C
  [0x04, 'end'], // Ctrl-D
  [0x08, 'erase'], // Backspace, as some terminals send it
  [0x0a, 'enter'],
  [0x0d, 'enter'],
  [0x15, 'erase-all'], // Ctrl-U
  [0x17, 'erase-word'], // Ctrl-W
  [0x7f, 'erase'], // Backspace
]);

const ESC = 0x1b;
const BEL = 0x07;

/**
 * Reads keys byte by byte. Arrows, function keys, what brackets a paste, and what a terminal answers by itself are sequences
 * that begin with ESC (ECMA-48), and mean nothing here. A control character ends such a sequence, so that a lone ESC cannot
 * swallow an Enter or a Ctrl-C.
 */
export function createKeyReader(): (byte: number) => Key {
  /** What the bytes so far are: text, a sequence's first two, one with parameters, or a string up to BEL or ESC \. */
  let inside: 'text' | 'escape' | 'shift' | 'parameters' | 'string' = 'text';
  return (byte) => {
    if (byte === ESC) {
      inside = 'escape';
      return 'nothing';
    }
    if (byte < 0x20 || byte === 0x7f) {
      const isBell = byte === BEL;
      inside = 'text';
      return isBell ? 'nothing' : (controls.get(byte) ?? 'nothing');
    }
    if (inside === 'text') return 'text';
    inside = next(byte);
    return 'nothing';
  };

  function next(byte: number): typeof inside {
    const letter = String.fromCharCode(byte);
    if (inside === 'string') return 'string';
    if (inside === 'shift') return 'text'; // ESC O, and one letter
    if (inside === 'parameters') return byte >= 0x40 ? 'text' : 'parameters';
    if (letter === '[') return 'parameters';
    if (letter === 'O') return 'shift';
    return 'P]X^_'.includes(letter) ? 'string' : 'text';
  }
}
