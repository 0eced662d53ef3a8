import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Config } from '../daemon/config.js';
import { errorCodes, isTunwardError } from '../errors.js';
import { systemClock } from '../time.js';
import { createClient } from './client.js';
import type { Context } from './context.js';
import { withProgress } from './progress.js';

/** What the daemon says once, when it answers. */
interface Ready {
  readonly pid: number;
  readonly socket: string;
  readonly url: string | null;
}

const LOG_NAME = 'daemon.log';
const STDERR = 2;

/** The bound on a daemon's start, in milliseconds: it reads, clears away and answers long before its tunnels are up. */
const READY_MS = 60_000;

/**
 * `up -d`: starts the daemon as a process of its own and answers when its API does. What it says goes to
 * `<log_dir>/daemon.log`; when it ends before it answers, that is shown here and its exit code is ours.
 */
export async function detach({ config }: { readonly config?: string }, context: Context): Promise<number> {
  const { env, cwd, screen, signal } = context;
  const { loadConfig } = await import('../daemon/config.js');
  const [{ openForAppend }, { beginWhenFull }] = await Promise.all([
    import('../daemon/files.js'),
    import('../daemon/logfile.js'),
  ]);
  // A wrong configuration is said here, where a person reads it.
  const { file, logDir, log: limits } = await loadConfig({ file: config, env, cwd });
  const logFile = path.join(logDir, LOG_NAME);
  beginWhenFull(logFile, limits);
  const log = openForAppend(logFile);
  const began = fs.fstatSync(log).size;
  const argv = [fileURLToPath(new URL('main.js', import.meta.url)), 'up', '-c', file, '--no-color'];
  const child = spawn(process.execPath, argv, { detached: true, cwd, env, stdio: ['ignore', log, log, 'ipc'] });
  fs.closeSync(log);
  const outcome = await withProgress(
    () => 'starting the daemon',
    context,
    () => firstNews(child, signal),
  );
  if (typeof outcome === 'number') {
    screen.complain(fs.readFileSync(logFile).subarray(began).toString('utf8'));
    return outcome;
  }
  await createClient({ socket: outcome.socket }, { signal }).health();
  if (screen.json) screen.data({ ...outcome, logFile });
  else screen.print(`The daemon is up: pid ${outcome.pid}, API at ${outcome.socket}, log in ${logFile}`);
  return 0;
}

/** Keeps that log within its bounds from within: called after whatever the daemon has said. Never throws. */
export async function boundOwnLog({ logDir, log }: Pick<Config, 'logDir' | 'log'>): Promise<() => void> {
  const { cutWhenFull, isRefusal } = await import('../daemon/logfile.js');
  const file = path.join(logDir, LOG_NAME);
  return () => {
    try {
      cutWhenFull(STDERR, file, log);
    } catch (error) {
      // Nowhere to say it: the log grows on, and is tried again after the next line.
      if (!isRefusal(error) && !isTunwardError(error, 'ERR_ACCESS_DENIED')) throw error;
    }
  };
}

/** That it is ready, or the code that it ended with. */
async function firstNews(child: ChildProcess, signal: AbortSignal): Promise<Ready | number> {
  const done = new AbortController();
  const news = new Promise<Ready | number>((resolve, reject) => {
    child.once('error', reject);
    child.once('message', (message) => resolve(message as unknown as Ready));
    child.once('exit', (code) => resolve(code ?? 1));
  });
  const late = systemClock
    .sleep(READY_MS, AbortSignal.any([signal, done.signal]))
    .then(() => errorCodes.ERR_TIMEOUT.exit);
  try {
    return await Promise.race([news, late]);
  } finally {
    done.abort();
    late.catch(() => undefined); // told through the race, or nobody waits any more
    // A daemon that is not ready by now takes this for an order to end; one that is has hung up already.
    if (child.connected) child.disconnect();
    child.unref();
  }
}

/** The daemon's side of `up -d`: whoever started it waits for one message, and is not needed after that. */
export interface Parent {
  /** It was started by `up -d`, and what it says goes to `<log_dir>/daemon.log`. */
  readonly isThere: boolean;
  /** Aborts with the command's, or when the one who waits for the daemon goes away before it is ready. */
  readonly signal: AbortSignal;
  tellReady(ready: Ready): void;
}

export function watchParent(signal: AbortSignal): Parent {
  const abandoned = new AbortController();
  const onGone = () => abandoned.abort(new Error('whoever started the daemon no longer waits for it'));
  if (process.connected === false) onGone();
  process.once('disconnect', onGone);
  // A start that fails must end the process, whoever still listens.
  process.channel?.unref();
  return {
    isThere: process.connected !== undefined,
    signal: AbortSignal.any([signal, abandoned.signal]),
    tellReady(ready) {
      process.off('disconnect', onGone);
      if (process.connected) process.send?.(ready, () => process.connected && process.disconnect());
    },
  };
}
