/*
 * Clients of a tunnel, in a process of their own: so many at once, each asking anew over a connection of its own when it has
 * its answer, after a pause of so many milliseconds on average. Started by seamless.mjs; says what became of every request
 * when it is told to end.
 */
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const [port, clients, pauseMs] = process.argv.slice(2).map(Number);
/** [when it began (ms since the epoch), how long it took, what became of it]. */
const requests = [];
let isOver = false;

const now = () => performance.timeOrigin + performance.now();

function ask() {
  return new Promise((resolve) => {
    const began = now();
    let heard = '';
    let how = 'cut';
    const socket = net.connect(port, '127.0.0.1');
    socket.setEncoding('latin1').on('data', (text) => {
      heard += text;
    });
    socket.once('connect', () => socket.write('GET / HTTP/1.0\r\nhost: bench\r\n\r\n'));
    socket.once('end', () => {
      how = heard.startsWith('HTTP/1.1 200') && heard.endsWith('served') ? 'ok' : 'truncated';
    });
    socket.on('error', ({ code }) => {
      how = code === 'ECONNREFUSED' ? 'refused' : 'cut';
    });
    socket.once('close', () => {
      requests.push([began, now() - began, how]);
      resolve();
    });
  });
}

await Promise.all([
  new Promise((resolve) => process.once('message', resolve)).then(() => {
    isOver = true;
  }),
  ...Array.from({ length: clients }, async () => {
    for (; !isOver; await ask()) if (pauseMs > 0) await sleep(Math.random() * 2 * pauseMs);
  }),
]);
process.send(requests, () => process.disconnect());
