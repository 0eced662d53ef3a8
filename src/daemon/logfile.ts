import fs from 'node:fs';
import path from 'node:path';
import { isErrno } from '../errors.js';
import { openForAppend, openToRead, requireOwnFolder } from './files.js';

/** How much of a log is kept: `<file>`, and before it `<file>.1`, `<file>.2` and so on. */
export interface LogLimits {
  /** A line that would make the file larger than this goes into a new one. */
  readonly maxBytes: number;
  /** Files, the present one among them. */
  readonly keep: number;
}

/**
 * Appends one line, whole or not at all; with `isFresh` to a new file in any case. The file is opened for each line and
 * closed after it: that costs 13 µs (2 µs with one that stays open), and hundreds of tunnels hold no descriptor, every
 * check is made of the file that is written to, and one that was moved or deleted by somebody is made anew at once.
 *
 * @returns why it went into the former file though a new one was due; undefined when all is well
 * @throws Error whatever the disk says, when the line is not in the log
 */
export function appendLine(file: string, line: string, limits: LogLimits & { isFresh?: boolean }): Error | undefined {
  requireOwnFolder(path.dirname(file));
  const bytes = Buffer.from(`${line}\n`);
  const isDue = (size: number) => size > 0 && (limits.isFresh || size + bytes.length > limits.maxBytes);
  const isWritten = append(file, (fd, size) => !isDue(size) && write(fd, bytes, size));
  if (isWritten) return undefined;
  const problem = moveAside(file, limits.keep);
  append(file, (fd, size) => write(fd, bytes, size));
  return problem;
}

/** For a log that another process writes: a new file is begun when the present one has its size. */
export function beginWhenFull(file: string, { maxBytes, keep }: LogLimits): void {
  requireOwnFolder(path.dirname(file));
  if (append(file, (_fd, size) => size >= maxBytes)) moveAside(file, keep);
}

/**
 * For a log that a process has open and says everything to: what is in it is copied into a file before it, and the log
 * begins at 0 again. Nothing is lost as long as nobody else writes to it, since all of it happens in one turn.
 */
export function cutWhenFull(fd: number, file: string, { maxBytes, keep }: LogLimits): void {
  const { size, ino, dev } = fs.fstatSync(fd);
  if (size < maxBytes) return;
  const source = openToRead(file);
  if (source === undefined) return;
  const copy = `${file}.0`;
  try {
    const stat = fs.fstatSync(source);
    // Another one under its name, by logrotate perhaps, who then looks after the size as well.
    if (stat.ino !== ino || stat.dev !== dev) return;
    // First of all, so that a disk that is full costs no older one its place.
    if (keep > 1) append(copy, (to) => copyAll(source, to));
    makeRoom(file, keep);
    if (keep > 1) fs.renameSync(copy, `${file}.1`);
    fs.ftruncateSync(fd, 0);
  } finally {
    fs.closeSync(source);
    remove(copy);
  }
}

function copyAll(from: number, to: number): void {
  const buffer = Buffer.alloc(CHUNK_BYTES);
  for (let at = 0, size = -1; size !== 0; at += size) {
    size = fs.readSync(from, buffer, 0, buffer.length, at);
    write(to, buffer.subarray(0, size), at);
  }
}

function append<T>(file: string, use: (fd: number, size: number) => T): T {
  const fd = openForAppend(file);
  try {
    return use(fd, fs.fstatSync(fd).size);
  } finally {
    fs.closeSync(fd);
  }
}

/** A disk that is full takes a part of a line: what is there of it is taken back, so that the next one has its own. */
function write(fd: number, bytes: Buffer, size: number): true {
  let written = 0;
  try {
    while (written < bytes.length) written += fs.writeSync(fd, bytes, written);
    return true;
  } catch (error) {
    if (written > 0) fs.ftruncateSync(fd, size);
    throw error;
  }
}

function moveAside(file: string, keep: number): Error | undefined {
  try {
    makeRoom(file, keep);
    if (keep === 1) fs.unlinkSync(file);
    else fs.renameSync(file, `${file}.1`);
    return undefined;
  } catch (error) {
    if (isRefusal(error)) return error;
    throw error;
  }
}

/** The oldest goes, the others move up by one. Links, FIFOs and folders under these names are moved, and never followed. */
function makeRoom(file: string, keep: number): void {
  // Also what a larger `keep` has left.
  for (let number = keep; remove(`${file}.${number}`); number++);
  for (let number = keep - 1; number > 1; number--) move(`${file}.${number - 1}`, `${file}.${number}`);
}

function move(from: string, to: string): void {
  try {
    fs.renameSync(from, to);
  } catch (error) {
    // A folder in the way: the older ones end before it.
    if (!isErrno(error, 'ENOENT', 'EISDIR', 'ENOTDIR', 'ENOTEMPTY', 'EEXIST')) throw error;
  }
}

function remove(file: string): boolean {
  try {
    fs.unlinkSync(file);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EISDIR', 'EPERM')) return false;
    throw error;
  }
}

/** Whatever the kernel had against it: no space, no permission, no descriptor, a disk that is gone. */
export function isRefusal(error: unknown): error is Error {
  return error instanceof Error && 'syscall' in error;
}

/** As much as is looked through for the last lines. */
const PAST_BYTES = 1_048_576;
const CHUNK_BYTES = 65_536;

/** The last lines, oldest first, through as many of a log's files as it takes: 1 MiB of them at most. */
export function readLastLines(file: string, count: number): string[] {
  return readBack(openFiles(file), count, PAST_BYTES);
}

/** The last lines of files that come newest first, at most so many bytes of them. */
export function readBack(files: Iterable<OpenFile>, count: number, most: number): string[] {
  let lines: string[] = [];
  let left = most;
  for (const { fd, size } of files) {
    const end = readEnd(fd, { size, count: count - lines.length, most: left });
    lines = [...end.lines, ...lines];
    left -= end.bytes;
    if (lines.length >= count || left <= 0) break;
  }
  return lines;
}

export interface OpenFile {
  readonly fd: number;
  readonly ino: number;
  readonly size: number;
}

/**
 * The files of a log, the present one first, each open until the next one is asked for. The daemon may move them aside
 * meanwhile: the same one is not met again under its next name, and a name that nobody has for that instant is no end.
 */
export function* openFiles(file: string): Generator<OpenFile> {
  const seen = new Set<number>();
  let gaps = 0;
  for (let number = 0; gaps < 2; number++) {
    const fd = openToRead(number === 0 ? file : `${file}.${number}`);
    gaps = fd === undefined ? gaps + 1 : 0;
    if (fd === undefined) continue;
    try {
      const { ino, size } = fs.fstatSync(fd);
      if (!seen.has(ino)) yield { fd, ino, size };
      seen.add(ino);
    } finally {
      fs.closeSync(fd);
    }
  }
}

interface EndOptions {
  readonly size: number;
  readonly count: number;
  readonly most: number;
}

/** The last complete lines of one file, and how many bytes were read for them. */
function readEnd(fd: number, { size, count, most }: EndOptions): { lines: string[]; bytes: number } {
  const first = Math.max(0, size - most);
  const chunks: Buffer[] = [];
  let start = size;
  let ends = 0;
  // One line end more than lines: the one before the first of them.
  while (start > first && ends <= count) {
    const length = Math.min(CHUNK_BYTES, start - first);
    start -= length;
    const chunk = Buffer.alloc(length);
    const read = chunk.subarray(0, fs.readSync(fd, chunk, 0, length, start));
    chunks.unshift(read);
    for (let at = read.indexOf(LINE_END); at >= 0; at = read.indexOf(LINE_END, at + 1)) ends++;
  }
  const lines = Buffer.concat(chunks)
    .toString('utf8')
    .split('\n')
    .slice(start > 0 ? 1 : 0, -1);
  return { lines: lines.slice(-count), bytes: size - start };
}

const LINE_END = 0x0a;
