import type { Duplex } from 'node:stream';

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

/** One connection to the target. */
export interface Remote extends Duplex {
  /**
   * Of one that hands on what each read has brought at once, instead of emitting 'data': from now on `sink` gets that. It
   * answers false when it has not done with the pieces: nothing more comes, and they stay as they are, until `resume()`.
   */
  pour?(sink: (chunks: readonly Uint8Array[]) => boolean): void;
}

/** Who connected, as the server on the far side may be told. */
export interface ClientAddress {
  readonly address: string;
  readonly port: number;
}
