import { TunwardError } from '../errors.js';
import { usesPortable } from '../proc/backend.js';
import { confirmListeners, readListeners } from '../proc/net.js';
import { openProc } from '../proc/read.js';
import { assertMs, createSlice, growing, systemClock, until } from '../time.js';
import { lookAtPort } from './inspect.js';
import { inTheWay, type PortOptions } from './listeners.js';
import { assertPort, resolveHosts } from './probe.js';

/** The library's {@link import('../door.js').isPortFree}. */
export async function isPortFree(port: number, options: PortOptions = {}): Promise<boolean> {
  assertPort(port);
  if (usesPortable(options)) return (await import('./portable.js')).isFreePortably(port, options);
  const look = await lookAtPort(options.proc ?? openProc(), port, options.host);
  if (look.rows.length > 0) return false;
  if (look.probes.some(({ probe }) => probe === 'forbidden')) {
    const message = `Cannot bind port ${port}: permission denied (ports below 1024 need a privilege)`;
    throw new TunwardError('ERR_ACCESS_DENIED', message, { port });
  }
  return look.probes.every(({ probe }) => probe !== 'busy');
}

export interface WaitForPortOptions extends PortOptions {
  readonly state: 'free' | 'listening';
  /** The bound, in milliseconds. Default 5000. */
  readonly timeoutMs?: number | undefined;
}

/** The library's {@link import('../door.js').waitForPort}. */
export async function waitForPort(port: number, options: WaitForPortOptions): Promise<void> {
  assertPort(port);
  const { state, timeoutMs = 5000, signal, clock = systemClock } = options;
  if (state !== 'free' && state !== 'listening') {
    throw new TypeError(`Cannot wait for state '${state}': expected 'free' or 'listening'`);
  }
  assertMs('timeoutMs', timeoutMs);
  const check = state === 'free' ? () => isPortFree(port, options) : createListenCheck(port, options);
  if (await until(check, { timeoutMs, everyMs: growing(50), signal, clock })) return;
  const message = `Port ${port} is not ${state} after ${timeoutMs} ms`;
  throw new TunwardError('ERR_TIMEOUT', message, { timeoutMs });
}

/** A whole read of the tables takes 90 ms where there are 15,000 connections: it takes no more than a tenth of the wait. */
const READ_SHARE = 10;

function createListenCheck(port: number, options: WaitForPortOptions): () => Promise<boolean> {
  const hosts = options.host === undefined ? undefined : resolveHosts(options.host);
  if (usesPortable(options)) return async () => (await import('./portable.js')).isListenedOnPortably(port, options);
  const { proc = openProc(), signal, clock = systemClock } = options;
  let due = clock.now();
  return async () => {
    let rows = readListeners(proc, port);
    const began = clock.now();
    if (rows.length === 0 && began >= due) {
      rows = await confirmListeners(proc, port, createSlice(signal));
      due = clock.now() + READ_SHARE * (clock.now() - began);
    }
    return (hosts === undefined ? rows : await inTheWay(rows, port, hosts)).length > 0;
  };
}
