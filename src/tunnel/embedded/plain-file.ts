import fs from 'node:fs';
import { isErrno } from '../../errors.js';

const { O_NONBLOCK, O_RDONLY } = fs.constants;

/** What became of reading a file that somebody has named: `why` is the end of a sentence ("it is no plain file"). */
export type PlainFile =
  | { readonly kind: 'file'; readonly bytes: Buffer; readonly uid: number; readonly mode: number }
  | { readonly kind: 'absent' | 'denied' | 'odd' | 'large'; readonly why: string };

/**
 * Reads a whole file, and never waits: a FIFO that nobody writes to would hold the process for ever, and a device has no
 * end. Links are followed, as ssh follows them.
 */
export function readPlainFile(file: string, maxBytes: number): PlainFile {
  let fd: number;
  try {
    fd = fs.openSync(file, O_RDONLY | O_NONBLOCK);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return { kind: 'absent', why: 'it is not there' };
    if (isErrno(error, 'EACCES', 'EPERM')) return { kind: 'denied', why: 'this user may not read it' };
    if (isErrno(error, 'ELOOP', 'ENXIO', 'ENODEV', 'ENAMETOOLONG', 'EIO', 'ESTALE'))
      return { kind: 'odd', why: `it cannot be opened (${error.code})` };
    throw error;
  }
  try {
    const stat = fs.fstatSync(fd);
    const { size, uid, mode } = stat;
    if (!stat.isFile()) return { kind: 'odd', why: 'it is no plain file' };
    if (size > maxBytes) return { kind: 'large', why: `it has ${size} bytes, and ${maxBytes} are the most` };
    // What grows meanwhile is read as far as it went, never without end.
    const buffer = Buffer.alloc(size);
    return { kind: 'file', bytes: buffer.subarray(0, fs.readSync(fd, buffer, 0, size, 0)), uid, mode };
  } finally {
    fs.closeSync(fd);
  }
}
