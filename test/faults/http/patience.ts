// What H1 does that takes time: bytes that come one by one, connections without number, tokens tried one after the other.
import { readdirSync, readFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { systemClock, until } from '#lib/time.js';
import { isFull, spread } from '../../support/fault.js';
import { bearer, hostOf, restart } from './attacks.js';
import { type Reply, request, send } from './raw.js';
import { logIn } from './routes.js';
import type { Target } from './target.js';

/** Slower than anybody is waited for: a head within 5 s, all of a request within 10 s, and a second to notice. */
export async function dripAttacks({ port, token, home }: Target, times: number): Promise<string> {
  const head = request(restart, [hostOf({ port }), 'Content-Type: application/json', 'Content-Length: 60000']);
  const chunks = request(restart, [hostOf({ port }), 'Transfer-Encoding: chunked']);
  const drops = (count: number) => Array<string>(count).fill('x');
  const authorized = [hostOf({ port }), bearer({ token }), 'Content-Type: application/json', 'Content-Length: 60000'];
  const kinds: Readonly<
    Record<string, readonly [bytes: readonly (string | Buffer)[], boundMs: number, expected: RegExp]>
  > = {
    'a head without an end': [[`${restart}\r\nX: `, ...drops(100)], 7000, /^408$/],
    'lines of a head without an end': [[`${restart}\r\n`, ...drops(100).map(() => 'X: y\r\n')], 7000, /^408$/],
    'not a word': [[], 7000, /^(0|408)$/],
    'half a line': [['POS'], 7000, /^(0|408)$/],
    'a body without an end, and no token': [[head, ...drops(100)], 12_000, /^401$/],
    'chunks without an end, and no token': [[chunks, ...drops(100).map(() => '1\r\nx\r\n')], 12_000, /^401$/],
    'a body without an end': [[request('POST /v1/operations HTTP/1.1', authorized), ...drops(100)], 12_000, /^408$/],
  };
  const well: number[] = [];
  const ended = new AbortController();
  const asking = askAllTheTime({ port, token }, well, ended.signal);
  const all = await Promise.all(
    Object.entries(kinds).flatMap(([name, [bytes, boundMs, expected]]) =>
      Array.from({ length: times }, async () => {
        const reply = await send(bytes, { port, dripMs: 300, timeoutMs: 30_000, untilClosed: true });
        expect(String(reply.status), name).to.match(expected);
        expect(reply.tookMs, name).to.be.below(boundMs + 3000);
        return reply.tookMs;
      }),
    ),
  );
  ended.abort();
  await asking;
  expect((await home.api('GET', '/v1/tunnels')).status).to.equal(200);
  return `${all.length} that drip, given up after ${(Math.max(...all) / 1000).toFixed(1)} s at most; others answered meanwhile in ${spread(well)}`;
}

async function askAllTheTime(aim: Pick<Target, 'port' | 'token'>, took: number[], signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const reply = await send([request('GET /v1/tunnels HTTP/1.1', [hostOf(aim), bearer(aim)])], { port: aim.port });
    expect(reply.status, 'of somebody with a token').to.equal(200);
    took.push(reply.tookMs);
    await systemClock.sleep(50);
  }
}

/** More connections than are taken: those are closed at once, the socket of the owner is another door, and it passes. */
export async function floodAttack({ port, token, home, daemon }: Target): Promise<string> {
  const sockets = await Promise.all(Array.from({ length: 700 }, () => connect(port)));
  const isOpen = (socket: net.Socket) => !socket.destroyed;
  await until(() => sockets.filter(isOpen).length <= 512, { timeoutMs: 5000 });
  const kept = sockets.filter(isOpen).length;
  expect(kept, 'connections').to.be.at.most(512);
  const began = systemClock.now();
  expect((await home.api('GET', '/v1/tunnels')).status, 'at the unix socket').to.equal(200);
  const tookMs = systemClock.now() - began;
  for (const socket of sockets) socket.destroy();
  const look = () => send([request('GET /v1/tunnels HTTP/1.1', [hostOf({ port }), bearer({ token })])], { port });
  const isBack = async () => (await look()).status === 200;
  expect(await until(isBack, { timeoutMs: 10_000, everyMs: 50 }), daemon.stderr()).to.equal(true);
  return `700 connections, ${kept} kept, the unix socket meanwhile in ${tookMs.toFixed()} ms`;
}

function connect(port: number): Promise<net.Socket> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1', () => resolve(socket));
    socket.on('error', () => resolve(socket.destroy()));
    socket.on('end', () => socket.destroy());
    socket.resume();
  });
}

/** After ten wrong tokens an address is not listened to, with the right one neither; everybody else is. */
export async function guessAttack(target: Target): Promise<string> {
  const { port, token, home } = target;
  const [from, other] = [target.newAddress(), target.newAddress()];
  const cookie = await logIn(target);
  const ask = (line: string, headers: readonly string[], body = '', address = from): Promise<Reply> => {
    const lines = [hostOf({ port }), ...headers, `Content-Length: ${body.length}`];
    return send([request(`${line} HTTP/1.1`, lines, body)], { port, from: address });
  };
  const look = 'GET /v1/tunnels';
  const statuses: number[] = [];
  for (let guess = 0; guess < 12; guess++) {
    statuses.push((await ask(look, [`Authorization: Bearer guess-${guess}`])).status);
  }
  expect(statuses).to.deep.equal([...Array(10).fill(401), 429, 429]);
  const right = await ask(look, [bearer(target)]);
  expect(right.status, 'the right one').to.equal(429);
  expect(Number(right.headers['retry-after'])).to.be.within(1, 60);
  expect(right.body).to.include('ERR_TOO_MANY_REQUESTS');
  const json = 'Content-Type: application/json';
  expect((await ask('POST /v1/session', [json], JSON.stringify({ token }))).status, 'logging in').to.equal(429);
  expect((await ask(restart.replace(/ HTTP.*/, ''), [bearer(target)])).status, 'acting').to.equal(429);
  expect((await ask('GET /livez', [])).status, 'what is open').to.equal(200);
  expect((await ask(look, [`Cookie: ${cookie}`])).status, 'who is in already').to.equal(200);
  expect((await ask(look, [bearer(target)], '', other)).status, 'another address').to.equal(200);
  expect((await home.api('GET', '/v1/tunnels')).status, 'the unix socket').to.equal(200);
  if (!isFull) return '10 guesses, then 429 to that address alone';
  const began = systemClock.now();
  const isOver = async () => (await ask(look, [bearer(target)])).status === 200;
  expect(await until(isOver, { timeoutMs: 70_000, everyMs: 1000 }), 'recovers').to.equal(true);
  return `10 guesses, then 429 to that address alone, for ${((systemClock.now() - began) / 1000).toFixed()} s`;
}

/** A cookie that was there before is not taken over, one that is over is worth nothing, and no secret is told. */
export async function sessionAttack(target: Target): Promise<string> {
  const { port, token, readToken, home, daemon } = target;
  const own = `Origin: http://127.0.0.1:${port}`;
  const ask = (line: string, headers: readonly string[], body = ''): Promise<Reply> => {
    const lines = [hostOf({ port }), ...headers, `Content-Length: ${body.length}`];
    return send([request(`${line} HTTP/1.1`, lines, body)], { port, from: target.newAddress() });
  };
  const enter = (text: string, cookie: string) =>
    ask('POST /v1/session', ['Content-Type: application/json', `Cookie: ${cookie}`], JSON.stringify({ token: text }));
  const planted = `tunward_${port}=${'P'.repeat(43)}`;
  const mine = await enter(token, planted);
  expect(mine.status).to.equal(200);
  const given = mine.headers['set-cookie'] ?? '';
  expect(given)
    .to.match(/; HttpOnly/)
    .and.match(/; SameSite=Strict/);
  expect(given).to.not.include('P'.repeat(43));
  expect(mine.text).to.not.include(token);
  expect((await ask('GET /v1/tunnels', [`Cookie: ${planted}`])).status, 'the planted one').to.equal(401);
  const cookie = /^[^;]+/.exec(given)?.[0] ?? '';
  expect((await ask('GET /v1/tunnels', [`Cookie: ${cookie}`])).status).to.equal(200);
  const again = await enter(token, cookie);
  expect(again.headers['set-cookie'], 'another one each time').to.not.include(cookie);
  expect((await ask('DELETE /v1/session', [`Cookie: ${cookie}`, own])).status).to.equal(200);
  expect((await ask('GET /v1/tunnels', [`Cookie: ${cookie}`])).status, 'one that is over').to.equal(401);
  const looker = /^[^;]+/.exec((await enter(readToken, 'x=y')).headers['set-cookie'] ?? '')?.[0] ?? '';
  const act = restart.replace(/ HTTP.*/, '');
  expect((await ask(act, [`Cookie: ${looker}`, own])).status, 'of a token for looking').to.equal(403);
  const logs = readdirSync(home.logDir).map((name) => readFileSync(join(home.logDir, name), 'utf8'));
  const told = [daemon.stderr(), ...logs, JSON.stringify((await home.api('GET', '/v1/config')).body)].join('\n');
  for (const secret of [token, readToken, cookie.split('=')[1] ?? '-']) expect(told).to.not.include(secret);
  return 'a planted cookie, one that is over, one of a token for looking';
}
