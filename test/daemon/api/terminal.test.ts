import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { type Door, openSocketDoor, openTcpDoor } from '#lib/daemon/api/http.js';
import { sessionRoutes } from '#lib/daemon/api/session.js';
import { terminalRoutes } from '#lib/daemon/api/terminal.js';
import { createFailures, createSessions, openTokens } from '#lib/daemon/api/tokens.js';
import { TunwardError } from '#lib/errors.js';
import { type Clock, systemClock, until } from '#lib/time.js';
import type { Keyboard, Person, Terminal } from '#lib/tunnel/asking/person.js';
import type { AuthenticateOptions } from '#lib/tunnel/runner.js';
import type { Supervisor } from '#lib/tunnel/supervisor.js';
import { createFakeClock } from '../../support/fakeclock.js';
import { outcomeOf, type Refusal, rawOf, type Visit, type Visitor, visit, visitOpen } from '../../support/visitor.js';

/** Somebody who sits at the terminal, as whoever puts ssh on it has them. */
interface Sitting {
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  readonly open: (via: 'pty' | 'askpass') => void;
  /** Takes what is typed from now on; `isStuck`: and never has room for more. */
  readonly listen: (isStuck?: boolean) => void;
  readonly typed: () => string;
  /** The very buffers that were handed over, not wiped here: that is for whoever hands them over. */
  readonly buffers: Buffer[];
  readonly sizes: () => readonly (readonly [number, number])[];
  readonly succeed: () => void;
  readonly fail: (error: unknown) => void;
}

describe('the terminal by WebSocket', () => {
  let dir: string;
  let sittings: Sitting[];
  let taken: boolean;
  const doors: Door[] = [];
  const visitors: Visitor[] = [];
  const id = 'asks';

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-terminal-'));
    sittings = [];
    taken = false;
  });

  afterEach(async () => {
    for (const { socket } of visitors.splice(0)) socket.terminate();
    await Promise.all(doors.splice(0).map((door) => door.close()));
    rmSync(dir, { recursive: true, force: true });
  });

  const conflict = () => new TunwardError('ERR_TUNNEL_CONFLICT', 'Somebody else is at its terminal', {});

  function whyNotAuthenticate(which: string): TunwardError | undefined {
    if (which !== id) throw new TunwardError('ERR_TUNNEL_UNKNOWN', `No tunnel is called '${which}'`, { which });
    return taken ? conflict() : undefined;
  }

  async function authenticate(_which: string, person: Person, { signal, onOpen }: AuthenticateOptions = {}) {
    if (taken) throw conflict();
    taken = true;
    if (!('terminal' in person) || !signal || !onOpen) throw new TypeError('Expected a terminal');
    const [typed, buffers, sizes]: [string[], Buffer[], [number, number][]] = [[], [], []];
    let [succeed, fail]: [() => void, (error: unknown) => void] = [() => undefined, () => undefined];
    const ended = new Promise<void>((resolve, reject) => {
      [succeed, fail] = [resolve, reject];
      signal.addEventListener('abort', () => reject(signal.reason));
    });
    const keyboard = (isStuck: boolean): Keyboard => ({
      async type(bytes) {
        typed.push(bytes.toString());
        buffers.push(bytes);
        if (isStuck) await new Promise(() => undefined);
      },
      resize: (columns, rows) => void sizes.push([columns, rows]),
    });
    sittings.push({
      ...{ terminal: person.terminal, signal, open: onOpen, buffers, succeed, fail },
      listen: (isStuck = false) => person.terminal.listen(keyboard(isStuck)),
      typed: () => typed.join(''),
      sizes: () => sizes,
    });
    try {
      await ended;
    } finally {
      taken = false;
    }
    return { id, tunnel: { id, state: 'up', lastError: null } };
  }

  const supervisor = { whyNotAuthenticate, authenticate } as unknown as Supervisor;

  async function socketDoor(clock: Clock = systemClock): Promise<string> {
    const socket = join(dir, 'run', 'api.sock');
    doors.push(await openSocketDoor(socket, terminalRoutes({ supervisor, clock })));
    return socket;
  }

  async function sit(how: Partial<Visit> = {}, clock?: Clock): Promise<[Visitor, Sitting]> {
    const visitor = await visitOpen({ at: await socketDoor(clock), id, ...how });
    visitors.push(visitor);
    const sitting = sittings[0];
    if (!sitting) throw new Error('Nobody sits there');
    return [visitor, sitting];
  }

  const eventually = async (what: string, check: () => boolean) => {
    expect(await until(check, { timeoutMs: 5000 }), what).to.equal(true);
  };

  describe('a conversation', () => {
    it('draws what is shown, passes on what is typed, and wipes it', async () => {
      const [visitor, sitting] = await sit({ query: '?columns=100&rows=30' });
      expect([sitting.terminal.columns, sitting.terminal.rows]).to.deep.equal([100, 30]);
      sitting.open('pty');
      sitting.listen();
      await sitting.terminal.show(Buffer.from("me@host's password: "));
      await visitor.sees('password: ');
      visitor.type('hunter2\r');
      await eventually('typed', () => sitting.typed() === 'hunter2\r');
      await eventually('wiped', () => sitting.buffers.every((bytes) => bytes.every((byte) => byte === 0)));
      sitting.succeed();
      expect(await visitor.closed).to.deep.equal({ code: 1000, reason: '' });
      expect(visitor.messages()).to.deep.equal([
        { type: 'open', via: 'pty' },
        { type: 'end', outcome: 'up', tunnel: { id, state: 'up', last_error: null } },
      ]);
    });

    it('is 80 by 24 until somebody resizes it, also before anybody listens', async () => {
      const [visitor, sitting] = await sit();
      expect([sitting.terminal.columns, sitting.terminal.rows]).to.deep.equal([80, 24]);
      visitor.socket.send('{"type":"resize","columns":1,"rows":1000}');
      await eventually('resized', () => sitting.terminal.rows === 1000);
      sitting.listen();
      visitor.socket.send('{"type":"resize","columns":90,"rows":20}');
      await eventually('told', () => sitting.sizes().length > 1);
      expect(sitting.sizes()).to.deep.equal([
        [1, 1000],
        [90, 20],
      ]);
    });

    it('keeps what is typed before anybody listens, in order', async () => {
      const [visitor, sitting] = await sit();
      for (const text of ['one ', 'two ', 'three']) visitor.type(text);
      visitor.socket.send('{"type":"resize","columns":7,"rows":7}');
      await eventually('all came', () => sitting.terminal.columns === 7);
      sitting.listen();
      await eventually('typed', () => sitting.typed() === 'one two three');
    });

    it('tells a failure as the problem document that it would have been', async () => {
      const [visitor, sitting] = await sit();
      const info = { id, reason: 'auth_failed', lastError: 'Permission denied', nextRetryAt: null };
      sitting.fail(new TunwardError('ERR_START_FAILED', 'Tunnel asks did not start', info));
      expect((await visitor.closed).code).to.equal(1000);
      const [end] = visitor.messages();
      expect(end).to.deep.include({ type: 'end', outcome: 'failed' });
      expect(end.problem).to.deep.include({ code: 'ERR_START_FAILED', status: 502, reason: 'auth_failed' });
    });

    it('says the end behind all that was shown', async () => {
      const [visitor, sitting] = await sit();
      void sitting.terminal.show(Buffer.alloc(300_000, 'x'));
      sitting.succeed();
      await visitor.closed;
      expect(visitor.screen().length).to.equal(300_000);
      expect(visitor.messages()).to.have.length(1);
    });
  });

  describe('before the upgrade', () => {
    const look = (at: string, method: string, headers: http.OutgoingHttpHeaders, query = ''): Promise<Refusal> =>
      new Promise((resolve, reject) => {
        const path = `/v1/tunnels/${id}/terminal${query}`;
        const request = http.request({ socketPath: at, method, path, headers, agent: false }, (answer) => {
          let text = '';
          answer.setEncoding('utf8').on('data', (chunk: string) => {
            text += chunk;
          });
          answer.on('end', () => {
            const body = text === '' ? undefined : JSON.parse(text);
            resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body });
          });
        });
        request.on('error', reject).end();
      });

    it('answers the plain GET alike: 426 where an upgrade would go through', async () => {
      const at = await socketDoor();
      const answer = await look(at, 'GET', {});
      expect([answer.status, answer.body.code]).to.deep.equal([426, 'ERR_UPGRADE_REQUIRED']);
      expect(answer.headers).to.deep.include({ upgrade: 'websocket', 'sec-websocket-version': '13' });
      taken = true;
      expect((await look(at, 'GET', {})).body.code).to.equal('ERR_TUNNEL_CONFLICT');
    });

    it('lets one of three in who come at once', async () => {
      const at = await socketDoor();
      const all = await Promise.all([1, 2, 3].map(() => visit({ at, id })));
      const open = all.filter((answer) => 'socket' in answer);
      visitors.push(...open);
      const refused = all.flatMap((answer) => ('status' in answer ? [`${answer.status} ${answer.body.code}`] : []));
      expect(refused).to.deep.equal(['409 ERR_TUNNEL_CONFLICT', '409 ERR_TUNNEL_CONFLICT']);
      expect(open).to.have.length(1);
      expect(sittings).to.have.length(1);
    });

    it('refuses by a problem document, and closes', async () => {
      const at = await socketDoor();
      const answer = (await visit({ at, id: 'nobody' })) as Refusal;
      expect(answer.headers).to.deep.include({ 'content-type': 'application/problem+json', connection: 'close' });
      expect([answer.status, answer.body.code]).to.deep.equal([404, 'ERR_TUNNEL_UNKNOWN']);
    });

    for (const query of ['?columns=0', '?rows=1001', '?columns=x', '?width=80', '?rows=1&rows=2']) {
      it(`refuses ${query}`, async () => {
        expect(await outcomeOf({ at: await socketDoor(), id, query })).to.equal('400 ERR_BAD_REQUEST');
        expect(sittings).to.deep.equal([]);
      });
    }

    it('wants its protocol, once, among those that are offered', async () => {
      const at = await socketDoor();
      for (const protocols of [[], ['other']]) {
        expect(await outcomeOf({ at, id, protocols })).to.equal('400 ERR_BAD_REQUEST');
      }
      const visitor = await visitOpen({ at, id, protocols: ['tunward.terminal.v2', 'tunward.terminal.v1'] });
      visitors.push(visitor);
      expect(visitor.socket.protocol).to.equal('tunward.terminal.v1');
    });

    it('wants a handshake of RFC 6455', async () => {
      const at = await socketDoor();
      const right = {
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
        'sec-websocket-protocol': 'tunward.terminal.v1',
      };
      const code = async (method: string, headers: http.OutgoingHttpHeaders) => {
        const { status, body } = await look(at, method, { ...right, ...headers });
        return `${status} ${body?.code}`;
      };
      const twice = 'tunward.terminal.v1, tunward.terminal.v1';
      expect(await code('GET', { 'sec-websocket-version': '8' })).to.equal('426 ERR_UPGRADE_REQUIRED');
      expect(await code('GET', { 'sec-websocket-key': 'short' })).to.equal('400 ERR_BAD_REQUEST');
      expect(await code('GET', { 'sec-websocket-protocol': twice })).to.equal('400 ERR_BAD_REQUEST');
      expect(await code('GET', { upgrade: 'websocket, h2c' })).to.equal('400 ERR_BAD_REQUEST');
      expect(await code('GET', { 'content-length': '3' })).to.equal('400 ERR_BAD_REQUEST');
      expect(await code('POST', {})).to.equal('405 ERR_METHOD_NOT_ALLOWED');
      expect(await code('GET', { upgrade: 'h2c' }), 'of which nothing is known').to.equal('426 ERR_UPGRADE_REQUIRED');
      expect(sittings).to.deep.equal([]);
    });

    it('ends a connection on which the answer to another request is still under way, and goes on', async () => {
      const at = await socketDoor();
      const socket = net.connect({ path: at });
      const head = (path: string, more = '') => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n${more}\r\n`;
      const upgrade = 'Connection: Upgrade\r\nUpgrade: websocket\r\n';
      const ended = new Promise((resolve) => socket.once('close', resolve));
      socket.on('error', () => undefined);
      const path = `/v1/tunnels/${id}/terminal`;
      socket.end(head(path) + head(path, upgrade) + head(path, upgrade));
      await ended;
      expect((await look(at, 'GET', {})).status).to.equal(426);
      expect(sittings).to.deep.equal([]);
    });
  });

  describe('on TCP', () => {
    const readToken = 'r'.repeat(20);
    const token = 't'.repeat(20);
    let port: number;
    let session: { cookie: string; readCookie: string };

    beforeEach(async () => {
      const tokens = openTokens([], []);
      const rightsOf = (text: string) => (text === token ? 'all' : text === readToken ? 'read' : undefined);
      const sessions = createSessions(systemClock);
      const access = {
        ...{ tokens: { ...tokens, rightsOf } as typeof tokens, sessions },
        ...{ failures: createFailures(systemClock), hosts: [] },
      };
      const rows = [
        ...terminalRoutes({ supervisor, clock: systemClock }),
        ...sessionRoutes({ ...access, version: '0', clock: systemClock }),
      ];
      const door = await openTcpDoor({ host: '127.0.0.1', port: 0 }, access, rows);
      doors.push(door);
      port = Number(new URL(door.url ?? '').port);
      session = {
        cookie: `tunward_${port}=${sessions.open('all').secret}`,
        readCookie: `tunward_${port}=${sessions.open('read').secret}`,
      };
    });

    const outcome = (headers: Record<string, string>) => outcomeOf({ at: port, id, headers });
    const bearer = (text: string) => ({ authorization: `Bearer ${text}` });

    it('is for the bearer of a token, or of a session and from a page of this host', async () => {
      const own = `http://127.0.0.1:${port}`;
      for (const headers of [bearer(token), { cookie: session.cookie, origin: own }]) {
        const visitor = await visitOpen({ at: port, id, headers });
        visitor.socket.terminate();
        await eventually('it is free again', () => !taken);
      }
    });

    it('refuses everybody else, and nothing is started', async () => {
      const own = { origin: `http://127.0.0.1:${port}` };
      const { cookie, readCookie } = session;
      expect(await outcome({})).to.equal('401 ERR_UNAUTHORIZED');
      expect(await outcome(own)).to.equal('401 ERR_UNAUTHORIZED');
      expect(await outcome(bearer(readToken))).to.equal('403 ERR_FORBIDDEN');
      expect(await outcome({ ...own, cookie: readCookie })).to.equal('403 ERR_FORBIDDEN');
      expect(await outcome({ cookie }), 'no Origin').to.equal('403 ERR_FORBIDDEN');
      expect(await outcome({ cookie, origin: 'https://evil.example' })).to.equal('403 ERR_FORBIDDEN');
      expect(await outcome({ cookie, origin: 'null' })).to.equal('403 ERR_FORBIDDEN');
      expect(await outcome({ ...own, cookie, 'sec-fetch-site': 'cross-site' })).to.equal('403 ERR_FORBIDDEN');
      expect(await outcome({ ...bearer(token), origin: 'https://evil.example' })).to.equal('403 ERR_FORBIDDEN');
      expect(await outcome({ ...bearer(token), host: 'evil.example' })).to.equal('421 ERR_MISDIRECTED');
      expect(await outcomeOf({ at: port, id, query: `?token=${token}` })).to.equal('401 ERR_UNAUTHORIZED');
      for (let wrong = 0; wrong < 10; wrong++) {
        expect(await outcome(bearer('wrong'))).to.equal('401 ERR_UNAUTHORIZED');
      }
      expect(await outcome(bearer(token)), 'after ten wrong ones').to.equal('429 ERR_TOO_MANY_REQUESTS');
      expect(sittings).to.deep.equal([]);
    });
  });

  describe('what is not understood', () => {
    const messages: Record<string, [message: string | Buffer, code: number]> = {
      'no JSON': ['hunter2', 1007],
      'no UTF-8': [Buffer.from([0xff, 0xfe]), 1007],
      'another type': ['{"type":"type","text":"hunter2"}', 1008],
      'a key too many': ['{"type":"resize","columns":80,"rows":24,"x":1}', 1008],
      'a window that is none': ['{"type":"resize","columns":0,"rows":24}', 1008],
      'a window that is too large': ['{"type":"resize","columns":80,"rows":1001}', 1008],
      'a window in letters': ['{"type":"resize","columns":"80","rows":24}', 1008],
      'half a column': ['{"type":"resize","columns":80.5,"rows":24}', 1008],
      'JSON of another kind': ['null', 1007],
      'more than 64 KiB of text': [`"${'x'.repeat(65_536)}"`, 1009],
    };
    for (const [name, [message, code]] of Object.entries(messages)) {
      it(`closes by ${code} for ${name}, and gives the attempt up`, async () => {
        const [visitor, sitting] = await sit();
        sitting.listen();
        visitor.socket.send(message, { binary: false });
        const closed = await visitor.closed;
        expect(closed.code).to.equal(code);
        expect(closed.reason).not.to.contain('hunter2');
        expect(sitting.signal.aborted).to.equal(true);
        expect(sitting.sizes()).to.deep.equal([]);
      });
    }

    it('closes by 1009 for more than 64 KiB of bytes, in pieces too; 64 KiB are taken', async () => {
      const [visitor, sitting] = await sit();
      sitting.listen();
      visitor.type(Buffer.alloc(65_536, 'x'));
      await eventually('taken', () => sitting.typed().length === 65_536);
      visitor.socket.send(Buffer.alloc(40_000), { binary: true, fin: false });
      visitor.socket.send(Buffer.alloc(40_000), { binary: true, fin: true });
      expect((await visitor.closed).code).to.equal(1009);
      expect(sitting.signal.aborted).to.equal(true);
    });

    const frames: Record<string, Buffer> = {
      garbage: Buffer.from('GET / HTTP/1.1\r\n\r\n'),
      'a frame without a mask': Buffer.from([0x82, 0x01, 0x61]),
      'a reserved bit': Buffer.from([0xc2, 0x81, 1, 2, 3, 4, 0x61]),
      'a continuation of nothing': Buffer.from([0x80, 0x81, 1, 2, 3, 4, 0x61]),
      'a ping that is too long': Buffer.concat([Buffer.from([0x89, 0xfe, 0, 126, 0, 0, 0, 0]), Buffer.alloc(126)]),
      'a length of 2^63': Buffer.from([0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4]),
    };
    for (const [name, bytes] of Object.entries(frames)) {
      it(`gives the attempt up for ${name}`, async () => {
        const [visitor, sitting] = await sit();
        rawOf(visitor).write(bytes);
        await eventually('given up', () => sitting.signal.aborted);
        await visitor.closed;
        expect(await outcomeOf({ at: join(dir, 'run', 'api.sock'), id: 'nobody' }), 'the door is open').to.match(
          /^404/,
        );
      });
    }
  });

  describe('when whoever sits there leaves', () => {
    const ways: Record<string, (visitor: Visitor) => void> = {
      'closes it': ({ socket }) => socket.close(),
      'is cut off': ({ socket }) => socket.terminate(),
      'ends one half': (visitor) => rawOf(visitor).end(),
      'says that it closes, and stays': (visitor) => {
        visitor.socket.pause();
        rawOf(visitor).write(Buffer.from([0x88, 0x80, 0, 0, 0, 0]));
      },
    };
    for (const [name, leave] of Object.entries(ways)) {
      it(`gives the attempt up: ${name}`, async () => {
        const [visitor, sitting] = await sit();
        sitting.listen();
        leave(visitor);
        await eventually('given up', () => sitting.signal.aborted);
        await eventually('free for others', () => !taken);
      });

      it(`gives the attempt up while nothing is taken in either direction: ${name}`, async () => {
        const [visitor, sitting] = await sit();
        sitting.listen(true);
        visitor.socket.pause();
        let isShown = false;
        void sitting.terminal.show(Buffer.alloc(8_000_000)).then(() => {
          isShown = true;
        });
        visitor.type('x'.repeat(1000));
        visitor.type('y'.repeat(1000));
        await eventually('typed', () => sitting.buffers.length === 1);
        leave(visitor);
        await eventually('given up', () => sitting.signal.aborted);
        await eventually('whoever draws is let go', () => isShown);
      });
    }

    it('asks every 5 s, and takes whoever has not answered by the next time for gone', async () => {
      const clock = createFakeClock();
      const [visitor, sitting] = await sit({}, clock);
      let pings = 0;
      visitor.socket.on('ping', () => pings++);
      const pong = new Promise((resolve) => visitor.socket.once('ping', resolve));
      await clock.advance(5000);
      await pong;
      // An answer has come when what was sent behind it has.
      visitor.socket.send('{"type":"resize","columns":7,"rows":7}');
      await eventually('answered', () => sitting.terminal.columns === 7);
      await clock.advance(5000);
      await eventually('asked again', () => pings === 2);
      expect(sitting.signal.aborted).to.equal(false);
      visitor.socket.pause();
      visitor.socket.removeAllListeners('ping');
      await clock.advance(5000);
      await clock.advance(5000);
      await eventually('gone', () => sitting.signal.aborted);
    });
  });

  describe('what nobody takes', () => {
    it('is not kept: whoever draws waits, with one message of 64 KiB under way', async () => {
      const [visitor, sitting] = await sit();
      visitor.socket.pause();
      let drawn = 0;
      const chunk = Buffer.alloc(65_536);
      const draw = async () => {
        for (;;) {
          await sitting.terminal.show(chunk);
          if (sitting.signal.aborted) return;
          drawn += chunk.length;
        }
      };
      const drawing = draw();
      // What the kernel holds of a unix socket, and no more: it stands still from there.
      await eventually('it stands still', () => drawn > 0);
      const seen: number[] = [];
      for (let look = 0; look < 20; look++) {
        seen.push(drawn);
        await systemClock.sleep(20);
      }
      expect(new Set(seen.slice(-5)).size, `stands at ${seen.at(-1)}`).to.equal(1);
      expect(drawn).to.be.lessThan(4_000_000);
      visitor.socket.resume();
      const before = drawn;
      await eventually('and goes on', () => drawn > before);
      visitor.socket.terminate();
      await drawing;
    });

    it('is typed: up to 64 KiB is kept, more is waited with, and whoever goes on is shown out', async () => {
      const clock = createFakeClock();
      const [visitor, sitting] = await sit({}, clock);
      sitting.listen(true);
      for (let count = 0; count < 400; count++) visitor.type(Buffer.alloc(20_000, 'x'));
      await eventually('typed', () => sitting.buffers.length === 1);
      await eventually('waits', () => clock.sleepers() === 2);
      await clock.advance(999);
      expect(sitting.signal.aborted).to.equal(false);
      await clock.advance(1);
      expect(sitting.signal.aborted).to.equal(true);
      expect((await visitor.closed).code).to.equal(1008);
      expect(sitting.buffers).to.have.length(1);
    });

    it('is typed faster than it is read, and all of it arrives', async () => {
      const [visitor, sitting] = await sit();
      const text = Array.from({ length: 40 }, (_none, at) => String(at % 10).repeat(20_000));
      for (const part of text) visitor.type(part);
      visitor.socket.send('{"type":"resize","columns":7,"rows":7}');
      sitting.listen();
      await eventually('all came', () => sitting.typed().length === 800_000);
      expect(sitting.typed()).to.equal(text.join(''));
    });
  });

  describe('what was typed', () => {
    it('is wiped in the only memory that has it in clear, also of several messages in one chunk and of one in pieces', async () => {
      const [visitor, sitting] = await sit();
      sitting.listen();
      const raw = rawOf(visitor);
      const frame = (first: number, text: string) => mask(first, Buffer.from(text));
      // Three messages by one write; the last in three pieces.
      raw.write(
        Buffer.concat([
          frame(0x82, 'first-secret'),
          frame(0x82, 'second-secret'),
          ...[frame(0x02, 'piece-'), frame(0x00, 'of-a-'), frame(0x80, 'secret')],
        ]),
      );
      await eventually('typed', () => sitting.typed() === 'first-secretsecond-secretpiece-of-a-secret');
      await eventually('wiped', () => sitting.buffers.every((bytes) => bytes.every((byte) => byte === 0)));
      for (const { buffer } of sitting.buffers) {
        expect(Buffer.from(buffer).toString('latin1')).not.to.match(/secret|piece/);
      }
    });

    it('is wiped where it is dropped', async () => {
      const [visitor, sitting] = await sit();
      visitor.type('typed-before-anybody-listens');
      sitting.succeed();
      await visitor.closed;
      expect(sitting.typed()).to.equal('');
    });
  });

  it('is closed by 1001 when the daemon stops, which does not wait for it', async () => {
    const [visitor, sitting] = await sit();
    const [door] = doors.splice(0);
    await door?.close();
    expect((await visitor.closed).code).to.equal(1001);
    await eventually('given up', () => sitting.signal.aborted);
  });

  it('does not keep a daemon that stops, whoever sits there and does not answer', async () => {
    const [visitor, sitting] = await sit();
    visitor.socket.pause();
    void sitting.terminal.show(Buffer.alloc(8_000_000));
    const [door] = doors.splice(0);
    await door?.close();
    await eventually('given up', () => sitting.signal.aborted);
  });

  it('does not keep a daemon that stops, whoever still waits to be let in', async () => {
    const at = join(dir, 'api.sock');
    let isAsked = false;
    const open = () => {
      isAsked = true;
      return new Promise<void>(() => undefined);
    };
    const rows = terminalRoutes({ supervisor, clock: systemClock }).map((row) => ({
      ...row,
      upgrade: { protocol: 'tunward.terminal.v1', open },
    }));
    const door = await openSocketDoor(at, rows);
    const waiting = visit({ at, id }).catch((error: unknown) => error);
    await eventually('asked', () => isAsked);
    await door.close();
    expect(await waiting).to.be.an('error');
  });

  it('loads the package when the first one comes', () => {
    const file = new URL(import.meta.resolve('#lib/daemon/api/upgrade.js'));
    expect(readFileSync(file, 'utf8')).not.to.match(/^import .*'ws'/m);
  });
});

/** A frame as a client sends it. */
function mask(first: number, text: Buffer): Buffer {
  const key = Buffer.from([11, 22, 33, 44]);
  const masked = text.map((byte, at) => byte ^ (key[at % 4] ?? 0));
  return Buffer.concat([Buffer.from([first, 0x80 | text.length]), key, masked]);
}
