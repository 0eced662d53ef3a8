import fs from 'node:fs';
import { open, unlink } from 'node:fs/promises';
import path from 'node:path';
import { isErrno } from '../../errors.js';
import { requireOwnFolder } from '../files.js';

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = fs.constants;

export interface BackupOptions {
  /** Made when it is missing: `<state_dir>/backups`. */
  readonly folder: string;
  /** The name of the file whose copies these are. */
  readonly name: string;
}

const KEPT = 10;

/**
 * Writes a copy of what a file holds, `<folder>/<name>.<UTC time>`, and answers where. The name is a later one than that of
 * any copy there is, also when the clock was put back or the last copy is of the same millisecond. Throws what a system
 * call has failed with, and then leaves no copy.
 */
export async function backUp({ folder, name }: BackupOptions, bytes: Buffer, wallTime: number): Promise<string> {
  requireOwnFolder(folder);
  const newest = timeOf(name, list({ folder, name }).at(-1) ?? '');
  for (let time = Math.max(wallTime, newest + 1); ; time++) {
    const file = path.join(folder, `${name}.${stampOf(time)}`);
    try {
      await writeNew(file, bytes);
      return file;
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error;
    }
  }
}

/**
 * Removes all but the ten newest copies. What is no plain file, or has another name, is somebody else's and stays; so
 * does what cannot be removed (immutable, mounted): by then the configuration has been written, and that is what counts.
 */
export async function pruneBackups(options: BackupOptions): Promise<void> {
  const old = list(options).slice(0, -KEPT);
  for (const name of old) await unlinkIfThere(path.join(options.folder, name)).catch(ignoreRefusal);
}

function ignoreRefusal(error: unknown): void {
  if (!isErrno(error, 'EACCES', 'EPERM', 'EROFS', 'EBUSY', 'EIO')) throw error;
}

export async function unlinkIfThere(file: string): Promise<void> {
  try {
    await unlink(file);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
}

async function writeNew(file: string, bytes: Buffer): Promise<void> {
  const handle = await open(file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    await handle.writeFile(bytes);
    await handle.sync();
  } catch (error) {
    await unlinkIfThere(file);
    throw error;
  } finally {
    await handle.close();
  }
}

/** The copies there are, oldest first: their names sort by time. */
function list({ folder, name }: BackupOptions): string[] {
  const files = fs.readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isFile());
  return files
    .map((entry) => entry.name)
    .filter((entry) => !Number.isNaN(timeOf(name, entry, Number.NaN)))
    .sort();
}

/** `20260116T081502.123Z`: nothing in it has to be quoted in a shell. */
function stampOf(time: number): string {
  return new Date(time).toISOString().replaceAll(/[-:]/g, '');
}

function timeOf(name: string, file: string, otherwise = 0): number {
  const stamp = file.startsWith(`${name}.`) ? file.slice(name.length + 1) : '';
  const [, year, month, day, hour, minute, rest] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d\.\d{3}Z)$/.exec(stamp) ?? [];
  const time = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${rest}`);
  return Number.isNaN(time) ? otherwise : time;
}
