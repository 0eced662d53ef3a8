import { once } from 'node:events';
import net from 'node:net';
import type { Carrier } from './carrier.js';

export interface SocketCarrierOptions {
  readonly path: string;
  readonly isAlive: () => boolean;
}

export function createSocketCarrier({ path, isAlive }: SocketCarrierOptions): Carrier {
  return {
    isAlive,
    isConfirming: false,
    async open(_client, signal) {
      const socket = net.connect({ path, allowHalfOpen: true });
      await once(socket, 'connect', { signal });
      return socket;
    },
  };
}
