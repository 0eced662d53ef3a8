import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import http, { type IncomingHttpHeaders, type RequestListener } from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { createJournal, type Journal, type JournalEntry } from '#lib/daemon/events.js';
import { createHook, type Hook, type HookTarget, warningsOfHook } from '#lib/daemon/hook.js';
import { until } from '#lib/time.js';
import type { TunnelStatus } from '#lib/tunnel/runner.js';
import { createFakeClock, type FakeClock } from '../support/fakeclock.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';

interface Asked {
  readonly method: string | undefined;
  readonly path: string | undefined;
  readonly headers: IncomingHttpHeaders;
  // biome-ignore lint/suspicious/noExplicitAny: JSON of the wire; the tests are its assertions
  readonly body: any;
}

type Failed = Extract<JournalEntry, { type: 'hook.failed' }>;

const id = 'a'.repeat(32);
const secret = 'Bearer t0ps3cret-of-the-hook';

describe('the hook on_needs_auth', () => {
  let dir: string;
  let clock: FakeClock;
  /** What is slept now: a pause, or the bound on a try. */
  let slept: number[];
  let journal: Journal;
  let hook: Hook;
  let target: HookTarget | null;
  let server: http.Server | undefined;
  let asked: Asked[];
  let failed: Failed[];

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-hook-'));
    clock = createFakeClock();
    journal = createJournal(clock);
    target = null;
    asked = [];
    failed = [];
    slept = [];
    const noted = { ...clock, sleep: noteSleep };
    hook = createHook({ target: () => target, version: '7.8.9', clock: noted, publish: journal.append });
    journal.subscribe(hook.hear);
    journal.subscribe((entry) => entry.type === 'hook.failed' && failed.push(entry));
  });

  afterEach(async () => {
    await hook.close();
    server?.closeAllConnections();
    await new Promise((resolve) => (server ? server.close(resolve) : resolve(undefined)));
    server = undefined;
    rmSync(dir, { recursive: true });
  });

  /** Answers on loopback, each request with the next of these, the last one again and again. */
  async function serve(...answers: RequestListener[]): Promise<void> {
    await listen(http.createServer(note(answers)), 'http');
  }

  function note(answers: RequestListener[]): RequestListener {
    return (request, response) => {
      const { method, url: path, headers } = request;
      let text = '';
      request.setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
      });
      request.on('end', () => {
        asked.push({ method, path, headers, body: JSON.parse(text) });
        answers[Math.min(asked.length, answers.length) - 1]?.(request, response);
      });
    };
  }

  async function listen(one: http.Server, scheme: string): Promise<void> {
    server = one;
    await new Promise<void>((resolve) => one.listen(0, '127.0.0.1', resolve));
    target = { url: `${scheme}://127.0.0.1:${portOf(one)}/hooks/t0ken?key=s3cret`, headerFile: null };
  }

  function announce(tunnel = id, why: 'boot' | 'lost' = 'lost'): void {
    const status = { id: tunnel, name: 'db \u202e', remoteHost: 'me@db', interactive: true } as TunnelStatus;
    journal.append({ type: 'tunnel.needs_auth', tunnel, why, status });
  }

  async function noteSleep(ms: number, signal?: AbortSignal): Promise<void> {
    const one = slept.push(ms) - 1;
    await clock.sleep(ms, signal).finally(() => delete slept[one]);
  }

  /** Between two tries. Never while one is under way, however long a busy machine takes for it. */
  const isPausing = () => slept.some((ms) => ms === 1000 || ms === 4000);

  /** Waits until it is so; `pauses`: and lets the pauses between two tries go by. */
  async function comes(isSo: () => boolean, pauses: 'pauses' | 'none' = 'none'): Promise<void> {
    const look = async () => {
      if (pauses === 'pauses' && !isSo() && isPausing()) await clock.advance(1000);
      return isSo();
    };
    expect(await until(look, { timeoutMs: 10_000 }), JSON.stringify({ asked: asked.length, failed })).to.equal(true);
  }

  it('is a POST with what there is to know, as the API has it', async () => {
    await serve(answer(204));
    announce();
    await comes(() => asked.length === 1);
    const [{ method, path, headers, body } = {} as Asked] = asked;
    expect([method, path]).to.deep.equal(['POST', '/hooks/t0ken?key=s3cret']);
    expect(headers).to.include({ 'content-type': 'application/json', 'user-agent': 'tunward/7.8.9' });
    expect(headers).not.to.have.property('authorization');
    expect(body).to.deep.equal({
      event: 'tunnel.needs_auth',
      why: 'lost',
      at: '2026-01-16T11:00:30.000Z',
      host: hostname(),
      tunnel: { id, name: 'db \u202e', remote_host: 'me@db', interactive: true },
    });
    await over();
    expect([failed, asked.length]).to.deep.equal([[], 1]);
  });

  it('hears of nothing else, and of nothing where no address is given', async () => {
    announce();
    await serve(answer(204));
    journal.append({ type: 'daemon.stopping' });
    announce('b'.repeat(32), 'boot');
    await comes(() => asked.length > 0);
    await over();
    expect(asked.map(({ body }) => [body.tunnel.id, body.why])).to.deep.equal([['b'.repeat(32), 'boot']]);
  });

  it('is tried again after a second, and is well when that is', async () => {
    await serve(answer(500), answer(200));
    announce();
    await comes(() => asked.length === 1);
    await comes(isPausing);
    await clock.advance(999);
    expect(asked).to.have.length(1);
    await clock.advance(1);
    await comes(() => asked.length === 2);
    await over();
    expect(failed).to.deep.equal([]);
  });

  it('is tried three times, and then says what was answered, and of the address its origin alone', async () => {
    await serve(answer(500), answer(500), answer(503));
    announce();
    await comes(() => failed.length === 1, 'pauses');
    const url = `http://127.0.0.1:${portOf(server)}`;
    expect(failed[0]).to.include({ tunnel: id, url, httpStatus: 503, tries: 3 });
    expect(failed[0]?.message).to.equal(`${url} was not told, after 3 tries: it answered 503`);
    expect(asked).to.have.length(3);
    expect(clock.now(), 'the pauses').to.equal(5000);
    expect(JSON.stringify(failed)).not.to.match(/t0ken|s3cret/);
  });

  it('waits 5 s for an answer', async () => {
    await serve(() => undefined);
    announce();
    for (const number of [1, 2, 3]) {
      await comes(() => asked.length === number, 'pauses');
      expect(failed).to.deep.equal([]);
      await clock.advance(5000);
    }
    await comes(() => failed.length === 1);
    expect(failed[0]).to.include({ httpStatus: null, tries: 3 });
    expect(failed[0]?.message).to.contain('no answer within 5000 ms');
  });

  it('follows no redirect', async () => {
    let followed = 0;
    await serve((request, response) => {
      if (request.url === '/elsewhere') followed++;
      response.writeHead(307, { location: '/elsewhere' }).end();
    });
    announce();
    await comes(() => failed.length === 1, 'pauses');
    expect(failed[0]?.httpStatus).to.equal(307);
    expect(failed[0]?.message).to.match(/it answered 307, and redirects are not followed$/);
    expect([asked.map(({ path }) => path), followed]).to.deep.equal([Array(3).fill('/hooks/t0ken?key=s3cret'), 0]);
  });

  it('says that nobody listens', async () => {
    target = { url: `http://127.0.0.1:${await freeLocalPort()}/x`, headerFile: null };
    announce();
    await comes(() => failed.length === 1, 'pauses');
    expect(failed[0]?.httpStatus).to.equal(null);
    expect(failed[0]?.message).to.match(/after 3 tries: nobody listens there \(ECONNREFUSED\)$/);
  });

  it('takes no more than a little of an answer that has no end', async () => {
    let written = 0;
    let isCut = false;
    await serve((_request, response) => {
      response.writeHead(200);
      response.on('close', () => {
        isCut = true;
      });
      const pour = (): void => {
        while (!isCut && response.write(Buffer.alloc(65_536))) written += 65_536;
        if (!isCut) response.once('drain', pour);
      };
      pour();
    });
    announce();
    await comes(() => isCut);
    // What the sockets hold is written as well.
    expect(written).to.be.below(32 * 2 ** 20);
    await over();
    expect([failed, asked.length]).to.deep.equal([[], 1]);
  });

  it('says of an authority that nobody knows what it is, and sends it nothing', async function () {
    need(this, 'openssl');
    const [key, cert] = [join(dir, 'key.pem'), join(dir, 'cert.pem')];
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1'];
    execFileSync('openssl', ['req', '-x509', ...curve, ...names, '-days', '2', '-keyout', key, '-out', cert], {
      stdio: 'ignore',
    });
    const one = https.createServer({ key: readFileSync(key), cert: readFileSync(cert) }, note([answer(204)]));
    await listen(one as unknown as http.Server, 'https');
    announce();
    await comes(() => failed.length === 1, 'pauses');
    expect(failed[0]?.message).to.match(
      /its certificate is by an authority that is not known here \(DEPTH_ZERO_SELF_SIGNED_CERT\): NODE_EXTRA_CA_CERTS/,
    );
    expect(asked).to.deep.equal([]);
  });

  it('tells the newest of one tunnel, and of others beside it', async () => {
    await serve(
      () => undefined,
      (_request, response) => response.writeHead(204).end(),
    );
    announce(id, 'boot');
    await comes(() => asked.length === 1);
    announce('b'.repeat(32));
    announce(id, 'lost');
    await comes(() => asked.length === 3);
    await over();
    const told = asked.map(({ body }) => `${body.tunnel.id.charAt(0)} ${body.why}`);
    expect(told.slice(1).sort()).to.deep.equal(['a lost', 'b lost']);
    expect(failed, 'who was overtaken has not failed').to.deep.equal([]);
  });

  it('tells of many, eight at once', async () => {
    const held: http.ServerResponse[] = [];
    let most = 0;
    await serve((_request, response) => {
      held.push(response);
      most = Math.max(most, held.length);
    });
    for (let number = 10; number < 30; number++) announce(String(number).repeat(16), 'boot');
    await comes(() => {
      if (held.length === 8 || asked.length > 16) for (const response of held.splice(0)) response.writeHead(204).end();
      return asked.length === 20;
    });
    await over();
    expect([most, failed.length]).to.deep.equal([8, 0]);
  });

  it('goes where the configuration says by then, and nowhere when it says so', async () => {
    await serve(answer(500));
    announce();
    await comes(() => asked.length === 1 && isPausing());
    target = { url: `http://127.0.0.1:${portOf(server)}/second`, headerFile: null };
    await clock.advance(1000);
    await comes(() => asked.length === 2 && isPausing());
    target = null;
    await clock.advance(4000);
    await over();
    expect(asked.map(({ path }) => path)).to.deep.equal(['/hooks/t0ken?key=s3cret', '/second']);
    expect(failed).to.deep.equal([]);
  });

  it('is given up at the end, at once, which is said, and takes no more', async () => {
    await serve(() => undefined);
    announce();
    await comes(() => asked.length === 1);
    await hook.close();
    expect(failed.map(({ message }) => message)).to.deep.equal([
      `http://127.0.0.1:${portOf(server)} was not told, after 1 try: no answer yet, and given up, since the daemon stops`,
    ]);
    expect(clock.sleepers(), 'nobody waits any more').to.equal(0);
    announce();
    await clock.settle();
    expect(asked).to.have.length(1);
  });

  describe('with a header from a file', () => {
    let file: string;
    beforeEach(async () => {
      file = join(dir, 'hook.header');
      writeFileSync(file, `Authorization: ${secret}\n`, { mode: 0o600 });
      await serve(answer(401));
      target = { url: target?.url ?? '', headerFile: file };
    });

    it('sends it, as it stands there at that moment, and says it nowhere', async () => {
      announce();
      await comes(() => asked.length === 1 && isPausing());
      writeFileSync(file, '\nauthorization:\tBasic b3RoZXI=  \n');
      await comes(() => failed.length === 1, 'pauses');
      expect(asked.map(({ headers }) => headers.authorization)).to.deep.equal([
        secret,
        ...Array(2).fill('Basic b3RoZXI='),
      ]);
      expect(failed[0]?.httpStatus).to.equal(401);
      expect(JSON.stringify(failed)).not.to.match(/t0ps3cret|b3RoZXI/);
    });

    it('asks nobody without it', async () => {
      rmSync(file);
      announce();
      await comes(() => failed.length === 1, 'pauses');
      expect(failed[0]?.message).to.contain(`Cannot take a header from ${file}: expected a plain file of this user`);
      expect(asked).to.deep.equal([]);
    });

    it('warns of a file that is of no use, or that others may read', () => {
      const warnings = () => warningsOfHook(target);
      expect(warnings()).to.deep.equal([]);
      chmodSync(file, 0o640);
      expect(warnings()).to.deep.equal([
        `${file}: expected a header that this user alone may read, found mode 0640: chmod 600 it`,
      ]);
      chmodSync(file, 0o600);
      const useless = `on_needs_auth: Cannot take a header from ${file}: expected a plain file of this user with one line, 'Authorization: …'`;
      for (const text of [secret, 'X-Token: abc\n', `Authorization: ${secret}\nX-More: 1\n`, 'Authorization:\n', '']) {
        writeFileSync(file, text);
        expect(warnings(), text).to.deep.equal([useless]);
      }
      rmSync(file);
      expect(warnings()).to.deep.equal([useless]);
      writeFileSync(join(dir, 'other'), `Authorization: ${secret}\n`);
      symlinkSync(join(dir, 'other'), file);
      expect(warnings(), 'a link').to.deep.equal([useless]);
      expect(warningsOfHook(null)).to.deep.equal([]);
    });
  });

  /** Whatever was under way is over: nobody sleeps, and what is on its way through a socket has come. */
  async function over(): Promise<void> {
    expect(await until(() => clock.sleepers() === 0, { timeoutMs: 10_000 })).to.equal(true);
    await clock.advance(60_000);
  }
});

function answer(status: number): RequestListener {
  return (_request, response) => response.writeHead(status).end('thanks');
}

function portOf(server: http.Server | undefined): number {
  return (server?.address() as AddressInfo | undefined)?.port ?? 0;
}
