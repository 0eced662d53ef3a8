/*
 * The words of a line that is being typed into bash, and the way back. zsh and fish take their quotes away, and put them
 * back, themselves.
 */

/** The last word of a line, up to the cursor. */
export interface OpenWord {
  /** Without its quotes and backslashes. */
  readonly text: string;
  /** The quote that is open at the cursor. */
  readonly quote: '' | '"' | "'";
  /** How much of the text stands before the place from which readline replaces: behind the last `:`, `=` or quote. */
  readonly kept: number;
}

export interface OpenLine {
  /** The words before the last one, the command's name among them. */
  readonly before: readonly string[];
  readonly last: OpenWord;
}

/** Takes a line apart as bash does, as far as it has been typed. `breaks` is bash's COMP_WORDBREAKS. Pure. */
export function readLine(line: string, breaks: string): OpenLine {
  const before: string[] = [];
  let word: string | undefined;
  let quote: OpenWord['quote'] = '';
  let kept = 0;
  const end = () => {
    if (word !== undefined) before.push(word);
    [word, kept] = [undefined, 0];
  };
  const add = (text: string) => {
    word = (word ?? '') + text;
  };
  const characters = [...line];
  for (let at = 0; at < characters.length; at++) {
    const character = characters[at] ?? '';
    const next = characters[at + 1];
    const escapes = character === '\\' && quote !== "'";
    if (escapes && (quote === '' || /^[$`"\\]$/.test(next ?? ''))) {
      add(next ?? '');
      at++;
    } else if (character === quote || (quote === '' && (character === '"' || character === "'"))) {
      quote = character === quote ? '' : character === '"' ? '"' : "'";
      add('');
      kept = (word ?? '').length;
    } else if (quote === '' && /\s/.test(character)) end();
    else {
      add(character);
      if (quote === '' && breaks.includes(character)) kept = (word ?? '').length;
    }
  }
  return { before, last: { text: word ?? '', quote, kept } };
}

/** A value as it has to be typed to stand for itself, from the place on that readline replaces. Pure. */
export function quoteValue(value: string, { quote, kept }: OpenWord): string {
  const rest = value.slice(kept);
  if (quote === "'") return rest.replaceAll("'", "'\\''");
  // An exclamation mark is history's, also between double quotes, where no backslash helps.
  if (quote === '"') return rest.replace(/[$`"\\]/g, '\\$&').replaceAll('!', '"\\!"');
  return rest.replace(/[^\w@%+=:,./\u0080-\u{10ffff}-]|\p{Z}/gu, '\\$&');
}
