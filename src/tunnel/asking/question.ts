import { printable } from '../../wire.js';
import type { Question } from './person.js';

/*
 * What ssh hands to its askpass program, seen with OpenSSH 9.2 (SSH_ASKPASS_REQUIRE=force, nothing but pipes):
 *
 * | asked for | the program is run | its text |
 * |---|---|---|
 * | password | once for each attempt, 3 unless NumberOfPasswordPrompts says otherwise | `me@host's password: ` |
 * | keyboard-interactive | once for each prompt of a round, and 3 rounds | `(me@host) Code: `; what the server wrote, with its control characters as `\033` |
 * | passphrase | once for each attempt, as often as NumberOfPasswordPrompts says | `Enter passphrase for key '/home/me/.ssh/id': ` |
 * | host key | once, and again with `Please type 'yes', 'no' or the fingerprint: ` until it is one of these | four lines, of which the last one ends with `(yes/no/[fingerprint])? ` |
 * | an expired password | old, new, and the new one again | `Enter me@host's old password: ` |
 *
 * Title and instructions of a keyboard-interactive round, and `Permission denied, please try again.`, go to stderr and not
 * through here. That a prompt of a server may be seen (`echo` of RFC 4256) is not handed on: SSH_ASKPASS_PROMPT is unset in
 * all of these cases. It is `confirm` where a yes or no is the answer, `none` where something is to be said only.
 * Of the answer ssh takes what is before the first CR or LF, and 1,023 bytes at most, in silence. When the program fails,
 * ssh goes on: an empty password is sent and the next attempt asks again; a passphrase and a host key are given up at once.
 */

/** As much of a question as is passed on, in characters. */
export const LONGEST_QUESTION = 8192;
/** What ssh reads of an answer, in bytes. */
export const LONGEST_ANSWER = 1023;

/** The first question of a host key, and the one after an answer that ssh did not understand. */
const aboutHostKey = /^The authenticity of host '[\s\S]*\(yes\/no(\/\[fingerprint\])?\)\? ?$/;
const aboutHostKeyAgain = /^Please type 'yes'(, 'no' or the fingerprint| or 'no'): ?$/;

/** Makes a question of what ssh has handed over; of what a server has written, nothing draws on a terminal by itself. */
export function readQuestion(text: string, hint: string): Question {
  const echo = hint === 'confirm' || aboutHostKey.test(text) || aboutHostKeyAgain.test(text);
  return { text: printableLines(text.slice(0, LONGEST_QUESTION)), echo };
}

export function printableLines(text: string): string {
  return text
    .split(/\r?\n/)
    .map((line) => printable(line))
    .join('\n');
}
