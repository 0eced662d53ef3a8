/*
 * How wide a text is on a terminal. Terminals do not agree on everything (an emoji that is joined of several): each
 * character is counted for itself here, as most of them do.
 */

/** Marks that are drawn over the character before them, and characters that are not drawn at all. */
const nothing = /^[\p{Mn}\p{Me}\u1160-\u11ff\u200b-\u200d\u2060-\u2064\ufeff]$/u;
/** The halves of a flag: two of them are as wide as one emoji. */
const flagHalf = /^\p{Regional_Indicator}$/u;
/** What Unicode calls East Asian wide, in blocks, and what is an emoji unless it is told otherwise. */
const wide =
  /^[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe10-\ufe19\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{16fe0}-\u{18cff}\u{1aff0}-\u{1b2ff}\u{1f200}-\u{1f265}\u{20000}-\u{3fffd}\p{Emoji_Presentation}]$/u;

/** The columns that a text without control characters takes. */
export function widthOfText(text: string): number {
  if (isPlain(text)) return text.length;
  let width = 0;
  for (const character of text) width += widthOfCharacter(character);
  return width;
}

/** The longest beginning that takes at most so many columns. */
export function cutText(text: string, columns: number): string {
  if (isPlain(text)) return text.slice(0, Math.max(0, columns));
  let [end, room] = [0, columns];
  for (const character of text) {
    room -= widthOfCharacter(character);
    if (room < 0) break;
    end += character.length;
  }
  return text.slice(0, end);
}

function isPlain(text: string): boolean {
  return /^[ -~]*$/.test(text);
}

function widthOfCharacter(character: string): number {
  if (nothing.test(character)) return 0;
  return wide.test(character) && !flagHalf.test(character) ? 2 : 1;
}
