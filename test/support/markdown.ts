/** A line of a page, with what must not get lost when somebody says it in another language. */
export interface Line {
  /** What a line is: a heading of its level, a row of so many cells, an item, a paragraph; of code and of nothing the line itself. */
  readonly kind: string;
  readonly isCode: boolean;
  readonly text: string;
  /** The inline code. */
  readonly code: readonly string[];
  /** Where its links lead. */
  readonly links: readonly string[];
  /** The numbers outside of code and links, with their units. */
  readonly figures: readonly string[];
}

/** A page as we write them: fences of three backticks, `#` headings, each paragraph, item and row on a line. */
export function readMarkdown(text: string): Line[] {
  let isCode = false;
  return text.split('\n').map((line) => {
    const isFence = line.startsWith('```');
    if (isFence) isCode = !isCode;
    if (isCode || isFence) return { kind: line, isCode: true, text: line, code: [], links: [], figures: [] };
    return readLine(line);
  });
}

/** The anchors that GitHub gives the headings of a page; a second one of the same words has `-1` behind it. */
export function listAnchors(text: string): string[] {
  const seen = new Map<string, number>();
  return readMarkdown(text)
    .filter(({ kind, isCode }) => !isCode && kind.startsWith('#'))
    .map((line) => {
      const anchor = anchorOf(line.text);
      const times = seen.get(anchor) ?? 0;
      seen.set(anchor, times + 1);
      return times === 0 ? anchor : `${anchor}-${times}`;
    });
}

function readLine(text: string): Line {
  const [plain, code] = cut(text, /(`+)(.+?)\1(?!`)/g, (match) => match[2] ?? '');
  // A link may have code for its words, and that is gone here; its target is left.
  const [bare, links] = cut(plain, /\]\(([^()\s]*(?:\([^()\s]*\)[^()\s]*)*)\)/g, (match) => match[1] ?? '');
  return { kind: kindOf(text, plain), isCode: false, text, code, links, figures: figuresOf(bare) };
}

/** A text without what the pattern finds, and what that was. */
function cut(text: string, pattern: RegExp, take: (match: RegExpMatchArray) => string): [string, string[]] {
  return [text.replace(pattern, ' '), [...text.matchAll(pattern)].map(take)];
}

function kindOf(text: string, plain: string): string {
  if (text.trim() === '') return '';
  if (/^\|[-|: ]+\|$/.test(text)) return text;
  if (text.startsWith('|')) return `a row of ${plain.replaceAll('\\|', '').split('|').length - 2}`;
  return /^(#+|\s*(?:[-*]|\d+\.))\s/.exec(text)?.[1] ?? 'a paragraph';
}

function figuresOf(text: string): string[] {
  const inEnglish: Record<string, string> = { 毫秒: 'ms', 秒: 's' };
  return [...text.matchAll(/(-?\d+(?:[.,]\d+)*)(?:\s?(%|×|(?:ms|s|kB|MB)\b|毫秒|秒))?/g)].map(
    ([, number, unit = '']) => `${number}${inEnglish[unit] ?? unit}`,
  );
}

/** As GitHub does it: what is neither letter, mark, number nor a connector goes, Chinese punctuation too; a space is a hyphen. */
function anchorOf(heading: string): string {
  return heading
    .replace(/^#+\s+/, '')
    .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
    .trim()
    .toLowerCase()
    .replace(/[^\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\- ]/gu, '')
    .replaceAll(' ', '-');
}
