import fs from 'node:fs';
import os from 'node:os';
import { isErrno } from '../errors.js';

/** The kernel knows, and will not tell us. Not the same as `undefined`: gone, or never there. */
export const denied = Symbol('denied');
export type Read<T> = T | undefined | typeof denied;

/** A mounted /proc. Tests hand in a folder of their own. */
export interface Proc {
  readonly root: string;
  /** Clock ticks a second (start times, CPU times) and bytes in a page (RSS), from the auxiliary vector. */
  readonly ticksPerSecond: number;
  readonly pageSize: number;
  /** A whole file as text. Sizes in /proc lie (0), so it is read to its end without asking. */
  text(path: string): Read<string>;
  /**
   * The file page by page, as the kernel hands it out (whole lines). It is open until the last one, or a `break`. With a
   * size no more than that at a time, which may end in the middle of a line: the kernel looks no further than it is asked.
   */
  pages(path: string, size?: number): Iterable<Read<string>>;
  list(path: string): Read<string[]>;
  /** The same of a big folder, up to so many names at a time. */
  pieces(path: string, size: number): Iterable<Read<string[]>>;
  has(path: string): boolean;
  link(path: string): Read<string>;
  /**
   * What the links `names[from]` up to `names[to]` of a folder lead to, without those that are gone. Denied also where the
   * folder was not: to list the descriptors of a process takes its user or root, to read one as many capabilities as it has.
   */
  links(folder: string, names: readonly string[], from: number, to: number): string[] | typeof denied;
  /** The same of a folder whose links are numbered: those from `from` up to `to`, whichever are there. */
  numberedLinks(folder: string, from: number, to: number): string[] | typeof denied;
  /** The size of an entry; of a folder of descriptors their number, since Linux 6.2, and 0 before. */
  size(path: string): Read<number>;
  /** The numeric user id that owns the entry. */
  owner(path: string): Read<number>;
  /** Holds on to the process that bears this pid now. */
  pin(pid: number): Read<Pin>;
}

/**
 * A descriptor of `/proc/<pid>/stat`. What is read through it is of that very process, and `undefined` once it is reaped,
 * even when its number has gone to another one: the stand-in for a pidfd, which Node cannot open. A descriptor of the
 * directory pins as well, but each look through it opens a file: 3.5 µs against 1.3, and none when no descriptor is left,
 * which is when what was stopped must still be killed or continued. Other files of the process are read by number, and
 * the pin after them, in the same tick: while it answers, the number was its own.
 */
export interface Pin {
  stat(): Read<string>;
  close(): void;
}

/** Opens a /proc. Reading is all it can do; nothing is cached but the two constants. */
export function openProc(root = '/proc'): Proc {
  const buffer = Buffer.allocUnsafe(65_536);
  const text = (path: string) => answer(() => readWhole(path, buffer));
  const auxv = known(answer(() => readBytes(`${root}/self/auxv`, buffer)));
  const constants = parseAuxv(auxv ?? Buffer.alloc(0));
  return {
    root,
    ...constants,
    text: (path) => text(`${root}/${path}`),
    pages: (path, size = buffer.length) => readPages(`${root}/${path}`, buffer.subarray(0, size)),
    list: (path) => answer(() => fs.readdirSync(`${root}/${path}`)),
    pieces: (path, size) => readPieces(`${root}/${path}`, size),
    has: (path) => fs.existsSync(`${root}/${path}`),
    link: (path) => answer(() => fs.readlinkSync(`${root}/${path}`)),
    ...createLinkReader(root),
    size: (path) => answer(() => fs.statSync(`${root}/${path}`).size),
    owner: (path) => answer(() => fs.statSync(`${root}/${path}`).uid),
    pin: (pid) =>
      answer(() => {
        const fd = fs.openSync(`${root}/${pid}/stat`, fs.constants.O_RDONLY);
        const stat = () => buffer.toString('utf8', 0, fs.readSync(fd, buffer, 0, buffer.length, 0));
        return { stat: () => answer(stat), close: () => fs.closeSync(fd) };
      }),
  };
}

/** What was read, or nothing where it was gone or denied. For callers to whom both are the same. */
export function known<T>(read: Read<T>): T | undefined {
  return read === denied ? undefined : read;
}

function answer<T>(read: () => T): Read<T> {
  try {
    return read();
  } catch (error) {
    return absence(error);
  }
}

function absence(error: unknown): undefined | typeof denied {
  // ENOENT: no such process when the path was looked up. ESRCH: it died between open and read.
  if (isErrno(error, 'ENOENT', 'ESRCH', 'ENOTDIR')) return undefined;
  if (isErrno(error, 'EACCES', 'EPERM')) return denied;
  throw error;
}

function* readPieces(path: string, size: number): Generator<Read<string[]>> {
  const folder = answer(() => fs.opendirSync(path, { bufferSize: size }));
  if (folder === undefined || folder === denied) return yield folder;
  try {
    for (let names: string[] = []; ; names = []) {
      const isOver = answer(() => {
        for (let entry = folder.readSync(); entry; entry = folder.readSync())
          if (names.push(entry.name) === size) return false;
        return true;
      });
      yield names;
      if (isOver !== false) return;
    }
  } finally {
    folder.closeSync();
  }
}

/** Of a look-up that reads every descriptor of every process most of the time is spent in here, and of that most in the kernel. */
function createLinkReader(root: string): Pick<Proc, 'links' | 'numberedLinks'> {
  return {
    links: (folder, names, from, to) => {
      const before = `${root}/${folder}/`;
      const found: string[] = [];
      for (let at = from; at < Math.min(to, names.length); at++) {
        const link = readLink(before + names[at]);
        if (link === denied) return denied;
        if (link !== undefined) found.push(link);
      }
      return found;
    },
    numberedLinks: (folder, from, to) => {
      const before = `${root}/${folder}/`;
      const found: string[] = [];
      let isThere = true;
      for (let number = from; number < to; number++) {
        const path = before + number;
        // A link that is missing costs an exception, so among missing ones it is asked for first.
        if (!isThere && !fs.existsSync(path)) continue;
        const link = readLink(path);
        if (link === denied) return denied;
        isThere = link !== undefined;
        if (link !== undefined) found.push(link);
      }
      return found;
    },
  };
}

/** Without a function made for each, as {@link answer} would take. */
function readLink(path: string): Read<string> {
  try {
    return fs.readlinkSync(path);
  } catch (error) {
    return absence(error);
  }
}

function readWhole(path: string, buffer: Buffer): string {
  return readBytes(path, buffer).toString('utf8');
}

function readBytes(path: string, buffer: Buffer): Buffer {
  const fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  try {
    const chunks: Buffer[] = [];
    for (;;) {
      const size = fs.readSync(fd, buffer, 0, buffer.length, null);
      if (size === 0) return Buffer.concat(chunks);
      chunks.push(Buffer.from(buffer.subarray(0, size)));
    }
  } finally {
    fs.closeSync(fd);
  }
}

/** The kernel ends each read of a table at a line's end, so a page never holds half a row. */
function* readPages(path: string, buffer: Buffer): Generator<Read<string>> {
  const fd = answer(() => fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK));
  if (typeof fd !== 'number') return yield fd;
  try {
    for (;;) {
      const size = answer(() => fs.readSync(fd, buffer, 0, buffer.length, null));
      if (typeof size !== 'number' || size === 0) return;
      yield buffer.toString('latin1', 0, size);
    }
  } finally {
    fs.closeSync(fd);
  }
}

const AT_PAGESZ = 6;
const AT_CLKTCK = 17;

/**
 * The auxiliary vector is pairs of words of the machine's own size and byte order (getauxval(3)); what is missing has the
 * value it has nearly everywhere.
 */
export function parseAuxv(
  auxv: Buffer,
  { endianness = os.endianness(), wordBytes = narrow.has(process.arch) ? 4 : 8 } = {},
): { ticksPerSecond: number; pageSize: number } {
  const found = { ticksPerSecond: 100, pageSize: 4096 };
  // Neither value has more than 32 bits.
  const word = (at: number) =>
    endianness === 'LE' ? auxv.readUInt32LE(at * wordBytes) : auxv.readUInt32BE((at + 1) * wordBytes - 4);
  for (let at = 0; (at + 2) * wordBytes <= auxv.length; at += 2) {
    if (word(at) === AT_PAGESZ) found.pageSize = word(at + 1);
    if (word(at) === AT_CLKTCK) found.ticksPerSecond = word(at + 1);
  }
  return found;
}

const narrow: ReadonlySet<string> = new Set(['arm', 'ia32', 'mips', 'mipsel']);
