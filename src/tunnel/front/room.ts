import fs from 'node:fs';
import { isErrno } from '../../errors.js';
import { readLimit } from '../../proc/limits.js';
import { openProc, type Proc } from '../../proc/read.js';

/** So many descriptors are not for clients: looks at /proc, the start of an ssh and somebody at the API take a few each. */
const RESERVED = 64;

/**
 * Is there a descriptor left for one more client? Clients may be as many as they like, and whoever takes the last one keeps
 * the daemon from its own work and everybody from its API. The kernel gives the lowest free number, so one that is asked
 * for and given back says it of all that is open in this process, for 5 µs. True where no limit is known.
 *
 * @example
 * const hasRoom = createRoomCheck();
 * if (!hasRoom()) socket.resetAndDestroy();
 */
export function createRoomCheck(proc: Proc = openProc()): () => boolean {
  const limit = readLimit(proc, 'self', 'Max open files') ?? Number.POSITIVE_INFINITY;
  const last = limit - Math.min(RESERVED, limit / 4);
  return () => last === Number.POSITIVE_INFINITY || findFree() < last;
}

/** The lowest free number; Infinity: none is left, in this process or on this host. */
function findFree(): number {
  try {
    const fd = fs.openSync('/', 'r');
    fs.closeSync(fd);
    return fd;
  } catch (error) {
    if (isErrno(error, 'EMFILE', 'ENFILE')) return Number.POSITIVE_INFINITY;
    throw error;
  }
}
