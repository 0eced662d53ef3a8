import type { Clock } from '../../time.js';
import type { Bind } from '../spec.js';
import type { Carrier } from './carrier.js';
import type { Meter } from './meter.js';

export interface FrontOptions {
  /** The local addresses. */
  readonly binds: readonly Bind[];
  readonly meter: Meter;
  readonly clock: Clock;
  /** How long a connection waits for a carrier, in milliseconds; 0: it is turned away where there is none. */
  readonly connectWaitMs: number;
  /** So many may wait; who comes after them is turned away at once. Default 1024. */
  readonly queueLimit?: number | undefined;
}

/** Listens for a tunnel, and hands each connection to whatever carries just now. */
export interface Front {
  /**
   * Listens on every address, or on none.
   *
   * @throws the error of the address that cannot be bound (`code: 'EADDRINUSE'` …).
   */
  listen(): Promise<void>;
  /** New connections go there from now on, and those that wait at once; null: new ones wait. */
  use(carrier: Carrier | null): void;
  /** Resolves, with how many were cut, when nothing goes through this carrier any more: those that do after `timeoutMs` are reset. */
  drain(carrier: Carrier, timeoutMs: number): Promise<number>;
  /** Resets what goes through this carrier, at once. */
  cut(carrier: Carrier): void;
  /** Listens no longer; whatever waits or goes through is reset. Idempotent. */
  close(): Promise<void>;
}

export function createFront(_options: FrontOptions): Front {
  throw new Error('not yet');
}
