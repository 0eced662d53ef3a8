import { TunwardError } from '../../errors.js';
import type { Clock } from '../../time.js';
import type { Asking } from '../engine.js';
import type { Patience, Person, Terminal } from './person.js';

/** Somebody's presence at one start: who, and for how long it makes sense to wait for them. */
export interface Attendance {
  readonly asking: Asking;
  /** For how long from now on it may take in all, in milliseconds. */
  readonly leftMs: () => number;
  /** Somebody is to type, and has not for too long. */
  readonly isIdle: () => boolean;
  /** Why it is over, where that is the person's doing; undefined: it is not. */
  readonly failure: () => TunwardError | undefined;
}

export interface AttendanceOptions {
  readonly person: Person;
  readonly patience: Patience;
  readonly onOpen: Asking['onOpen'];
  readonly onGivenUp: Asking['onGivenUp'];
  readonly clock: Clock;
}

/** Begins now. */
export function createAttendance({ person, patience, clock, ...hears }: AttendanceOptions): Attendance {
  const { totalMs, idleMs } = patience;
  const began = clock.now();
  let touched = began;
  const touch = () => {
    touched = clock.now();
  };
  const leftMs = () => totalMs - (clock.now() - began);
  const isIdle = () => 'terminal' in person && clock.now() - touched >= idleMs;
  return { asking: { person: watch(person, touch), idleMs, ...hears }, leftMs, isIdle, failure };

  function failure(): TunwardError | undefined {
    if (isIdle()) return tooLong(`nothing was typed for ${idleMs / 1000} s`, idleMs);
    return leftMs() <= 0 ? tooLong(`${totalMs / 1000} s were not enough`, totalMs) : undefined;
  }
}

function tooLong(why: string, timeoutMs: number): TunwardError {
  return new TunwardError('ERR_TIMEOUT', `The login was given up: ${why}`, { timeoutMs });
}

/** The same person, whose every key is noticed; what the key is, is not. */
function watch(person: Person, touch: () => void): Person {
  if (!('terminal' in person)) return person;
  const { terminal } = person;
  const listen: Terminal['listen'] = ({ type, resize }) =>
    terminal.listen({
      type: (bytes) => {
        touch();
        return type(bytes);
      },
      resize,
    });
  return {
    terminal: {
      // The window may have changed when they are asked.
      get columns() {
        return terminal.columns;
      },
      get rows() {
        return terminal.rows;
      },
      show: (bytes) => terminal.show(bytes),
      listen,
    },
  };
}
