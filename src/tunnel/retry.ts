import type { Reason } from './engine.js';
import type { BackoffOptions } from './spec.js';

/**
 * When it is tried again, by the kind of trouble: a network comes back within seconds, a login that was refused by
 * nobody but a person, and too many of those lock the account; a server lets go of a remote port when it has noticed
 * that its former client is gone.
 */
export type Schedule = 'network' | 'login' | 'remote_port';

export function scheduleOf(reason: Reason | null): Schedule {
  if (reason === 'auth_failed' || reason === 'needs_auth') return 'login';
  return reason === 'remote_port_busy' ? 'remote_port' : 'network';
}

/** Is it trouble with the connection as such, so that it is over for all who share that one when it is there again? */
export function isOfConnection(reason: Reason | null): boolean {
  const ofConnection: readonly (Reason | null)[] = [
    'unreachable',
    'refused',
    'timeout',
    'exited',
    'auth_failed',
    'needs_auth',
  ];
  return ofConnection.includes(reason);
}

/** What the wait before the next attempt depends on. */
export interface Failures {
  /** In all, since the last success or request; 0 is an attempt that was asked for. */
  readonly attempt: number;
  /** In a row by this reason's schedule. */
  readonly streak: number;
  readonly reason: Reason | null;
}

const MINUTE_MS = 60_000;
const LOGIN_MS = [1, 5, 15, 30].map((minutes) => minutes * MINUTE_MS);
const REMOTE_PORT_MS = 5000;

/**
 * The wait in milliseconds; `random` answers 0 to 1. Network trouble has full jitter: anything up to a cap that doubles
 * from `minMs` to `maxMs`. The others have steps: 1, 5, 15 minutes and then 30 for a login, 5 s for a remote port, and up
 * to a tenth more, so that the tunnels of one account or server do not all come at once.
 *
 * @example
 * retryDelay({ attempt: 2, streak: 2, reason: 'auth_failed' }, backoff, () => 0); // 300_000
 */
export function retryDelay(failures: Failures, { minMs, maxMs }: BackoffOptions, random: () => number): number {
  const { attempt, streak, reason } = failures;
  if (attempt === 0) return 0;
  const step = Math.max(1, streak) - 1;
  const stepped = (ms: number) => Math.round(ms * (1 + random() / 10));
  switch (scheduleOf(reason)) {
    case 'login':
      return stepped(LOGIN_MS[Math.min(step, LOGIN_MS.length - 1)] ?? 0);
    case 'remote_port':
      return stepped(REMOTE_PORT_MS);
    case 'network':
      return Math.round(random() * Math.min(maxMs, minMs * 2 ** Math.min(step, 30)));
  }
}
