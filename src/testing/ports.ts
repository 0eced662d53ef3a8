import { randomInt } from 'node:crypto';
import net from 'node:net';
import { isErrno, TunwardError } from '../errors.js';
import { known, openProc } from '../proc/read.js';

/** A TCP port that nobody else can take. */
export interface ReservedPort {
  readonly port: number;
  /** Lets go of the port, which can be bound as soon as this has resolved. Other reservations still leave it alone. */
  release(): Promise<void>;
  /** Releases it, and other reservations may have it. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Reserves a free TCP port, on every address of this host and both families, until it is released: a socket of this
 * process listens on it, so nothing else can be bound there. It is below the range from which the kernel takes the ports
 * of outgoing connections and of `listen(0)`, so none of those gets it after the release either; and as long as this
 * process lives (or until the disposal), no other `reservePort()` on this host does, in whatever process.
 *
 * What remains is somebody who binds this very number by intention between your release and your bind. Release right
 * before the bind to keep that short.
 *
 * @throws TunwardError ERR_TIMEOUT when no port was found in 500 attempts.
 * @example
 * await using reserved = await reservePort();
 * await reserved.release();
 * server.listen(reserved.port);
 */
export async function reservePort(): Promise<ReservedPort> {
  const [lowest, end] = readRange();
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const port = randomInt(lowest, end);
    // An abstract socket: gone with the process however that ends, and of this network namespace as the port is.
    const claim = await listen({ path: `\0tunward-reserved-port-${port}` });
    if (!claim) continue;
    const holder = await listen({ port, exclusive: true }).catch(async (error: unknown) => {
      await close(claim);
      throw error;
    });
    if (holder) return reserve(port, claim, holder);
    await close(claim);
  }
  const message = `Cannot reserve a port: none of ${ATTEMPTS} from ${lowest} to ${end - 1} was free`;
  throw new TunwardError('ERR_TIMEOUT', message, { timeoutMs: 0 });
}

/** Is this port one that {@link reservePort} holds for this process? For the one who finds a listener on it. */
export function isHeld(port: number): boolean {
  return held.has(port);
}

const held = new Set<number>();
const ATTEMPTS = 500;
/** Browsers, and fetch() as they do, refuse to talk to some ports; 10080 is the highest of them. */
const LOWEST = 10_240;
/** What Linux has where nobody has changed it. */
const EPHEMERAL = 32_768;

/** Where little is left below the ephemeral ports, some of those are used all the same: they are held just as well. */
function readRange(): [number, number] {
  const text = known(openProc().text('sys/net/ipv4/ip_local_port_range')) ?? '';
  return [LOWEST, Math.max(Number.parseInt(text, 10) || EPHEMERAL, 2 * LOWEST)];
}

function reserve(port: number, claim: net.Server, holder: net.Server): ReservedPort {
  held.add(port);
  let released: Promise<void> | undefined;
  const release = (): Promise<void> => {
    held.delete(port);
    released ??= close(holder);
    return released;
  };
  return {
    port,
    release,
    [Symbol.asyncDispose]: async () => {
      await release();
      if (claim.listening) await close(claim);
    },
  };
}

/** Listens without a host: on `::` for both families, on 0.0.0.0 where there is no IPv6. Undefined: somebody has it. */
function listen(where: net.ListenOptions): Promise<net.Server | undefined> {
  // A reset, not an end: that would leave the port in TIME_WAIT, where a server without SO_REUSEADDR cannot bind it.
  const server = net.createServer((stranger) => stranger.on('error', ignoreReset).resetAndDestroy());
  return new Promise((resolve, reject) => {
    server.once('error', (error) => {
      if (isErrno(error, 'EADDRINUSE')) resolve(undefined);
      else reject(error);
    });
    // A reservation that somebody forgot keeps no program from ending.
    server.listen(where, () => resolve(server.unref()));
  });
}

/** The other end may have reset it first, which is what was wanted. */
function ignoreReset(): void {}

function close(server: net.Server): Promise<void> {
  return new Promise((resolve, reject) => server.close((error) => (error ? reject(error) : resolve())));
}
