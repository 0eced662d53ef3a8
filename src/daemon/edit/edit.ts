import { isDeepStrictEqual } from 'node:util';
import { readDocument } from '../document.js';
import { isRecord, keepsText } from '../schema.js';
import { invalid } from '../source.js';
import { appendToBlock, editBrackets, removeFromList } from './entries.js';
import { type Entry, layOut, type Spot } from './layout.js';
import { editMapping } from './mapping.js';
import { asRead, given, type Notation, tidy, type Written, writePairs, writeValue } from './notation.js';
import { lineEnd, lineStart, type Page, refusal, requireFree, type Splice, splice } from './page.js';

/*
 * Edits of a configuration as a person would make them: text in, text out. Whatever does not belong to the tunnel that is
 * touched stays byte for byte. Every result is read again and compared with what was wanted, so that a wrong one is
 * refused (ERR_BAD_REQUEST) and never written.
 */

/**
 * Adds a tunnel behind those there are, in their style and indentation. What is said of the tunnels by no key yet, or by
 * an empty one (`tunnels: []`), becomes a list.
 *
 * @throws TunwardError ERR_CONFIG_INVALID: the text is no YAML; ERR_BAD_REQUEST: this text cannot be edited, and why
 * @example
 * addTunnel('tunnels: []\n', { remote_host: 'me@host', remote_port: 80, local_port: 8080 });
 */
export function addTunnel(text: string | Draft, tunnel: Written): string {
  const page = openDraft(text);
  const wanted = tidy(tunnel);
  return finish(page, additionTo(page, wanted), [...page.tunnels, asRead(wanted, ['tunnels'])]);
}

/**
 * Makes one tunnel another, key by key: what is equal stays as it is written, with its comments; new keys come last. A
 * key that goes takes the comment on its line along. Comments within a value that is replaced move above its key.
 */
export function replaceTunnel(text: string | Draft, index: number, tunnel: Written): string {
  const page = openDraft(text);
  const entry = entryAt(page, index);
  const wanted = tidy(tunnel);
  const tunnels = page.tunnels.with(index, asRead(wanted, ['tunnels']));
  if (isSame(tunnels, page.tunnels)) return page.text;
  const [old, { value }] = [page.tunnels[index], entry];
  if (value && isRecord(old) && isMapping(value)) {
    const anchor = { start: value.start, end: value.inner };
    requireFree(page, anchor);
    return finish(page, editMapping(page, value, { old, wanted, keys: ['tunnels'] }), tunnels);
  }
  if (value) requireFree(page, value);
  const written = writeValue(wanted, ['tunnels'], page.notation);
  const at = value ?? { start: entry.end, end: entry.end };
  return finish(page, [{ ...at, text: value ? written : ` ${written}` }], tunnels);
}

/**
 * Removes a tunnel with what is its own: the comments in it, and the block of comment lines directly above it, which
 * would seem to be about the next one. A blank line keeps a block above from that, and so does a line `# - …` in it: that
 * is another tunnel, commented out. What is further to the right than the dash behind it is its own as well.
 */
export function removeTunnel(text: string | Draft, index: number): string {
  const page = openDraft(text);
  const entry = entryAt(page, index);
  requireFree(page, entry);
  const list = listOf(page);
  if (!list?.value) throw refusal('there is no list of tunnels');
  const edits = removeFromList(page, list.value, index);
  const isLast = list.value.entries.length === 1 && list.value.kind === 'block list';
  const at = list.indicatorEnd ?? list.end;
  // An empty value would be read as no tunnels too; brackets say it.
  if (isLast) edits.push({ start: at, end: at, text: ' []' });
  return finish(page, edits, page.tunnels.toSpliced(index, 1));
}

/** A text that has been read, for who looks at its tunnels before one of them is edited. */
export interface Draft extends Page {
  /** As they stand there. */
  readonly tunnels: readonly unknown[];
  /** The whole file. */
  readonly value: unknown;
}

/** @throws TunwardError as {@link addTunnel} */
export function openDraft(text: string | Draft): Draft {
  if (typeof text !== 'string') return text;
  const document = readDocument(text, 'tunward.yaml', keepsText);
  if (document.problems.length > 0) throw invalid(document.problems);
  const value = finite(document.value ?? {});
  const tunnels = isRecord(value) ? (value.tunnels ?? []) : undefined;
  if (!Array.isArray(tunnels)) throw refusal('there is no list of tunnels');
  const eol = /\r?\n/.exec(text)?.[0] ?? '\n';
  return { text, eol, notation: notationOf(text), layout: layOut(text), tunnels, value };
}

function finite(value: unknown): unknown {
  try {
    given(value);
    return value;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw refusal('an alias (*) stands within its own anchor (&); write it out');
  }
}

function notationOf(text: string): Notation {
  try {
    JSON.parse(text);
    return 'json';
  } catch (error) {
    if (error instanceof SyntaxError) return 'yaml';
    throw error;
  }
}

/** The pair `tunnels: …` of the file. */
function listOf({ layout }: Page): Entry | undefined {
  return layout.root?.entries.find(({ key }) => key?.text === 'tunnels');
}

function entryAt(page: Page, index: number): Entry {
  const { value } = listOf(page) ?? {};
  if (value?.kind === 'alias') throw refusal('the tunnels are an alias (*) of another list: write them out');
  const entry = value?.entries[index];
  if (!entry) throw new RangeError(`Cannot find tunnels[${index}]: there are ${value?.entries.length ?? 0}`);
  return entry;
}

function isMapping({ kind }: Spot): boolean {
  return kind === 'block map' || kind === 'flow map';
}

function additionTo(page: Page, wanted: Written): Splice[] {
  const { text, eol, layout, notation } = page;
  const { root } = layout;
  const list = listOf(page);
  const inline = writeValue(wanted, ['tunnels'], notation);
  if (list?.value && list.value.entries.length > 0) {
    if (list.value.kind === 'flow list')
      return editBrackets(page, list.value, { gone: [], added: [likeLast(page, list.value, wanted)] });
    return appendToBlock(page, list.value, (indent) =>
      itemLines(page, wanted, { indent, like: list.value?.entries.at(-1) }),
    );
  }
  if (root?.kind === 'flow map') {
    if (!list)
      return editBrackets(page, root, {
        gone: [],
        added: [`${notation === 'json' ? '"tunnels"' : 'tunnels'}: [${inline}]`],
      });
    if (list.value?.kind === 'flow list') return editBrackets(page, list.value, { gone: [], added: [inline] });
    const at = list.value ?? { start: list.end, end: list.end };
    return [{ ...at, text: `${list.value ? '' : ' '}[${inline}]` }];
  }
  const column = root?.entries[0] ? root.entries[0].start - lineStart(text, root.entries[0].start) : 0;
  const lines = itemLines(page, wanted, { indent: ' '.repeat(column + 2), like: undefined });
  if (list) return intoEmpty(page, list, { lines, inline });
  const isOpen = layout.end > 0 && text[layout.end - 1] !== '\n';
  const block = [`${' '.repeat(column)}tunnels:`, ...lines].join(eol);
  return [{ start: layout.end, end: layout.end, text: isOpen ? `${eol}${block}` : `${block}${eol}` }];
}

/** `tunnels:` with nothing behind it, `[]` or `~`. */
function intoEmpty(page: Page, list: Entry, { lines, inline }: { lines: readonly string[]; inline: string }): Splice[] {
  const { value, indicatorEnd: colon = list.end } = list;
  const isOneLine = !value || !page.text.slice(colon, value.end).includes('\n');
  if (!isOneLine && value.kind === 'flow list') {
    return editBrackets(page, value, { gone: [], added: [inline] });
  }
  const end = lineEnd(page.text, value?.end ?? colon);
  const block = { start: end, end, text: lines.map((line) => `${page.eol}${line}`).join('') };
  return value ? [{ start: colon, end: value.end, text: '' }, block] : [block];
}

/** A new item of a list of lines, with the gap behind the dash that the others have; in brackets where they are. */
function itemLines(
  page: Page,
  wanted: Written,
  { indent, like }: { indent: string; like: Entry | undefined },
): string[] {
  const isInline = like?.value?.kind === 'flow map' || Object.keys(wanted).length === 0;
  const gap = like?.value?.kind === 'block map' ? page.text.slice(like.indicatorEnd, like.value.start) : ' ';
  const space = /^ +$/.test(gap) ? gap : ' ';
  if (isInline) return [`${indent}-${space}${writeValue(wanted, ['tunnels'], page.notation)}`];
  const pairs = writePairs(wanted, ['tunnels'], page.notation);
  return pairs.map((pair, at) => `${indent}${at === 0 ? `-${space}` : ` ${' '.repeat(space.length)}`}${pair}`);
}

/** A new item in brackets; JSON that is laid out in lines goes on so. */
function likeLast(page: Page, list: Spot, wanted: Written): string {
  const last = list.entries.at(-1);
  const first = last?.value?.entries[0];
  if (page.notation === 'json' && last && first && page.text.slice(last.start, first.start).includes('\n')) {
    const indentAt = (at: number) => /^[ \t]*/.exec(page.text.slice(lineStart(page.text, at)))?.[0] ?? '';
    const outer = indentAt(last.start);
    const unit = indentAt(first.start).slice(outer.length) || '  ';
    return JSON.stringify(wanted, null, unit).replaceAll('\n', `${page.eol}${outer}`);
  }
  return writeValue(wanted, ['tunnels'], page.notation);
}

/** The text with its edits, if it says what it should. */
function finish(page: Draft, edits: readonly Splice[], tunnels: readonly unknown[]): string {
  const next = splice(page.text, edits);
  const said = next === undefined ? undefined : readDocument(next, 'tunward.yaml', keepsText);
  const wanted = { ...(isRecord(page.value) ? page.value : {}), tunnels };
  const isRight = said !== undefined && said.problems.length === 0 && isSame(withList(said.value), wanted);
  if (next === undefined || !isRight) throw refusal('the way it is written leaves no place for it');
  if (page.notation === 'json' && notationOf(next) !== 'json') throw refusal('the file would no longer be JSON');
  return next;
}

function withList(value: unknown): unknown {
  return isRecord(value) ? { ...value, tunnels: value.tunnels ?? [] } : value;
}

/** An empty value is as none. */
function isSame(a: unknown, b: unknown): boolean {
  return isDeepStrictEqual(given(a), given(b));
}
