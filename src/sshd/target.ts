import net from 'node:net';
import { Duplex } from 'node:stream';

/** What a client wants to be connected to. */
export interface TargetRequest {
  readonly host: string;
  readonly port: number;
  readonly username: string;
}

/** What it gets: a stream, a server of this process that listens, or an address; undefined: a refusal. */
export type Target = Duplex | net.Server | { readonly host?: string; readonly port: number } | undefined;

/** Says where a connection of `ssh -L` goes. */
export type TargetChooser = (request: TargetRequest) => Target | Promise<Target>;

const LOOPBACK = '127.0.0.1';

/** Rejects with the reason when there is to be no connection, or none can be made. */
export async function openTarget(request: TargetRequest, choose: TargetChooser = loopbackOnly): Promise<Duplex> {
  const target = await choose(request);
  if (target === undefined) throw new Error('the target was refused');
  if (target instanceof Duplex) return target;
  return connect(target instanceof net.Server ? addressOf(target) : target);
}

/** A test does not leave the machine by itself: that is for a `target`. */
function loopbackOnly({ host, port }: TargetRequest): Target {
  const isLoopback = host === 'localhost' || host === '::1' || /^127(\.\d+){3}$/.test(host);
  if (isLoopback) return { host: host === 'localhost' ? LOOPBACK : host, port };
  throw new Error(`${host} is not this machine: give startSshServer() a target that says where it leads`);
}

/** Where a server of this process is reached. @throws TypeError when it does not listen on a port. */
export function addressOf(server: net.Server): { host: string; port: number } {
  const address = server.address();
  if (address === null || typeof address === 'string') {
    throw new TypeError('Cannot lead to a server that does not listen on a port: call its listen() first');
  }
  const isEverywhere = address.address === '::' || address.address === '0.0.0.0';
  return { host: isEverywhere ? LOOPBACK : address.address, port: address.port };
}

function connect({ host = LOOPBACK, port }: { readonly host?: string; readonly port: number }): Promise<Duplex> {
  const socket = net.connect({ host, port, noDelay: true, allowHalfOpen: true });
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      // Until it is joined with a channel: `close` follows.
      socket.on('error', () => undefined);
      resolve(socket);
    });
  });
}
