import { isErrno } from '../errors.js';
import { remedyOf } from './remedy.js';
import type { StatusParts, TunnelStatus } from './status.js';

/** The numbers of ENFILE and EMFILE. */
const noDescriptors: readonly number[] = [23, 24];

/**
 * There was no descriptor left to look with, in this process or on this host. It passes, and says nothing of what was to
 * be looked at: a tunnel that carries bytes is none the worse for it.
 */
export function isBlindness(error: unknown): boolean {
  if (isErrno(error, 'EMFILE', 'ENFILE')) return true;
  // os.networkInterfaces() has a number for it and no name.
  return isErrno(error, 'ERR_SYSTEM_ERROR') && noDescriptors.includes(Math.abs(error.errno ?? 0));
}

/** A status as far as it is known without looking; what it is called and where it listens is as it was `before`. */
export function describeUnseen(
  before: TunnelStatus,
  { spec, condition, health, lastError, restarts, ...times }: Omit<StatusParts, 'chain' | 'root'>,
): TunnelStatus {
  const { state, desired, attempt } = condition;
  const reason = condition.reason ?? health.reason;
  const nextRetryAt = times.nextRetryAt === null ? null : new Date(times.nextRetryAt).toISOString();
  return {
    ...before,
    ...{ state, desired, attempt, reason, lastError, restarts, nextRetryAt },
    ...{ health: health.state, healthReason: health.detail, remedy: remedyOf(reason, { spec, lastError }) },
    since: new Date(times.since).toISOString(),
    ...{ pid: null, chain: [], usage: null },
  };
}
