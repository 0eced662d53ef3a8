import fs from 'node:fs';
import { isErrno } from '../errors.js';
import type { TunnelStatus } from '../tunnel/runner.js';
import type { Client } from './client.js';

/** The growing end of a log. */
export interface Tail {
  /** The lines that have come since the last call; at the first, those of the past that were asked for. */
  read(): Promise<readonly string[]>;
  close(): void;
}

/**
 * Follows a tunnel's log: the file itself where it can be read from here, which misses nothing; else (TCP, a socket that
 * is shared with a container) the API's last lines, again and again. Both go on with the new file when the log begins one.
 */
export function openTail(client: Client, { id, logFile }: Pick<TunnelStatus, 'id' | 'logFile'>, past: number): Tail {
  const isHere = 'socket' in client.address && logFile !== null && isReadable(logFile);
  return isHere ? openFileTail(logFile, past) : openApiTail(client, id, past);
}

/** As much of the past as is looked through for lines. */
const PAST_BYTES = 1_048_576;

export function openFileTail(file: string, past: number): Tail {
  let open: OpenLog | undefined;
  let isFirst = true;
  return { read: async () => read(), close };

  function read(): string[] {
    // Looked at before the old file is drained: a log that is moved away gets nothing more after that.
    const now = fs.statSync(file, { throwIfNoEntry: false });
    const found = open ? drain(open) : [];
    if (open && (!now || now.ino !== open.ino || now.size < open.offset)) close();
    if (now && !open) {
      open = openLog(file, isFirst ? PAST_BYTES : Number.POSITIVE_INFINITY);
      // From the middle of a file the first line is none.
      const isMiddle = open !== undefined && open.offset > 0;
      if (open) found.push(...drain(open).slice(isMiddle ? 1 : 0));
    }
    if (!isFirst) return found;
    isFirst = false;
    return found.slice(-past);
  }

  function close(): void {
    if (open) fs.closeSync(open.fd);
    open = undefined;
  }
}

function openApiTail(client: Client, id: string, past: number): Tail {
  let before: readonly string[] | undefined;
  return { read, close: () => undefined };

  async function read(): Promise<readonly string[]> {
    const { lines } = await client.logs(id, Math.max(past, 1000));
    const fresh = before === undefined ? lines.slice(-past) : newLines(before, lines);
    before = lines;
    return fresh;
  }
}

/**
 * What has been added, by two looks at the last lines of a log: what follows the longest end of the first look that the
 * second one begins with. No such end: the log has begun anew. Pure.
 *
 * @example
 * newLines(['a', 'b'], ['b', 'c']); // ['c']
 */
export function newLines(before: readonly string[], after: readonly string[]): readonly string[] {
  for (let shared = Math.min(before.length, after.length); shared > 0; shared--) {
    const start = before.length - shared;
    if (after.slice(0, shared).every((line, at) => line === before[start + at])) return after.slice(shared);
  }
  return after;
}

interface OpenLog {
  readonly fd: number;
  readonly ino: number;
  offset: number;
  /** The line that is not complete yet. */
  rest: Buffer;
}

/** Undefined when it has gone since it was looked at. A link is not followed and a FIFO not waited for, as in the daemon. */
function openLog(file: string, pastBytes: number): OpenLog | undefined {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = fs.constants;
  let fd: number;
  try {
    fd = fs.openSync(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
  const { ino, size } = fs.fstatSync(fd);
  return { fd, ino, offset: Math.max(0, size - pastBytes), rest: Buffer.alloc(0) };
}

/** The complete lines up to the present end of the file. */
function drain(log: OpenLog): string[] {
  const buffer = Buffer.alloc(65_536);
  const chunks = [log.rest];
  for (;;) {
    const size = fs.readSync(log.fd, buffer, 0, buffer.length, log.offset);
    if (size === 0) break;
    log.offset += size;
    chunks.push(Buffer.from(buffer.subarray(0, size)));
  }
  const bytes = Buffer.concat(chunks);
  const end = bytes.lastIndexOf('\n') + 1;
  log.rest = bytes.subarray(end);
  return bytes.toString('utf8', 0, end).split('\n').slice(0, -1);
}

function isReadable(file: string): boolean {
  try {
    fs.accessSync(file, fs.constants.R_OK);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EACCES', 'ENOTDIR')) return false;
    throw error;
  }
}
