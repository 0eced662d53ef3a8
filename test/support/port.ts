import { readFileSync } from 'node:fs';
import net from 'node:net';

/**
 * A TCP port that nobody holds on any address, below the ephemeral range: there no outgoing connection can take it
 * before the test does, and the configuration has nothing to warn of.
 */
export async function freeLocalPort(): Promise<number> {
  const lowest = 10_240;
  const range = Number(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split(/\s+/)[0]);
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = lowest + Math.floor(Math.random() * (Math.max(range, 20_000) - lowest));
    if (await isFree(port)) return port;
  }
  throw new Error('Found no free port in 100 attempts');
}

// No host: Node binds `::` for both families, and 0.0.0.0 where there is no IPv6. No holder escapes that probe.
function isFree(port: number): Promise<boolean> {
  const server = net.createServer((socket) => socket.destroy());
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') resolve(false);
      else reject(error);
    });
    server.listen({ port, exclusive: true }, () => server.close(() => resolve(true)));
  });
}
