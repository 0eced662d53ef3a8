import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { isErrno, TunwardError } from '../errors.js';

const { O_APPEND, O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = fs.constants;
const MAX_BYTES = 65_536;

/** Makes a folder for our own files, 0700. One that is there keeps its mode. */
export function makePrivateFolder(folder: string): void {
  try {
    fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    if (!isErrno(error, 'EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'EEXIST')) throw error;
    const remedy = `make it for this user (uid ${process.geteuid?.()}) or name another folder`;
    throw new TunwardError(
      'ERR_ACCESS_DENIED',
      `Cannot make the folder ${folder}: ${error.code}; ${remedy}`,
      { path: folder },
      { cause: error },
    );
  }
}

/**
 * Makes sure of a folder that is ours or root's. In one of somebody else, or behind somebody else's link, every name may
 * be exchanged at any moment, and what is checked of a file does not hold when it is used.
 */
export function requireOwnFolder(folder: string): void {
  const found = lookAt(folder);
  if (!found) return makePrivateFolder(folder);
  const owners = found.isSymbolicLink() ? [found.uid, lookAt(folder, fs.statSync)?.uid] : [found.uid];
  const stranger = owners.find((uid) => uid !== undefined && uid !== 0 && uid !== process.geteuid?.());
  if (stranger === undefined) return;
  const remedy = `give it to this user (uid ${process.geteuid?.()}) or name another folder`;
  throw new TunwardError('ERR_ACCESS_DENIED', `Cannot write in ${folder}: it belongs to uid ${stranger}; ${remedy}`, {
    path: folder,
  });
}

/**
 * Opens a file of our own to append to. A link is not followed, a FIFO does not block, and what is not a plain file of
 * ours with one name is refused: a name in a folder that others can write to may be anything.
 */
export function openForAppend(file: string): number {
  const fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK);
  const stat = fs.fstatSync(fd);
  const isPlain = stat.isFile() && stat.nlink === 1;
  if (isPlain && stat.uid === process.geteuid?.()) return fd;
  fs.closeSync(fd);
  const remedy = `give it to this user (uid ${process.geteuid?.()}) or remove it`;
  const why = isPlain ? `it belongs to uid ${stat.uid}; ${remedy}` : 'it is not a plain file with one name';
  throw new TunwardError('ERR_ACCESS_DENIED', `Cannot write ${file}: ${why}`, { path: file });
}

/**
 * Opens a file that may be a log of ours to read it; undefined when there is none, or when it is not a plain file with
 * one name: a link, even a hard one, would show another file to whoever may read logs.
 */
export function openToRead(file: string): number | undefined {
  let fd: number;
  try {
    fd = fs.openSync(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO')) return undefined;
    throw error;
  }
  const stat = fs.fstatSync(fd);
  if (stat.isFile() && stat.nlink <= 1) return fd;
  fs.closeSync(fd);
  return undefined;
}

/** The text of a small file of our own; undefined when there is none, or when it is not a plain file of ours, or too large. */
export function readOwnFile(file: string, maxBytes = MAX_BYTES): string | undefined {
  let fd: number;
  try {
    fd = fs.openSync(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ELOOP', 'ENXIO', 'EISDIR', 'EACCES')) return undefined;
    throw error;
  }
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile() || stat.uid !== process.geteuid?.() || stat.size > maxBytes) return undefined;
    const buffer = Buffer.alloc(stat.size);
    return buffer.toString('utf8', 0, fs.readSync(fd, buffer, 0, buffer.length, 0));
  } finally {
    fs.closeSync(fd);
  }
}

/** Who else may read a file with a secret in it, as a warning; none where nobody may. `what`: `a token`. */
export function findOnlookers(file: string, what: string): string[] {
  const mode = fs.statSync(file).mode & 0o777;
  if ((mode & 0o077) === 0) return [];
  return [`${file}: expected ${what} that this user alone may read, found mode 0${mode.toString(8)}: chmod 600 it`];
}

/** Writes a small file at once or not at all: a new one beside it, synced, then renamed over it. Mode 0600. */
export function replaceFile(file: string, text: string): void {
  const fresh = path.join(path.dirname(file), `.${path.basename(file)}.${randomBytes(6).toString('hex')}`);
  const fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW);
  try {
    fs.writeSync(fd, text);
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
  fs.renameSync(fresh, file);
}

/** Loses nothing: what is there is kept beside it, whatever it is. Answers where; undefined where nothing is there. */
export function moveAside(file: string): string | undefined {
  const aside = `${file}.invalid-${randomBytes(4).toString('hex')}`;
  try {
    fs.renameSync(file, aside);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
  return aside;
}

function lookAt(folder: string, stat: typeof fs.lstatSync = fs.lstatSync): fs.Stats | undefined {
  try {
    return stat(folder, { throwIfNoEntry: false });
  } catch (error) {
    if (!isErrno(error, 'EACCES', 'ELOOP', 'ENOTDIR')) throw error;
    throw new TunwardError(
      'ERR_ACCESS_DENIED',
      `Cannot use the folder ${folder}: ${error.code}`,
      { path: folder },
      { cause: error },
    );
  }
}

function open(file: string, flags: number): number {
  try {
    return fs.openSync(file, flags, 0o600);
  } catch (error) {
    if (!isErrno(error, 'ELOOP', 'EACCES', 'EPERM', 'ENXIO', 'EISDIR', 'EROFS', 'ENOENT', 'ENOTDIR')) throw error;
    const why = error.code === 'ELOOP' ? 'it is a symbolic link' : error.code;
    throw new TunwardError('ERR_ACCESS_DENIED', `Cannot write ${file}: ${why}`, { path: file }, { cause: error });
  }
}
