import net from 'node:net';
import { openProc } from '../proc/read.js';
import { readStat } from '../proc/stat.js';
import { systemClock } from '../time.js';
import { LEASH_FD, type Part, type Report, startActor } from './spawn.js';

/*
 * The program that plays one process of a tree (spawn.ts): `node actor.js <part as JSON>`. It ends by itself when its
 * leash breaks or its time is over, whatever signals it ignores.
 */
const part: Part = JSON.parse(process.argv[2] ?? '');
const { shape } = part;

const leash = new net.Socket({ fd: LEASH_FD, readable: true, writable: true });
leash.on('error', leave); // a reset says the same as an end
leash.on('close', leave);
leash.resume();

for (const signal of shape.ignore ?? []) process.on(signal, () => undefined);
if (shape.title !== undefined) process.title = shape.title;
try {
  const ports = await Promise.all((shape.listen ?? []).map(listen));
  if (shape.connect) await connect(shape.connect);
  let respawnsLeft = shape.respawn ?? 0;
  for (const [at, child] of (shape.children ?? []).entries()) start(child, `${part.path}.${at}`);
  report({ ports }, () => shape.leave && leave());
  systemClock.sleep(part.lifetimeMs).then(leave, leave);

  function start(child: Part['shape'], path: string): void {
    const started = startActor({ ...part, shape: child, path }, LEASH_FD);
    started.once('error', (error) => report({ error: `cannot start a child: ${error.message}` }));
    started.once('exit', () => {
      if (respawnsLeft-- > 0) start(child, path);
    });
  }
} catch (error) {
  report({ error: String(error) }, leave);
}

function listen({ port = 0, host = '127.0.0.1' }: { port?: number; host?: string }): Promise<number> {
  const server = net.createServer((client) => {
    client.on('error', ignore); // a client that goes away
    client.write(`${process.pid}\n`);
    client.pipe(client);
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port, host, exclusive: true }, () => {
      const address = server.address();
      resolve(typeof address === 'object' && address !== null ? address.port : 0);
    });
  });
}

function connect({ port, host = '127.0.0.1' }: { port: number; host?: string }): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host }, resolve);
    socket.on('error', reject); // after the connect it settles nothing: a client outlives its server
  });
}

function report(what: { ports?: readonly number[]; error?: string }, done?: () => void): void {
  const startTicks = readStat(openProc(), process.pid)?.startTicks ?? 0;
  const said: Report = { path: part.path, pid: process.pid, startTicks, ports: [], ...what };
  leash.write(`${JSON.stringify(said)}\n`, done);
}

function leave(): void {
  process.exit();
}

function ignore(): void {}
