/** A line that is being typed, in bytes: nothing of it is ever a string, and {@link Line.wipe} leaves nothing. */
export interface Line {
  readonly size: () => number;
  /** Takes a byte of text; false: it is full. */
  readonly add: (byte: number) => boolean;
  /** These take the last character (all bytes of it), the last word with the blanks behind it, everything. */
  readonly erase: () => void;
  readonly eraseWord: () => void;
  readonly wipe: () => void;
  /** A copy, which is the caller's to wipe. */
  readonly copy: () => Buffer;
  /** Where the last character begins. */
  readonly lastCharacter: () => number;
}

const BLANK = 0x20;

/** @param longest how many bytes it has room for. It is never moved, so there is one place to wipe. */
export function createLine(longest: number): Line {
  const bytes = Buffer.alloc(longest);
  let size = 0;

  return {
    size: () => size,
    add(byte) {
      if (size === longest) return false;
      bytes[size++] = byte;
      return true;
    },
    erase: () => cut(lastCharacter()),
    eraseWord() {
      let end = size;
      while (end > 0 && bytes[end - 1] === BLANK) end--;
      while (end > 0 && bytes[end - 1] !== BLANK) end--;
      cut(end);
    },
    wipe: () => cut(0),
    copy() {
      // With room for all: a small buffer is moved about by V8, and is not wiped where it was.
      const copy = Buffer.alloc(longest);
      bytes.copy(copy, 0, 0, size);
      return copy.subarray(0, size);
    },
    lastCharacter,
  };

  function lastCharacter(): number {
    let at = Math.max(0, size - 1);
    // Bytes 10xxxxxx continue a character of UTF-8, which has four at most.
    while (at > 0 && size - at < 4 && ((bytes[at] ?? 0) & 0xc0) === 0x80) at--;
    return at;
  }

  function cut(end: number): void {
    bytes.fill(0, end, size);
    size = end;
  }
}
