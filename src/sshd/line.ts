import net, { type AddressInfo } from 'node:net';
import { isErrno, TunwardError } from '../errors.js';
import { until } from '../time.js';
import type { Faults } from './faults.js';

/** The sockets below the SSH connections: what a network can do is done to them. */
export interface Line {
  readonly port: number;
  /** Nobody can connect any more, as where no server is; who is connected stays. */
  hangUp(): void;
  /** Nothing is read and nothing written, on any connection, and new ones are taken without a word. */
  freeze(): void;
  /** Ends both. @throws TunwardError ERR_PORT_HELD when somebody else has taken the port meanwhile. */
  thaw(): Promise<void>;
  close(): Promise<void>;
}

const HOST = '127.0.0.1';
/** A port that was given up can be in use for a moment: by an outgoing connection of anybody. */
const LISTEN_MS = 2000;

/** Listens on loopback. `meet` is told of each connection, and what it answers is called when the faults admit that one. */
export async function openLine(
  wanted: number,
  faults: Faults,
  meet: (socket: net.Socket) => () => void,
): Promise<Line> {
  const sockets = new Set<net.Socket>();
  let isFrozen = false;
  let kept: (() => void)[] = [];
  let isClosed = false;
  let listener = await listen(wanted);
  const { port } = listener.address() as AddressInfo;
  return {
    port,
    hangUp: () => void listener.close(),
    freeze() {
      isFrozen = true;
      for (const socket of sockets) {
        socket.pause();
        socket.cork();
      }
    },
    async thaw() {
      isFrozen = false;
      for (const socket of sockets) {
        socket.uncork();
        socket.resume();
      }
      const waiting = kept;
      kept = [];
      for (const serve of waiting) serve();
      if (!listener.listening && !isClosed) listener = await listenAgain();
    },
    async close() {
      isClosed = true;
      for (const socket of sockets) socket.destroy();
      if (listener.listening) await new Promise((resolve) => listener.close(resolve));
    },
  };

  async function take(socket: net.Socket): Promise<void> {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    // An ssh at a question closes its own side when that is answered and not before: who has said the last word is gone.
    socket.once('finish', () => socket.destroy());
    socket.once('close', () => sockets.delete(socket));
    const serve = meet(socket);
    const begin = () => {
      if (!socket.destroyed) serve();
    };
    await faults.admits('connection');
    if (isFrozen) kept.push(begin);
    else begin();
  }

  function listen(at: number): Promise<net.Server> {
    // Held back until there is somebody to read it. Small packets, each awaited, take 40 ms with Nagle's algorithm.
    const made = net.createServer({ pauseOnConnect: true, noDelay: true }, (socket) => void take(socket));
    return new Promise((resolve, reject) => {
      made.once('error', reject);
      made.listen({ port: at, host: HOST, exclusive: true }, () => {
        made.off('error', reject);
        // A connection that is gone before it could be taken: accept() says so, and the next one is taken.
        made.on('error', () => undefined);
        resolve(made);
      });
    });
  }

  async function listenAgain(): Promise<net.Server> {
    const listening = await until(
      () =>
        listen(port).catch((error: unknown) => {
          if (isErrno(error, 'EADDRINUSE')) return undefined;
          throw error;
        }),
      { timeoutMs: LISTEN_MS, everyMs: 20 },
    );
    if (listening) return listening;
    const message = `The SSH server cannot listen on port ${port} again: somebody else has taken it; start another server`;
    throw new TunwardError('ERR_PORT_HELD', message, { port, holders: [] });
  }
}
