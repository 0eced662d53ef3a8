import { isDeepStrictEqual } from 'node:util';
import { isRecord } from '../schema.js';
import { editBrackets } from './entries.js';
import type { Entry, Spot } from './layout.js';
import { asRead, given, type Written, writePairs, writeValue } from './notation.js';
import {
  commentsIn,
  isBlank,
  lineEnd,
  lineStart,
  nextLine,
  type Page,
  refusal,
  requireFree,
  type Splice,
} from './page.js';

export interface MappingEdit {
  /** What the mapping says now, as it is read. */
  readonly old: Readonly<Record<string, unknown>>;
  readonly wanted: Written;
  /** The keys above it. */
  readonly keys: readonly string[];
}

/** Makes a mapping say something else, key by key, and mappings in it likewise: what is equal stays as it is written. */
export function editMapping(page: Page, spot: Spot, { old, wanted, keys }: MappingEdit): Splice[] {
  const names = spot.entries.map(({ key }) => key?.text);
  if (names.includes(undefined)) throw refusal('a key of the tunnel is no plain word; make it one');
  const isGone = (name = '') => !Object.hasOwn(wanted, name);
  const gone = names.flatMap((name, index) => (isGone(name) ? [index] : []));
  const fresh = Object.fromEntries(Object.entries(wanted).filter(([name]) => !names.includes(name)));
  for (const index of gone) requireFree(page, spot.entries[index] ?? spot);
  const pairs = writePairs(fresh, keys, page.notation);
  const changes = spot.entries.flatMap((entry, index): Splice[] => {
    const name = names[index] ?? '';
    if (isGone(name)) return [];
    const below = [...keys, name];
    if (isDeepStrictEqual(given(old[name]), asRead(wanted[name], below))) return [];
    return changeValue(page, entry, { old: old[name], wanted: wanted[name], keys: below });
  });
  if (spot.kind === 'flow map') return [...changes, ...editBrackets(page, spot, { gone, added: pairs })];
  return [...changes, ...editLines(page, spot, { gone, pairs })];
}

interface ValueEdit {
  readonly old: unknown;
  readonly wanted: unknown;
  readonly keys: readonly string[];
}

function changeValue(page: Page, entry: Entry, { old, wanted, keys }: ValueEdit): Splice[] {
  const { text } = page;
  const { key, value, indicatorEnd: colon } = entry;
  if (value) requireFree(page, value);
  const isMapping = value?.kind === 'block map' || value?.kind === 'flow map';
  if (isMapping && isRecord(old) && isRecord(wanted)) return editMapping(page, value, { old, wanted, keys });
  const written = writeValue(wanted, keys, page.notation);
  if (colon === undefined) return [{ start: entry.end, end: entry.end, text: `: ${written}` }];
  if (!value) return [{ start: colon, end: colon, text: ` ${written}` }];
  const region = { start: colon, end: value.end };
  const comments = commentsIn(page, region);
  if (comments.length === 0) {
    const isOnLine = isBlank(text, colon, value.start);
    const isText = text[value.end - 1] === '\n' && value.end > value.start;
    const end = isText ? lineEndBefore(text, value.end) : value.end;
    return [{ start: isOnLine ? value.start : colon, end, text: isOnLine ? written : ` ${written}` }];
  }
  return [...above(page, key ?? entry, comments), { ...region, text: ` ${written}` }];
}

/** A text with `|` ends with its line break, which stays. */
function lineEndBefore(text: string, end: number): number {
  return text[end - 2] === '\r' ? end - 2 : end - 1;
}

/** Comments that lose their place move above the key. */
function above(
  { text, eol }: Page,
  key: { readonly start: number },
  comments: readonly { start: number; end: number }[],
): Splice[] {
  const line = lineStart(text, key.start);
  const texts = comments.map(({ start, end }) => text.slice(start, end));
  const isFirst = isBlank(text, line, key.start) || /^ *- *$/.test(text.slice(line, key.start));
  const indent = /^ */.exec(text.slice(line))?.[0] ?? '';
  if (isFirst) return [{ start: line, end: line, text: texts.map((comment) => `${indent}${comment}${eol}`).join('') }];
  const block = texts.map((comment) => ` ${comment}${eol}${indent}  `).join('');
  return [{ start: key.start, end: key.start, text: block }];
}

/** Takes pairs out of a mapping of lines, and adds others behind the last one that stays. */
function editLines(
  page: Page,
  spot: Spot,
  { gone, pairs }: { gone: readonly number[]; pairs: readonly string[] },
): Splice[] {
  const { text, eol } = page;
  const { entries } = spot;
  const [first, end] = [entries[0], entries.at(-1)];
  const kept = entries.filter((_entry, index) => !gone.includes(index));
  const last = kept.at(-1);
  if (!first || !end) return [];
  const indent = ' '.repeat(first.start - lineStart(text, first.start));
  if (!last) {
    const isText = text[end.end - 1] === '\n';
    const fresh = pairs.length === 0 ? '{}' : pairs.join(`${eol}${indent}`);
    return [{ start: first.start, end: isText ? lineEndBefore(text, end.end) : end.end, text: fresh }];
  }
  return [...removePairs(page, entries, gone), ...addPairs()];

  function addPairs(): Splice[] {
    if (!last || pairs.length === 0) return [];
    // The line behind it, and not its end: what goes of the last pair may be its last line.
    const at = nextLine(text, last);
    const block = pairs.map((pair) => `${indent}${pair}`).join(eol);
    const isOpen = at === text.length && text[at - 1] !== '\n';
    return [{ start: at, end: at, text: isOpen ? `${eol}${block}` : `${block}${eol}` }];
  }
}

function removePairs(page: Page, entries: readonly Entry[], gone: readonly number[]): Splice[] {
  const { text } = page;
  const linesOf = (entry: Entry): Splice => {
    return { start: lineStart(text, entry.start), end: nextLine(text, entry), text: '' };
  };
  const removed = entries.filter((_entry, index) => gone.includes(index));
  const [first] = entries;
  const next = entries.find((_entry, index) => !gone.includes(index));
  const isOnDash = first && next && gone.includes(0) && !isBlank(text, lineStart(text, first.start), first.start);
  if (!isOnDash) return removed.map(linesOf);
  // The first pair shares its line with the dash: the next one takes its place, unless there is a comment between.
  const own = removed
    .filter(({ start }) => start < next.start)
    .map(({ start, end }) => ({ start, end: lineEnd(text, end) }));
  const between = commentsIn(page, { start: first.start, end: next.start });
  const isClear = between.every((comment) =>
    own.some(({ start, end }) => comment.start >= start && comment.end <= end),
  );
  const later = removed.filter(({ start }) => start > (isClear ? next.start : first.start)).map(linesOf);
  const [blanks = ''] = /[ ]*$/.exec(text.slice(0, first.start)) ?? [];
  const head = { start: first.start - blanks.length, end: lineEnd(text, first.end), text: '' };
  return [isClear ? { start: first.start, end: next.start, text: '' } : head, ...later];
}
