import fs from 'node:fs';
import { openToRead } from '../daemon/files.js';
import { type OpenFile, openFiles, readBack } from '../daemon/logfile.js';
import { isErrno, isTunwardError, TunwardError } from '../errors.js';
import type { TunnelStatus } from '../tunnel/runner.js';
import type { Client } from './client.js';
import { formatAddress } from './exchange.js';

/** The growing end of a log. */
export interface Tail {
  /** The lines that have come since the last call; at the first, those of the past that were asked for. */
  read(): Promise<readonly string[]>;
  close(): void;
}

/**
 * Follows a tunnel's log: the file itself where it can be read from here, which misses nothing; else (TCP, a socket that
 * is shared with a container) what the API sends, or its last lines again and again where there are `many` to follow.
 * All go on with the new file when the log begins one.
 */
export function openTail(
  client: Client,
  { id, logFile }: Pick<TunnelStatus, 'id' | 'logFile'>,
  { past, many = false }: { readonly past: number; readonly many?: boolean },
): Tail {
  const isHere = 'socket' in client.address && logFile !== null && isReadable(logFile);
  if (isHere) return openFileTail(logFile, past);
  return many ? openApiTail(client, id, past) : openStreamTail(client, id, past);
}

/** As much of the past as is looked through for lines. */
const PAST_BYTES = 1_048_576;

/**
 * Nothing is missed while the log is where it was opened, nor when it has been moved aside since, however often: what is
 * between the file that was read last and the present one is read on the way. What was deleted is gone.
 */
export function openFileTail(file: string, past: number): Tail {
  let open: OpenLog | undefined;
  let isFirst = true;
  return { read: async () => read(), close };

  function read(): string[] {
    const found = isFirst ? readPast() : readOn();
    isFirst = false;
    return found;
  }

  function readPast(): string[] {
    open = openLog(file);
    if (!open) return readBack(openFiles(file), past, PAST_BYTES);
    open.offset = Math.max(0, open.size - PAST_BYTES);
    // From the middle of a file the first line is none.
    const isMiddle = open.offset > 0;
    const lines = drain(open).slice(isMiddle ? 1 : 0);
    const missing = isMiddle ? 0 : past - lines.length;
    const older = missing > 0 ? readBack(olderThan(open, openFiles(file)), missing, PAST_BYTES) : [];
    return [...older, ...lines.slice(-past)];
  }

  function readOn(): string[] {
    const now = fs.lstatSync(file, { throwIfNoEntry: false });
    if (open && (!now || now.ino === open.ino)) {
      if (now && now.size < open.offset) Object.assign(open, { offset: 0, rest: Buffer.alloc(0) });
      return drain(open);
    }
    // Opened first, then looked back from: whatever is moved aside from now on comes after it.
    const next = openLog(file);
    if (!next) return open ? drain(open) : [];
    const found = open ? [...drain(open), ...readBetween(open, next)] : [];
    close();
    open = next;
    return [...found, ...drain(next)];
  }

  function readBetween(old: OpenLog, next: OpenLog): string[] {
    let lines: string[] = [];
    for (const log of olderThan(next, openFiles(file))) {
      if (log.ino === old.ino) return lines;
      lines = [...drain({ ...log, offset: 0, rest: Buffer.alloc(0) }), ...lines];
    }
    // It was deleted, or moved elsewhere: those that are here were before it.
    return [];
  }

  function close(): void {
    if (open) fs.closeSync(open.fd);
    open = undefined;
  }
}

/** A connection that stays. A daemon of an older version has no such thing, and is asked again and again. */
function openStreamTail(client: Client, id: string, past: number): Tail {
  const over = new AbortController();
  let lines: string[] = [];
  let isBegun = false;
  let failure: unknown;
  let older: Tail | undefined;
  pump().catch((error: unknown) => {
    if (isBegun || !isTunwardError(error, 'ERR_DAEMON_UNREACHABLE')) failure = error;
    else older = openApiTail(client, id, past);
  });
  return { read, close: () => over.abort(new Error('nobody reads this log any more')) };

  async function pump(): Promise<void> {
    for await (const { event, data } of client.followLog(id, past, over.signal)) {
      isBegun = true;
      if (event === 'line') lines.push((JSON.parse(data) as { line: string }).line);
    }
    const message = `The daemon at ${formatAddress(client.address)} has ended the log: it is stopping, or was read too slowly`;
    throw new TunwardError('ERR_DAEMON_UNREACHABLE', message, {});
  }

  async function read(): Promise<readonly string[]> {
    if (older) return older.read();
    const fresh = lines;
    lines = [];
    // What came before the end is still to be shown.
    if (fresh.length === 0 && failure !== undefined) throw failure;
    return fresh;
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

interface OpenLog extends OpenFile {
  offset: number;
  /** The line that is not complete yet. */
  rest: Buffer;
}

/** Those behind one of them. What is before it has been begun since that was opened, and has its turn later. */
function* olderThan({ ino }: OpenFile, files: Iterable<OpenFile>): Generator<OpenFile> {
  let isOlder = false;
  for (const log of files) {
    if (isOlder) yield log;
    isOlder ||= log.ino === ino;
  }
}

/** Undefined when there is none, and when it is nothing that the daemon writes to: a link, a FIFO. */
function openLog(file: string): OpenLog | undefined {
  const fd = openToRead(file);
  if (fd === undefined) return undefined;
  const { ino, size } = fs.fstatSync(fd);
  return { fd, ino, size, offset: 0, rest: Buffer.alloc(0) };
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
