/** The half of an SSH server that is there once somebody has logged in: `-L` and `-R`, to and on loopback. */
import net, { type AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Connection, TcpipBindInfo, TcpipRequestInfo } from 'ssh2';

/** Serves what `ssh -N` asks for: connections that go out from here, and ports that are listened on for it. */
export function serveForwards(connection: Connection): void {
  const listeners = new Map<string, net.Server>();
  connection.on('tcpip', connectOut);
  connection.on('request', (accept, reject, name, info) => {
    const { bindAddr, bindPort } = info as TcpipBindInfo;
    const key = `${bindAddr}:${bindPort}`;
    if (name === 'tcpip-forward') {
      const listener = net.createServer({ allowHalfOpen: true }, (socket) => {
        // A port that was chosen here is named as such, as sshd does.
        const { port } = listener.address() as AddressInfo;
        handIn(connection, socket, { bindAddr, bindPort: port });
      });
      listener.once('error', () => reject?.());
      listener.listen(bindPort, '127.0.0.1', () => {
        listeners.set(key, listener);
        accept?.((listener.address() as AddressInfo).port);
      });
    } else if (name === 'cancel-tcpip-forward' && listeners.has(key)) {
      listeners.get(key)?.close();
      listeners.delete(key);
      accept?.();
    } else reject?.();
  });
  connection.on('close', () => {
    for (const listener of listeners.values()) listener.close();
  });
}

function connectOut(accept: () => Duplex, reject: () => void, { destPort }: TcpipRequestInfo): void {
  const socket = net.connect({ port: destPort, host: '127.0.0.1', allowHalfOpen: true });
  socket.once('error', reject);
  socket.once('connect', () => {
    socket.off('error', reject);
    join(socket, accept());
  });
}

function handIn(connection: Connection, socket: net.Socket, { bindAddr, bindPort }: TcpipBindInfo): void {
  socket.on('error', () => socket.destroy());
  connection.forwardOut(bindAddr, bindPort, '127.0.0.1', socket.remotePort ?? 0, (error, channel) => {
    if (error) socket.destroy();
    else join(socket, channel);
  });
}

function join(socket: net.Socket, channel: Duplex): void {
  socket.on('error', () => socket.destroy()).once('close', () => channel.destroy());
  channel.on('error', () => channel.destroy()).once('close', () => socket.destroy());
  socket.pipe(channel).pipe(socket);
}
