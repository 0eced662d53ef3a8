import { TunwardError } from '../../errors.js';
import type { Layout, Span } from './layout.js';
import type { Notation } from './notation.js';

/** A text that is edited, and where everything in it is. */
export interface Page {
  readonly text: string;
  /** How its lines end. */
  readonly eol: string;
  readonly notation: Notation;
  readonly layout: Layout;
}

/** What is to stand in place of a stretch of a text. */
export interface Splice extends Span {
  readonly text: string;
}

/** The text with all its edits; undefined when two of them touch the same characters. */
export function splice(text: string, edits: readonly Splice[]): string | undefined {
  const sorted = [...edits].sort((a, b) => a.start - b.start || a.end - b.end);
  const parts: string[] = [];
  let at = 0;
  for (const { start, end, text: fresh } of sorted) {
    if (start < at || end < start) return undefined;
    parts.push(text.slice(at, start), fresh);
    at = end;
  }
  return [...parts, text.slice(at)].join('');
}

/** The offset at which a line begins. */
export function lineStart(text: string, offset: number): number {
  return text.lastIndexOf('\n', offset - 1) + 1;
}

/** The offset of a line's end, in front of its line break. */
export function lineEnd(text: string, offset: number): number {
  const at = text.indexOf('\n', offset);
  if (at < 0) return text.length;
  return text[at - 1] === '\r' && at > offset ? at - 1 : at;
}

/** Where the next line begins behind what ends here, which may be a line break itself (a text with `|`). */
export function nextLine(text: string, { start, end }: Span): number {
  if (end > start && text[end - 1] === '\n') return end;
  const at = text.indexOf('\n', end);
  return at < 0 ? text.length : at + 1;
}

/** Whether there are only blanks between two offsets. */
export function isBlank(text: string, from: number, to: number): boolean {
  return /^[ \t\r]*$/.test(text.slice(from, to));
}

/** The comments in a stretch. */
export function commentsIn({ layout }: Page, { start, end }: Span): Span[] {
  return layout.comments.filter((comment) => comment.start >= start && comment.end <= end);
}

/** Refuses to change what somebody else refers to. */
export function requireFree({ text, layout }: Page, span: Span): void {
  const isIn = (offset: number) => offset >= span.start && offset < span.end;
  const used = layout.references.find(({ anchor, alias }) => isIn(anchor) && !isIn(alias));
  if (!used) return;
  const line = (offset: number) => text.slice(0, offset).split('\n').length;
  const { name, anchor, alias } = used;
  throw refusal(`line ${line(alias)} takes what &${name} in line ${line(anchor)} says (*${name}); write it out there`);
}

/** What cannot be done to this text. */
export function refusal(why: string): TunwardError<'ERR_BAD_REQUEST'> {
  return new TunwardError('ERR_BAD_REQUEST', `Cannot edit the configuration: ${why}, or edit the file by hand`, {});
}
