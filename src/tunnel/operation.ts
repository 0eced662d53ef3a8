import { TunwardError } from '../errors.js';
import type { KillReport } from '../kill.js';
import { DAEMON_REMEDY } from '../port/verdict.js';
import type { ProcessInfo } from '../proc/stat.js';
import type { Clock } from '../time.js';
import type { State } from './machine.js';
import { describeHolders } from './proof.js';
import type { Takeover, TunnelSpec } from './spec.js';
import type { Phases, TunnelStatus } from './status.js';

/** The answer to a start, a stop or a restart. */
export interface OperationResult {
  readonly id: string;
  readonly name: string;
  readonly state: State;
  readonly tookMs: number;
  readonly phases: Phases;
  readonly kill: KillReport;
  readonly tunnel: TunnelStatus;
}

/** What somebody waits for: to be up (a start, a restart) or to be down. One for each tunnel; many may wait for it. */
export interface Operation {
  readonly kind: 'start' | 'stop';
  readonly answer: Promise<OperationResult>;
  readonly resolve: (result: OperationResult) => void;
  readonly reject: (error: Error) => void;
  /** Whoever is in the way goes, this once. One caller who asks for it is enough. */
  force: boolean;
}

export function createOperation(kind: Operation['kind'], force: boolean): Operation {
  let resolve: Operation['resolve'] = () => undefined;
  let reject: Operation['reject'] = () => undefined;
  const answer = new Promise<OperationResult>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  // Whoever asked may have gone away (a closed connection): an answer nobody takes is no unhandled rejection.
  answer.catch(() => undefined);
  return { kind, answer, resolve, reject, force };
}

/** How far the clean-up before a start goes: `swept` has just been done, for all tunnels at once. */
export type CleanUp = 'swept' | Takeover;

/**
 * The way from one rest (stopped, up, waiting) to the next: why it is walked, how long each part of it took, and whom
 * it cost their lives.
 */
export interface Road {
  /** Somebody asked for it (a boot, a request, a changed spec). Otherwise it is walked by itself: a failure, a retry. */
  readonly asked: boolean;
  readonly cleanUp: CleanUp;
  /** The old chain is gone. Later ones on the same road are part of making the port free. */
  noteStopped(): void;
  noteFree(): void;
  noteKill(kill: KillReport): void;
  report(state: State): Pick<OperationResult, 'tookMs' | 'phases' | 'kill'>;
}

/** What comes by itself cleans up its own alone: two managers must never kill each other's chains in turn. */
export const byItself = { asked: false, cleanUp: 'own' } as const;

export function beginRoad(clock: Clock, { asked, cleanUp }: Pick<Road, 'asked' | 'cleanUp'>): Road {
  const began = clock.now();
  const kills: KillReport[] = [];
  let stoppedAt: number | undefined;
  let freeAt: number | undefined;
  return {
    asked,
    cleanUp,
    noteStopped: () => {
      stoppedAt ??= clock.now();
    },
    noteFree: () => {
      freeAt = clock.now();
    },
    noteKill: (kill) => kills.push(kill),
    report,
  };

  function report(state: State) {
    const now = clock.now();
    const stopped = stoppedAt ?? began;
    const free = freeAt ?? stopped;
    const startMs = state === 'up' ? round(now - free) : 0;
    const phases = { stopMs: round(stopped - began), freeMs: round(free - stopped), startMs };
    return { tookMs: round(now - began), phases, kill: mergeKills(kills) };
  }
}

export interface Failure {
  readonly kind: Operation['kind'];
  readonly spec: TunnelSpec;
  readonly status: TunnelStatus;
  /** undefined: the port was free. */
  readonly held: Held | undefined;
}

/** Who held the port when it was to be bound, though the clean-up had gone that far. */
export interface Held {
  readonly holders: readonly ProcessInfo[];
  /** One of them is a tunward daemon. */
  readonly isDaemons: boolean;
  readonly cleanUp: CleanUp;
}

/** What the callers of an operation are told whose first attempt has failed. */
export function createFailure({ kind, spec, status, held }: Failure): TunwardError {
  const { id, name, lastError, nextRetryAt, remedy } = status;
  const { port } = spec.forward.listen;
  const what = `Tunnel ${name} (${id})`;
  const reason = status.reason ?? 'exited';
  if (reason === 'local_port_busy' && held) {
    const { holders, isDaemons, cleanUp } = held;
    const force = spec.interactive ? 'takeover: any kills it' : 'use --force, or takeover: any, to kill it';
    const isTakeable = holders.length > 0 && cleanUp !== 'any';
    const way = isDaemons ? `; ${DAEMON_REMEDY}` : isTakeable ? `; ${force}` : '';
    const message = `${what} cannot start: ${describeHolders(port, held)}${way}`;
    return new TunwardError('ERR_PORT_HELD', message, { port, holders, nextRetryAt });
  }
  const outcome = kind === 'start' ? 'could not be started' : 'could not be stopped';
  const message = `${what} ${outcome}: ${reason}${lastError ? ` (${lastError})` : ''}${remedy ? `; ${remedy}` : ''}`;
  return new TunwardError('ERR_START_FAILED', message, { id, reason, lastError, nextRetryAt, remedy });
}

function mergeKills(kills: readonly KillReport[]): KillReport {
  return {
    killed: kills.flatMap(({ killed }) => killed),
    left: kills.flatMap(({ left }) => left),
    survivors: kills.flatMap(({ survivors }) => survivors),
    tookMs: round(kills.reduce((sum, { tookMs }) => sum + tookMs, 0)),
  };
}

function round(ms: number): number {
  return Math.round(ms * 100) / 100;
}
