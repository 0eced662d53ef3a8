import { connect } from 'node:net';
import { isErrno, TunwardError } from '../../errors.js';
import { type Clock, growing } from '../../time.js';
import type { Carrier, Remote } from './carrier.js';
import { createLargeBuffers, type LargeBuffers, makePourable } from './pour.js';

export interface SocketCarrierOptions {
  /** The unix socket on which the link listens: 107 bytes at most. */
  readonly path: string;
  /**
   * Has the link's process its listening socket still? That is the question, and `/proc/<pid>/fd/<its number>` the answer:
   * ssh closes the connections of a link that broke, and so does the kernel for a killed one, before its process is gone.
   * When their end was read here, the process still ran in 20 of 36 cases (killed, terminated, or its server gone), and was
   * not even exiting in 12; that descriptor was gone in 45 of 45.
   */
  readonly isAlive: () => boolean;
  readonly clock: Clock;
}

/**
 * A carrier over a private unix socket that an ssh forwards: whoever connects there is connected to the target. Whether the
 * target could be reached is not heard here: ssh accepts first, and closes then.
 *
 * A socket on which nobody listens any more belongs to a link that is over: the carrier is not alive from then on.
 *
 * @example
 * front.use(createSocketCarrier({ path: '/run/tunward/gen-7.sock', isAlive: () => hasSocket(link), clock }));
 */
export function createSocketCarrier({ path, isAlive, clock }: SocketCarrierOptions): Carrier {
  const large = createLargeBuffers();
  let isDeserted = false;
  return { open, isConfirming: false, isAlive: () => !isDeserted && isAlive() };

  async function open(_client: unknown, signal: AbortSignal): Promise<Remote> {
    const pause = growing(20);
    for (let attempt = 1; ; attempt++) {
      signal.throwIfAborted();
      try {
        return await connectOnce(path, large, signal);
      } catch (error) {
        if (isErrno(error, 'ECONNREFUSED', 'ENOENT', 'ECONNRESET')) isDeserted = true;
        // ssh listens with a backlog of 128; the connect to a unix socket does not wait when that is full.
        if (!isErrno(error, 'EAGAIN')) throw failed(error);
      }
      await clock.sleep(pause(attempt), signal);
    }
  }

  function failed(error: unknown): unknown {
    if (!(error instanceof Error) || !('syscall' in error)) return error;
    const { message } = error;
    const info = { id: path, reason: 'exited', lastError: message, nextRetryAt: null };
    return new TunwardError('ERR_START_FAILED', `Cannot connect to the link at ${path}: ${message}`, info);
  }
}

function connectOnce(path: string, large: LargeBuffers, signal: AbortSignal): Promise<Remote> {
  return new Promise((resolve, reject) => {
    const options = { path, allowHalfOpen: true, writableHighWaterMark: 1 };
    const socket = makePourable(large, (onread) => connect({ ...options, onread }));
    const abort = () => socket.destroy();
    const leave = () => signal.removeEventListener('abort', abort);
    signal.addEventListener('abort', abort);
    socket.pause();
    socket
      .once('connect', () => {
        leave();
        resolve(socket);
      })
      .on('error', (error) => {
        leave();
        reject(error);
      })
      .once('close', () => reject(signal.reason));
  });
}
