/** Servers in this process, for the far end of a tunnel: a service that answers, and such as behave badly. */
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';

export interface LocalServer {
  readonly port: number;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Answers every GET with `served`. */
export async function startService(): Promise<LocalServer> {
  const server = http.createServer((_request, answer) => answer.end('served'));
  const port = await listen(server);
  return {
    port,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await close(server);
    },
  };
}

/** What is done with everyone who connects. */
export type Behaviour = (socket: net.Socket) => void;

/** Accepts, and says nothing. */
export const isMute: Behaviour = (socket) => socket.resume();

/** Accepts, and hangs up. */
export const hangsUp: Behaviour = (socket) => socket.destroy();

/** Talks on and on, and never says who it is: ssh takes such lines, up to a thousand of them, for a preamble. */
export const babbles: Behaviour = (socket) => {
  const talk = setInterval(() => socket.write('welcome, please wait\r\n'), 100);
  socket.resume().once('close', () => clearInterval(talk));
};

/** Listens on a loopback address, port 0 being any, and treats everybody like that. */
export async function startServer(
  behave: Behaviour,
  {
    port = 0,
    host = '127.0.0.1',
    allowHalfOpen = false,
  }: { readonly port?: number; readonly host?: string; readonly allowHalfOpen?: boolean } = {},
): Promise<LocalServer> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer({ allowHalfOpen }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy()).once('close', () => sockets.delete(socket));
    behave(socket);
  });
  const bound = await listen(server, port, host);
  return {
    port: bound,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await close(server);
    },
  };
}

export interface Relay extends LocalServer {
  /** Takes nothing more from either side, and hands nothing on, until it is let go. */
  stall(): void;
  go(): void;
  /** Hangs up on everybody, by a reset. */
  drop(): void;
}

/** Hands everything on to another port. `onConnect` is waited for before a newcomer is served; `onLeave` when it has gone. */
export async function startRelay(
  to: number,
  { onConnect, onLeave }: { readonly onConnect?: () => Promise<void>; readonly onLeave?: () => void } = {},
): Promise<Relay> {
  const ends = new Set<net.Socket>();
  const server = await startServer((near) => {
    const serve = async () => {
      await onConnect?.();
      const far = net.connect(to, '127.0.0.1');
      for (const end of [near, far]) ends.add(end.once('close', () => ends.delete(end)));
      near.pipe(far).once('close', () => near.destroy());
      far
        .on('error', () => far.destroy())
        .pipe(near)
        .once('close', () => {
          far.destroy();
          onLeave?.();
        });
    };
    serve().catch((error: unknown) => near.destroy(error instanceof Error ? error : undefined));
  });
  const { port } = server;
  return {
    port,
    stall: () => {
      for (const end of ends) end.pause();
    },
    go: () => {
      for (const end of ends) end.resume();
    },
    drop: () => {
      for (const end of ends) end.resetAndDestroy();
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

async function listen(server: net.Server, port = 0, host = '127.0.0.1'): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(port, host, resolve);
  });
  return (server.address() as AddressInfo).port;
}

async function close(server: net.Server): Promise<void> {
  await new Promise((resolve) => server.close(resolve));
}
