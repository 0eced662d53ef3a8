import type { ParsedKey } from 'ssh2';
import type { Ssh2 } from './ssh2.js';

/** What a file of a private key is to this client. */
export type KeyFile =
  | { readonly kind: 'key'; readonly file: string; readonly key: ParsedKey }
  /** It has a passphrase, which `open` tries. Answers undefined for a wrong one. */
  | { readonly kind: 'locked'; readonly file: string; readonly open: (passphrase: Buffer) => ParsedKey | undefined }
  | { readonly kind: 'absent'; readonly file: string }
  /** It is there and of no use, and why: one sentence with the file and the remedy. */
  | { readonly kind: 'unusable'; readonly file: string; readonly why: string };

/** Reads the file of a private key, whoever can read it: others must not be able to, as ssh has it. */
export function readKeyFile(_ssh2: Ssh2, _file: string): KeyFile {
  throw new Error('not yet');
}
