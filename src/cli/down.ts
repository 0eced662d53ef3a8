import { errorCodes, isTunwardError } from '../errors.js';
import { openProc } from '../proc/read.js';
import { isGone, isSame, readArguments, readStat } from '../proc/stat.js';
import { systemClock, until } from '../time.js';
import { type DaemonOptions, findDaemon } from './address.js';
import type { Client } from './client.js';
import type { Context } from './context.js';
import { formatAddress } from './exchange.js';
import { withProgress } from './progress.js';
import { styled } from './render.js';
import { formatMs } from './units.js';

/** Ends the daemon, and with it its tunnels; resolves when it no longer answers and its process is gone. */
export async function down(options: DaemonOptions & { readonly timeout?: number }, context: Context): Promise<number> {
  const { screen, signal } = context;
  const client = await findDaemon(options, context);
  const began = systemClock.now();
  const { pid } = await client.shutdown();
  const isOver = createEndCheck(client, pid);
  const timeoutMs = options.timeout ?? 20_000;
  const wait = () => until(isOver, { timeoutMs, everyMs: 20, signal });
  const over = await withProgress(() => `the daemon (pid ${pid}) is stopping`, context, wait);
  const tookMs = Math.round(systemClock.now() - began);
  const where = formatAddress(client.address);
  if (screen.json) screen.data({ status: over ? 'stopped' : 'stopping', pid, tookMs });
  else if (over) screen.print(`The daemon at ${where} (pid ${pid}) has stopped after ${formatMs(tookMs)}`);
  if (!over) screen.say(styled('red', `The daemon at ${where} (pid ${pid}) is still stopping after ${timeoutMs} ms`));
  return over ? 0 : errorCodes.ERR_TIMEOUT.exit;
}

/**
 * Answers whether the daemon is over. The socket closes first and the tunnels end after that, so where the daemon is a
 * process of its own (`tunward up`) that can be seen from here, its end is waited for: only then may another start.
 */
function createEndCheck(client: Client, pid: number): () => Promise<boolean> {
  const proc = openProc();
  const started = readStat(proc, pid);
  const isOwn = started !== undefined && readArguments(proc, pid).includes('up');
  return async () => {
    if (await answers(client)) return false;
    const now = readStat(proc, pid);
    return !isOwn || isGone(now) || !isSame(now, started);
  };
}

async function answers(client: Client): Promise<boolean> {
  try {
    await client.health();
    return true;
  } catch (error) {
    if (isTunwardError(error, 'ERR_DAEMON_UNREACHABLE')) return false;
    throw error;
  }
}
