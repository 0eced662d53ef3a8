import {
  type Alias,
  isAlias,
  isMap,
  isNode,
  isPair,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  type Node,
  type Pair,
  Parser,
  parseDocument,
  type Scalar,
  visit,
  type YAMLMap,
} from 'yaml';
import type { ConfigProblem } from '../errors.js';

/** Keys and indices from the top of a document down to one value. */
export type Path = readonly PropertyKey[];

/** A YAML text as plain values, and the way back from a value to its line and column. */
export interface ConfigDocument {
  /** Plain values; an empty value is undefined. Undefined as a whole when the text is empty or no YAML. */
  readonly value: unknown;
  /** False when the text is no YAML: `problems` says why, and there is nothing more to look at. */
  readonly readable: boolean;
  /** What is wrong with the text as YAML: mistakes, keys that are there twice, aliases of nothing. */
  readonly problems: readonly ConfigProblem[];
  /** A problem with the value at a path, or with its key; with the nearest mapping above it when there is none. */
  problem(path: Path, message: string, on?: 'key' | 'value'): ConfigProblem;
}

/** More than any honest configuration. yaml recurses, and V8 aborts the process when its stack ends inside a regexp. */
const maxDepth = 64;

/** How many values aliases may stand for in one document: beyond it lies the billion laughs attack. */
const maxAliasCount = 1000;

/**
 * Reads one YAML document. The scalars for which `keepsText` answers true (it is asked with the keys above them) come
 * as the text that was written, without its quotes: `0800` stays `0800`.
 */
export function readDocument(text: string, file: string, keepsText: (keys: string[]) => boolean): ConfigDocument {
  const tooDeep = depthExceededAt(text);
  if (tooDeep !== undefined) return unreadable([{ file, ...tooDeep, path: '', message: tooDeepMessage }]);
  const lines = new LineCounter();
  const document = parseDocument(text, { ...yamlOptions, lineCounter: lines });
  const at = (offset: number, path: string, message: string): ConfigProblem => {
    const { line, col } = lines.linePos(offset);
    return { file, line: Math.max(line, 1), column: Math.max(col, 1), path, message: legible(message) };
  };
  const mistakes = [...document.errors, ...document.warnings].map(({ pos, message }) =>
    at(pos[0], '', `expected YAML, found a mistake: ${explain(message, text, pos[0])}`),
  );
  if (mistakes.length > 0) return unreadable(mistakes);
  const version = document.directives?.yaml.version ?? '1.2';
  if (version !== '1.2') return unreadable([at(0, '', `expected YAML 1.2, found YAML ${version}`)]);

  const index = indexNodes(document, keepsText);
  const problems = index.faults.map(({ node, path, message }) => at(startOf(node), path, message));
  if (index.dangling) return unreadable(problems);
  const plain = toPlain(document);
  if (!plain) return unreadable([...problems, at(0, '', tooManyAliases)]);
  const problem: ConfigDocument['problem'] = (path, message, on = 'value') =>
    at(offsetOf(document.contents, path, on, index), formatPath(path), message);
  return { value: plain.value, readable: true, problems, problem };
}

/**
 * Tags of YAML 1.1 (`!!set`, `!!merge`) have no place here. Keys that are there twice we find ourselves, all of them and in
 * linear time. `error` and not `silent`, which would hide a second document too; nothing is printed either way.
 */
const yamlOptions = { prettyErrors: false, uniqueKeys: false, resolveKnownTags: false, logLevel: 'error' } as const;

function unreadable(problems: readonly ConfigProblem[]): ConfigDocument {
  const problem = () => {
    throw new TypeError('A text that is no YAML has no values to complain of');
  };
  return { value: undefined, readable: false, problems, problem };
}

/** yaml's own words, but for what people run into here: `[::1]:8001` is a list and something behind it. */
function explain(message: string, text: string, offset: number): string {
  const line = text.slice(text.lastIndexOf('\n', offset - 1) + 1, offset);
  if (/:\s+\[[\da-f:.]+\]$/i.test(line)) return 'an address in brackets needs quotes around the whole value';
  return message.replace(/; please use .*/s, '');
}

const tooDeepMessage = `expected at most ${maxDepth} levels of nesting, found more`;
const tooManyAliases = `expected aliases that stand for at most ${maxAliasCount} values, found more`;

/** Where the nesting exceeds the bound. The parser keeps a stack of its own, so that it does not recurse. */
function depthExceededAt(text: string): { line: number; column: number } | undefined {
  if (isPlainlyFlat(text)) return undefined;
  const parser = new Parser();
  for (const lexeme of new Lexer().lex(text)) {
    for (const _token of parser.next(lexeme)) if (parser.stack.length > maxDepth) break;
    if (parser.stack.length <= maxDepth) continue;
    const before = text.slice(0, parser.offset);
    return { line: before.split('\n').length, column: parser.offset - before.lastIndexOf('\n') };
  }
  return undefined;
}

/**
 * A level takes a column of indentation, an indicator on the line, or a bracket: where there are not enough of them for
 * the bound, a whole reading is saved, a third of the time that a file with 200 tunnels takes.
 */
function isPlainlyFlat(text: string): boolean {
  const brackets = text.match(/[[{]/g)?.length ?? 0;
  const isFlat = (line: string) =>
    brackets + (line.search(/[^ ]/) + 1) + (line.match(/[-?:]/g)?.length ?? 0) < maxDepth / 2;
  return text.split('\n').every(isFlat);
}

/** Undefined when aliases stand for too much, which yaml reports by a ReferenceError. */
function toPlain(document: ReturnType<typeof parseDocument>): { value: unknown } | undefined {
  try {
    return { value: document.toJS({ maxAliasCount }) };
  } catch (error) {
    if (error instanceof ReferenceError) return undefined;
    throw error;
  }
}

type Parents = readonly unknown[];

interface Fault {
  readonly node: Node;
  readonly path: string;
  readonly message: string;
}

interface NodeIndex {
  /** The pairs of each mapping by key; yaml itself looks them up one by one. */
  readonly pairs: Map<YAMLMap, Map<string, Pair>>;
  readonly aliases: Map<Alias, Node>;
  readonly faults: Fault[];
  /** An alias has no anchor: the document cannot become plain values. */
  dangling: boolean;
}

/** One walk over the nodes: indexes them, finds what yaml would not report, and makes texts of the scalars that keep theirs. */
function indexNodes(document: ReturnType<typeof parseDocument>, keepsText: (keys: string[]) => boolean): NodeIndex {
  const index: NodeIndex = { pairs: new Map(), aliases: new Map(), faults: [], dangling: false };
  const anchors = new Map<string, Node>();
  visit(document, (key, node, parents) => {
    if (isAlias(node)) resolveAlias(node, anchors, index, parents);
    else if (isNode(node) && node.anchor) anchors.set(node.anchor, node);
    if (isMap(node)) index.pairs.set(node, indexPairs(node, index, parents));
    if (isScalar(node) && key !== 'key') node.value = scalarValue(node, keepsText(keysOf(parents)));
  });
  return index;
}

/** Text where it is wanted; an empty value, and `null` where it is no text, count as not given. */
function scalarValue(scalar: Scalar, keepText: boolean): unknown {
  if (scalar.source === '') return undefined;
  if (keepText && scalar.source !== undefined) return scalar.source;
  return scalar.value ?? undefined;
}

function resolveAlias(alias: Alias, anchors: Map<string, Node>, index: NodeIndex, parents: Parents): void {
  const node = anchors.get(alias.source);
  if (node) {
    index.aliases.set(alias, node);
    return;
  }
  index.dangling = true;
  const message = `expected an anchor &${alias.source} before its alias, found none`;
  index.faults.push({ node: alias, path: formatPath(pathOf(parents, alias)), message });
}

function indexPairs(map: YAMLMap, index: NodeIndex, parents: Parents): Map<string, Pair> {
  const pairs = new Map<string, Pair>();
  for (const pair of map.items) {
    const name = keyName(pair);
    if (pairs.has(name) && isNode(pair.key)) {
      const path = formatPath([...pathOf(parents, map), name]);
      index.faults.push({ node: pair.key, path, message: 'expected a key once, found it again' });
    }
    pairs.set(name, pair);
  }
  return pairs;
}

function keyName(pair: Pair): string {
  return isScalar(pair.key) ? String(pair.key.value ?? '') : String(pair.key);
}

/** The keys above a node, from the outermost to the innermost. */
function keysOf(parents: Parents): string[] {
  return parents.filter((parent) => isPair(parent)).map(keyName);
}

function pathOf(parents: Parents, node: Node): Path {
  const line = [...parents, node];
  return line.flatMap((parent, depth): PropertyKey[] => {
    if (isPair(parent)) return [keyName(parent)];
    return isSeq(parent) ? [parent.items.indexOf(line[depth + 1])] : [];
  });
}

/** Walks down a path as far as there are nodes. */
function offsetOf(contents: Node | null, path: Path, on: 'key' | 'value', index: NodeIndex): number {
  let node: unknown = contents;
  let offset = startOf(contents);
  for (const [depth, segment] of path.entries()) {
    const parent = isAlias(node) ? index.aliases.get(node) : node;
    const pair = isMap(parent) ? index.pairs.get(parent)?.get(String(segment)) : undefined;
    node = isSeq(parent) ? parent.items[Number(segment)] : pair?.value;
    if (!isNode(node)) return offset;
    const wantsKey = (on === 'key' && depth === path.length - 1) || isBlank(node);
    offset = wantsKey && isNode(pair?.key) ? startOf(pair.key) : startOf(node);
  }
  return offset;
}

/** An empty value has no place of its own that a person could look at: its key has. */
function isBlank(node: Node): boolean {
  return isScalar(node) && node.source === '' && node.range?.[0] === node.range?.[1];
}

function startOf(node: Node | null): number {
  return node?.range?.[0] ?? 0;
}

/** `tunnels[0].local_port`; what is not a plain word stands in brackets, as JSON. */
function formatPath(path: Path): string {
  return path
    .map((key, depth) => {
      if (typeof key === 'number') return `[${key}]`;
      if (!/^\w+$/.test(String(key))) return `[${legible(JSON.stringify(String(key)))}]`;
      return depth === 0 ? String(key) : `.${String(key)}`;
    })
    .join('');
}

/** Messages quote what was found, and go to terminals and logs: nothing in them may act there, or drown the rest. */
function legible(message: string): string {
  const escaped = message.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (char) => `\\u{${char.codePointAt(0)?.toString(16)}}`,
  );
  return escaped.length > 500 ? `${escaped.slice(0, 499)}…` : escaped;
}
