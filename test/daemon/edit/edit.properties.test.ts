/**
 * Whatever a configuration looks like, and whatever is edited in it: every comment that is not the removed tunnel's own
 * is still there, everybody else's text is the same byte for byte, and what is read is what was wanted.
 */
import { expect } from 'chai';
import fc from 'fast-check';
import { readDocument } from '#lib/daemon/document.js';
import { addTunnel, removeTunnel, replaceTunnel } from '#lib/daemon/edit/edit.js';
import { asRead, tidy } from '#lib/daemon/edit/notation.js';
import { keepsText } from '#lib/daemon/schema.js';
import { isTunwardError } from '#lib/errors.js';

/** Texts that have been written wrong by others before: numbers, words of YAML, what begins or ends like something else. */
const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 12 }).filter((value) => !/\p{Cs}/u.test(value)),
  fc.stringMatching(/^[-:#?,[\]{}&*!|>'"%@` \n\ta-c0-9~.]{0,8}$/),
  fc.constantFrom(
    '0800',
    '1e3',
    '0x1f',
    '.inf',
    'null',
    '~',
    'true',
    'No',
    '',
    ' a',
    'a ',
    'a: b',
    'a #b',
    '---',
    '...',
  ),
  fc.constantFrom(
    '[::1]:80',
    '::1',
    '*:80',
    '<<',
    '=',
    '\ufeff',
    '\u2028',
    '\u0085',
    'żółć',
    '隧道',
    '12:30',
    '-',
    '- a',
  ),
);
const scalar = fc.oneof(text, fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true }), fc.boolean());
const tunnel = fc.record(
  {
    name: scalar,
    remote_host: text,
    remote_port: scalar,
    local_port: scalar,
    groups: fc.array(scalar, { maxLength: 3 }),
    ssh_options: fc.dictionary(fc.oneof(fc.constantFrom('Port', 'User'), text), scalar, { maxKeys: 3 }),
    check: fc.record({ http: text, every_ms: fc.nat() }, { requiredKeys: [] }),
    enabled: fc.option(fc.boolean()),
    jump: fc.oneof(text, fc.array(text, { maxLength: 2 })),
    __proto__: scalar,
  },
  { requiredKeys: [] },
);

/** How one file is laid out; a comment is written wherever its number is drawn. */
const layout = fc.record({
  eol: fc.constantFrom('\n', '\r\n'),
  endsWithEol: fc.boolean(),
  list: fc.constantFrom('block', 'brackets', 'lines of brackets', 'lines of brackets,', 'json'),
  indent: fc.constantFrom('', '  ', '    '),
  gap: fc.constantFrom(' ', '   '),
  above: fc.constantFrom('', 'log_dir: /x', '---', '# top\n---\napi: {}'),
  below: fc.constantFrom('', '\n# of the rest\nstate_dir: /x # c', '...'),
});
type Layout = typeof layout extends fc.Arbitrary<infer T> ? T : never;

const decoration = fc.record({
  above: fc.boolean(),
  blank: fc.boolean(),
  inside: fc.boolean(),
  behind: fc.boolean(),
  below: fc.boolean(),
  style: fc.constantFrom('lines', 'brackets', 'mixed'),
});
type Decoration = typeof decoration extends fc.Arbitrary<infer T> ? T : never;

const file = fc
  .tuple(layout, fc.array(fc.tuple(tunnel, decoration), { maxLength: 4 }))
  .map(([layout, items]) => write(layout, items));

interface File {
  readonly text: string;
  readonly tunnels: readonly unknown[];
  /** What stands there of each tunnel. */
  readonly blocks: readonly string[];
  /** Comments that belong to nobody, or to the tunnel of that number. */
  readonly comments: readonly { readonly of: number; readonly text: string }[];
  readonly isJson: boolean;
}

function write(layout: Layout, items: readonly (readonly [object, Decoration])[]): File {
  const { eol, list, endsWithEol } = layout;
  const margin = list === 'block' ? layout.indent : `${layout.indent} `;
  const tunnels = items.map(([tunnel]) => tidy({ ...tunnel }));
  const comments: { of: number; text: string }[] = [];
  if (list === 'json') {
    const text = JSON.stringify({ log_dir: '/x', tunnels }, null, 2).replaceAll('\n', eol);
    return { text, tunnels, blocks: [], comments, isJson: true };
  }
  const comment = (of: number) => {
    comments.push({ of, text: `# ${comments.length}: of ${of}` });
    return comments.at(-1)?.text ?? '';
  };
  const blocks = items.map(([, decoration], at) =>
    writeTunnel(tunnels[at] ?? {}, layout, decoration, () => comment(at)),
  );
  const isInline = list === 'brackets';
  const body: string[] = [];
  for (const [at, block] of blocks.entries()) {
    const decoration = items[at]?.[1];
    const comma = list === 'block' || (at === blocks.length - 1 && list !== 'lines of brackets,') ? '' : ',';
    if (isInline) {
      body.push(`${block}${comma}`);
      continue;
    }
    if (decoration?.blank) body.push('');
    if (decoration?.above) body.push(`${margin}${comment(at)}`);
    const behind = decoration?.behind && list !== 'block' ? ` ${comment(at)}` : '';
    body.push(`${margin}${block}${comma}${behind}`);
    if (decoration?.below) body.push('', `${margin}${comment(-1)}`, '');
  }
  const lines = [layout.above.replaceAll('\n', eol)].filter((line) => line !== '');
  if (list === 'block') lines.push(items.length === 0 ? 'tunnels: []' : `tunnels: ${comment(-1)}`, ...body);
  else if (isInline || items.length === 0) lines.push(`tunnels: [${body.join(' ')}]`);
  else lines.push('tunnels: [', ...body, ']');
  if (layout.below !== '') lines.push(layout.below.replaceAll('\n', eol));
  const text = `${lines.join(eol)}${endsWithEol ? eol : ''}`;
  return { text, tunnels, blocks, comments, isJson: false };
}

/** One tunnel as it might stand there, values quoted as JSON has them. */
function writeTunnel(
  tunnel: object,
  layout: Layout,
  { style, inside, behind }: Decoration,
  comment: () => string,
): string {
  const { eol, indent, gap, list } = layout;
  const json = (value: unknown) =>
    JSON.stringify(value).replace(/[\u007f-\u009f\u2028\u2029\ufeff]/g, (char) => {
      return `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
    });
  const pairs = Object.entries(tunnel);
  const isInline = list !== 'block' || style === 'brackets' || pairs.length === 0;
  if (isInline) {
    const inline = `{${pairs.map(([key, value]) => `${json(key)}: ${json(value)}`).join(', ')}}`;
    return list === 'block' ? `-${gap}${inline}${behind ? ` ${comment()}` : ''}` : inline;
  }
  const column = ' '.repeat(indent.length + 1 + gap.length);
  const lines = pairs.flatMap(([key, value], at) => {
    const note = behind ? ` ${comment()}` : '';
    const nested = style === 'lines' && typeof value === 'object' && Object.keys(value).length > 0;
    const line = nested
      ? [`${json(key)}:${note}`, ...nestedLines(value, json).map((one) => `${column}  ${one}`)].join(eol)
      : `${json(key)}: ${json(value)}${note}`;
    const above = inside && at > 0 ? `${column}${comment()}${eol}` : '';
    return [`${above}${at === 0 ? `-${gap}` : column}${line}`];
  });
  return lines.join(eol);
}

function nestedLines(value: object, json: (value: unknown) => string): string[] {
  if (Array.isArray(value)) return value.map((item) => `- ${json(item)}`);
  return Object.entries(value).map(([key, item]) => `${json(key)}: ${json(item)}`);
}

function read(text: string): unknown[] {
  const { value, problems } = readDocument(text, 'x', keepsText);
  expect(problems).to.deep.equal([]);
  const tunnels = (value as { tunnels?: unknown[] } | undefined)?.tunnels;
  return (tunnels ?? []).map((tunnel) => asRead(tunnel, []));
}

const numRuns = 200;

const wantedOf = (tunnel: unknown) => asRead(tidy({ ...(tunnel as object) }), ['tunnels']);

describe('an edit of any configuration', () => {
  it('adds a tunnel and leaves every byte of the rest', () => {
    fc.assert(
      fc.property(file, tunnel, ({ text, tunnels, comments, blocks, isJson }, added) => {
        const next = addTunnel(text, { ...added });
        expect(read(next)).to.deep.equal([...tunnels.map(wantedOf), wantedOf(added)]);
        for (const comment of comments) expect(next).to.include(comment.text);
        for (const block of blocks) expect(next).to.include(block);
        if (isJson) JSON.parse(next);
        expect(lineEnds(next)).to.deep.equal(text.includes('\n') ? lineEnds(text) : lineEnds(next));
      }),
      { numRuns },
    );
  });

  it('removes a tunnel, and of the comments only its own', () => {
    fc.assert(
      fc.property(file, fc.nat(), ({ text, tunnels, comments, blocks, isJson }, which) => {
        fc.pre(tunnels.length > 0);
        const index = which % tunnels.length;
        const next = removeTunnel(text, index);
        expect(read(next)).to.deep.equal(tunnels.toSpliced(index, 1).map(wantedOf));
        for (const comment of comments) if (comment.of !== index) expect(next).to.include(comment.text);
        for (const [at, block] of blocks.entries()) if (at !== index) expect(next).to.include(block);
        if (isJson) JSON.parse(next);
      }),
      { numRuns },
    );
  });

  it('is as if nothing had been, when what was added is removed', () => {
    // A list that became one, and a last line without an end, are the better for it.
    const written = (text: string) => text.split(/\r?\n/).filter((line) => line !== '');
    fc.assert(
      fc.property(file, tunnel, ({ text, tunnels }, added) => {
        fc.pre(tunnels.length > 0);
        expect(written(removeTunnel(addTunnel(text, { ...added }), tunnels.length))).to.deep.equal(written(text));
      }),
      { numRuns },
    );
  });

  it('makes a tunnel another, and keeps every comment and what is equal', () => {
    const edit = fc.record({
      which: fc.nat(),
      fresh: tunnel,
      kept: fc.array(fc.boolean(), { minLength: 10, maxLength: 10 }),
    });
    fc.assert(
      fc.property(file, edit, ({ text, tunnels, comments, blocks, isJson }, { which, fresh, kept }) => {
        fc.pre(tunnels.length > 0);
        const index = which % tunnels.length;
        const old = tunnels[index] ?? {};
        const stays = Object.entries(old).filter((_pair, at) => kept[at]);
        const wanted = { ...fresh, ...Object.fromEntries(stays) };
        const next = replaceTunnel(text, index, wanted);
        expect(read(next)).to.deep.equal(tunnels.with(index, wanted).map(wantedOf));
        for (const comment of comments) if (comment.of !== index) expect(next).to.include(comment.text);
        for (const [at, block] of blocks.entries()) if (at !== index) expect(next).to.include(block);
        if (isJson) JSON.parse(next);
        const goneKeys = Object.keys(old).some((key) => !Object.hasOwn(tidy(wanted), key));
        if (!goneKeys) for (const comment of comments) expect(next).to.include(comment.text);
      }),
      { numRuns },
    );
  });

  it('changes nothing when nothing is to be changed', () => {
    fc.assert(
      fc.property(file, fc.nat(), ({ text, tunnels }, which) => {
        fc.pre(tunnels.length > 0);
        const index = which % tunnels.length;
        expect(replaceTunnel(text, index, { ...(tunnels[index] as object) })).to.equal(text);
      }),
    );
  });
});

/** Pieces that make all kinds of YAML, much of it wrong or nothing that anybody would write. */
const pieces = fc.constantFrom(
  ...[
    'tunnels:',
    ' ',
    '\n',
    '  ',
    '- ',
    'name: a',
    'local_port: 1',
    '# c',
    '{',
    '}',
    '[',
    ']',
    ',',
    '&a ',
    '*a',
    '|\n',
    '"',
    "'",
  ],
  ...[
    '? ',
    ': ',
    '---\n',
    '...\n',
    '!!map ',
    '\r\n',
    '\t',
    '~',
    '<<: ',
    '%YAML 1.2\n',
    '\n  - name: b\n    groups:\n      - x\n',
    '{name: c}',
  ],
  ...['tunnels:\n  - name: a\n', 'tunnels: [\n', '  # d\n', 'ssh_options: {Port: 1} # e'],
);

describe('an edit of any text', () => {
  it('makes of it what was wanted, or refuses it in words', () => {
    const any = fc.array(pieces, { maxLength: 14 }).map((all) => all.join(''));
    const tally = { edited: 0, refused: 0 };
    const attempt = (edit: () => string, wanted: (tunnels: unknown[]) => unknown[], text: string) => {
      try {
        const next = edit();
        expect(read(next)).to.deep.equal(wanted(read(text)));
        tally.edited++;
      } catch (error) {
        if (!isTunwardError(error) && !(error instanceof RangeError)) throw error;
        tally.refused++;
      }
    };
    const fresh = { name: 'new', local_port: '7' };
    fc.assert(
      fc.property(any, fc.nat(2), (text, index) => {
        attempt(
          () => addTunnel(text, fresh),
          (tunnels) => [...tunnels, fresh],
          text,
        );
        attempt(
          () => removeTunnel(text, index),
          (tunnels) => tunnels.toSpliced(index, 1),
          text,
        );
        attempt(
          () => replaceTunnel(text, index, fresh),
          (tunnels) => tunnels.with(index, fresh),
          text,
        );
      }),
      { numRuns: 20 * numRuns },
    );
    expect(tally.edited).to.be.greaterThan(100);
  });
});

function lineEnds(text: string): string[] {
  return [...new Set(text.match(/\r?\n/g) ?? [])];
}
