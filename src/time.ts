import { setTimeout as delay, setImmediate as immediate } from 'node:timers/promises';

/** The clocks tunward reads and the only way it waits. Tests hand in a fake one. */
export interface Clock {
  /** Monotonic milliseconds: every bound and every duration. A change of the wall clock does not move it. */
  now(): number;
  /** Milliseconds since the epoch: what people read. */
  wallTime(): number;
  /** Resolves after `ms`, 0: when the event loop has had a turn; rejects with the signal's reason when it aborts first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  wallTime: () => Date.now(),
  async sleep(ms, signal) {
    signal?.throwIfAborted();
    try {
      const options = signal ? { signal } : {};
      // A timer of 0 ms is one of 1 ms.
      await (ms === 0 ? immediate(undefined, options) : delay(ms, undefined, options));
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    }
  },
};

export interface UntilOptions {
  /** The whole wait's bound, in milliseconds; below 0 is 0. */
  timeoutMs: number;
  /** The pause between two checks, in milliseconds: a number, or a function of the check's number (from 1). */
  everyMs?: number | ((check: number) => number);
  signal?: AbortSignal | undefined;
  clock?: Clock;
}

/**
 * Asks `check` until it answers something truthy and resolves to that; to `undefined` when the time is over.
 * `check` is asked at least once and once more at the deadline. Rejects with the signal's reason, and with a RangeError
 * for a bound that is no number: that would be no bound.
 *
 * @example
 * const line = await until(() => log.find((entry) => entry.includes('ready')), { timeoutMs: 5000 });
 */
export async function until<T>(
  check: () => T | Promise<T>,
  { timeoutMs, everyMs = 5, signal, clock = systemClock }: UntilOptions,
): Promise<Exclude<T, false | null | undefined | 0 | ''> | undefined> {
  if (Number.isNaN(timeoutMs)) throw new RangeError('Cannot wait for NaN ms: expected a number of milliseconds');
  const deadline = clock.now() + timeoutMs;
  for (let number = 1; ; number++) {
    signal?.throwIfAborted();
    const late = clock.now() >= deadline;
    const answer = await check();
    if (answer) return answer as Exclude<T, false | null | undefined | 0 | ''>;
    if (late) return undefined;
    const pause = typeof everyMs === 'number' ? everyMs : everyMs(number);
    await clock.sleep(Math.max(0, Math.min(pause, deadline - clock.now())), signal);
  }
}

/** Short pauses at first, longer ones later: 1, 1, 1, 2, 3, 5, 7 … up to `maxMs`. For what is mostly over at once. */
export function growing(maxMs: number): (check: number) => number {
  return (check) => Math.min(maxMs, Math.max(1, Math.floor(1.5 ** (check - 2))));
}

/** A duration that was handed in from outside: every wait has a bound, and NaN is none. */
export function assertMs(name: string, ms: number | undefined): void {
  if (ms === undefined) return;
  if (typeof ms !== 'number') throw new TypeError(`Cannot use a ${typeof ms} as ${name}: expected milliseconds`);
  if (!(ms >= 0)) throw new RangeError(`Cannot use ${ms} as ${name}: expected milliseconds, 0 or more`);
}

/**
 * Gives the event loop a turn whenever 4 ms of work have gone by, so that a walk over thousands of processes never
 * blocks a daemon: one may begin in the turn in which another ends, and both together stay at 8 ms. Call `await slice()`
 * between two units of work: it costs a clock reading while time is left.
 */
export function createSlice(signal?: AbortSignal, { sliceMs = 4, clock = systemClock } = {}): Slice {
  let began = clock.now();
  return () => {
    signal?.throwIfAborted();
    if (clock.now() - began < sliceMs) return undefined;
    return clock.sleep(0, signal).then(() => {
      began = clock.now();
    });
  };
}

export type Slice = () => Promise<void> | undefined;

/** A duration in seconds as people say it, two units at most: `3s`, `2m 5s`, `3h 12m`, `5d 3h`. `?` when it is not known. */
export function formatAge(seconds: number | null): string {
  if (seconds === null || Number.isNaN(seconds)) return '?';
  const whole = Math.max(0, Math.floor(seconds));
  const parts: [number, string][] = [
    [Math.floor(whole / 86_400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'm'],
    [whole % 60, 's'],
  ];
  const first = parts.findIndex(([value]) => value > 0);
  if (first === -1) return '0s';
  return parts
    .slice(first, first + 2)
    .filter(([value]) => value > 0)
    .map(([value, unit]) => `${value}${unit}`)
    .join(' ');
}
