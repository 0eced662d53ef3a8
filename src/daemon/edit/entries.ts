import type { Entry, Span, Spot } from './layout.js';
import { isBlank, lineEnd, lineStart, nextLine, type Page, refusal, type Splice } from './page.js';

/** Adds an item behind the last one of a list of lines; `lines` are asked for with the indentation of the dashes. */
export function appendToBlock({ text, eol }: Page, list: Spot, lines: (indent: string) => string[]): Splice[] {
  const [last, before] = [list.entries.at(-1), list.entries.at(-2)];
  if (!last) return [];
  const indent = indentOf(text, last);
  const at = endOfItem(text, last);
  const isApart = before !== undefined && isBlankAbove(text, startOfItem(text, last), endOfItem(text, before));
  const block = [...(isApart ? [''] : []), ...lines(indent)].join(eol);
  const isOpen = at === text.length && text[at - 1] !== '\n';
  return [{ start: at, end: at, text: isOpen ? `${eol}${block}` : `${block}${eol}` }];
}

/** Removes one item of a list with what is its own, see removeTunnel(). */
export function removeFromList(page: Page, list: Spot, index: number): Splice[] {
  const { text } = page;
  const entry = list.entries[index];
  if (!entry) return [];
  if (list.kind === 'flow list') return editBrackets(page, list, { gone: [index], added: [], takesAbove: true });
  indentOf(text, entry);
  return [{ ...withBlank(text, { start: startOfItem(text, entry), end: endOfItem(text, entry) }), text: '' }];
}

/** Between two blank lines one is enough, and none at the end of the text. */
function withBlank(text: string, { start, end }: Span): Span {
  const above = lineStart(text, start - 1);
  if (!isBlankAbove(text, start, 0)) return { start, end };
  if (end === text.length) return { start: above, end };
  return { start, end: isBlank(text, end, lineEnd(text, end)) ? nextLine(text, { start: end, end }) : end };
}

function isBlankAbove(text: string, start: number, least: number): boolean {
  return start > least && isBlank(text, lineStart(text, start - 1), start - 1);
}

/** What stands in front of a dash. */
function indentOf(text: string, { start }: Entry): string {
  const indent = text.slice(lineStart(text, start), start);
  if (!/^ *$/.test(indent)) throw refusal('a tunnel does not begin on a line of its own; give it one');
  return indent;
}

/** The line of a dash, or the first one of the comments directly above it that are about it. */
function startOfItem(text: string, entry: Span): number {
  const own = lineStart(text, entry.start);
  const column = entry.start - own;
  let start = own;
  while (start > 0) {
    const above = lineStart(text, start - 1);
    const line = text.slice(above, start);
    const indent = /^ *(?=#)/.exec(line)?.[0];
    if (indent === undefined || indent.length > column) break;
    if (/^ *#+ *- /.test(line)) return own;
    start = above;
  }
  return start;
}

/** Behind an item's last line and the comments after it that are further to the right than its dash. */
function endOfItem(text: string, entry: Span): number {
  const column = entry.start - lineStart(text, entry.start);
  let end = nextLine(text, entry);
  for (;;) {
    const indent = /^ *(?=#)/.exec(text.slice(end, lineEnd(text, end)))?.[0];
    if (indent === undefined || indent.length <= column) return end;
    end = nextLine(text, { start: end, end });
  }
}

export interface BracketEdits {
  /** Indices of the entries that go. */
  readonly gone: readonly number[];
  /** What comes in their places, and behind the last entry when there are more. */
  readonly added: readonly string[];
  /** Comments directly above an entry that has a line of its own go with it. */
  readonly takesAbove?: boolean;
}

/** Edits the entries of a mapping or a list in brackets. */
export function editBrackets(page: Page, spot: Spot, { gone, added, takesAbove = false }: BracketEdits): Splice[] {
  const { entries } = spot;
  const exchanged = gone.slice(0, added.length);
  const rest = gone.slice(added.length);
  const edits = exchanged.flatMap((index, at): Splice[] => {
    const entry = entries[index];
    return entry ? [{ start: entry.start, end: entry.end, text: added[at] ?? '' }] : [];
  });
  if (rest.length > 0) return [...edits, ...removeEntries(page, spot, { gone: rest, takesAbove })];
  return [...edits, ...appendEntries(page, spot, added.slice(gone.length))];
}

function removeEntries(
  page: Page,
  { entries }: Spot,
  { gone, takesAbove }: { gone: readonly number[]; takesAbove: boolean },
) {
  const kept = entries.findLastIndex((_entry, index) => !gone.includes(index));
  const edits = gone.flatMap((index) => {
    const entry = entries[index];
    return entry ? removeEntry(page, entry, { isLast: index > kept, takesAbove }) : [];
  });
  // The comma that would then be the last one stays only where there was one.
  const comma = entries[kept]?.comma;
  const isSurplus = kept < entries.length - 1 && entries.at(-1)?.comma === undefined;
  if (comma !== undefined && isSurplus) edits.push({ start: comma, end: comma + 1, text: '' });
  return edits;
}

function removeEntry(
  { text }: Page,
  entry: Entry,
  { isLast, takesAbove }: { isLast: boolean; takesAbove: boolean },
): Splice[] {
  const { start, end, comma } = entry;
  const isNear = comma !== undefined && isBlank(text, end, comma);
  const behind = isNear ? comma + 1 : end;
  const apart = comma !== undefined && !isNear ? [{ start: comma, end: comma + 1, text: '' }] : [];
  const line = lineStart(text, start);
  if (isBlank(text, line, start) && /^[ \t]*(#.*)?$/.test(text.slice(behind, lineEnd(text, behind)))) {
    const from = takesAbove ? startOfItem(text, entry) : line;
    return [{ start: from, end: nextLine(text, { start: behind, end: behind }), text: '' }, ...apart];
  }
  const [before = ''] = /[ \t]*$/.exec(text.slice(line, start)) ?? [];
  const [after = ''] = /^[ \t]*/.exec(text.slice(behind)) ?? [];
  if (isLast && before.length < start - line)
    return [{ start: start - before.length, end: behind, text: '' }, ...apart];
  return [{ start, end: behind + after.length, text: '' }, ...apart];
}

function appendEntries({ text, eol }: Page, spot: Spot, added: readonly string[]): Splice[] {
  if (added.length === 0) return [];
  const last = spot.entries.at(-1);
  if (!last) return [{ start: spot.inner + 1, end: spot.inner + 1, text: added.join(', ') }];
  const line = lineStart(text, last.start);
  const isInLines = isBlank(text, line, last.start);
  const separator = isInLines ? `${eol}${text.slice(line, last.start)}` : ' ';
  const block = added.map((one) => `${separator}${one}`).join(',');
  const behind = last.comma === undefined ? last.end : last.comma + 1;
  const end = lineEnd(text, behind);
  // A comment behind the last entry stays on its line.
  const isOpen = /^[ \t]+#/.test(text.slice(behind, end)) || (isInLines && isBlank(text, behind, end));
  const at = isOpen ? end : behind;
  const first = last.comma === undefined ? [{ start: last.end, end: last.end, text: ',' }] : [];
  const tail = last.comma === undefined ? '' : ',';
  const fresh = isOpen && !isInLines ? `${eol}${block}` : block;
  return [...first, { start: at, end: at, text: `${fresh}${tail}` }];
}
