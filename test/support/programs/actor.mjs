// One process of a tree of known shape. Its part (the `Actor` of processes.ts) is JSON in its only argument: it listens,
// connects, starts its children, and says on stdout, in one JSON line, what came of it. Later lines report a child that
// was started again.
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { createInterface } from 'node:readline';

const actor = JSON.parse(process.argv[2]);
let respawnsLeft = actor.respawn ?? 0;

// The leash: a tree that its test forgot ends by itself, whatever it ignores.
setTimeout(() => process.exit(3), 180_000);
process.stdout.on('error', () => {}); // whoever listened to us may be dead: EPIPE is none of our business
for (const signal of actor.ignore ?? []) process.on(signal, () => {});
if (actor.comm) writeFileSync('/proc/self/comm', actor.comm);
globalThis.ballast = Buffer.alloc((actor.memoryMb ?? 0) * 2 ** 20, 1);

const ports = await Promise.all((actor.listen ?? []).map(listen));
if (actor.connect) await connect(actor.connect);
const children = await Promise.all((actor.children ?? []).map(startChild));
say({ pid: process.pid, startTicks: startTicks(), ports, children });

function listen({ port = 0, host, ipv6Only = false }) {
  // Each client is told whose port it is, then gets back what it sends.
  const server = net.createServer((socket) => {
    socket.on('error', () => {});
    socket.write(`${process.pid}\n`);
    socket.pipe(socket);
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port, host, ipv6Only, exclusive: true }, () => {
      const { address, port: bound } = server.address();
      resolve({ port: bound, host: address });
    });
  });
}

function connect({ port, host = '127.0.0.1' }) {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host }, resolve);
    socket.on('error', reject); // after the connect it settles nothing: a client outlives its server
  });
}

function startChild(part) {
  const child = spawn(process.execPath, [process.argv[1], JSON.stringify(part)], {
    argv0: part.argv0 ?? process.argv0,
    detached: part.setsid === true,
    env: { ...process.env, ...part.env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  child.on('exit', () => {
    if (respawnsLeft-- > 0) startChild(part).then(sayRespawned, ignoreKilledEarly);
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    const lines = createInterface({ input: child.stdout });
    // Not its 'exit': that may be heard before the line of a child that leaves.
    lines.once('close', () => reject(new Error(`a child ended before it was ready: ${JSON.stringify(part)}`)));
    lines.once('line', (line) => {
      resolve(JSON.parse(line));
      lines.on('line', (later) => say(JSON.parse(later)));
    });
  });
}

function say(what) {
  process.stdout.write(`${JSON.stringify(what)}\n`, () => actor.leave && process.exit(0));
}

function startTicks() {
  const stat = readFileSync('/proc/self/stat', 'utf8');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
}

function sayRespawned(respawned) {
  say({ respawned });
}

// Killed before it was ready: the next one is already on its way.
function ignoreKilledEarly() {}
