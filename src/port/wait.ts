import { TunwardError } from '../errors.js';
import { usesPortable } from '../proc/backend.js';
import { openProc } from '../proc/read.js';
import { assertMs, growing, systemClock, until } from '../time.js';
import { lookAtPort } from './inspect.js';
import { listenersInTheWay, type PortOptions } from './listeners.js';
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
  const proc = options.proc ?? openProc();
  const hosts = options.host === undefined ? undefined : resolveHosts(options.host);
  const check =
    state === 'free'
      ? () => isPortFree(port, options)
      : async () =>
          usesPortable(options)
            ? (await import('./portable.js')).isListenedOnPortably(port, options)
            : (await listenersInTheWay(proc, port, hosts)).length > 0;
  if (await until(check, { timeoutMs, everyMs: growing(50), signal, clock })) return;
  const message = `Port ${port} is not ${state} after ${timeoutMs} ms`;
  throw new TunwardError('ERR_TIMEOUT', message, { timeoutMs });
}
