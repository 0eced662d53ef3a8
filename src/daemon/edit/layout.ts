import { CST, Parser } from 'yaml';

/** A stretch of a text, by offsets: from the first character to behind the last one. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** A key or a value where it stands, from its anchor or tag on, without the blanks and comments behind it. */
export interface Spot extends Span {
  readonly kind: 'block map' | 'block list' | 'flow map' | 'flow list' | 'alias' | 'scalar';
  /** Where the value itself begins, behind an anchor or a tag. */
  readonly inner: number;
  /** Of a scalar: what it says. */
  readonly text: string | undefined;
  /** Of a mapping or a list; what holds nothing but comments is none. */
  readonly entries: readonly Entry[];
}

/** A pair of a mapping or an item of a list; a list's block item begins with its dash. */
export interface Entry extends Span {
  readonly key: Spot | undefined;
  /** Behind the colon, or behind the dash. */
  readonly indicatorEnd: number | undefined;
  readonly value: Spot | undefined;
  /** In brackets: where the comma behind it is. */
  readonly comma: number | undefined;
}

/** A reference: where an alias stands, and the anchor it means. */
export interface Reference {
  readonly name: string;
  readonly alias: number;
  readonly anchor: number;
}

/** Where everything in a YAML text is. */
export interface Layout {
  readonly root: Spot | undefined;
  readonly comments: readonly Span[];
  readonly references: readonly Reference[];
  /** Where what is added at the end goes: in front of an end marker (`...`), or at the end of the text. */
  readonly end: number;
}

interface Leaf {
  readonly type: string;
  readonly offset: number;
  readonly source: string;
}

/** Lays out a text that is one YAML document, without mistakes. */
export function layOut(text: string): Layout {
  const tokens = [...new Parser().parse(text)];
  const document = tokens.find((token) => token.type === 'document');
  const root = document?.type === 'document' && document.value ? spotOf(document.value, []) : undefined;
  const leaves = tokens.flatMap((token) => [...leavesOf(token)]);
  const comments = leaves.filter(({ type }) => type === 'comment').map(spanOf);
  const end = leaves.find(({ type }) => type === 'doc-end')?.offset ?? text.length;
  return { root, comments, references: referencesIn(leaves), end };
}

/** An alias means the last anchor of its name above it. */
function referencesIn(leaves: readonly Leaf[]): Reference[] {
  const anchors = new Map<string, number>();
  return leaves.flatMap(({ type, offset, source }) => {
    const name = source.slice(1);
    if (type === 'anchor') anchors.set(name, offset);
    const anchor = anchors.get(name);
    return type === 'alias' && anchor !== undefined ? [{ name, alias: offset, anchor }] : [];
  });
}

/** A value, with what stands in front of it: blanks, and its anchor and tag. */
function spotOf(token: CST.Token | null | undefined, before: readonly CST.SourceToken[]): Spot | undefined {
  const props = before.filter(({ type }) => type === 'anchor' || type === 'tag').map(spanOf);
  const bare = token ? bareSpot(token) : undefined;
  const [first, last] = [props[0], props.at(-1)];
  if (bare) return { ...bare, start: first?.start ?? bare.start };
  if (!first || !last) return undefined;
  return { kind: 'scalar', start: first.start, inner: last.end, end: last.end, text: '', entries: [] };
}

function bareSpot(token: CST.Token): Spot | undefined {
  const isText = CST.isScalar(token) && token.type !== 'alias';
  // Without a function for mistakes it throws those that yaml itself has passed over, in keys that are mappings.
  const text = isText ? CST.resolveAsScalar(token, true, () => undefined)?.value : undefined;
  const spot = (kind: Spot['kind'], start: number, end: number, entries: readonly Entry[] = []): Spot => {
    return { kind, start, inner: start, end, text, entries };
  };
  switch (token.type) {
    case 'block-map':
    case 'block-seq': {
      const entries = blockEntries(token);
      const [first, last] = [entries[0], entries.at(-1)];
      return (
        first && last && spot(token.type === 'block-map' ? 'block map' : 'block list', first.start, last.end, entries)
      );
    }
    case 'flow-collection': {
      const kind = token.start.type === 'flow-map-start' ? 'flow map' : 'flow list';
      const close = token.end[0] ?? token.start;
      return spot(kind, token.offset, close.offset + close.source.length, flowEntries(token));
    }
    case 'alias':
      return spot('alias', token.offset, token.offset + token.source.length);
    case 'block-scalar': {
      // The header and its line break come first, then the text.
      const [head, last] = [token.props[0], token.props.at(-1)];
      const start = head && 'source' in head ? head.offset : token.offset;
      const textStart = last && 'source' in last ? last.offset + last.source.length : token.offset;
      return spot('scalar', start, textStart + token.source.length);
    }
    case 'scalar':
    case 'single-quoted-scalar':
    case 'double-quoted-scalar':
      return spot('scalar', token.offset, token.offset + token.source.length);
    default:
      return undefined;
  }
}

function blockEntries(token: CST.BlockMap | CST.BlockSequence): Entry[] {
  return token.items.flatMap((item): Entry[] => {
    const { start, key, sep, value } = item;
    const dash = start.find(({ type }) => type === 'seq-item-ind' || type === 'explicit-key-ind');
    if (token.type === 'block-map') return pairOf(start, key, sep, value);
    if (!dash) return [];
    const at = spanOf(dash);
    const spot = spotOf(value, start);
    return [
      {
        start: at.start,
        end: spot?.end ?? at.end,
        key: undefined,
        indicatorEnd: at.end,
        value: spot,
        comma: undefined,
      },
    ];
  });
}

function flowEntries(token: CST.FlowCollection): Entry[] {
  const entries: Entry[] = [];
  for (const { start, key, sep, value } of token.items) {
    const comma = start.find(({ type }) => type === 'comma')?.offset;
    const last = entries.pop();
    if (last) entries.push({ ...last, comma: last.comma ?? comma });
    if (key || sep) entries.push(...pairOf(start, key, sep, value));
    else {
      const spot = spotOf(value, start);
      if (spot)
        entries.push({
          start: spot.start,
          end: spot.end,
          key: undefined,
          indicatorEnd: undefined,
          value: spot,
          comma: undefined,
        });
    }
  }
  return entries;
}

function pairOf(
  start: readonly CST.SourceToken[],
  key: CST.Token | null | undefined,
  sep: readonly CST.SourceToken[] = [],
  value: CST.Token | undefined,
): Entry[] {
  const colon = sep.find(({ type }) => type === 'map-value-ind');
  const explicit = start.find(({ type }) => type === 'explicit-key-ind');
  const spots = { key: spotOf(key, start), value: spotOf(value, colon ? sep.slice(sep.indexOf(colon)) : []) };
  const indicatorEnd = colon && spanOf(colon).end;
  const from = explicit?.offset ?? spots.key?.start ?? colon?.offset;
  const end = spots.value?.end ?? indicatorEnd ?? spots.key?.end;
  return from === undefined || end === undefined
    ? []
    : [{ start: from, end, ...spots, indicatorEnd, comma: undefined }];
}

function spanOf({ offset, source }: Pick<Leaf, 'offset' | 'source'>): Span {
  return { start: offset, end: offset + source.length };
}

/** Everything that stands in a text, piece by piece. */
function* leavesOf(token: CST.Token): Generator<Leaf> {
  if (token.type === 'document') yield* token.start;
  if (token.type === 'document' && token.value) yield* leavesOf(token.value);
  if (token.type === 'flow-collection') yield token.start;
  if (token.type === 'block-scalar') for (const prop of token.props) yield* leavesOf(prop);
  if ('items' in token) for (const item of token.items) yield* leavesOfItem(item);
  if ('source' in token && typeof token.source === 'string') yield token;
  if ('end' in token) yield* token.end ?? [];
}

function* leavesOfItem({ start, key, sep, value }: CST.CollectionItem): Generator<Leaf> {
  yield* start;
  if (key) yield* leavesOf(key);
  yield* sep ?? [];
  if (value) yield* leavesOf(value);
}
