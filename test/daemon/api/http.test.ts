import { createHash } from 'node:crypto';
import fs, { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import * as z from 'zod';
import { type Door, openSocketDoor, openTcpDoor } from '#lib/daemon/api/http.js';
import type { Route } from '#lib/daemon/api/route.js';
import { sessionRoutes } from '#lib/daemon/api/session.js';
import type { EventStream } from '#lib/daemon/api/stream.js';
import { createFailures, createSessions, openTokens, type TokenFile } from '#lib/daemon/api/tokens.js';
import { TunwardError } from '#lib/errors.js';
import { systemClock } from '#lib/time.js';

describe('the doors of the API', () => {
  let dir: string;
  let acted: number;
  const doors: Door[] = [];
  const row = (method: Route['method'], path: string, scope: Route['scope'], handle: Route['handle']): Route => ({
    ...{ method, path, scope, handle },
    about: 'for a test',
    answers: {},
  });
  const idParams = z.strictObject({ id: z.string() });
  const act = async () => ({ status: 202, body: { acted: ++acted } });
  const routes: Route[] = [
    row('GET', '/health', 'open', async () => ({ body: { status: 'ok' } })),
    {
      ...row('GET', '/v1/things/{id}', 'read', async ({ params }) => ({
        body: { tookMs: 1, ...(params as { id: string }) },
      })),
      params: idParams,
    },
    row('POST', '/v1/act', 'act', act),
    { ...row('PUT', '/v1/act', 'act', act), body: z.strictObject({ count: z.int().max(3) }) },
    row('GET', '/v1/fails', 'read', async () => {
      throw new TunwardError('ERR_PORT_HELD', 'Port 1 is held', { port: 1, holders: [] });
    }),
    row('GET', '/v1/breaks', 'read', async () => {
      throw new Error('unforeseen');
    }),
    row('GET', '/v1/stream', 'read', async () => ({
      stream: (stream) => {
        stream.send('hello', { tookMs: 1 }, 'a-1');
        streams.add(stream);
        return () => streams.delete(stream);
      },
    })),
  ];
  const streams = new Set<EventStream>();

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-door-'));
    acted = 0;
  });

  afterEach(async () => {
    await Promise.all(doors.splice(0).map((door) => door.close()));
    rmSync(dir, { recursive: true, force: true });
  });

  type Reply = { status: number; type: string; body: Record<string, unknown> };

  function call(options: http.RequestOptions, body?: string): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const request = http.request({ agent: false, timeout: 5000, ...options }, (answer) => {
        let text = '';
        answer.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk;
        });
        const type = answer.headers['content-type'] ?? '';
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, type, body: JSON.parse(text) }));
      });
      request.on('error', reject).end(body);
    });
  }

  async function tcp(
    files: readonly TokenFile[],
    { keyDigests = [], hosts = [] }: { keyDigests?: string[]; hosts?: string[] } = {},
  ): Promise<Door> {
    const tokens = openTokens(files, keyDigests);
    const access = { tokens, sessions: createSessions(systemClock), failures: createFailures(systemClock), hosts };
    const rows = [...routes, ...sessionRoutes({ ...access, version: '0', clock: systemClock })];
    return openTcpDoor({ host: '127.0.0.1', port: 0 }, access, rows);
  }

  async function socketDoor(): Promise<string> {
    const socket = join(dir, 'run', 'api.sock');
    doors.push(await openSocketDoor(socket, routes));
    return socket;
  }

  describe('unix socket', () => {
    it('is for its owner alone, in a folder for its owner alone', async () => {
      const socket = await socketDoor();
      expect(statSync(socket).mode & 0o777).to.equal(0o600);
      expect(statSync(join(dir, 'run')).mode & 0o777).to.equal(0o700);
    });

    it('answers in snake_case, and asks for no token', async () => {
      const socketPath = await socketDoor();
      const { status, body } = await call({ socketPath, path: '/v1/things/a%20b' });
      expect([status, body]).to.deep.equal([200, { took_ms: 1, id: 'a b' }]);
      expect((await call({ socketPath, method: 'POST', path: '/v1/act' })).status).to.equal(202);
    });

    it('gives every error as problem details with its code', async () => {
      const socketPath = await socketDoor();
      const held = await call({ socketPath, path: '/v1/fails' });
      expect(held).to.deep.include({ status: 409, type: 'application/problem+json' });
      expect(held.body).to.deep.include({ code: 'ERR_PORT_HELD', detail: 'Port 1 is held', port: 1, status: 409 });
      expect((await call({ socketPath, path: '/v1/breaks' })).status).to.equal(500);
      expect((await call({ socketPath, path: '/nowhere' })).status).to.equal(404);
      expect((await call({ socketPath, method: 'DELETE', path: '/v1/act' })).status).to.equal(405);
    });

    it('refuses a body of more than 64 KiB', async () => {
      const socketPath = await socketDoor();
      const { status } = await call({ socketPath, method: 'POST', path: '/v1/act' }, 'x'.repeat(70_000));
      expect([status, acted]).to.deep.equal([413, 0]);
    });

    it('takes the place of a socket that nobody answers at', async () => {
      const socket = await socketDoor();
      const copy = join(dir, 'run', 'old.sock');
      fs.linkSync(socket, copy);
      await doors.pop()?.close();
      expect(existsSync(copy), 'the file of a dead daemon').to.equal(true);
      doors.push(await openSocketDoor(copy, routes));
      expect((await call({ socketPath: copy, path: '/health' })).status).to.equal(200);
    });

    it('leaves a socket that somebody answers at, and whatever is no socket', async () => {
      const socket = await socketDoor();
      await expectCode(openSocketDoor(socket, routes), 'ERR_DAEMON_RUNNING');
      const file = join(dir, 'precious');
      writeFileSync(file, 'text');
      await expectCode(openSocketDoor(file, routes), 'ERR_ACCESS_DENIED');
      expect(readFileSync(file, 'utf8')).to.equal('text');
    });

    it('closes in time though a client stays connected', async () => {
      const client = net.connect(await socketDoor());
      await new Promise((resolve) => client.once('connect', resolve));
      client.on('error', () => client.destroy());
      await doors.pop()?.close();
      client.destroy();
    });
  });

  describe('TCP', () => {
    async function tcpDoor(): Promise<{ port: number; token: string }> {
      const file = join(dir, 'state', 'token');
      const door = await tcp([{ file, rights: 'all' }]);
      doors.push(door);
      return { port: Number(new URL(door.url ?? '').port), token: readFileSync(file, 'utf8').trim() };
    }

    it('makes a token that only its owner may read', async () => {
      const { token } = await tcpDoor();
      expect(token).to.match(/^[\w-]{43}$/);
      expect(statSync(join(dir, 'state', 'token')).mode & 0o777).to.equal(0o600);
    });

    it('acts for the bearer of the token alone; health is for all', async () => {
      const { port, token } = await tcpDoor();
      const post = (headers: http.OutgoingHttpHeaders) =>
        call({ host: '127.0.0.1', port, method: 'POST', path: '/v1/act', headers });
      expect((await post({})).status).to.equal(401);
      expect((await post({ authorization: `Bearer ${token}x` })).status).to.equal(401);
      expect((await post({ authorization: token })).status).to.equal(401);
      expect(acted).to.equal(0);
      expect((await post({ authorization: `Bearer ${token}` })).status).to.equal(202);
      expect((await call({ host: '127.0.0.1', port, path: '/health' })).status).to.equal(200);
    });

    it('takes each of the keys that were handed in as well', async () => {
      const file = join(dir, 'state', 'token');
      const keyDigests = ['key-number-one', 'key-number-two'].map((key) =>
        createHash('sha256').update(key).digest('hex'),
      );
      const door = await tcp([{ file, rights: 'all' }], { keyDigests });
      doors.push(door);
      const port = Number(new URL(door.url ?? '').port);
      const bearers = ['key-number-one', 'key-number-two', readFileSync(file, 'utf8').trim()];
      const wrong = ['key-number-one,key-number-two', keyDigests[0], 'key-number-on'];
      const statuses = [...bearers, ...wrong].map(async (token) => {
        const headers = { authorization: `Bearer ${token}` };
        return (await call({ host: '127.0.0.1', port, path: '/v1/things/1', headers })).status;
      });
      expect(await Promise.all(statuses)).to.deep.equal([200, 200, 200, 401, 401, 401]);
    });

    it('does not answer for another host, nor to a page of another origin', async () => {
      const { port, token } = await tcpDoor();
      const authorization = `Bearer ${token}`;
      const get = (headers: http.OutgoingHttpHeaders) =>
        call({ host: '127.0.0.1', port, path: '/v1/things/1', headers: { authorization, ...headers } });
      expect((await get({ host: 'evil.example' })).status).to.equal(421);
      expect((await get({ host: `evil.example:${port}` })).status).to.equal(421);
      expect((await get({ origin: 'http://evil.example' })).status).to.equal(403);
      expect((await get({ host: `localhost:${port}` })).status).to.equal(200);
    });

    it('takes any line of 8 or more printable characters, and refuses a file without one', async () => {
      const file = join(dir, 'token');
      writeFileSync(file, '\n  correct-horse \n');
      chmodSync(file, 0o600);
      const door = await tcp([{ file, rights: 'all' }]);
      doors.push(door);
      const headers = { authorization: 'Bearer correct-horse' };
      const port = Number(new URL(door.url ?? '').port);
      expect((await call({ host: '127.0.0.1', port, path: '/v1/things/1', headers })).status).to.equal(200);
      writeFileSync(file, 'short\n');
      await expectCode(tcp([{ file, rights: 'all' }]), 'ERR_ACCESS_DENIED');
    });
  });

  async function expectCode(promise: Promise<unknown>, code: string): Promise<void> {
    const error = await promise.then(
      () => undefined,
      (caught: unknown) => caught,
    );
    expect(error).to.be.instanceOf(TunwardError).and.have.property('code', code);
  }
});
