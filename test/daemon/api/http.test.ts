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
import { systemClock, until } from '#lib/time.js';
import { need } from '../../support/need.js';

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
    row('GET', '/v1/history', 'read', async () => ({
      stream: (stream) => {
        for (let number = 0; number < 3072; number++) stream.send('past', 'x'.repeat(1024), `a-${number}`);
        streams.add(stream);
        return () => streams.delete(stream);
      },
    })),
    row('GET', '/v1/later', 'read', async () => {
      asked?.();
      await boot;
      return {
        stream: (stream) => {
          streams.add(stream);
          return () => streams.delete(stream);
        },
      };
    }),
  ];
  const streams = new Set<EventStream>();
  let boot: Promise<void> = Promise.resolve();
  let asked: (() => void) | undefined;

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-door-'));
    acted = 0;
  });

  afterEach(async () => {
    await Promise.all(doors.splice(0).map((door) => door.close()));
    rmSync(dir, { recursive: true, force: true });
  });

  type Reply = {
    status: number;
    type: string;
    headers: http.IncomingHttpHeaders;
    body: Record<string, unknown>;
  };

  function call(options: http.RequestOptions, body?: string): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const request = http.request({ agent: false, timeout: 5000, ...options }, (answer) => {
        let text = '';
        answer.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk;
        });
        const type = answer.headers['content-type'] ?? '';
        const { headers } = answer;
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, type, headers, body: JSON.parse(text) }));
      });
      request.on('error', reject).end(body);
    });
  }

  async function tcp(
    files: readonly TokenFile[],
    options: { keyDigests?: string[]; hosts?: string[]; listen?: { host: string; port: number } } = {},
  ): Promise<Door> {
    const { keyDigests = [], hosts = [], listen = { host: '127.0.0.1', port: 0 } } = options;
    const tokens = openTokens(files, keyDigests);
    const access = { tokens, sessions: createSessions(systemClock), failures: createFailures(systemClock), hosts };
    const rows = [...routes, ...sessionRoutes({ ...access, version: '0', clock: systemClock })];
    return openTcpDoor(listen, access, rows);
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

    it('leaves the mask of the process alone, also where two are opened at once', async () => {
      const before = process.umask();
      const opening = ['one', 'two'].map((name) => openSocketDoor(join(dir, name, 'api.sock'), routes));
      const masks = [process.umask()];
      doors.push(...(await Promise.all(opening)));
      masks.push(process.umask());
      process.umask(before);
      expect(masks).to.deep.equal([before, before]);
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

    it('takes no token from a folder of somebody else', async function () {
      need(this, 'root');
      const folder = join(dir, 'theirs');
      fs.mkdirSync(folder);
      writeFileSync(join(folder, 'token'), 'correct-horse\n', { mode: 0o600 });
      fs.chownSync(folder, 65_534, 65_534);
      await expectCode(tcp([{ file: join(folder, 'token'), rights: 'all' }]), 'ERR_ACCESS_DENIED');
      await expectCode(tcp([{ file: join(folder, 'new'), rights: 'all' }]), 'ERR_ACCESS_DENIED');
      expect(fs.readdirSync(folder)).to.deep.equal(['token']);
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

    it('says who can say it, when somebody else listens there, or nobody can', async () => {
      const holder = net.createServer();
      await new Promise<void>((resolve) => holder.listen(0, '127.0.0.1', resolve));
      const { port } = holder.address() as net.AddressInfo;
      const file = join(dir, 'token');
      const at = (host: string) => tcp([{ file, rights: 'all' }], { listen: { host, port } });
      await expectCode(at('127.0.0.1'), 'ERR_PORT_HELD');
      await expectCode(at('192.0.2.1'), 'ERR_ACCESS_DENIED');
      await new Promise((resolve) => holder.close(resolve));
      doors.push(await at('127.0.0.1'));
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
      chmodSync(file, 0o640);
      expect(openTokens([{ file, rights: 'all' }], []).warnings.join()).to.match(
        /token: .* found mode 0640: chmod 600/,
      );
      chmodSync(file, 0o600);
      expect(openTokens([{ file, rights: 'all' }], []).warnings).to.deep.equal([]);
      const door = await tcp([{ file, rights: 'all' }]);
      doors.push(door);
      const headers = { authorization: 'Bearer correct-horse' };
      const port = Number(new URL(door.url ?? '').port);
      expect((await call({ host: '127.0.0.1', port, path: '/v1/things/1', headers })).status).to.equal(200);
      writeFileSync(file, 'short\n');
      await expectCode(tcp([{ file, rights: 'all' }]), 'ERR_ACCESS_DENIED');
    });
  });

  /** A request as it is typed, over a bare socket; answers the status and the whole text. */
  function raw(port: number, text: string): Promise<{ status: number; text: string }> {
    return new Promise((resolve, reject) => {
      const socket = net.connect(port, '127.0.0.1', () => socket.write(text));
      let answer = '';
      socket.setEncoding('latin1').on('data', (chunk: string) => {
        answer += chunk;
      });
      socket.on('error', reject);
      socket.setTimeout(10_000, () => socket.destroy(new Error(`no end: ${answer}`)));
      socket.on('close', () => resolve({ status: Number(answer.split(' ')[1] ?? 0), text: answer }));
    });
  }

  describe('what cannot be a request of ours', () => {
    let port: number;
    let token: string;
    let auth: string;
    beforeEach(async () => {
      const file = join(dir, 'token');
      const door = await tcp([{ file, rights: 'all' }]);
      doors.push(door);
      port = Number(new URL(door.url ?? '').port);
      token = readFileSync(file, 'utf8').trim();
      auth = `Authorization: Bearer ${token}\r\nConnection: close\r\n`;
    });

    const cases: readonly [what: string, status: number, make: (host: string) => string][] = [
      ['an absolute URL', 400, (host) => `POST http://${host}/v1/act HTTP/1.1\r\nHost: ${host}\r\n`],
      ['a path of two slashes', 400, (host) => `POST //v1/act HTTP/1.1\r\nHost: ${host}\r\n`],
      ['HTTP/1.0 without a Host', 400, () => 'POST /v1/act HTTP/1.0\r\n'],
      ['HTTP/1.1 without a Host', 400, () => 'POST /v1/act HTTP/1.1\r\n'],
      ['two Hosts', 400, (host) => `POST /v1/act HTTP/1.1\r\nHost: ${host}\r\nHost: ${host}\r\n`],
      ['another Host', 421, () => 'POST /v1/act HTTP/1.1\r\nHost: evil.example\r\n'],
      ['a Host with a dot behind', 421, (host) => `POST /v1/act HTTP/1.1\r\nHost: ${host.replace(':', '.:')}\r\n`],
      ['a Host without its port', 421, () => 'POST /v1/act HTTP/1.1\r\nHost: 127.0.0.1\r\n'],
      ['no page at all as origin', 403, (host) => `POST /v1/act HTTP/1.1\r\nHost: ${host}\r\nOrigin: null\r\n`],
      [
        'the origin of another port',
        403,
        (host) => `POST /v1/act HTTP/1.1\r\nHost: ${host}\r\nOrigin: http://127.0.0.1:1\r\n`,
      ],
      ['a body of text', 415, (host) => withBody(host, 'text/plain', '{}')],
      ['a form', 415, (host) => withBody(host, 'application/x-www-form-urlencoded', 'a=b')],
      ['a body of no type', 415, (host) => withBody(host, undefined, '{}')],
      ['JSON that is none', 400, (host) => withBody(host, 'application/json', '{')],
      ['bytes that are no UTF-8', 400, (host) => withBody(host, 'application/json', '{"a":"\xff"}')],
      ['keys that nobody knows', 400, (host) => withBody(host, 'application/json', '{"__proto__":{"count":1}}')],
      ['a head of 1 MB', 431, (host) => `POST /v1/act HTTP/1.1\r\nHost: ${host}\r\nX: ${'x'.repeat(1e6)}\r\n`],
      [
        'two lengths',
        400,
        (host) => `POST /v1/act HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 0\r\nContent-Length: 2\r\n`,
      ],
      [
        'a length and chunks',
        400,
        (host) => `POST /v1/act HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n`,
      ],
      ['a Host with a user', 421, (host) => `POST /v1/act HTTP/1.1\r\nHost: user@${host}\r\n`],
      ['another Host, of what is not there', 421, () => 'POST /nowhere HTTP/1.1\r\nHost: evil.example\r\n'],
      [
        'another origin behind more headers than Node keeps',
        400,
        (host) => `POST /v1/act HTTP/1.1\r\nHost: ${host}\r\n${'X: y\r\n'.repeat(2000)}Origin: http://evil.example\r\n`,
      ],
      ['no HTTP', 400, () => 'HELO there\r\n'],
      ['a compressed body', 415, (host) => withBody(host, 'application/json\r\nContent-Encoding: gzip', '{}')],
      [
        'a body that is announced with 100 GB',
        413,
        (host) => `PUT /v1/act HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 100000000000\r\n`,
      ],
      ['two tokens', 400, (host) => `POST /v1/act HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer x\r\n`],
    ];
    for (const [what, status, make] of cases) {
      it(`${what} is ${status}, and nothing is done`, async () => {
        const head = make(`127.0.0.1:${port}`);
        const [lines = '', body = ''] = head.split('\r\n\r\n');
        const answer = await raw(port, `${lines.replace(/(\r\n)?$/, '\r\n')}${auth}\r\n${body}`);
        expect(answer.status, answer.text.slice(0, 300)).to.equal(status);
        expect(answer.text, 'a code').to.match(/"code":"ERR_[A-Z_]+"/);
        expect(acted).to.equal(0);
        // The same with nothing wrong is done.
        const right = `POST /v1/act HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n${auth}\r\n`;
        const done = await raw(port, right);
        expect(done.status, done.text).to.equal(202);
      });
    }

    function withBody(host: string, type: string | undefined, body: string): string {
      const line = type === undefined ? '' : `Content-Type: ${type}\r\n`;
      return `PUT /v1/act HTTP/1.1\r\nHost: ${host}\r\n${line}Content-Length: ${body.length}\r\n\r\n${body}`;
    }

    it('a body of 1 MB is 413', async () => {
      const head = `PUT /v1/act HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n${auth}`;
      const type = 'Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n';
      const answer = await raw(port, `${head}${type}${'x'.repeat(1e6)}`);
      expect([answer.status, acted]).to.deep.equal([413, 0]);
    });

    it('a body that goes on for ever in chunks is 413', async () => {
      const chunk = `8000\r\n${'x'.repeat(0x8000)}\r\n`;
      const head = `PUT /v1/act HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n${auth}`;
      const type = 'Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n';
      const answer = await raw(port, `${head}${type}${chunk.repeat(3)}0\r\n\r\n`);
      expect([answer.status, acted]).to.deep.equal([413, 0]);
    });

    it('HEAD is answered as GET is, without its body', async () => {
      const ask = (method: string) => raw(port, `${method} /health HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n${auth}\r\n`);
      const [head, get] = [await ask('HEAD'), await ask('GET')];
      const withoutDate = (text: string) => text.replace(/^date: .*\r\n/im, '');
      expect(get.text).to.match(/\r\n\r\n\{"status":"ok"\}$/);
      expect(withoutDate(head.text)).to.equal(withoutDate(get.text).replace(/\{.*$/, ''));
    });

    it('a head that never ends is given up', async () => {
      const answer = await raw(port, 'GET /health HTTP/1.1\r\nHost: ');
      expect(answer.status).to.equal(408);
      expect(answer.text).to.match(/"detail":"Expected a head within 5 s/);
    });
  });

  describe('at the unix socket', () => {
    it('answers to this host by name alone, also where somebody has put the socket on a port', async () => {
      const socketPath = await socketDoor();
      const post = async (headers: http.OutgoingHttpHeaders) =>
        (await call({ socketPath, method: 'POST', path: '/v1/act', headers })).status;
      expect(await post({ host: 'evil.example:7420' })).to.equal(421);
      expect(await post({ host: 'localhost:7420', origin: 'http://evil.example' })).to.equal(403);
      expect(acted).to.equal(0);
      expect(await post({ host: 'localhost:7420', origin: 'http://localhost:7420' })).to.equal(202);
      expect(await post({ host: '[::1]:7420' })).to.equal(202);
    });

    it('streams, and is told when nobody reads any more', async () => {
      const socketPath = await socketDoor();
      const text = await new Promise<string>((resolve, reject) => {
        const request = http.get({ socketPath, path: '/v1/stream', agent: false });
        request.on('error', reject).on('response', (answer) => {
          let heard = '';
          answer.setEncoding('utf8').on('data', (chunk: string) => {
            heard += chunk;
            if (!heard.includes('took_ms')) return;
            resolve(`${answer.headers['content-type']} ${heard}`);
            request.destroy();
          });
          answer.on('error', () => undefined); // we have hung up
        });
      });
      expect(text).to.equal(
        'text/event-stream; charset=utf-8 retry: 1000\n\nid: a-1\nevent: hello\ndata: {"took_ms":1}\n\n',
      );
      expect(await until(() => streams.size === 0, { timeoutMs: 5000, everyMs: 10 })).to.equal(true);
    });

    it('is told all of a long past, and what comes while that is on its way', async () => {
      const socketPath = await socketDoor();
      const text = await new Promise<string>((resolve, reject) => {
        const request = http.get({ socketPath, path: '/v1/history', agent: false });
        request.on('error', reject).on('response', (answer) => {
          for (const stream of streams) stream.send('present', {});
          let heard = '';
          answer.setEncoding('utf8').on('data', (chunk: string) => {
            heard += chunk;
            if (heard.endsWith('event: present\ndata: {}\n\n')) request.destroy();
          });
          answer.on('error', () => undefined).on('close', () => resolve(heard));
        });
      });
      const ids = [...text.matchAll(/^id: a-(\d+)$/gm)].map(([, id]) => Number(id));
      expect(ids).to.deep.equal(Array.from({ length: 3072 }, (_, number) => number));
      expect(text.match(/event: present/g)).to.have.length(1);
    });

    it('has no reader who hung up before the stream began', async () => {
      const socketPath = await socketDoor();
      let finishBoot = () => {};
      boot = new Promise((resolve) => {
        finishBoot = resolve;
      });
      const heard = new Promise<void>((resolve) => {
        asked = resolve;
      });
      const client = net.connect(socketPath, () => client.write('GET /v1/later HTTP/1.1\r\nHost: localhost\r\n\r\n'));
      await heard;
      client.destroy();
      // Another one's answer, so that the end of the first has been seen.
      expect((await call({ socketPath, path: '/health' })).status).to.equal(200);
      finishBoot();
      await new Promise((resolve) => setImmediate(resolve));
      expect(streams.size).to.equal(0);
    });

    it('has no reader behind another answer on the same connection, where no end is told', async () => {
      const socketPath = await socketDoor();
      const ask = 'GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n';
      const client = net.connect(socketPath, () => client.write(ask.repeat(20)));
      await until(() => streams.size > 0, { timeoutMs: 5000, everyMs: 10 });
      expect((await call({ socketPath, path: '/health' })).status).to.equal(200);
      expect(streams.size).to.equal(1);
      client.destroy();
      expect(await until(() => streams.size === 0, { timeoutMs: 5000, everyMs: 10 })).to.equal(true);
    });

    it('is over at once for HEAD, and the connection is of use again', async () => {
      const socketPath = await socketDoor();
      const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
      const ask = (method: string, path: string) =>
        new Promise<http.IncomingMessage>((resolve, reject) => {
          const request = http.request({ socketPath, method, path, agent, timeout: 5000 }, (answer) => {
            answer.on('end', () => resolve(answer)).resume();
          });
          request.on('timeout', () => request.destroy(new Error('nothing comes'))).on('error', reject);
          request.end();
        });
      const { statusCode, headers } = await ask('HEAD', '/v1/stream');
      expect([statusCode, headers['content-type']]).to.deep.equal([200, 'text/event-stream; charset=utf-8']);
      expect((await ask('GET', '/health')).statusCode).to.equal(200);
      expect(streams.size).to.equal(0);
      agent.destroy();
    });

    it('drops a reader who does not read, and keeps no more than it must for one', async () => {
      const socketPath = await socketDoor();
      const client = net.connect(socketPath, () => client.write('GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n'));
      client.on('error', () => undefined); // it is cut off
      client.pause();
      await until(() => streams.size === 1, { timeoutMs: 5000, everyMs: 10 });
      const [stream] = streams;
      for (let kib = 0; kib < 8192 && streams.size > 0; kib++) stream?.send('more', 'x'.repeat(1024));
      expect(streams.size).to.equal(0);
      client.destroy();
    });
  });

  describe('tokens and sessions', () => {
    let port: number;
    let all: string;
    let read: string;
    beforeEach(async () => {
      const [file, readFile] = [join(dir, 'token'), join(dir, 'read')];
      const door = await tcp(
        [
          { file, rights: 'all' },
          { file: readFile, rights: 'read' },
        ],
        { hosts: ['tunnels.example', 'tunnels.example:443'] },
      );
      doors.push(door);
      port = Number(new URL(door.url ?? '').port);
      [all, read] = [readFileSync(file, 'utf8').trim(), readFileSync(readFile, 'utf8').trim()];
    });
    const ask = (method: string, path: string, headers: http.OutgoingHttpHeaders, body?: unknown) => {
      const type = body === undefined ? {} : { 'content-type': 'application/json' };
      const options = { host: '127.0.0.1', port, method, path, headers: { ...type, ...headers } };
      return call(options, body === undefined ? undefined : JSON.stringify(body));
    };
    const login = (token: string) => ask('POST', '/v1/session', {}, { token });

    it('a token for looking looks, and does nothing else', async () => {
      const authorization = `Bearer ${read}`;
      expect((await ask('GET', '/v1/things/1', { authorization })).status).to.equal(200);
      expect((await ask('POST', '/v1/act', { authorization })).body).to.include({ status: 403, code: 'ERR_FORBIDDEN' });
      expect(acted).to.equal(0);
      expect((await ask('GET', '/v1/session', { authorization })).body).to.include({ scope: 'read', via: 'token' });
    });

    it('a token is no good in a URL, nor in a cookie', async () => {
      expect((await ask('GET', `/v1/things/1?token=${all}`, {})).status).to.equal(401);
      expect((await ask('GET', '/v1/things/1', { cookie: `tunward_${port}=${all}` })).status).to.equal(401);
    });

    it('another name is answered to where the configuration has it', async () => {
      const authorization = `Bearer ${all}`;
      expect((await ask('GET', '/v1/things/1', { authorization, host: 'tunnels.example' })).status).to.equal(200);
      expect((await ask('GET', '/v1/things/1', { authorization, host: 'TUNNELS.example' })).status).to.equal(200);
      expect((await ask('GET', '/v1/things/1', { authorization, host: 'x.tunnels.example' })).status).to.equal(421);
    });

    it('a page of such a name is ours, however the proxy writes that', async () => {
      const post = async (host: string, origin: string) =>
        (await ask('POST', '/v1/act', { authorization: `Bearer ${all}`, host, origin })).status;
      for (const host of ['tunnels.example', 'TUNNELS.example', 'tunnels.example:443']) {
        expect(await post(host, 'https://tunnels.example'), host).to.equal(202);
        expect(await post(host, 'https://tunnels.example:8443'), host).to.equal(403);
      }
      expect(await post('tunnels.example:443', 'http://tunnels.example')).to.equal(403);
      expect(acted).to.equal(3);
    });

    it('a session has the rights of its token, in a cookie that no script reads and no other site sends', async () => {
      const { status, body, headers } = await login(read);
      expect([status, body.scope]).to.deep.equal([200, 'read']);
      const [set = ''] = headers['set-cookie'] ?? [];
      expect(set).to.match(
        new RegExp(`^tunward_${port}=[\\w-]{43}; Path=/; HttpOnly; SameSite=Strict; Max-Age=86400$`),
      );
      const cookie = set.split(';')[0] ?? '';
      expect((await ask('GET', '/v1/session', { cookie })).body).to.include({ scope: 'read', via: 'cookie' });
      expect((await ask('POST', '/v1/act', { cookie, origin: `http://127.0.0.1:${port}` })).status).to.equal(403);
    });

    it('a session acts for pages of ours alone, and ends when it is told to', async () => {
      const cookie = (await login(all)).headers['set-cookie']?.[0]?.split(';')[0] ?? '';
      const origin = `http://127.0.0.1:${port}`;
      const act = async (headers: http.OutgoingHttpHeaders) =>
        (await ask('POST', '/v1/act', { cookie, ...headers })).status;
      expect(await act({})).to.equal(403);
      expect(await act({ origin: 'http://evil.example' })).to.equal(403);
      expect(await act({ origin, 'sec-fetch-site': 'same-site' })).to.equal(403);
      expect(acted).to.equal(0);
      expect(await act({ origin, 'sec-fetch-site': 'same-origin' })).to.equal(202);
      expect((await ask('GET', '/v1/things/1', { cookie, 'sec-fetch-site': 'cross-site' })).status).to.equal(403);
      expect((await ask('DELETE', '/v1/session', { cookie, origin })).status).to.equal(200);
      expect((await ask('GET', '/v1/things/1', { cookie })).status).to.equal(401);
    });

    it('after ten wrong tokens from an address none is looked at any more, the right one neither', async () => {
      for (let n = 0; n < 5; n++) {
        expect((await login('wrong-token')).status).to.equal(401);
        expect((await ask('GET', '/v1/things/1', { authorization: 'Bearer wrong-token' })).status).to.equal(401);
      }
      const limited = await ask('GET', '/v1/things/1', { authorization: `Bearer ${all}` });
      expect(limited.body).to.include({ status: 429, code: 'ERR_TOO_MANY_REQUESTS' });
      expect(Number(limited.headers['retry-after'])).to.be.within(1, 60);
      expect((await login(all)).status).to.equal(429);
      // From another address it is as before.
      const other = { host: '127.0.0.1', port, localAddress: '127.0.0.2', path: '/v1/things/1' };
      expect((await call({ ...other, headers: { authorization: `Bearer ${all}` } })).status).to.equal(200);
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
