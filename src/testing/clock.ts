import { type Clock, systemClock } from '../time.js';

/** A clock that stands still until a test moves it. */
export interface FakeClock extends Clock {
  /** Lets time go by: whoever sleeps until then wakes, in order, and acts before the next one does. */
  advance(ms: number): Promise<void>;
  /** Lets everything happen that needs no time: all that is due, and what it sets off, as far as it needs no device. */
  settle(): Promise<void>;
  /** Moves the wall clock alone, as a person or NTP does. */
  shiftWall(ms: number): void;
  /** How many sleep. */
  sleepers(): number;
}

/** The wall clock's first moment. */
export const epoch = Date.UTC(2026, 0, 16, 11, 0, 30);

interface Sleeper {
  readonly at: number;
  readonly wake: () => void;
}

/**
 * A clock for whatever takes one (`createSupervisor({clock})`, `waitForPort(port, {clock})`, your own code). `now()` begins at
 * 0, `wallTime()` on 2026-01-16 at 11:00:30 UTC. It moves what waits by it and nothing else: a process or a socket takes the
 * time that it takes.
 *
 * @example
 * const clock = createFakeClock();
 * const slept = clock.sleep(60_000);
 * await clock.advance(60_000); // a minute, in no time
 * await slept;
 */
export function createFakeClock(): FakeClock {
  let now = 0;
  let shift = 0;
  let sleeping: Sleeper[] = [];
  return {
    now: () => now,
    wallTime: () => epoch + now + shift,
    sleep,
    advance,
    settle,
    shiftWall: (ms) => {
      shift += ms;
    },
    sleepers: () => sleeping.length,
  };

  async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (ms <= 0) return;
    await new Promise<void>((resolve, reject) => {
      const leave = () => {
        sleeping = sleeping.filter((other) => other !== sleeper);
        signal?.removeEventListener('abort', abort);
      };
      const abort = () => {
        leave();
        reject(signal?.reason);
      };
      const wake = () => {
        leave();
        resolve();
      };
      const sleeper = { at: now + ms, wake };
      sleeping.push(sleeper);
      signal?.addEventListener('abort', abort);
    });
  }

  async function advance(ms: number): Promise<void> {
    await settle();
    const until = now + ms;
    for (let next = nextBefore(until); next; next = nextBefore(until)) {
      now = next.at;
      next.wake();
      await settle();
    }
    now = until;
    await settle();
  }

  function nextBefore(until: number): Sleeper | undefined {
    return sleeping.filter(({ at }) => at <= until).sort((one, other) => one.at - other.at)[0];
  }
}

/** A turn of the event loop: every microtask of this one is done. */
async function settle(): Promise<void> {
  await systemClock.sleep(0);
}
