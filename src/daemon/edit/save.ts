import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { type FileHandle, open, realpath } from 'node:fs/promises';
import path from 'node:path';
import { isErrno, isTunwardError, TunwardError } from '../../errors.js';
import { backUp, pruneBackups, unlinkIfThere } from './backups.js';
import { configChanged, digestOf } from './digest.js';

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = fs.constants;

export interface Saving {
  /** Absolute; symbolic links are followed, and stay. */
  readonly file: string;
  /** What it says now. When it says something else at the moment of the writing, that is somebody else's edit. */
  readonly before: string;
  readonly text: string;
  /** Where the copy of what it says now goes, beside the nine before it. */
  readonly backups: string;
  readonly wallTime: number;
}

/**
 * Writes a configuration, whole or not at all, after a copy of the old one: a new file beside it with its mode and owner,
 * synced, renamed over it. Where that cannot be (a single file that is mounted, one with several names, a folder or an
 * owner that is not ours) it is written in place, and the old text is put back when that fails.
 *
 * @throws TunwardError ERR_CONFIG_CHANGED, ERR_CONFIG_UNWRITABLE, ERR_NO_SPACE: nothing was changed
 */
export async function saveConfig({ file, before, text, backups, wallTime }: Saving): Promise<void> {
  const place = await attempt(file, () => openPlace(file, before));
  const { old, target } = place;
  try {
    const bytes = Buffer.concat([markOf(old), Buffer.from(text)]);
    const copies = { folder: backups, name: path.basename(file) };
    const copy = await attempt(backups, () => backUp(copies, old, wallTime));
    try {
      await attempt(file, () => write(place, bytes, copy));
    } catch (error) {
      // Failures must not push out the copies of what once was.
      if (!isTunwardError(error, 'ERR_CONFIG_UNWRITABLE') || error.info.backup === undefined) await unlinkIfThere(copy);
      throw error;
    }
    await pruneBackups(copies);
  } finally {
    await target.close();
  }
}

/** The file at the end of the links, open to be written to. */
interface Place {
  readonly real: string;
  readonly target: FileHandle;
  readonly stat: fs.Stats;
  readonly old: Buffer;
  /** Throws when the file is no longer what it was, or another one. In one tick with what follows. */
  readonly requireStill: () => void;
}

/** Opening it to write is the question whether that is allowed: a new file over it would need rights on the folder only. */
async function openPlace(file: string, before: string): Promise<Place> {
  const real = await realpath(file);
  const target = await open(real, O_WRONLY | O_NOFOLLOW | O_NONBLOCK);
  try {
    const stat = await target.stat();
    if (!stat.isFile()) throw unwritable(file, { errno: 'EINVAL', why: 'it is not a regular file' });
    // Root could all the same.
    if ((stat.mode & 0o222) === 0) throw unwritable(file, { errno: 'EACCES', ...readOnly });
    const requireStill = () => void readStill(file, real, before);
    return { real, target, stat, old: readStill(file, real, before), requireStill };
  } catch (error) {
    await target.close();
    throw error;
  }
}

function readStill(file: string, real: string, before: string): Buffer {
  const bytes = fs.readFileSync(real);
  const text = new TextDecoder().decode(bytes);
  if (text !== before || fs.realpathSync(file) !== real) throw configChanged(file, digestOf(before), digestOf(text));
  return bytes;
}

/** A byte order mark is no part of the text, and stays. */
function markOf(old: Buffer): Buffer {
  return old.subarray(0, old[0] === 0xef && old[1] === 0xbb && old[2] === 0xbf ? 3 : 0);
}

async function write(place: Place, bytes: Buffer, copy: string): Promise<void> {
  // Renaming would leave the other names with the old text.
  if (place.stat.nlink === 1 && (await replace(place, bytes))) return;
  place.requireStill();
  await overwrite(place, bytes, copy);
}

/** A new file in place of the old one; false where that is not possible. */
async function replace({ real, stat, requireStill }: Place, bytes: Buffer): Promise<boolean> {
  const folder = path.dirname(real);
  const fresh = path.join(folder, `.${path.basename(real)}.${randomBytes(6).toString('hex')}`);
  try {
    await writeFresh(fresh, bytes, stat);
    requireStill();
    fs.renameSync(fresh, real);
  } catch (error) {
    await unlinkIfThere(fresh).catch(ignoreRefusal);
    if (isErrno(error, 'EACCES', 'EPERM', 'EROFS', 'EBUSY', 'EXDEV')) return false;
    throw error;
  }
  await syncFolder(folder);
  return true;
}

async function writeFresh(fresh: string, bytes: Buffer, { uid, gid, mode }: fs.Stats): Promise<void> {
  const handle = await open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    await handle.writeFile(bytes);
    const made = await handle.stat();
    if (made.uid !== uid || made.gid !== gid) await handle.chown(uid, gid);
    await handle.chmod(mode & 0o7777);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Where the file could not be made it cannot be removed either. */
function ignoreRefusal(error: unknown): void {
  if (!isErrno(error, 'EACCES', 'EPERM', 'EROFS')) throw error;
}

/** So that the rename outlives a loss of power, where folders can be synced. The file has been exchanged in any case. */
async function syncFolder(folder: string): Promise<void> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(folder, O_RDONLY);
    await handle.sync();
  } catch (error) {
    if (!isErrno(error, 'EACCES', 'EPERM', 'EINVAL', 'ENOTSUP', 'EIO', 'EMFILE', 'ENFILE')) throw error;
  } finally {
    await handle?.close();
  }
}

/** In the very file. The old text takes no more room than it had, so that it can be put back on a full disk. */
async function overwrite({ target, old, real }: Place, bytes: Buffer, copy: string): Promise<void> {
  try {
    writeAll(target.fd, bytes);
    await target.sync();
  } catch (error) {
    try {
      writeAll(target.fd, old);
      await target.sync();
    } catch (cause) {
      const message = `Cannot write ${real}, nor put back what it was: ${textOf(cause)}; what it was is in ${copy}`;
      throw new TunwardError('ERR_CONFIG_UNWRITABLE', message, { path: real, backup: copy }, { cause });
    }
    throw error;
  }
}

function writeAll(fd: number, bytes: Buffer): void {
  for (let at = 0; at < bytes.length; ) at += fs.writeSync(fd, bytes, at, bytes.length - at, at);
  fs.ftruncateSync(fd, bytes.length);
}

/** Does it, and says what a refusal of the kernel's means for who wants to write there. */
async function attempt<T>(at: string, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    if (isTunwardError(error, 'ERR_ACCESS_DENIED')) {
      throw new TunwardError(
        'ERR_CONFIG_UNWRITABLE',
        `${error.message}; nothing was changed`,
        { path: at },
        { cause: error },
      );
    }
    if (!(error instanceof Error && 'syscall' in error && 'code' in error)) throw error;
    const errno = String(error.code);
    if (errno !== 'ENOSPC' && errno !== 'EDQUOT') throw unwritable(at, { errno, ...refusals[errno], cause: error });
    const why = errno === 'ENOSPC' ? 'no space is left on its disk' : 'the quota of this user is used up';
    const message = `Cannot write ${at}: ${why} (${errno}), nothing was changed: make room, then try again`;
    throw new TunwardError('ERR_NO_SPACE', message, { path: at, errno }, { cause: error });
  }
}

interface Refusal {
  readonly why: string;
  readonly remedy?: string;
}

const readOnly: Refusal = {
  why: 'it is read-only for this user',
  remedy: 'give this user the right to write it',
};

const refusals: Readonly<Record<string, Refusal>> = {
  EACCES: readOnly,
  EPERM: { why: 'it is read-only for this user, or immutable', remedy: 'look at its owner and at lsattr' },
  EROFS: {
    why: 'its file system is read-only',
    remedy: 'mount it writable, or edit it where it comes from (an image, a ConfigMap)',
  },
  ENOENT: { why: 'it is not there', remedy: 'create it' },
  ELOOP: { why: 'its symbolic links go in a circle', remedy: 'correct them' },
  ETXTBSY: { why: 'it is in use', remedy: 'end what uses it' },
  EIO: { why: 'of a write error', remedy: 'look at the disk' },
};

function unwritable(
  at: string,
  {
    errno,
    why = 'the system refuses it',
    remedy = 'edit it where it comes from',
    cause,
  }: Partial<Refusal> & {
    readonly errno: string;
    readonly cause?: unknown;
  },
): TunwardError<'ERR_CONFIG_UNWRITABLE'> {
  const message = `Cannot write ${at}: ${why} (${errno}), nothing was changed: ${remedy}`;
  return new TunwardError('ERR_CONFIG_UNWRITABLE', message, { path: at, errno, remedy }, { cause });
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
