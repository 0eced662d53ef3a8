import { fold, indent, type Line, type Screen, styled } from '../render.js';

/** The demo's voice: a story with numbered chapters, for 80 columns. */
export interface Teller {
  title(text: string): void;
  /** The next chapter. */
  chapter(text: string): void;
  prose(text: string): void;
  /** What a person would type here. */
  command(text: string): void;
  /** What that answers, in sentences. */
  answer(...lines: readonly Line[]): void;
  /** What has become of it, which is long where many were killed. */
  outcome(line: Line): void;
  /** What that answers, in columns: a terminal cuts them at its width. */
  columns(...lines: readonly Line[]): void;
  lines(...lines: readonly Line[]): void;
  gap(): void;
}

const WIDTH = 76;

export function createTeller(screen: Screen): Teller {
  let chapters = 0;
  // With --json the result is data, and the story is talk.
  const print = screen.json ? screen.say : screen.print;
  const rows = screen.json ? screen.say : screen.rows;
  return {
    title: (text) => print('', styled('bold', text), ''),
    chapter(text) {
      chapters++;
      print('', [styled('cyan', `${chapters}  `), styled('bold', text)]);
    },
    prose: (text) => print(...indent(wrap(text, WIDTH), 3)),
    command: (text) => print('', [styled('dim', '   $ '), styled('bold', text)]),
    answer: (...lines) => print(...indent(lines, 5)),
    outcome: (line) => print(...indent(fold(line, WIDTH - 2), 5)),
    columns: (...lines) => rows(...indent(lines, 5)),
    lines: (...lines) => rows(...indent(lines, 3)),
    gap: () => print(''),
  };
}

/** Lines of at most `width` characters, broken between words. */
export function wrap(text: string, width = WIDTH): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}
