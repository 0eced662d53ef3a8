import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { isErrno } from '../../errors.js';
import { systemClock } from '../../time.js';
import { LEASH_FD, respawn } from './actors.js';

/*
 * The program that plays a part in the demo, in a process of its own: `node actor.js <part> <port>`. Every actor holds
 * a leash, a pipe whose other end the demo holds: when that breaks the demo is gone, however it ended, and so are they.
 */
const [part = '', text = ''] = process.argv.slice(2);
const port = Number(text);
const leash = new AbortController();
const pipe = new net.Socket({ fd: LEASH_FD, readable: true, writable: false });
pipe.on('error', () => leash.abort()); // a reset says the same as an end
pipe.on('close', () => leash.abort());
pipe.resume();

const parts: Readonly<Record<string, () => void>> = { keeper, worker, stranger, client };
parts[part]?.();

/** Stands in for autossh: whenever its worker dies it starts another. */
function keeper(): void {
  rename('autossh');
  const start = () => {
    const child = respawn('worker', port);
    child.once('exit', () => {
      if (!leash.signal.aborted) start();
    });
  };
  start();
}

/** Stands in for ssh: listens, and when its keeper dies it starts another before it makes room for that one's worker. */
function worker(): void {
  rename('ssh');
  const server = net.createServer(hold);
  listenWhenFree(server);
  let done = false;
  process.stdin.on('error', () => undefined); // the same news as its close
  process.stdin.once('close', () => {
    if (done || leash.signal.aborted) return;
    done = true;
    respawn('keeper', port).unref();
    pipe.destroy();
    leave(server);
  });
  process.stdin.resume();
  leash.signal.addEventListener('abort', () => process.stdin.destroy(), { once: true });
}

/** A program that has nothing to do with tunnels, as a development server that somebody forgot. */
function stranger(): void {
  const server = http.createServer((_request, response) => response.end('I have nothing to do with your tunnel\n'));
  listenWhenFree(server);
}

/** Holds a connection to the port, and comes back when it is cut. */
async function client(): Promise<void> {
  while (!leash.signal.aborted) {
    const socket = net.connect({ host: '127.0.0.1', port, signal: leash.signal });
    await new Promise<void>((resolve) => {
      socket.on('error', () => undefined); // refused or reset: `close` follows
      socket.once('close', () => resolve());
      socket.resume();
    });
    await systemClock.sleep(20);
  }
}

const connections = new Set<net.Socket>();

function hold(socket: net.Socket): void {
  connections.add(socket);
  socket.on('error', () => undefined); // a client that goes away: `close` follows
  socket.once('close', () => connections.delete(socket));
  socket.resume();
}

/** Takes the port as soon as it can: another generation may still have it. */
function listenWhenFree(server: net.Server): void {
  server.on('error', async (error) => {
    if (!isErrno(error, 'EADDRINUSE')) throw error;
    await systemClock.sleep(5);
    if (!leash.signal.aborted) server.listen({ port, host: '127.0.0.1' });
  });
  server.listen({ port, host: '127.0.0.1' });
  leash.signal.addEventListener('abort', () => leave(server), { once: true });
}

/** With nothing left to wait for, the process ends by itself. */
function leave(server: net.Server): void {
  if (server.listening) server.close();
  if (server instanceof http.Server) server.closeAllConnections();
  for (const socket of connections) socket.destroy();
}

/** What ps and tunward call it. An autossh above an ssh is a chain, whatever program plays them. */
function rename(name: string): void {
  fs.writeFileSync('/proc/self/comm', name);
}
