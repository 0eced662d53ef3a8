import type { Duplex } from 'node:stream';
import type { Pourable } from './pour.js';

/** Brings connections to the target of a tunnel: what a front hands them to. One carrier is one life of a link. */
export interface Carrier {
  /**
   * Makes one connection to the target. Its two directions end one by one (`allowHalfOpen`), it holds back what is not read,
   * and it is destroyed, with or without an error, when the link goes away. It comes paused.
   *
   * @throws TunwardError ERR_START_FAILED `{reason: 'target_refused'}` when the far end says that the target cannot be
   * reached, and what else the link has to say; the signal's reason.
   */
  open(client: ClientAddress, signal: AbortSignal): Promise<Remote>;
  /** Has the target accepted when `open` resolves? Otherwise that is only known from what comes after. */
  readonly isConfirming: boolean;
  /**
   * Is the link there? Asked when a connection ends: an end that is not the target's, but the link's, must not look to a
   * client as if all had come through. Costs microseconds.
   */
  isAlive(): boolean;
}

/**
 * One connection to the target. Its `writableHighWaterMark` is 1: when 'drain' comes, or nothing is left of what was written
 * (`writableLength`), it does not need that any more. One that pours brings no 'data'.
 */
export interface Remote extends Duplex, Partial<Pourable> {}

/** Who connected, as the server on the far side may be told. */
export interface ClientAddress {
  readonly address: string;
  readonly port: number;
}
