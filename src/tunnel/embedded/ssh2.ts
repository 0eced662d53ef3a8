import { createRequire } from 'node:module';
import type ssh2 from 'ssh2';

/** The package ssh2 as it is shipped with this one: one file, without its compiled addon (`scripts/bundle-ssh2.mjs`). */
export type Ssh2 = typeof ssh2;

/** Loads it: 20 ms the first time. */
export function loadSsh2(): Ssh2 {
  return createRequire(import.meta.url)('../../vendor/ssh2.cjs');
}
