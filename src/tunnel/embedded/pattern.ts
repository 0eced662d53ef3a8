/**
 * A pattern of ssh_config or known_hosts: `*` is any text, `?` is one character, all else is itself. Never a regular
 * expression: a name of stars would keep that busy for ever.
 */
export function matchesPattern(text: string, pattern: string): boolean {
  let at = 0;
  let place = 0;
  // Where the last star was, and how much of the text it has taken so far.
  let star = -1;
  let taken = 0;
  while (at < text.length) {
    const wanted = pattern[place];
    if (wanted === '*') {
      star = place++;
      taken = at;
    } else if (wanted === '?' || (wanted !== undefined && wanted === text[at])) {
      place++;
      at++;
    } else if (star >= 0) {
      place = star + 1;
      at = ++taken;
    } else {
      return false;
    }
  }
  while (pattern[place] === '*') place++;
  return place === pattern.length;
}

/** Is one of these meant? One with `!` before it that matches decides against, whatever the others say. */
export function matchesPatterns(text: string, patterns: readonly string[]): boolean {
  let isMatch = false;
  for (const pattern of patterns) {
    const isNegated = pattern.startsWith('!');
    if (!matchesPattern(text, isNegated ? pattern.slice(1) : pattern)) continue;
    if (isNegated) return false;
    isMatch = true;
  }
  return isMatch;
}

/** The same of patterns with commas between them. */
export function matchesPatternList(text: string, list: string): boolean {
  return matchesPatterns(text, list.split(','));
}
