import type { KillReport } from '../kill.js';
import type { ProcessRef } from '../proc/stat.js';
import type { Person } from './asking/person.js';
import type { Carrier } from './front/carrier.js';
import type { Meter } from './front/meter.js';
import type { EngineName, TunnelSpec } from './spec.js';

/** Why a tunnel is not up. */
export const reasons = [
  'local_port_busy',
  'remote_port_busy',
  'auth_failed',
  'needs_auth',
  'host_key_changed',
  'host_key_unknown',
  'unreachable',
  'refused',
  'timeout',
  'frozen',
  'target_refused',
  'exited',
  'killed',
  'stuck',
  'bad_spec',
] as const;
export type Reason = (typeof reasons)[number];

/** How a link ended. `lastError` is the last line it said that explains it. */
export interface LinkExit {
  readonly code: number | null;
  readonly signal: string | null;
  readonly reason: Reason;
  readonly lastError: string | null;
  /** The server has said that it lets nobody in before that, in milliseconds. */
  readonly retryAfterMs?: number;
}

/** Is the link carrying the forward now: `ready`, not yet or no longer (`waiting`), or stopped by a signal (`frozen`). */
export type LinkState = 'ready' | 'waiting' | 'frozen';

/**
 * One life of one tunnel: from a start to the exit. The supervisor sees nothing else of an engine, so that a chain of
 * processes and a client inside this process look alike to it.
 */
export interface Link {
  /** The root of its processes; undefined where the engine has none. */
  readonly root: ProcessRef | undefined;
  /** Resolves once, when it is over. Never rejects. */
  readonly exited: Promise<LinkExit>;
  /** Looks now; cheap enough to be asked every few milliseconds. */
  check(): Promise<LinkState>;
  /** Of one that knows it by itself: resolves when it is `ready` for the first time, so that it need not be looked at to see. Never rejects. */
  readonly ready?: Promise<void>;
  /** What it said last, for the sentence that explains a timeout. */
  lastLine(): string | null;
  /** The port that the server has chosen for a remote forward of port 0. */
  allocatedPort(): number | undefined;
  /** Connections through it that the target refused, and what was said of the last one. */
  refusals(): { readonly count: number; readonly last: string | null };
  /** Makes the connections to the target: of one behind a front, and wherever that is done in this process. Of use while it is `ready`. */
  readonly carrier?: Carrier;
  /** It is up: whoever has answered is let go, and nothing that they did is kept. Idempotent. */
  release?(): void;
  /** Ends it and all that it started; resolves when nothing of it is left, or with the survivors. Bounded. Idempotent. */
  stop(signal?: AbortSignal): Promise<KillReport>;
}

/** Somebody who is there for the time of a login. */
export interface Asking {
  readonly person: Person;
  /** How long one answer may take, in milliseconds. */
  readonly idleMs: number;
  /** ssh is on a terminal (`pty`), or asks through SSH_ASKPASS. */
  readonly onOpen: (via: 'pty' | 'askpass') => void;
  /** They will not answer any more, and why: what a prompt has thrown, say. Ends the attempt. */
  readonly onGivenUp: (why: unknown) => void;
}

export interface LinkOptions {
  /** A line of output, without its line end and without control characters. */
  onOutput(line: string): void;
  /** Ends a start in progress: rejects with the signal's reason, and leaves nothing behind. */
  signal: AbortSignal;
  /** Who answers what ssh asks; not given: nobody, and ssh does not ask. */
  asking?: Asking | undefined;
  /**
   * The local addresses are listened on by somebody else, who wants a {@link Link.carrier}: the link itself listens on none of
   * them. Of a local forward only.
   */
  isBehindFront?: boolean | undefined;
  /** Counts what passes through this process; not given: nobody wants to know. */
  meter?: Meter | undefined;
}

/** What starts links. `start` rejects with ERR_SPAWN_FAILED when the program cannot be run at all. */
export interface Engine {
  readonly name: EngineName;
  start(spec: TunnelSpec, options: LinkOptions): Promise<Link>;
}
