// What support.test.ts runs in a namespace.
import { readdirSync } from 'node:fs';
import net from 'node:net';
import { assertIsolated, emit } from '../namespace.js';

assertIsolated();
const args = process.argv.slice(2);
if (args[0] === 'throw') throw new Error('thrown on purpose');
if (args[0] === 'stay') setInterval(() => undefined, 1000);
emit('args', args);
emit(
  'pids',
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number),
);

const server = net
  .createServer((socket) => socket.end('hello'))
  .listen(0, '127.0.0.1', () => {
    const { port } = server.address() as net.AddressInfo;
    net.connect(port, '127.0.0.1').on('data', (data) => {
      emit('echo', String(data));
      server.close();
    });
  });
