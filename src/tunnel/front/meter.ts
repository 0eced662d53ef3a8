/** What has passed through this process for one tunnel, over all of its lives. `null` figures do not exist: all count from 0. */
export interface Traffic {
  /** Connections that were accepted. */
  readonly connections: number;
  /** Those of them that go through now. */
  readonly open: number;
  /** Those that wait for a link now. */
  readonly queued: number;
  /** Those that were turned away: too many waited, it took too long, the link could not make the connection, or no descriptor was left. */
  readonly refused: number;
  /** Bytes from the target to clients. */
  readonly bytesIn: number;
  /** Bytes from clients to the target. */
  readonly bytesOut: number;
}

/** Counts for one tunnel. Called for each piece of data: each call costs nanoseconds. */
export interface Meter {
  read(): Traffic;
  /** A connection was accepted, and waits for a link. */
  accepted(): void;
  /** One that waited goes through now. */
  opened(): void;
  /** One that waited was turned away, or left by itself. */
  refused(): void;
  left(): void;
  /** One that went through is over. */
  closed(): void;
  countIn(bytes: number): void;
  countOut(bytes: number): void;
}

export function createMeter(): Meter {
  let connections = 0;
  let open = 0;
  let queued = 0;
  let refused = 0;
  let bytesIn = 0;
  let bytesOut = 0;
  return {
    read: () => ({ connections, open, queued, refused, bytesIn, bytesOut }),
    accepted() {
      connections++;
      queued++;
    },
    opened() {
      queued--;
      open++;
    },
    refused() {
      queued--;
      refused++;
    },
    left() {
      queued--;
    },
    closed() {
      open--;
    },
    countIn(bytes) {
      bytesIn += bytes;
    },
    countOut(bytes) {
      bytesOut += bytes;
    },
  };
}
