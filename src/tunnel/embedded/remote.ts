import net from 'node:net';
import { isErrno } from '../../errors.js';
import type { Clock } from '../../time.js';
import type { Meter } from '../front/meter.js';
import { createLargeBuffers, type LargeBuffers, makePourable, type Pourable } from '../front/pour.js';
import { createRoomCheck } from '../front/room.js';
import { splice } from '../front/splice.js';
import type { Bind, Endpoint } from '../spec.js';
import type { Connection, Incoming } from './connection.js';

export interface RemoteOptions {
  /** Where the server is to listen. */
  readonly bind: Bind;
  /** Where whoever connects there is brought. */
  readonly target: Endpoint;
  readonly meter: Meter;
  readonly clock: Clock;
  /** The target could not be reached, and why. */
  readonly onRefused: (why: string) => void;
}

/** One address that a server listens on for a remote forward. */
export interface Remote {
  /** The one asked for, or the server's choice. */
  readonly port: number;
  /** The server listens there no more, and whoever is connected is cut. Bounded; idempotent. */
  close(): Promise<void>;
}

/** So many of one forward are brought to the target at a time: a server opens as many as it likes, and each is a descriptor. */
const MOST_BROUGHT = 1024;
/** A target that neither accepts nor refuses is given up then. */
const TARGET_MS = 30_000;

/** @throws ConnectionError `remote_port_busy`, or why the connection is over. */
export async function openRemote(connection: Connection, options: RemoteOptions): Promise<Remote> {
  const { bind, target, meter, clock, onRefused } = options;
  const sockets = new Set<net.Socket>();
  const large = createLargeBuffers();
  const over = new AbortController();
  const hasRoom = createRoomCheck();
  const port = await connection.listen(bind.host, bind.port, bring);
  // What joins the two counts for a client that is the socket; here that is the target.
  const turned: Meter = { ...meter, countIn: meter.countOut, countOut: meter.countIn };
  let closing: Promise<void> | undefined;
  return {
    port,
    close: () => {
      closing ??= close();
      return closing;
    },
  };

  function bring(incoming: Incoming): void {
    meter.accepted();
    if (sockets.size >= MOST_BROUGHT) {
      meter.refused();
      incoming.reject();
      return onRefused(`open failed: resource shortage: ${MOST_BROUGHT} connections are open`);
    }
    if (!hasRoom()) {
      meter.refused();
      incoming.reject();
      return onRefused('open failed: connect failed: Too many open files');
    }
    const socket = connectTo(target, large);
    const answered = new AbortController();
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    const refuse = (why: string) => {
      if (answered.signal.aborted) return;
      answered.abort();
      meter.refused();
      socket.destroy();
      if (!connection.isAlive()) return;
      // Also when this forward is over: the connection may go on for others, and whoever waits there would wait as long.
      incoming.reject();
      if (!over.signal.aborted) onRefused(`open failed: connect failed: ${why}`);
    };
    socket.on('error', (error) => refuse(isErrno(error, 'ECONNREFUSED') ? 'Connection refused' : error.message));
    socket.once('close', () => refuse('Connection closed'));
    socket.once('connect', () => {
      if (answered.signal.aborted || !connection.isAlive()) return refuse('the connection is gone');
      answered.abort();
      meter.opened();
      const { isAlive } = connection;
      splice(socket, incoming.accept(), { meter: turned, clock, isAlive, onOver: meter.closed });
    });
    clock.sleep(TARGET_MS, answered.signal).then(
      () => refuse('Connection timed out'),
      () => undefined, // it was in time
    );
  }

  async function close(): Promise<void> {
    over.abort(new Error('The forward is over'));
    for (const socket of sockets) socket.destroy();
    await connection.unlisten(bind.host, port);
  }
}

/** As splice() wants its socket: paused, and with a 'drain' that means that the kernel has it all. */
function connectTo({ host, port }: Endpoint, large: LargeBuffers): net.Socket & Pourable {
  const options = { host, port, allowHalfOpen: true, noDelay: true, highWaterMark: 1 };
  const socket = makePourable(large, (onread) => net.connect({ ...options, onread }));
  socket.pause();
  return socket;
}
