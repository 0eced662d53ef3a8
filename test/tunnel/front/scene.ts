/** What the tests of the front share: targets, carriers to them, and clients, each in this process. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { systemClock as clock, until } from '#lib/time.js';
import type { Carrier } from '#lib/tunnel/front/carrier.js';
import { createFront, type Front, type FrontOptions } from '#lib/tunnel/front/front.js';
import { createMeter, type Meter } from '#lib/tunnel/front/meter.js';
import { freeLocalPort } from '../../support/port.js';

export interface Scene {
  readonly front: Front;
  readonly meter: Meter;
  readonly port: number;
}

export interface Client {
  readonly socket: net.Socket;
  /** What has come so far. */
  text(): string;
  /** Resolves to how it ended: `end`, `reset`, or another code. */
  readonly over: Promise<string>;
}

export interface Stage {
  open(options?: Partial<FrontOptions>): Promise<Scene>;
  serve(onClient: (socket: net.Socket) => void, where?: { path: string }): Promise<number>;
  /** A carrier to a port on loopback, that can go away. */
  carrierTo(port: number): Carrier & { isThere: boolean };
  connect(port: number): Client;
  end(): Promise<void>;
}

export function createStage(): Stage {
  const fronts: Front[] = [];
  const servers: net.Server[] = [];
  const sockets = new Set<net.Socket>();
  const own = (socket: net.Socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined).once('close', () => sockets.delete(socket));
    return socket;
  };

  return {
    async open(options = {}) {
      const port = await freeLocalPort();
      const meter = createMeter();
      const binds = [{ side: 'local', host: '127.0.0.1', port } as const];
      const front = createFront({ binds, meter, clock, connectWaitMs: 20_000, ...options });
      fronts.push(front);
      await front.listen();
      return { front, meter, port };
    },
    async serve(onClient, where) {
      const server = net.createServer({ allowHalfOpen: true }, (socket) => onClient(own(socket)));
      servers.push(server);
      server.listen(where ?? { port: 0, host: '127.0.0.1', backlog: 4096 });
      await once(server, 'listening');
      return where ? 0 : (server.address() as AddressInfo).port;
    },
    carrierTo(port) {
      const carrier = {
        isThere: true,
        isConfirming: true,
        isAlive: () => carrier.isThere,
        open: () =>
          new Promise<net.Socket>((resolve, reject) => {
            const options = { port, host: '127.0.0.1', allowHalfOpen: true, writableHighWaterMark: 1 };
            const socket = own(net.connect(options));
            socket.once('connect', () => resolve(socket)).once('error', reject);
          }),
      };
      return carrier;
    },
    connect(port) {
      const socket = own(net.connect({ port, host: '127.0.0.1', allowHalfOpen: true }));
      const chunks: Buffer[] = [];
      socket.on('data', (chunk: Buffer) => chunks.push(chunk));
      const over = new Promise<string>((resolve) => {
        socket.once('end', () => resolve('end'));
        socket.once('error', (error: NodeJS.ErrnoException) => {
          resolve(error.code === 'ECONNRESET' ? 'reset' : String(error.code));
        });
      });
      return { socket, over, text: () => Buffer.concat(chunks).toString('latin1') };
    },
    async end() {
      await Promise.all(fronts.splice(0).map((front) => front.close()));
      for (const socket of sockets) socket.destroy();
      await Promise.all(servers.splice(0).map((server) => new Promise((resolve) => server.close(resolve))));
      await until(() => sockets.size === 0, { timeoutMs: 5000 });
    },
  };
}

export const echo = (socket: net.Socket): unknown => socket.pipe(socket);

/** Bytes of which no two pieces are alike, and the digest that says whether all came, in order. */
export function noise(size: number, seed: number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let at = 0, state = seed + 1; at + 4 <= size; at += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes.writeUInt32LE(state, at);
  }
  return bytes;
}

export function digestOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Waits for something that must come. */
export async function eventually(what: string, check: () => boolean): Promise<void> {
  if (!(await until(check, { timeoutMs: 10_000 }))) throw new Error(`It did not come to this: ${what}`);
}

/** Waits until a figure that has begun to grow is the same in 40 looks, 5 ms apart. */
export async function standsStill(read: () => number): Promise<void> {
  let last = 0;
  let looks = 0;
  await eventually('it stands still', () => {
    const now = read();
    looks = now > 0 && now === last ? looks + 1 : 0;
    last = now;
    return looks >= 40;
  });
}
