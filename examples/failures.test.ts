/**
 * Tests of what a program does when the server behind its tunnel drops it, refuses, says nothing or has another host key.
 * With node:test, which is a part of Node:
 *
 *   node --test examples/failures.test.ts      (Node 22.18 or later; `npm test` compiles it for older ones)
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { after, test } from 'node:test';
import { startSshServer, startTunnel } from 'tunward/testing';

const target = createServer((_request, answer) => answer.end('rows')).listen(0, '127.0.0.1');
await once(target, 'listening');
const server = await startSshServer();
// A silent server is given up after 2 s, and not after a minute.
const sshOptions = { ServerAliveInterval: '1', ServerAliveCountMax: '1' };
const tunnel = await startTunnel({ server, target, sshOptions });

after(async () => {
  await tunnel.close();
  await server.close();
  target.close();
});

/** The program under test. */
async function ask() {
  const signal = AbortSignal.timeout(1000);
  const answer = await fetch(`http://127.0.0.1:${tunnel.port}`, { signal, headers: { connection: 'close' } });
  return answer.text();
}

test('the server drops the connection: the tunnel comes back by itself', async () => {
  const { restarts } = tunnel.status();
  server.drop();
  await tunnel.waitFor((now) => now.state === 'up' && now.restarts > restarts, { timeoutMs: 15_000 });
  assert.equal(await ask(), 'rows');
});

test('the server refuses connections: so does the tunnel, until it is let in again', async () => {
  server.refuse('connection');
  server.drop();
  await tunnel.waitFor(({ state, reason }) => state === 'backoff' && reason === 'refused');
  await assert.rejects(ask(), /fetch failed/);
  await server.resume();
  await tunnel.restart(); // now, and not at its own next try
  assert.equal(await ask(), 'rows');
});

test('the server refuses the login: the start fails, and says why', async () => {
  server.refuse('login');
  await assert.rejects(tunnel.restart(), { code: 'ERR_START_FAILED' });
  assert.equal(tunnel.status().reason, 'auth_failed');
  await server.resume();
  await tunnel.restart();
  assert.equal(await ask(), 'rows');
});

test('the server says nothing any more: who asks has to have a deadline, and the tunnel has one', async () => {
  server.stall();
  await assert.rejects(ask(), { name: 'TimeoutError' });
  await tunnel.waitFor(({ reason }) => reason === 'timeout', { timeoutMs: 15_000 });
  await server.resume();
  await tunnel.waitFor(({ state }) => state === 'up', { timeoutMs: 15_000 });
  assert.equal(await ask(), 'rows');
});

test('the server has another host key: the tunnel stays down until somebody has written it down', async () => {
  server.changeHostKey();
  await assert.rejects(tunnel.restart(), { code: 'ERR_START_FAILED' });
  const { state, reason } = tunnel.status();
  assert.deepEqual([state, reason], ['fatal', 'host_key_changed']);
  await writeFile(server.knownHostsFile, `${server.knownHostsLine}\n`);
  await tunnel.restart();
  assert.equal(await ask(), 'rows');
});
