import fs from 'node:fs';
import path from 'node:path';
import { isErrno, TunwardError } from '../../errors.js';

/** Where ssh makes the sockets of the tunnels that this process listens for: a folder that only this user can enter. */
export interface SocketFolder {
  /** A path that nobody has had before. What is at the path, and the folder when it is empty, is removed by `release`. */
  take(): SocketPlace;
}

export interface SocketPlace {
  readonly path: string;
  readonly release: () => void;
}

export interface SocketFolderOptions {
  /** The first one that will do is taken. Each may be there already, when it is ours. */
  readonly candidates: readonly string[];
}

/** Of a unix socket's path the kernel keeps 108 bytes, the last of them a zero (unix(7)). */
const LONGEST_PATH = 107;
/** The longest name in there. */
const LONGEST_NAME = '/9999999999';
/** What `-L` takes as it is: a colon ends a path there, and ssh expands `%` and `${}` in it. */
const isPlain = (folder: string) => /^\/[\w./+-]*$/.test(folder) && !folder.includes('..');

/**
 * Makes nothing yet: the folder is there as long as there is a socket in it.
 *
 * @example
 * const place = createSocketFolder({ candidates: ['/run/tunward/links', '/tmp/tunward-0-links'] }).take();
 * spawn('ssh', ['-N', '-L', `${place.path}:localhost:5432`, 'db']);
 */
export function createSocketFolder({ candidates }: SocketFolderOptions): SocketFolder {
  let number = 0;
  /** Also of those at which nobody listens yet. */
  const taken = new Set<string>();
  const cleared = new Set<string>();
  let folder: string | undefined;
  return { take };

  function take(): SocketPlace {
    // It is not there while there is no socket in it: somebody else may have come in between.
    if (folder === undefined || whyNot(folder) !== undefined) folder = choose();
    const own = folder;
    const socket = path.join(own, String(++number));
    taken.add(socket);
    return {
      path: socket,
      release: () => {
        forgive(() => fs.unlinkSync(socket), 'ENOENT', 'ENOTDIR');
        taken.delete(socket);
        if (taken.size > 0) return;
        forgive(() => fs.rmdirSync(own), 'ENOENT', 'ENOTDIR', 'ENOTEMPTY', 'EBUSY', 'EACCES', 'EPERM', 'EROFS');
      },
    };
  }

  /** The first time it also takes away what a former life has left in there. */
  function choose(): string {
    const refusals: string[] = [];
    for (const candidate of candidates) {
      const why = whyNot(candidate);
      if (why === undefined) {
        const left = cleared.has(candidate) ? [] : fs.readdirSync(candidate);
        cleared.add(candidate);
        for (const name of left) forgive(() => fs.unlinkSync(path.join(candidate, name)), 'ENOENT', 'EISDIR', 'EPERM');
        return candidate;
      }
      refusals.push(`${candidate} ${why}`);
    }
    const message = `Cannot make a socket for ssh: ${refusals.join('; ')}; set TMPDIR to a folder of yours with a short path`;
    throw new TunwardError('ERR_SPAWN_FAILED', message, {});
  }
}

function whyNot(folder: string): string | undefined {
  if (!isPlain(folder)) return 'has characters that ssh would not take as they are';
  if (Buffer.byteLength(folder) + LONGEST_NAME.length > LONGEST_PATH) {
    return `is too long: with the socket's name a path may have ${LONGEST_PATH} bytes`;
  }
  try {
    makeFolder(folder);
  } catch (error) {
    if (isErrno(error, 'EACCES', 'EPERM', 'EROFS', 'ENOENT', 'ENOTDIR', 'ENOSPC'))
      return `cannot be made: ${error.code}`;
    throw error;
  }
  const stat = fs.lstatSync(folder);
  // In /tmp anybody may have been there first.
  if (!stat.isDirectory() || stat.uid !== process.geteuid?.() || (stat.mode & 0o077) !== 0) return 'is not ours alone';
  return undefined;
}

function makeFolder(folder: string): void {
  try {
    fs.mkdirSync(folder, { mode: 0o700 });
    fs.chmodSync(folder, 0o700); // an umask may have taken from it
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error;
  }
}

function forgive(act: () => void, ...codes: string[]): void {
  try {
    act();
  } catch (error) {
    if (!isErrno(error, ...codes)) throw error;
  }
}
