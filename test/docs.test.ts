import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { type Line, listAnchors, readMarkdown } from './support/markdown.js';
import { repoRoot } from './support/paths.js';

const docs = join(repoRoot, 'docs');

describe('the docs', () => {
  it('say of the API what its table says: npm run docs', async () => {
    const { generate } = await import(pathToFileURL(join(docs, 'generate.mjs')).href);
    for (const [name, text] of Object.entries(generate())) {
      expect(readFileSync(join(docs, name), 'utf8'), name).to.equal(text);
    }
  });

  it('are OpenAPI 3.1 by its own schema', async () => {
    const { Validator } = await import('@seriousme/openapi-schema-validator');
    const validator = new Validator();
    const { valid, errors } = await validator.validate(JSON.parse(readFileSync(join(docs, 'openapi.json'), 'utf8')));
    expect(errors ?? []).to.deep.equal([]);
    expect([valid, validator.version]).to.deep.equal([true, '3.1']);
  });

  it('lead nowhere that is not there: every file, and every heading', () => {
    expect(pages.length).to.be.greaterThan(10);
    expect(pages.flatMap((page) => brokenLinksOf(page).map((target) => `${page}: ${target}`))).to.deep.equal([]);
  });

  it('have the anchors that GitHub gives them', () => {
    const page =
      '# Foo & Bar\n```\n# no heading\n```\n## `open(port, {host})`\n## 在 Linux 上：谁？\n### test（1）\n## Foo & bar';
    const anchors = ['foo--bar', 'openport-host', '在-linux-上谁', 'test1', 'foo--bar-1'];
    expect(listAnchors(page)).to.deep.equal(anchors);
  });
});

describe('README.zh.md', () => {
  const english = readMarkdown(read('README.md'));
  const chinese = readMarkdown(read('README.zh.md'));
  /** The first line that is of another kind. One line too many moves all that come after it, so they are not compared. */
  const parting = english.findIndex(({ kind }, index) => kind !== chinese[index]?.kind);

  it('is README.md line by line: the same headings, tables, items and paragraphs, and the same code', () => {
    const told = `line ${parting + 1}: ${english[parting]?.text}\nis here: ${chinese[parting]?.text}`;
    expect(parting < 0 ? 'the same' : told).to.equal('the same');
    expect(chinese.length).to.equal(english.length);
  });

  it('has in each line the code, the links and the figures of README.md', () => {
    const changes = english.slice(0, parting < 0 ? undefined : parting).flatMap((line, index) => {
      const [ours, theirs] = [factsOf(chinese[index]), factsOf(line)];
      return ours === theirs ? [] : [`line ${index + 1} has ${ours}\ninstead of ${theirs}`];
    });
    expect(changes.join('\n')).to.equal('');
  });

  it('has no bold text whose asterisks Markdown leaves as they are', () => {
    expect(chinese.filter(hasLooseAsterisks).map(({ text }) => text)).to.deep.equal([]);
  });

  it('and README.md lead to each other', () => {
    expect(english.flatMap(({ links }) => links)).to.include('README.zh.md');
    expect(chinese.flatMap(({ links }) => links)).to.include('README.md');
  });
});

/** Of a page that is only a part of another one the links are looked at there. */
const parts = ['docs/api.intro.md', 'docs/api.compat.md'];

const pages = ['.', 'docs', 'bench'].flatMap((folder) =>
  readdirSync(join(repoRoot, folder))
    .filter((name) => name.endsWith('.md'))
    .map((name) => relative(repoRoot, join(repoRoot, folder, name)))
    .filter((page) => !parts.includes(page)),
);

function read(page: string): string {
  return readFileSync(join(repoRoot, page), 'utf8');
}

function brokenLinksOf(page: string): string[] {
  return readMarkdown(read(page))
    .flatMap(({ links }) => links)
    .filter((target) => !isOutside(target))
    .filter((target) => {
      const [path = '', anchor] = decodeURIComponent(target).split('#');
      const file = path === '' ? page : join(dirname(page), path);
      if (!existsSync(join(repoRoot, file))) return true;
      return anchor !== undefined && !(file.endsWith('.md') && listAnchors(read(file)).includes(anchor));
    });
}

function isOutside(target: string): boolean {
  return /^[a-z]+:/.test(target);
}

/** What a translation leaves as it is. The order of words is its own, but for the cells of a row. */
function factsOf(line: Line | undefined): string {
  if (!line) return 'nothing';
  // The headings have other anchors there, and each of the two pages leads to the other one.
  const links = line.links.map((target) => target.replace(/^#.*/, '#').replace(/^README(\.zh)?\.md$/, 'the other'));
  const figures = line.text.startsWith('|') ? line.figures : [...line.figures].sort();
  return JSON.stringify([[...line.code].sort(), links.sort(), figures]);
}

/**
 * Bold text opens before a letter or behind none, and closes behind a letter or before none: `**好。**再` does not
 * close, which English, with a space after each full stop, never meets.
 */
function hasLooseAsterisks({ isCode, text }: Line): boolean {
  const pieces = isCode ? [] : text.replace(/`[^`]*`/g, '`').split('**');
  return pieces.slice(1).some((after, index) => {
    const before = pieces[index] ?? '';
    const [inside, outside] = index % 2 === 0 ? [after.at(0), before.at(-1)] : [before.at(-1), after.at(0)];
    return /[\p{P}\p{S}]/u.test(inside ?? '') && /[\p{L}\p{N}]/u.test(outside ?? '');
  });
}
