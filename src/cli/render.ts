import { styleText } from 'node:util';
import { printable, toJson } from '../wire.js';
import { type Area, createArea, openWriter, type Size, type Terminal, type Writer } from './area.js';
import { cutText, widthOfText } from './width.js';

type Style = Parameters<typeof styleText>[0];

/** A piece of text, and how it looks where colours are wanted. Control characters in it are never written. */
export type Span = string | { readonly text: string; readonly style: Style };
export type Line = Span | readonly Span[];

/** Where a command speaks. Results go to stdout, talk to stderr; nobody else in the command writes to either. */
export interface Screen {
  /** `--json`: results are data. */
  readonly json: boolean;
  /** The result with `--json`: one document in snake_case; indented where a person reads it. */
  data(result: unknown): void;
  /** One record of a stream with `--json`: a line of its own (NDJSON). */
  record(entry: unknown): void;
  /** Sentences of the result: never cut. */
  print(...lines: readonly Line[]): void;
  /** Rows of the result: a terminal cuts them at its width, a pipe gets all of it. */
  rows(...lines: readonly Line[]): void;
  /** Talk: what a script must not read. */
  say(...lines: readonly Line[]): void;
  /** Text that is laid out already (the help), as it is. */
  write(text: string): void;
  complain(text: string): void;
  /**
   * Lines below all talk that are drawn again and again, until it is closed; `render` answers what they are now, and a
   * terminal cuts them at its width. undefined: talk goes to no terminal.
   */
  openArea(render: (size: Size) => readonly Line[]): Area | undefined;
  /** The terminal that talk goes to, for what somebody else has laid out. undefined: it goes to none. */
  openWindow(): Window | undefined;
}

/** A terminal as it is, in which nothing of ours is drawn meanwhile. */
export interface Window {
  /** 0 where it does not say how large it is. */
  size(): Size;
  /** From now on, calls that when it is another size. */
  onResize(act: () => void): void;
  /** Writes as much as it takes at once, and answers how many bytes that was. @throws what is wrong with it: EIO, it is gone */
  some(bytes: Uint8Array): number;
  /** Leaves it. Idempotent. */
  close(): void;
}

export interface ScreenOptions {
  readonly json?: boolean;
  /** false: `--no-color`. Otherwise NO_COLOR, FORCE_COLOR and whether the stream is a terminal decide. */
  readonly color?: boolean;
  /** Called when nobody reads any more: the other end of a pipe, or the terminal, has gone. */
  readonly onBroken?: () => void;
  readonly stdout?: Terminal;
  readonly stderr?: Terminal;
}

export function createScreen(options: ScreenOptions = {}): Screen {
  const { json = false, color = true, onBroken = () => undefined } = options;
  const { stdout = process.stdout, stderr = process.stderr } = options;
  stdout.on('error', toBreak('EPIPE', 'EIO', 'ERR_STREAM_DESTROYED'));
  // A daemon outlives whoever listened to its talk (EPIPE), but not the terminal that it was started in (EIO).
  const onTalkError = toBreak('EIO');
  stderr.on('error', onTalkError);
  let area: Area | undefined;
  return {
    json,
    data: (result) => put(stdout, `${toJson(result, stdout.isTTY ? 2 : 0)}\n`),
    record: (entry) => put(stdout, `${toJson(entry)}\n`),
    print: (...lines) => emit(stdout, lines),
    rows: (...lines) => emit(stdout, lines, (stdout.isTTY && stdout.columns) || undefined),
    say: (...lines) => emit(stderr, lines),
    write: (text) => put(stdout, text),
    complain: (text) => put(stderr, text),
    openArea,
    openWindow,
  };

  function emit(stream: Terminal, lines: readonly Line[], width = Number.POSITIVE_INFINITY): void {
    const isColored = wantsColor(stream);
    if (lines.length > 0) put(stream, lines.map((line) => `${paint(cut(spansOf(line), width), isColored)}\n`).join(''));
  }

  /** Once for all lines: to look at the environment and the terminal takes longer than to paint. */
  function wantsColor(stream: Terminal): boolean {
    return color && styleText('bold', 'x', { stream }) !== 'x';
  }

  /** While an area is open, whatever else goes to the terminal goes above it. */
  function put(stream: Terminal, text: string): void {
    if (area && stream.isTTY) area.say(text);
    else stream.write(text);
  }

  function openArea(render: (size: Size) => readonly Line[]): Area | undefined {
    if (!stderr.isTTY) return undefined;
    const drawing = createArea({
      terminal: stderr,
      render: (size) => render(size).map((line) => paint(cut(spansOf(line), size.columns), wantsColor(stderr))),
      onError(error) {
        area = undefined;
        onTalkError(error);
      },
    });
    area = drawing;
    const close = async () => {
      await drawing.close();
      area = undefined;
    };
    return { ...drawing, close };
  }

  function openWindow(): Window | undefined {
    if (!stderr.isTTY) return undefined;
    let writer: Writer | undefined = openWriter(stderr);
    let onResize = () => {};
    return {
      size: () => ({ columns: stderr.columns ?? 0, rows: stderr.rows ?? 0 }),
      onResize(act) {
        stderr.off('resize', onResize);
        onResize = act;
        stderr.on('resize', onResize);
      },
      some: (bytes) => writer?.some(bytes) ?? 0,
      close() {
        stderr.off('resize', onResize);
        writer?.close();
        writer = undefined;
      },
    };
  }

  function toBreak(...fatal: string[]): (error: NodeJS.ErrnoException) => void {
    return (error) => {
      if (fatal.includes(error.code ?? '')) onBroken();
      else if (error.code !== 'EPIPE') throw error;
    };
  }
}

export function styled(style: Style, text: string | number): Span {
  return { text: String(text), style };
}

export interface TableOptions {
  /** The columns of figures, which stand one below the other at their right edge. */
  readonly right?: readonly string[] | undefined;
  /** How wide each column is; default: as its widest cell. */
  readonly widths?: readonly number[] | undefined;
}

/** Columns two blanks apart, each as wide as its widest cell; the last one is not padded. No borders. */
export function layTable(
  head: readonly string[],
  rows: readonly (readonly Span[])[],
  { right = [], widths = measureTable(head, rows) }: TableOptions = {},
): Line[] {
  const table = [head.map((title) => styled('bold', title)), ...rows];
  return table.map((row) =>
    row.flatMap((cell, column) => {
      const blanks = ' '.repeat(Math.max(0, (widths[column] ?? 0) - widthOf(cell)));
      const isLast = column === row.length - 1;
      if (right.includes(head[column] ?? '')) return [blanks, cell, isLast ? '' : '  '];
      return isLast ? [cell] : [cell, `${blanks}  `];
    }),
  );
}

/** How wide each column of a table is: as its widest cell, and no less than it is to be. */
export function measureTable(
  head: readonly string[],
  rows: readonly (readonly Span[])[],
  atLeast: readonly number[] = [],
): number[] {
  return head.map((title, column) =>
    Math.max(widthOfText(title), atLeast[column] ?? 0, ...rows.map((row) => widthOf(row[column] ?? ''))),
  );
}

/** A node and all below it, the root without a branch before it. */
export function drawTree<T extends { readonly children: readonly T[] }>(root: T, label: (node: T) => Line): Line[] {
  const draw = (node: T, indent: string): Line[] =>
    node.children.flatMap((child, at) => {
      const last = at === node.children.length - 1;
      const line = [styled('dim', `${indent}${last ? '└─ ' : '├─ '}`), ...spansOf(label(child))];
      return [line, ...draw(child, `${indent}${last ? '   ' : '│  '}`)];
    });
  return [label(root), ...draw(root, '')];
}

/** The same lines further to the right. */
export function indent(lines: readonly Line[], by = 2): Line[] {
  return lines.map((line) => [' '.repeat(by), ...spansOf(line)]);
}

/** One line, or two where it is wider than `columns`: its last piece stands below then, further to the right. */
export function fold(line: Line, columns: number): Line[] {
  const spans = spansOf(line);
  const last = spans.at(-1);
  if (last === undefined || spans.length === 1 || spans.reduce((sum, span) => sum + widthOf(span), 0) <= columns) {
    return [line];
  }
  const rest = textOf(last).trimStart();
  return [spans.slice(0, -1), ['  ', typeof last === 'string' ? rest : { ...last, text: rest }]];
}

function spansOf(line: Line): readonly Span[] {
  return isSpan(line) ? [line] : line;
}

function isSpan(line: Line): line is Span {
  return typeof line === 'string' || 'text' in line;
}

function textOf(span: Span): string {
  return printable(typeof span === 'string' ? span : span.text);
}

function widthOf(span: Span): number {
  return widthOfText(textOf(span));
}

/** At most `width` columns, the last of them an ellipsis where something is missing. */
function cut(spans: readonly Span[], width: number): readonly Span[] {
  if (width === Number.POSITIVE_INFINITY) return spans;
  if (spans.reduce((sum, span) => sum + widthOf(span), 0) <= width) return spans;
  let room = width - 1;
  const kept: Span[] = [];
  for (const span of spans) {
    const text = cutText(textOf(span), room);
    room -= widthOf(span);
    kept.push(typeof span === 'string' ? text : { ...span, text });
  }
  return [...kept, '…'];
}

function paint(spans: readonly Span[], isColored: boolean): string {
  const painted = spans.map((span) => {
    const text = textOf(span);
    if (typeof span === 'string' || !isColored || text === '') return text;
    return styleText(span.style, text, { validateStream: false });
  });
  return painted.join('').trimEnd();
}
