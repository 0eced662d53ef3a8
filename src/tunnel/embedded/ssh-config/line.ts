/** One line of ssh_config, taken apart as ssh takes it: the keyword, and the words behind it. Knows no keyword. */

/** A keyword as it is spelled, and all that follows it; `blank` for nothing or a comment; `broken` where ssh gives up. */
export type Line = { readonly name: string; readonly rest: string } | 'blank' | 'broken';

/**
 * What takes a line apart, by the parser of the package ssh-config, which knows a section from a comment and a keyword from
 * its value. Its own values are not taken: where ssh reads quotes, `\` and `#` it reads them otherwise, and it takes the
 * next line for the value of an empty one, so it is given a line at a time.
 */
export async function createLineParser(): Promise<(text: string) => Line> {
  const { parse } = await import('ssh-config');
  return (text) => {
    const line = text.replace(/[ \t\r\f]+$/, '');
    let nodes: readonly unknown[];
    try {
      // A Match by another name: it would read the conditions too, and refuse '!all'.
      nodes = parse(line.replace(/^(\s*)match(?![\w-])/i, '$1xhost'));
    } catch {
      // Whatever it throws: also a TypeError, for a Host without a name.
      return 'broken';
    }
    const [node] = nodes as readonly { type: number; param?: string; separator?: string; before: string }[];
    if (!node?.param) return 'blank';
    if (line.includes('\0')) return 'broken';
    const end = node.before.length + node.param.length;
    return { name: line.slice(node.before.length, end), rest: line.slice(end + (node.separator ?? '').length) };
  };
}

/**
 * ssh's own words: quotes of both kinds, `\` before them, itself and a blank, and a comment at the end; undefined where a
 * quote has no end.
 *
 * @example
 * splitWords('"a b" c\\ d # e'); // ['a b', 'c d']
 */
export function splitWords(text: string): string[] | undefined {
  const words: string[] = [];
  let word: string | undefined;
  let open: string | undefined;
  for (let at = 0; at < text.length; at++) {
    const letter = text.charAt(at);
    const next = text.charAt(at + 1);
    const isBlank = letter === ' ' || letter === '\t';
    if (word === undefined) {
      if (isBlank) continue;
      if (letter === '#') break;
      word = '';
    }
    if (letter === '\\' && (/['"\\]/.test(next) || (open === undefined && next === ' '))) {
      word += next;
      at++;
    } else if (open === undefined && isBlank) {
      words.push(word);
      word = undefined;
    } else if (open === undefined && (letter === '"' || letter === "'")) {
      open = letter;
    } else if (letter === open) {
      open = undefined;
    } else {
      word += letter;
    }
  }
  if (open !== undefined) return undefined;
  return word === undefined ? words : [...words, word];
}

/** One word such as {@link splitWords} gives back, whatever is in it. */
export function quoteWord(word: string): string {
  return `"${word.replace(/[\\"]/g, '\\$&')}"`;
}

/** The words of a Match, which ssh takes apart by older rules: at blanks and at `=`, and quotes are of one kind. */
export function splitCriteria(text: string): string[] {
  const words = [...text.matchAll(/"([^"]*)"|([^\s="]+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? '');
  const end = words.findIndex((word) => word.startsWith('#'));
  return end === -1 ? words : words.slice(0, end);
}
