import { timingSafeEqual } from 'node:crypto';
import net from 'node:net';
import type { Duplex } from 'node:stream';
import type ssh2 from 'ssh2';
import type { AuthContext, Connection, PublicKeyAuthContext, TcpipBindInfo, TcpipRequestInfo } from 'ssh2';
import { isErrno } from '../../errors.js';

export interface SshServer {
  readonly port: number;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface SshServerOptions {
  /** The server's own key, in OpenSSH's format. */
  readonly hostKey: string;
  /** The one key that may log in: `ssh-ed25519 AAAA…`. */
  readonly userKey: string;
}

const LOOPBACK = '127.0.0.1';

/**
 * An SSH server inside this process, on loopback: it forwards ports in both directions, to loopback only, and runs
 * nothing. One public key may log in.
 */
export async function openSshServer(library: typeof ssh2, options: SshServerOptions): Promise<SshServer> {
  const userKey = library.utils.parseKey(options.userKey);
  if (userKey instanceof Error) throw userKey;
  const connections = new Set<Connection>();
  const server = new library.Server({ hostKeys: [options.hostKey] }, (connection) => {
    connections.add(connection);
    connection.on('close', () => connections.delete(connection));
    serve(connection, (context) => isUser(context, userKey));
  });
  const port = await listen(server, 0);
  const close = async (): Promise<void> => {
    for (const connection of connections) connection.end();
    server.close();
  };
  return { port, close, [Symbol.asyncDispose]: close };
}

/** Part of ssh2's server connections since 1.0, and missing from its types. */
interface Hurried {
  setNoDelay(on: boolean): unknown;
}

function serve(connection: Connection & Partial<Hurried>, isWelcome: (context: PublicKeyAuthContext) => boolean): void {
  const listeners = new Map<string, net.Server>();
  // Small packets, each of them awaited: with Nagle's algorithm a request through the tunnel takes 40 ms.
  connection.setNoDelay?.(true);
  connection.on('authentication', (context: AuthContext) => {
    if (context.method === 'publickey' && isWelcome(context)) context.accept();
    else context.reject(['publickey']);
  });
  connection.on('tcpip', connectOut);
  connection.on('request', (accept, reject, name, info) => {
    if (name === 'tcpip-forward') listenFor(connection, listeners, info as TcpipBindInfo).then(accept, refuse(reject));
    else if (name === 'cancel-tcpip-forward' && closeListener(listeners, info as TcpipBindInfo)) accept?.();
    else reject?.();
  });
  // An ssh that is killed cuts its connection: that is what a restart looks like from here.
  connection.on('error', ignoreCut);
  connection.on('close', () => {
    for (const listener of listeners.values()) listener.close();
  });
}

function isUser({ key, signature, blob, hashAlgo }: PublicKeyAuthContext, user: ssh2.ParsedKey): boolean {
  const known = user.getPublicSSH();
  if (key.algo !== user.type || key.data.length !== known.length || !timingSafeEqual(key.data, known)) return false;
  // Without a signature the client only asks whether this key would do.
  return signature === undefined || blob === undefined || user.verify(blob, signature, hashAlgo) === true;
}

/** `ssh -L`: a channel of the client goes on as a connection of ours. */
function connectOut(accept: () => Duplex, reject: () => void, { destIP, destPort }: TcpipRequestInfo): void {
  if (destIP !== LOOPBACK) return reject();
  const socket = net.connect({ host: LOOPBACK, port: destPort, noDelay: true });
  socket.once('error', reject);
  socket.once('connect', () => {
    socket.off('error', reject);
    join(socket, accept());
  });
}

/** `ssh -R`: we listen, and every connection becomes a channel to the client. */
async function listenFor(
  connection: Connection,
  listeners: Map<string, net.Server>,
  { bindAddr, bindPort }: TcpipBindInfo,
): Promise<number> {
  if (bindAddr !== LOOPBACK && bindAddr !== 'localhost') throw new Error(`${bindAddr} is not loopback`);
  const listener = net.createServer({ noDelay: true }, (socket) => {
    socket.on('error', ignoreCut);
    const from = socket.remoteAddress ?? LOOPBACK;
    connection.forwardOut(bindAddr, port, from, socket.remotePort ?? 0, (error, channel) => {
      if (error) socket.destroy();
      else join(socket, channel);
    });
  });
  const port = await listen(listener, bindPort);
  listeners.set(`${bindAddr}:${bindPort}`, listener);
  return port;
}

function closeListener(listeners: Map<string, net.Server>, { bindAddr, bindPort }: TcpipBindInfo): boolean {
  const listener = listeners.get(`${bindAddr}:${bindPort}`);
  listener?.close();
  return listeners.delete(`${bindAddr}:${bindPort}`);
}

function join(socket: net.Socket, channel: Duplex): void {
  socket.on('error', ignoreCut);
  channel.on('error', ignoreCut);
  // pipe() hands an end on, and not a sudden close.
  socket.on('close', () => channel.destroy());
  channel.on('close', () => socket.destroy());
  socket.pipe(channel).pipe(socket);
}

function ignoreCut(error: Error): void {
  if (isErrno(error, 'ECONNRESET', 'EPIPE', 'ECONNABORTED')) return;
  // ssh2 marks what concerns one connection alone with a level: a client that broke off, or spoke out of turn.
  if (!('level' in error)) throw error;
}

function refuse(reject: (() => void) | undefined): () => void {
  return () => reject?.();
}

function listen(server: { listen(port: number, host: string, done: () => void): unknown } & net.Server, port: number) {
  return new Promise<number>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, LOOPBACK, () => {
      server.off('error', reject);
      resolve((server.address() as net.AddressInfo).port);
    });
  });
}
