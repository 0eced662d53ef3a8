import net, { type AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Connection, TcpipBindInfo, TcpipRequestInfo } from 'ssh2';
import type { Faults } from './faults.js';
import type { ConnectionRecord, ForwardRecord, Journal } from './journal.js';
import { openTarget, type TargetChooser } from './target.js';

/** The half of the server that is there once somebody has logged in: `-L` and `-R`. */
export interface Forwards {
  serve(connection: Connection, record: ConnectionRecord): void;
  /** Ends every connection to a target, and every port that is listened on. */
  close(): Promise<void>;
}

const LOOPBACK = '127.0.0.1';

export function createForwards(choose: TargetChooser | undefined, faults: Faults, journal: Journal): Forwards {
  /** The far ends of all channels. */
  const streams = new Set<Duplex>();
  const listeners = new Set<net.Server>();
  let isClosed = false;
  return {
    serve,
    async close() {
      isClosed = true;
      for (const stream of streams) stream.destroy();
      await Promise.all([...listeners].map(stop));
    },
  };

  function serve(connection: Connection, record: ConnectionRecord): void {
    /** By what a client names when it gives one up: the address as it asked for it, and the port it got. */
    const own = new Map<string, { readonly listener: net.Server; readonly forward: ForwardRecord }>();
    connection.on('tcpip', (accept, reject, info) => void connectOut(record, info, accept, reject));
    connection.on('request', (accept, reject, name, info) => {
      // The types leave out that this is how both of them come, and that who wants no reply gets neither function.
      const { bindAddr, bindPort } = info as TcpipBindInfo;
      if (name === 'tcpip-forward') {
        void listenFor({ connection, record, own }, { bindAddr, bindPort }, accept, reject);
        return;
      }
      const found = name === 'cancel-tcpip-forward' ? own.get(`${bindAddr}:${bindPort}`) : undefined;
      if (!found) return void reject?.();
      own.delete(`${bindAddr}:${bindPort}`);
      found.forward.isOpen = false;
      // It listens no more from here on. What goes through it goes on, and the answer does not wait for that, as sshd's does not.
      void stop(found.listener);
      accept?.();
    });
    connection.once('close', () => {
      for (const { listener, forward } of own.values()) {
        forward.isOpen = false;
        void stop(listener);
      }
    });
  }

  /** `ssh -L`: a channel of the client goes on to the target. */
  async function connectOut(
    record: ConnectionRecord,
    { destIP: host, destPort: port, srcIP, srcPort }: TcpipRequestInfo,
    accept: () => Duplex | undefined,
    reject: () => void,
  ): Promise<void> {
    const origin = { host: srcIP, port: srcPort };
    const forward = journal.noteForward({ connection: record.id, kind: 'direct-tcpip', host, port, origin });
    try {
      if (!(await faults.admits('forward'))) throw new Error('the server refuses every forward');
      const stream = await openTarget({ host, port, username: record.username ?? '' }, choose);
      if (!record.isOpen || isClosed) {
        stream.destroy();
        throw new Error('the client is gone');
      }
      const channel = accept();
      if (channel) begin(forward, stream, channel);
    } catch (error) {
      refuse(forward, error);
      reject();
    }
  }

  /** `ssh -R`: a port is listened on, and every connection to it becomes a channel to the client. */
  async function listenFor(
    { connection, record, own }: Pick<Context, 'connection' | 'record' | 'own'>,
    { bindAddr, bindPort }: TcpipBindInfo,
    accept: ((port: number) => void) | undefined,
    reject: (() => void) | undefined,
  ): Promise<void> {
    const asked = { connection: record.id, host: bindAddr, port: bindPort, origin: null };
    const forward = journal.noteForward({ ...asked, kind: 'tcpip-forward' });
    try {
      if (!(await faults.admits('forward'))) throw new Error('the server refuses every forward');
      const listener = await listen(loopbackOf(bindAddr), bindPort, (socket) => handIn(socket));
      if (!record.isOpen || isClosed) {
        listener.close();
        throw new Error('the client is gone');
      }
      const { port } = listener.address() as AddressInfo;
      listeners.add(listener);
      own.set(`${bindAddr}:${port}`, { listener, forward });
      Object.assign(forward, { port, accepted: true, isOpen: true });
      accept?.(port);
    } catch (error) {
      refuse(forward, error);
      reject?.();
    }

    function handIn(socket: net.Socket): void {
      streams.add(socket);
      socket.on('error', () => undefined); // before there is a channel: `close` follows
      socket.once('close', () => streams.delete(socket));
      const { remoteAddress = LOOPBACK, remotePort = 0 } = socket;
      connection.forwardOut(bindAddr, forward.port, remoteAddress, remotePort, (error, channel) => {
        if (error || socket.destroyed) {
          socket.destroy();
          channel?.destroy();
        } else begin(forward, socket, channel);
      });
    }
  }

  function begin(forward: ForwardRecord, stream: Duplex, channel: Duplex & Partial<Halved>): void {
    streams.add(stream);
    forward.streams++;
    Object.assign(forward, { accepted: true, isOpen: true });
    stream.once('close', () => {
      streams.delete(stream);
      if (forward.kind === 'direct-tcpip') forward.isOpen = false;
    });
    channel.on('data', (chunk: Buffer) => {
      forward.bytesFromClient += chunk.length;
    });
    stream.on('data', (chunk: Buffer) => {
      forward.bytesToClient += chunk.length;
    });
    join(stream, channel);
  }

  function stop(listener: net.Server): Promise<void> {
    listeners.delete(listener);
    return new Promise((resolve) => {
      if (listener.listening) listener.close(() => resolve());
      else resolve();
    });
  }
}

interface Context {
  readonly connection: Connection;
  readonly record: ConnectionRecord;
  readonly own: Map<string, { readonly listener: net.Server; readonly forward: ForwardRecord }>;
}

/** Part of a channel of ssh2, and missing from its types: an end that leaves the other direction open. */
interface Halved {
  eof(): void;
  close(): void;
}

/**
 * An end of one side is an end on the other, and the other direction goes on, as an sshd has it. A channel that is ended
 * by `end()`, on the server's side of ssh2 1.17, is closed in both directions at once: so it is told `eof()` in its place.
 */
function join(stream: Duplex, channel: Duplex & Partial<Halved>): void {
  /** The target has said all, part of which may wait for the client's window. */
  let hasStreamEnded = false;
  /** And all of it has been sent. */
  let isStreamAtEnd = false;
  let isChannelAtEnd = false;
  stream.on('error', () => channel.destroy());
  channel.on('error', () => stream.destroy());
  stream.pipe(channel, { end: false });
  channel.pipe(stream);
  stream.once('end', () => {
    hasStreamEnded = true;
    // Behind all that was written before.
    channel.write(Buffer.alloc(0), () => {
      isStreamAtEnd = true;
      channel.eof?.();
      if (isChannelAtEnd) close();
    });
  });
  channel.once('end', () => {
    isChannelAtEnd = true;
    if (isStreamAtEnd) close();
  });
  stream.once('close', () => {
    // One whose last word is on its way has closed in good order, and is not to be cut short.
    if (!hasStreamEnded) channel.destroy();
  });
  channel.once('close', () => {
    // What the client has sent before it went is on its way to the target still.
    if (stream.writableFinished || stream.destroyed) stream.destroy();
    else stream.end(() => stream.destroy());
  });

  function close(): void {
    channel.end();
    channel.close?.();
  }
}

function refuse(forward: ForwardRecord, error: unknown): void {
  forward.accepted = false;
  forward.why = error instanceof Error ? error.message : String(error);
}

/** Every address means loopback, as for an sshd without GatewayPorts. */
function loopbackOf(bindAddr: string): string {
  if (['', '*', 'localhost', '0.0.0.0', '::', LOOPBACK].includes(bindAddr)) return LOOPBACK;
  if (bindAddr === '::1') return bindAddr;
  throw new Error(`${bindAddr} is not loopback`);
}

function listen(host: string, port: number, take: (socket: net.Socket) => void): Promise<net.Server> {
  const listener = net.createServer({ noDelay: true, allowHalfOpen: true, pauseOnConnect: true }, take);
  return new Promise((resolve, reject) => {
    listener.once('error', reject);
    listener.listen({ host, port, exclusive: true }, () => {
      listener.off('error', reject);
      listener.on('error', () => undefined); // a connection that was gone before it could be taken
      resolve(listener);
    });
  });
}
