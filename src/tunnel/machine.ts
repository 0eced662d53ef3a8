import type { Reason } from './engine.js';
import { scheduleOf } from './retry.js';

export type State = 'stopped' | 'starting' | 'up' | 'backoff' | 'stopping' | 'fatal';
export type Desired = 'up' | 'down';

/** What a tunnel is, and what it is wanted to be. Nothing else is state. */
export interface Condition {
  readonly state: State;
  readonly desired: Desired;
  /** Failures since the last success or request. */
  readonly attempt: number;
  /** Those of them in a row that are tried again by the same schedule. */
  readonly streak: number;
  /** Why it is not up. */
  readonly reason: Reason | null;
}

export type EventType =
  | 'start'
  | 'stop'
  | 'restart'
  | 'blocked'
  | 'ready'
  | 'lost'
  | 'exited'
  | 'timeout'
  | 'dead'
  | 'respec';

export interface MachineEvent {
  readonly type: EventType;
  /** With blocked, lost, exited, timeout and dead: why. With stop: why it is down then, when nobody has wished it. */
  readonly reason?: Reason;
  /** With exited: this tunnel is not to be tried again for that reason. */
  readonly isFinal?: boolean;
}

/**
 * What has to be done now. `launch` clean up, prove, start; `teardown` kill and prove; `wait` retry later; `recheck` same
 * link; `settle` look after one that is up; `renew` the same, and make another link beside it.
 */
export type Effect = 'launch' | 'teardown' | 'wait' | 'recheck' | 'settle' | 'renew';

export interface Transition {
  readonly next: Condition;
  readonly effect?: Effect;
}

/** Only what no retry can mend. */
const fatalReasons: ReadonlySet<Reason> = new Set<Reason>(['host_key_changed', 'bad_spec']);

export const initialCondition: Condition = { state: 'stopped', desired: 'down', attempt: 0, streak: 0, reason: null };

/**
 * The next condition and what to do: pure. Every cell is a decision; `ignore` is one too.
 *
 * @example
 * transition(initialCondition, { type: 'start' });
 * // { next: { state: 'starting', desired: 'up', attempt: 0, reason: null }, effect: 'launch' }
 */
export function transition(now: Condition, event: MachineEvent): Transition {
  return table[now.state][event.type](now, event);
}

/** What is known of a tunnel that needs a person at each start. */
export interface Attendance {
  /** Somebody is there for the start that is under way. */
  readonly isThere: boolean;
  /** It has been up since somebody was last there. */
  readonly wasUp: boolean;
}

/**
 * The same of one that needs a person at each start: where another would wait for its next try, or start by itself, it stops
 * and says why. What survived its stop is still gone after, but not to start it then.
 */
export function attendedTransition(now: Condition, event: MachineEvent, { isThere, wasUp }: Attendance): Transition {
  const { next, effect } = transition(now, event);
  const isStuck = next.reason === 'stuck';
  const waitsForPerson = { ...initialCondition, reason: 'needs_auth' } as const;
  if (effect === 'launch' && !isThere) return { next: waitsForPerson };
  if (next.state === 'fatal' || (next.state === 'backoff' && !isStuck)) {
    return { next: { ...waitsForPerson, reason: (wasUp ? null : next.reason) ?? 'needs_auth' } };
  }
  if (next.state === 'stopped' && now.state !== 'stopped') {
    return { next: { ...next, reason: now.reason === 'stuck' ? 'needs_auth' : now.reason } };
  }
  return { next: isStuck ? { ...next, desired: 'down' } : next, ...(effect ? { effect } : {}) };
}

/**
 * The same of one whose clients are not to notice: while it is up, a restart or a changed spec makes another link beside the
 * one that carries it. `ready` is that one's. A stop also ends what goes on over links that were replaced, so it is never
 * done at once.
 */
export function seamlessTransition(now: Condition, event: MachineEvent): Transition {
  if (now.state === 'up' && (event.type === 'restart' || event.type === 'respec')) {
    return { next: { ...now, ...anew }, effect: 'renew' };
  }
  if (now.state === 'up' && event.type === 'ready') return { next: now, effect: 'settle' };
  if ((now.state === 'backoff' || now.state === 'fatal') && event.type === 'stop') return takeDown(now, event);
  return transition(now, event);
}

type Cell = (now: Condition, event: MachineEvent) => Transition;

const ignore: Cell = (now) => ({ next: now });

/** Counted from nothing. */
const anew = { attempt: 0, streak: 0, reason: null } as const;

/** Wanted up, as somebody asked: at once, and counted from nothing. */
const launch: Cell = () => ({
  next: { ...anew, state: 'starting', desired: 'up' },
  effect: 'launch',
});

/** The retry that a wait was for: of a start, or of a stop that something survived. */
const retry: Cell = (now) =>
  now.desired === 'up'
    ? { next: { ...now, state: 'starting' }, effect: 'launch' }
    : { next: { ...now, state: 'stopping' }, effect: 'teardown' };

/** Down, and up again at once: a restart, a changed spec. */
const cycle: Cell = () => ({
  next: { ...anew, state: 'stopping', desired: 'up' },
  effect: 'teardown',
});

const takeDown: Cell = (now, { reason = null }) => ({
  next: { ...now, state: 'stopping', desired: 'down', reason },
  effect: 'teardown',
});

const giveUpWaiting: Cell = () => ({ next: initialCondition });

/** What survived is still there, so a stop that is asked for again tries again: "stopped" would be untrue. */
const stopWaiting: Cell = (now, event) => (now.reason === 'stuck' ? takeDown : giveUpWaiting)(now, event);

/** A changed spec tries its luck at once, but does not start what somebody stopped. */
const relaunch: Cell = (now, event) => (now.desired === 'up' ? launch : ignore)(now, event);

/** One failure more. */
function count(now: Condition, reason: Reason): Condition {
  const isSameTrouble = scheduleOf(reason) === scheduleOf(now.reason);
  return { ...now, attempt: now.attempt + 1, streak: isSameTrouble ? now.streak + 1 : 1, reason };
}

/** It failed: wait, unless no retry can mend it. */
const fail: Cell = (now, { reason = 'exited', isFinal = fatalReasons.has(reason) }) =>
  isFinal
    ? { next: { ...count(now, reason), state: 'fatal' } }
    : { next: { ...count(now, reason), state: 'backoff' }, effect: 'wait' };

/** It is there and does not do what it should: it is taken down, and another one follows by and by. */
const replace: Cell = (now, { reason = 'timeout' }) => ({
  next: { ...count(now, reason), state: 'stopping' },
  effect: 'teardown',
});

const table: Readonly<Record<State, Readonly<Record<EventType, Cell>>>> = {
  stopped: {
    start: launch,
    stop: ignore,
    restart: launch,
    blocked: ignore,
    ready: ignore,
    lost: ignore,
    exited: ignore,
    timeout: ignore,
    dead: ignore,
    respec: ignore,
  },
  starting: {
    start: (now) => ({ next: { ...now, desired: 'up' } }),
    stop: takeDown,
    restart: cycle,
    blocked: (now, event) => fail(now, { ...event, reason: event.reason ?? 'local_port_busy' }),
    ready: (now) => ({
      // The network's failures go on counting until it has proved stable; another trouble is over with a login.
      next: { ...now, state: 'up', streak: scheduleOf(now.reason) === 'network' ? now.streak : 0, reason: null },
      effect: 'settle',
    }),
    lost: ignore,
    exited: fail,
    // Not ready in time: take it down first; it is tried again when it is gone.
    timeout: replace,
    dead: ignore,
    respec: cycle,
  },
  up: {
    start: ignore,
    stop: takeDown,
    restart: cycle,
    blocked: ignore,
    ready: ignore,
    // The same link may come back (a frozen ssh that is continued): it has until the start's deadline.
    lost: (now, { reason = 'frozen' }) => ({ next: { ...now, state: 'starting', reason }, effect: 'recheck' }),
    exited: fail,
    timeout: (now) => ({ next: { ...now, attempt: 0, streak: 0 } }),
    // The chain is there and carries nothing.
    dead: replace,
    respec: cycle,
  },
  backoff: {
    start: launch,
    stop: stopWaiting,
    restart: launch,
    blocked: ignore,
    ready: ignore,
    lost: ignore,
    exited: ignore,
    timeout: retry,
    dead: ignore,
    respec: relaunch,
  },
  stopping: {
    start: (now) => ({ next: { ...now, desired: 'up', attempt: 0, streak: 0 } }),
    stop: (now) => ({ next: { ...now, desired: 'down', reason: null } }),
    restart: (now) => ({ next: { ...now, ...anew, desired: 'up' } }),
    blocked: ignore,
    ready: ignore,
    lost: ignore,
    // All gone and proved free. Attempt 0 is a restart that somebody waits for: no pause, and no state in between.
    exited: (now) =>
      now.desired === 'down'
        ? giveUpWaiting(now, { type: 'exited' })
        : now.attempt === 0
          ? launch(now, { type: 'start' })
          : { next: { ...now, state: 'backoff' }, effect: 'wait' },
    // Something survived. What was wanted stays wanted; the retry cleans up again first.
    timeout: (now, { reason = 'stuck' }) => ({
      next: { ...count(now, reason), state: 'backoff' },
      effect: 'wait',
    }),
    dead: ignore,
    respec: ignore,
  },
  fatal: {
    start: launch,
    stop: giveUpWaiting,
    restart: launch,
    blocked: ignore,
    ready: ignore,
    lost: ignore,
    exited: ignore,
    timeout: ignore,
    dead: ignore,
    respec: launch,
  },
};
