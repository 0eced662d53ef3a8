import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The checkout. Compiled tests run from `.build/test/support`, so it is three folders up. */
export const repoRoot = fileURLToPath(new URL('../../../', import.meta.url));

/** Where the compiled tests are: `.build/`. */
export const buildRoot = fileURLToPath(new URL('../../', import.meta.url));

/** Programs that are run as they are written (JavaScript, Perl) and never compiled. */
export const programsDir = join(repoRoot, 'test/support/programs');

/** The absolute path of a program; the sbin folders count too, since an ordinary user's PATH leaves them out. */
export function which(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/bin'];
  return folders
    .filter((folder) => folder !== '')
    .map((folder) => join(folder, name))
    .find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false; // not there, or not for us: both mean that it cannot be run
  }
}
