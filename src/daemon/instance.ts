import { createHash, randomBytes } from 'node:crypto';
import net from 'node:net';
import path from 'node:path';
import { isErrno, TunwardError } from '../errors.js';
import { findLockHolder, LOCK_PREFIX } from '../port/daemons.js';
import { openProc, type Proc } from '../proc/read.js';
import { systemClock } from '../time.js';
import { makePrivateFolder, moveAside, readOwnFile, replaceFile } from './files.js';

export interface Instance {
  /** 128 random bits in hexadecimal: the value of TUNWARD_INSTANCE, the same at every start from this state folder. */
  readonly id: string;
  /** What was wrong with the file that was there, if it was replaced. */
  readonly replaced: string | undefined;
}

/**
 * Reads `<state_dir>/instance`, or makes it. What is there and is not 32 hexadecimal digits in a plain file of ours
 * (cut off, forged, a link, a FIFO) is moved aside and replaced: an empty or foreign marker could match a stranger.
 */
export function readInstance(stateDir: string): Instance {
  makePrivateFolder(stateDir);
  const file = path.join(stateDir, 'instance');
  const text = readOwnFile(file);
  if (text !== undefined && /^[0-9a-f]{32}\n?$/.test(text)) return { id: text.trim(), replaced: undefined };
  const aside = moveAside(file);
  const replaced =
    aside && `${file} did not hold 32 hexadecimal digits in a plain file of this user: kept as ${aside}, and made anew`;
  const id = randomBytes(16).toString('hex');
  replaceFile(file, `${id}\n`);
  return { id, replaced };
}

/** The lock that a daemon holds while it lives: an abstract socket, gone with the process however that ends. */
export interface Lock {
  release(): void;
}

/**
 * Takes the lock of an instance. It cannot be raced, as "connect, unlink, listen" on a path can be, and leaves nothing
 * behind on SIGKILL. Its name is a digest: who may not read the instance cannot take its place.
 *
 * @throws TunwardError ERR_DAEMON_RUNNING when another daemon has it.
 */
export function takeLock(instance: string, proc: Proc = openProc()): Promise<Lock> {
  const explain = async (cause: Error) => {
    // Whoever has removed its socket can neither use it nor end it by the command.
    const pid = await findLockHolder(proc, lockName(instance).slice(1));
    const [who, end] =
      pid === undefined ? ['', ''] : [` (pid ${pid})`, `, or by 'kill ${pid}' where its socket is gone`];
    const message = `Another tunward daemon${who} runs on this state folder: use it (tunward ls), or end it (tunward down${end})`;
    return new TunwardError('ERR_DAEMON_RUNNING', message, {}, { cause });
  };
  return new Promise((resolve, reject) => {
    const server = net.createServer((caller) => caller.destroy());
    server.unref();
    server.once('error', (cause) => {
      if (!isErrno(cause, 'EADDRINUSE')) return reject(cause);
      explain(cause).then(reject, reject);
    });
    server.listen({ path: lockName(instance) }, () => resolve({ release: () => server.close() }));
  });
}

/** Is there a daemon of that instance now? Bounded, see {@link isAnswered}. */
export function isLiving(instance: string): Promise<boolean> {
  return isAnswered(lockName(instance));
}

const ANSWER_MS = 500;

/**
 * Does somebody listen at a unix socket? Only "refused" and "not there" say no: a daemon whose backlog is full gives
 * EAGAIN, one that does not answer in time may be stopped, and what belongs to either must not be taken for abandoned.
 */
export async function isAnswered(path: string): Promise<boolean> {
  const done = new AbortController();
  const caller = net.connect({ path });
  const outcome = new Promise<boolean>((resolve) => {
    caller.once('connect', () => resolve(true));
    caller.once('error', (error) => resolve(!isErrno(error, 'ECONNREFUSED', 'ENOENT')));
  });
  try {
    return await Promise.race([outcome, systemClock.sleep(ANSWER_MS, done.signal).then(() => true)]);
  } finally {
    done.abort();
    caller.destroy();
  }
}

function lockName(instance: string): string {
  return `\0${LOCK_PREFIX}${createHash('sha256').update(instance).digest('hex').slice(0, 32)}`;
}
