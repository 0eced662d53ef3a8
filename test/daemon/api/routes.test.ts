import { readFileSync } from 'node:fs';
import http from 'node:http';
import { gunzipSync } from 'node:zlib';
import { expect } from 'chai';
import type { Route } from '#lib/daemon/api/route.js';
import { createRoutes } from '#lib/daemon/api/routes.js';
import { createFailures, createSessions, openTokens } from '#lib/daemon/api/tokens.js';
import { tunnelRoutes } from '#lib/daemon/api/tunnels.js';
import { type Daemon, startDaemon } from '#lib/daemon/daemon.js';
import type { Reloader } from '#lib/daemon/reload.js';
import { systemClock, until } from '#lib/time.js';
import { makeHome } from '../../support/daemon.js';
import { createFakeClock } from '../../support/fakeclock.js';
import { freeLocalPort } from '../../support/port.js';

interface Reply {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly bytes: Buffer;
  // biome-ignore lint/suspicious/noExplicitAny: JSON of the wire; the tests are its assertions
  readonly body: any;
}

describe('the API', () => {
  const home = makeHome();
  let daemon: Daemon;
  let port: number;
  let ids: Record<string, string>;

  before(async () => {
    port = await freeLocalPort();
    const api = { socket: home.socket, listen: `127.0.0.1:${await freeLocalPort()}` };
    const common = { remote_host: '127.0.0.1', ssh_options: { Port: '1' }, remote_port: '80' };
    home.configure({ log: { keep: 2 }, api }, [
      { ...common, name: 'first', local_port: port, groups: ['a', 'b'] },
      { ...common, name: 'second', local_port: await freeLocalPort(), groups: ['b'], enabled: false },
    ]);
    daemon = await startDaemon({ configFile: home.configFile });
    ids = Object.fromEntries(daemon.supervisor.specs().map(({ name, id }) => [name, id]));
    await until(() => daemon.supervisor.status('first').state === 'backoff', { timeoutMs: 10_000, everyMs: 20 });
  });

  after(async () => {
    await daemon.close();
    home.remove();
  });

  function call(method: string, path: string, options: { body?: unknown; headers?: http.OutgoingHttpHeaders } = {}) {
    const { body, headers = {} } = options;
    const type = body === undefined ? {} : { 'content-type': 'application/json' };
    return new Promise<Reply>((resolve, reject) => {
      const request = http.request(
        { socketPath: home.socket, method, path, agent: false, timeout: 15_000, headers: { ...type, ...headers } },
        (answer) => {
          const chunks: Buffer[] = [];
          answer.on('data', (chunk: Buffer) => chunks.push(chunk));
          answer.on('end', () => {
            const bytes = Buffer.concat(chunks);
            const isJson = /json/.test(answer.headers['content-type'] ?? '') && !answer.headers['content-encoding'];
            const body = isJson && bytes.length > 0 ? JSON.parse(bytes.toString('utf8')) : undefined;
            resolve({ status: answer.statusCode ?? 0, headers: answer.headers, bytes, body });
          });
        },
      );
      request.on('error', reject);
      request.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  /** The table, apart from any daemon: what it says of its answers. */
  function table(): Route[] {
    return createRoutes({
      config: daemon.config,
      supervisor: daemon.supervisor,
      logs: { fileOf: () => '', write: () => undefined, tail: () => [], follow: () => () => undefined },
      reloader: {} as Reloader,
      journal: { append: () => undefined, recent: () => [], subscribe: () => () => undefined },
      clock: systemClock,
      version: '0',
      tokens: openTokens([], []),
      sessions: createSessions(systemClock),
      failures: createFailures(systemClock),
      phase: () => 'ready',
      shutdown: () => undefined,
      booted: Promise.resolve(),
    });
  }

  /** What the table promises of an answer of this status, held against one. */
  function expectAsDescribed(method: string, pattern: string, reply: Reply): void {
    const row = table().find((route) => route.method === method && route.path === pattern);
    const answer = row?.answers[reply.status];
    expect(answer, `${method} ${pattern} promises nothing of ${reply.status}: ${reply.bytes.toString()}`).not.to.equal(
      undefined,
    );
    if (!answer?.schema) return;
    const parsed = answer.schema.safeParse(reply.body);
    expect(parsed.error?.issues ?? [], `${method} ${pattern}`).to.deep.equal([]);
  }

  const gets: readonly [pattern: string, path?: () => string][] = [
    ['/livez'],
    ['/readyz'],
    ['/readyz', () => '/readyz?verbose'],
    ['/health'],
    ['/openapi.json'],
    ['/metrics'],
    ['/v1/session'],
    ['/v1/tunnels'],
    ['/v1/tunnels', () => '/v1/tunnels?group=a'],
    ['/v1/traffic'],
    ['/v1/tunnels/{id}', () => '/v1/tunnels/first'],
    ['/v1/tunnels/{id}/processes', () => '/v1/tunnels/first/processes'],
    ['/v1/tunnels/{id}/logs', () => `/v1/tunnels/${ids.first}/logs?lines=3`],
    ['/v1/ports/{port}', () => `/v1/ports/${port}?host=localhost`],
    ['/v1/processes'],
    ['/v1/config'],
  ];
  for (const [pattern, path = () => pattern] of gets) {
    it(`answers GET ${pattern} as it is described`, async () => {
      const reply = await call('GET', path());
      expect(reply.status).to.equal(200);
      expectAsDescribed('GET', pattern, reply);
    });
  }

  it('lets nobody say from afar who is told', async () => {
    const tunnel = { remote_host: 'h', remote_port: '80', local_port: '9', on_needs_auth: 'http://elsewhere/' };
    const reply = await call('POST', '/v1/tunnels', { body: tunnel });
    expect([reply.status, reply.body.code]).to.deep.equal([422, 'ERR_CONFIG_INVALID']);
    expect(daemon.config.onNeedsAuth).to.equal(null);
  });

  it('serves the page, with a policy that lets nothing in from elsewhere', async () => {
    const page = await call('GET', '/?lang=en');
    expect([page.status, page.headers['content-type']]).to.deep.equal([200, 'text/html; charset=utf-8']);
    const policy = String(page.headers['content-security-policy']);
    expect(policy)
      .to.match(/^default-src 'none';/)
      .and.not.match(/unsafe/);
    const { etag = '' } = page.headers;
    expect((await call('GET', '/', { headers: { 'if-none-match': etag } })).status).to.equal(304);
    const [, script = ''] = /<script type="module" src="([^"]+)"/.exec(page.bytes.toString('utf8')) ?? [];
    expect((await call('GET', script)).headers['content-type']).to.equal('text/javascript; charset=utf-8');
    for (const path of ['/panel/', '/panel/../package.json', '/panel/%2e%2e/package.json', '/panel/nothing.js']) {
      expect((await call('GET', path)).status, path).to.equal(404);
    }
    expect((await call('GET', '/', { headers: { host: 'evil.example' } })).status).to.equal(421);
  });

  it('answers HEAD as GET, without a body', async () => {
    const { status, bytes } = await call('HEAD', '/v1/tunnels/first');
    expect([status, bytes.length]).to.deep.equal([200, 0]);
  });

  describe('the list of tunnels', () => {
    it('is in the order of the file, and can be had of some groups', async () => {
      const names = async (path: string) =>
        (await call('GET', path)).body.tunnels.map(({ name }: { name: string }) => name);
      expect(await names('/v1/tunnels')).to.deep.equal(['first', 'second']);
      expect(await names('/v1/tunnels?group=a')).to.deep.equal(['first']);
      expect(await names('/v1/tunnels?group=a,b')).to.deep.equal(['first', 'second']);
      expect(await names('/v1/tunnels?group=a&group=b')).to.deep.equal(['first', 'second']);
      const { status, body } = await call('GET', '/v1/tunnels?group=c');
      expect([status, body.code]).to.deep.equal([404, 'ERR_TUNNEL_UNKNOWN']);
      expect(body.detail).to.equal("No tunnel is in the group 'c': the groups are a, b");
    });

    it('comes compressed to whoever accepts that, and not at all to whoever has it', async () => {
      const zipped = await call('GET', '/v1/tunnels', { headers: { 'accept-encoding': 'gzip, br' } });
      expect(zipped.headers['content-encoding']).to.equal('gzip');
      const { tunnels } = JSON.parse(gunzipSync(zipped.bytes).toString('utf8'));
      expect(tunnels).to.have.length(2);
      const repeat = async () => {
        const { etag = '' } = (await call('GET', '/v1/tunnels')).headers;
        const again = await call('GET', '/v1/tunnels', { headers: { 'if-none-match': etag } });
        expect([again.status, again.bytes.length === 0], again.bytes.toString()).to.be.deep.oneOf([
          [304, true],
          [200, false], // a retry of the first one came in between, or a second was over
        ]);
        return again.status === 304;
      };
      expect(await until(repeat, { timeoutMs: 10_000 })).to.equal(true);
    });
  });

  describe('an operation on many', () => {
    it('is answered with where to follow it, and there in the end with what came of each', async () => {
      const begun = await call('POST', '/v1/operations', { body: { action: 'restart', groups: ['a'] } });
      expectAsDescribed('POST', '/v1/operations', begun);
      expect(begun.status).to.equal(202);
      expect(begun.headers.location).to.equal(`/v1/operations/${begun.body.id}`);
      const over = await call('GET', `${begun.headers.location}?wait_ms=10000`);
      expectAsDescribed('GET', '/v1/operations/{id}', over);
      expect(over.body).to.include({ state: 'done', action: 'restart', total: 1, done: 1, failed: 1 });
      expect(over.body.tunnels[0]).to.include({ id: ids.first, name: 'first', state: 'failed' });
      expect(over.body.tunnels[0].error).to.include({ code: 'ERR_START_FAILED', reason: 'refused' });
    });

    it('leaves out of "all" what is started by hand alone', async () => {
      const { body } = await call('POST', '/v1/operations', { body: { action: 'stop', all: true } });
      expect(body.tunnels.map(({ name }: { name: string }) => name)).to.deep.equal(['first']);
      await call('GET', `/v1/operations/${body.id}?wait_ms=10000`);
      expect(daemon.supervisor.status('first').state).to.equal('stopped');
      await call('POST', '/v1/tunnels/first/start');
    });

    it('is not begun for one whose tunnels are not all known', async () => {
      const body = { action: 'stop', tunnels: ['first', 'nobody'] };
      const reply = await call('POST', '/v1/operations', { body });
      expect([reply.status, reply.body.code]).to.deep.equal([404, 'ERR_TUNNEL_UNKNOWN']);
      expect(daemon.supervisor.status('first').desired).to.equal('up');
    });

    for (const body of [
      { action: 'stop' },
      { action: 'stop', all: true, groups: ['a'] },
      { action: 'explode', all: true },
      { action: 'stop', all: false },
      { action: 'stop', tunnels: [] },
      { action: 'stop', tunnels: [7] },
      { action: 'stop', all: true, more: 1 },
      [],
      'stop',
      null,
    ]) {
      it(`refuses ${JSON.stringify(body)}`, async () => {
        const reply = await call('POST', '/v1/operations', { body });
        expect([reply.status, reply.body.code]).to.deep.equal([400, 'ERR_BAD_REQUEST']);
        expect(reply.body.detail).to.match(/^body/);
      });
    }
  });

  describe('the configuration', () => {
    const written = () => ({
      ...{ name: 'third: #3', remote_host: '127.0.0.1', ssh_options: { Port: '1' }, remote_port: '80' },
      local_port: String(third),
    });
    let third: number;
    before(async () => {
      third = await freeLocalPort();
    });

    it('gets a tunnel, another in its place, and loses it again; what else is in it stays as it is', async () => {
      const before = await call('GET', '/v1/config');
      expect(before.headers.etag).to.equal(`"${before.body.etag}"`);
      const added = await call('POST', '/v1/tunnels', { body: written() });
      expectAsDescribed('POST', '/v1/tunnels', added);
      expect([added.status, added.body.name, added.body.desired]).to.deep.equal([201, 'third: #3', 'up']);
      expect(added.headers.location).to.equal(`/v1/tunnels/${added.body.id}`);
      const replaced = await call('PUT', `/v1/tunnels/${added.body.id}`, { body: { ...written(), groups: ['c'] } });
      expectAsDescribed('PUT', '/v1/tunnels/{id}', replaced);
      expect(replaced.body).to.deep.include({ id: added.body.id, groups: ['c'] });
      const renamed = await call('PUT', `/v1/tunnels/${added.body.id}`, { body: { ...written(), name: 'other' } });
      expect(renamed.body.id).not.to.equal(added.body.id);
      expect((await call('GET', `/v1/tunnels/${added.body.id}`)).status).to.equal(404);
      const between = await call('GET', '/v1/config');
      expect(between.body.tunnels.map(({ name }: { name: string }) => name)).to.deep.equal([
        'first',
        'second',
        'other',
      ]);
      const removed = await call('DELETE', '/v1/tunnels/other');
      expectAsDescribed('DELETE', '/v1/tunnels/{id}', removed);
      expect(removed.body).to.deep.equal({ id: renamed.body.id, name: 'other', down: true });
      const after = await call('GET', '/v1/config');
      expect(JSON.parse(after.body.text)).to.deep.equal(JSON.parse(before.body.text));
      expect(daemon.supervisor.specs().map(({ name }) => name)).to.deep.equal(['first', 'second']);
    });

    it('gets a tunnel that the daemon itself carries, whose traffic is counted from nothing', async () => {
      const zero = { connections: 0, open: 0, queued: 0, refused: 0, bytes_in: 0, bytes_out: 0 };
      const keys = { engine: 'embedded', seamless: true, drain_ms: 1000, connect_wait_ms: 2000, share: false };
      const added = await call('POST', '/v1/tunnels', { body: { ...written(), ...keys, enabled: false } });
      expectAsDescribed('POST', '/v1/tunnels', added);
      expect(added.body).to.deep.include({ engine: 'embedded', seamless: true, traffic: zero });
      const { id } = added.body;
      const spec = daemon.supervisor.specs().find((one) => one.id === id);
      expect(spec).to.deep.include({ share: false, seamless: { drainMs: 1000, connectWaitMs: 2000 } });
      const seen = await call('GET', '/v1/traffic');
      expectAsDescribed('GET', '/v1/traffic', seen);
      expect(seen.body.tunnels, 'of those that are a program nothing is known').to.deep.equal({ [id]: zero });
      expect((await call('GET', '/metrics')).bytes.toString()).to.include(
        `tunward_tunnel_connections_total{tunnel="${id}",name="third: #3"} 0\n`,
      );
      const wrong = { ...written(), engine: 'ssh', share: true };
      const refused = await call('PUT', `/v1/tunnels/${id}`, { body: wrong });
      expect([refused.status, refused.body.code]).to.deep.equal([422, 'ERR_CONFIG_INVALID']);
      await call('DELETE', `/v1/tunnels/${id}`);
    });

    it('is given with its tunnels as they are written, so that one of them can be put back', async () => {
      const { tunnels, text } = (await call('GET', '/v1/config')).body;
      const { id, ...first } = tunnels[0];
      expect(Object.keys(first)).to.have.members(Object.keys(JSON.parse(text).tunnels[0]));
      expect(first.ssh_options).to.deep.equal({ Port: '1' });
      const back = await call('PUT', `/v1/tunnels/${id}`, { body: first });
      expect([back.status, (await call('GET', '/v1/config')).body.text]).to.deep.equal([200, text]);
    });

    it('is changed by one of two who have read the same, and the other one is told', async () => {
      const { etag } = (await call('GET', '/v1/config')).headers;
      const headers = { 'if-match': etag };
      const writers = ['one', 'two'].map(async (name) => {
        const body = { ...written(), name, local_port: String(await freeLocalPort()) };
        return call('POST', '/v1/tunnels', { body, headers });
      });
      const replies = await Promise.all(writers);
      expect(replies.map(({ status }) => status).sort()).to.deep.equal([201, 412]);
      const refused = replies.find(({ status }) => status === 412);
      expect(refused?.body).to.include({ code: 'ERR_CONFIG_CHANGED' });
      const names = daemon.supervisor.specs().map(({ name }) => name);
      expect(names).to.have.length(3);
      await call('DELETE', `/v1/tunnels/${names[2]}`);
    });

    it('is not changed by what would make it wrong, and says where that is', async () => {
      const { text } = (await call('GET', '/v1/config')).body;
      const wrong: readonly [body: unknown, status: number, detail: RegExp][] = [
        [{ ...written(), local_port: 'x' }, 422, /tunnels\[2\]\.local_port: expected a port/],
        [{ ...written(), remote_host: '-oProxyCommand=x' }, 422, /tunnels\[2\]\.remote_host: expected/],
        [{ ...written(), local_port: String(port) }, 422, /tunnels\[\d\]/],
        [{ ...written(), colour: 'red' }, 422, /colour/],
        [{}, 422, /remote_host/],
        [[], 400, /^body/],
        ['tunnel', 400, /^body/],
      ];
      for (const [body, status, detail] of wrong) {
        const reply = await call('POST', '/v1/tunnels', { body });
        expect(reply.status, JSON.stringify(reply.body)).to.equal(status);
        expect(reply.body.detail).to.match(detail);
      }
      expect((await call('GET', '/v1/config')).body.text).to.equal(text);
      expect((await call('DELETE', '/v1/tunnels/nobody')).body.code).to.equal('ERR_TUNNEL_UNKNOWN');
      const headers = { 'if-match': 'unquoted' };
      expect((await call('DELETE', '/v1/tunnels/first', { headers })).body.detail).to.match(
        /^If-Match: expected one ETag/,
      );
    });

    it('is not told from afar which file ssh is to read, or which key it is to use', async () => {
      const { text } = (await call('GET', '/v1/config')).body;
      const token = readFileSync(daemon.config.api.tokenFile, 'utf8').trim();
      const send = (method: string, path: string, body: unknown) =>
        fetch(new URL(path, daemon.address.url ?? ''), {
          method,
          body: JSON.stringify(body),
          headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        });
      const files = [
        ...[{ ssh_config: '/tmp/other' }, { identity_file: '~/.ssh/id_rsa' }],
        // ssh writes into it the keys of whatever host it is sent to.
        ...[
          { ssh_options: { UserKnownHostsFile: '~/.bashrc' } },
          { ssh_options: { userknownhostsfile: '/tmp/other' } },
        ],
        ...[{ ssh_options: { IdentityAgent: '/tmp/agent' } }, { ssh_options: { CertificateFile: '/tmp/other' } }],
      ];
      for (const more of files) {
        for (const [method, path] of [
          ['POST', '/v1/tunnels'],
          ['PUT', '/v1/tunnels/first'],
        ] as const) {
          const reply = await send(method, path, { ...written(), ...more });
          const { code, detail } = (await reply.json()) as { code: string; detail: string };
          expect([reply.status, code]).to.deep.equal([403, 'ERR_FORBIDDEN']);
          expect(detail).to.include(Object.keys(more)[0]);
        }
      }
      expect((await call('GET', '/v1/config')).body.text).to.equal(text);
      const plain = await send('POST', '/v1/tunnels', written());
      expect(plain.status).to.equal(201);
      // What was given at the socket may stay.
      const body = { ...written(), ssh_options: { Port: '1', UserKnownHostsFile: '/tmp/known' } };
      expect(
        (await call('PUT', `/v1/tunnels/${((await plain.json()) as { id: string }).id}`, { body })).status,
      ).to.equal(200);
      expect(
        (await send('PUT', '/v1/tunnels/third: #3'.replace('#', '%23'), { ...body, groups: ['c'] })).status,
      ).to.equal(200);
      await call('DELETE', '/v1/tunnels/third: #3'.replace(' ', '%20').replace('#', '%23'));
    });

    it('may name two tunnels alike, and a name that could be either starts and stops neither', async () => {
      const twin = await call('POST', '/v1/tunnels', { body: { ...written(), name: 'first' } });
      const candidates = [ids.first, twin.body.id];
      for (const [method, path] of [
        ['GET', '/v1/tunnels/first'],
        ['POST', '/v1/tunnels/first/stop'],
        ['PUT', '/v1/tunnels/first'],
        ['DELETE', '/v1/tunnels/first'],
      ] as const) {
        const body = method === 'PUT' ? written() : undefined;
        const reply = await call(method, path, { body });
        expect([reply.status, reply.body.code], path).to.deep.equal([409, 'ERR_TUNNEL_AMBIGUOUS']);
        expect(reply.body.candidates).to.have.members(candidates);
      }
      const many = await call('POST', '/v1/operations', { body: { action: 'stop', tunnels: ['first'] } });
      expect(many.body.code).to.equal('ERR_TUNNEL_AMBIGUOUS');
      expect(daemon.supervisor.specs().map(({ id }) => id)).to.include.members(candidates);
      expect(candidates.map((id) => daemon.supervisor.status(id ?? '').desired)).to.deep.equal(['up', 'up']);
      expect((await call('DELETE', `/v1/tunnels/${twin.body.id.slice(0, 12)}`)).status).to.equal(200);
    });

    it('is judged without being changed', async () => {
      const right = await call('POST', '/v1/config/validate', { body: { text: 'tunnels: []\n' } });
      expectAsDescribed('POST', '/v1/config/validate', right);
      expect(right.body.changes.removed.map(({ name }: { name: string }) => name)).to.deep.equal(['first', 'second']);
      const wrong = await call('POST', '/v1/config/validate', { body: { text: 'tunels: []\n' } });
      expectAsDescribed('POST', '/v1/config/validate', wrong);
      expect(wrong.body).to.include({ valid: false, changes: null });
      expect(wrong.body.problems[0]).to.include({ line: 1, column: 1 });
      const large = `# ${'x'.repeat(900_000)}\ntunnels: []\n`;
      expect((await call('POST', '/v1/config/validate', { body: { text: large } })).body.valid).to.equal(true);
      expect(daemon.supervisor.specs()).to.have.length(2);
    });

    it('is read again when somebody asks', async () => {
      const reply = await call('POST', '/v1/config/reload');
      expectAsDescribed('POST', '/v1/config/reload', reply);
      expect(reply.body.changes).to.deep.equal({ added: [], removed: [], changed: [] });
    });
  });

  describe('a port', () => {
    let holder: http.Server;
    let held: number;
    before(async () => {
      holder = http.createServer();
      await new Promise<void>((resolve) => holder.listen(0, '127.0.0.1', resolve));
      held = Number((holder.address() as { port: number }).port);
    });
    after(() => holder.close());

    it('is freed only if a tunnel listens on it, or by force', async () => {
      const reply = await call('POST', `/v1/ports/${held}/free`);
      expect([reply.status, reply.body.code]).to.deep.equal([403, 'ERR_FORBIDDEN']);
      expect(reply.body.detail).to.match(/^No tunnel of this daemon listens on port \d+: with force/);
      // This process holds it, and is never its own target, force or not.
      const forced = await call('POST', `/v1/ports/${held}/free`, { body: { force: true } });
      expectAsDescribed('POST', '/v1/ports/{port}/free', forced);
      expect(forced.body).to.include({ free: false, verdict: 'protected' });
      expect(holder.listening).to.equal(true);
    });

    it('of a tunnel is freed where that listens, and nowhere else', async () => {
      const asked = await call('POST', `/v1/ports/${port}/free`, { body: { host: '127.0.0.9' } });
      expect([asked.status, asked.body.code]).to.deep.equal([403, 'ERR_FORBIDDEN']);
      expect(asked.body.detail).to.match(/^No tunnel of this daemon listens on 127\.0\.0\.9, port/);
      const elsewhere = http.createServer();
      await new Promise<void>((resolve) => elsewhere.listen(port, '127.0.0.9', resolve));
      const freed = await call('POST', `/v1/ports/${port}/free`);
      expect(freed.body).to.include({ free: true, verdict: 'free', host: 'localhost', kill: null });
      expect(elsewhere.listening).to.equal(true);
      elsewhere.close();
    });

    it('of several tunnels is freed at the address that is named', async () => {
      const twin = { name: 'twin', remote_host: '127.0.0.1', remote_port: '80', enabled: false };
      const added = await call('POST', '/v1/tunnels', { body: { ...twin, local_port: `127.0.0.9:${port}` } });
      expect(added.status, JSON.stringify(added.body)).to.equal(201);
      const vague = await call('POST', `/v1/ports/${port}/free`);
      expect([vague.status, vague.body.code]).to.deep.equal([400, 'ERR_BAD_REQUEST']);
      expect(vague.body.detail).to.match(/^host: expected one of localhost, 127\.0\.0\.9, where tunnels listen/);
      const named = await call('POST', `/v1/ports/${port}/free`, { body: { host: '127.0.0.9' } });
      expect(named.body).to.include({ free: true, host: '127.0.0.9' });
      await call('DELETE', '/v1/tunnels/twin');
    });

    it('is planned for whoever asks, and that harms nobody', async () => {
      const plan = await call('POST', `/v1/ports/${held}/free`, { body: { dry_run: true } });
      expect(plan.status).to.equal(200);
      expect(plan.body.kill.left[0]).to.include({ pid: process.pid });
      expect(plan.body.verdict).to.equal('protected');
      const ours = await call('POST', `/v1/ports/${port}/free`, { body: { host: '127.0.0.1' } });
      expect(ours.body).to.include({ free: true, verdict: 'free', kill: null });
    });
  });

  it('describes every route, and every answer that it gives', async () => {
    const { body } = await call('GET', '/openapi.json');
    expect(body.openapi).to.equal('3.1.0');
    for (const { method, path, about } of table()) {
      expect(body.paths[path]?.[method.toLowerCase()]?.summary, `${method} ${path}`).to.equal(about);
    }
    const text = JSON.stringify(body);
    const references = [...text.matchAll(/"\$ref":"([^"]+)"/g)].map(([, reference = '']) => reference);
    expect(references.length).to.be.greaterThan(20);
    for (const reference of new Set(references)) {
      const name = /^#\/components\/schemas\/(\w+)$/.exec(reference)?.[1] ?? reference;
      expect(body.components.schemas, reference).to.have.property(name);
    }
  });

  it('counts for Prometheus, in its text format', async () => {
    const { bytes, headers } = await call('GET', '/metrics');
    const text = bytes.toString('utf8');
    expect(headers['content-type']).to.match(/^text\/plain; version=0\.0\.4/);
    expect(text).to.match(new RegExp(`^tunward_tunnel_up\\{tunnel="${ids.first}",name="first"\\} 0$`, 'm'));
    expect(text).to.match(
      new RegExp(`^tunward_tunnel_state\\{tunnel="${ids.second}",name="second",state="stopped"\\} 1$`, 'm'),
    );
    expect(text).to.match(/^tunward_build_info\{version="[\d.]+",node="v[\d.]+"\} 1$/m);
    for (const line of text.split('\n').filter(Boolean)) {
      expect(line).to.match(/^(# (HELP|TYPE) tunward_\w+ .+|tunward_\w+(\{[^{}]*\})? [\d.e+-]+)$/);
    }
  });

  describe('events', () => {
    /** Reads a stream until `isOver` says so; answers its whole text. */
    function listen(
      path: string,
      isOver: (text: string) => boolean,
      options: { last?: string; begin?: () => void } = {},
    ) {
      const { last, begin } = options;
      const headers = last === undefined ? {} : { 'last-event-id': last };
      return new Promise<string>((resolve, reject) => {
        const request = http.get({ socketPath: home.socket, path, agent: false, timeout: 15_000, headers });
        request.on('error', reject).on('timeout', () => request.destroy(new Error('nothing comes')));
        request.on('response', (answer) => {
          let text = '';
          // The head of the answer comes with the first line, when the reader has been taken in.
          answer.once('data', () => begin?.());
          answer.setEncoding('utf8').on('data', (chunk: string) => {
            text += chunk;
            if (!isOver(text)) return;
            request.destroy();
            resolve(text);
          });
          answer.on('error', () => undefined); // we have hung up
        });
      });
    }
    const dataOf = (text: string, type: string) =>
      [...text.matchAll(new RegExp(`event: ${type}\ndata: (.*)\n`, 'g'))].map(([, json = '']) => JSON.parse(json));
    const idsOf = (text: string) => [...text.matchAll(/^id: (.*)$/gm)].map(([, id = '']) => id);

    it('come as they happen, of one tunnel and of one family where that is wanted', async () => {
      const stop = () => void call('POST', '/v1/tunnels/first/stop').catch(() => undefined);
      const isOver = (text: string) => text.includes('event: tunnel.stopped');
      const text = await listen('/v1/events?tunnel=first&type=tunnel', isOver, { begin: stop });
      const [stopped] = dataOf(text, 'tunnel.stopped');
      expect(stopped).to.include({ tunnel: ids.first, type: 'tunnel.stopped' });
      expect(stopped.status).to.include({ state: 'stopped', name: 'first' });
      expect(text).to.match(/^retry: \d+\n\n/);
      await call('POST', '/v1/tunnels/first/start');
    });

    it('are told again from the last one that was heard', async () => {
      await call('POST', '/v1/tunnels/first/stop');
      const all = await listen('/v1/events?after=nothing', (text) => text.includes('event: gap'));
      expect(dataOf(all, 'gap')[0].reason).to.match(/started again/);
      const [last = ''] = idsOf(all);
      await call('POST', '/v1/tunnels/first/start');
      const missed = await listen('/v1/events', (text) => text.includes('event: tunnel.backoff'), { last });
      expect(idsOf(missed)[0]).to.equal(last.replace(/\d+$/, (digits) => String(Number(digits) + 1)));
      expect(missed).to.include('event: tunnel.starting').and.not.include('event: gap');
    });

    it('are of no tunnel that nobody knows', async () => {
      const { status, body } = await call('GET', '/v1/events?tunnel=nobody');
      expect([status, body.code]).to.deep.equal([404, 'ERR_TUNNEL_UNKNOWN']);
    });

    it('are a log without a gap between the last lines and those that come', async () => {
      const followers = new Set<(line: string) => void>();
      const tail = () => {
        queueMicrotask(() => followers.forEach((tell) => void tell('between')));
        return ['past'];
      };
      const follow = (_id: string, tell: (line: string) => void) => {
        followers.add(tell);
        return () => followers.delete(tell);
      };
      const logs = { fileOf: () => '', write: () => undefined, tail, follow };
      const overview = { list: () => Promise.reject(new Error()), statuses: async () => [] };
      const rows = tunnelRoutes({ supervisor: daemon.supervisor, overview, logs, clock: systemClock });
      const row = rows.find(({ path }) => path.endsWith('/logs'));
      const request = { params: { id: 'first' }, query: { follow: true }, body: undefined, access: null };
      const given = await row?.handle({ ...request, incoming: { headers: {} } as http.IncomingMessage });
      const heard: unknown[] = [];
      if (given && 'stream' in given) given.stream({ send: (_type, data) => heard.push(data), write: () => undefined });
      await new Promise((resolve) => setImmediate(resolve));
      expect(heard).to.deep.equal([{ line: 'past' }, { line: 'between' }]);
    });

    it('are a log line by line, first the last ones, then those that come', async () => {
      const lines = (text: string) => dataOf(text, 'line').map(({ line }) => line);
      const text = await listen('/v1/tunnels/first/logs?lines=2&follow=true', (heard) => {
        if (lines(heard).length === 2) call('POST', '/v1/tunnels/first/stop').catch(() => undefined);
        return lines(heard).some((line) => / Stopped$/.test(line));
      });
      expect(lines(text).length).to.be.greaterThan(2);
    });
  });

  describe('what makes no sense', () => {
    const cases: readonly [method: string, path: string, status: number, code: string, detail: RegExp][] = [
      ['GET', '/v1/tunnels/nobody', 404, 'ERR_TUNNEL_UNKNOWN', /^No tunnel is called 'nobody'/],
      ['POST', '/v1/tunnels/nobody/restart', 404, 'ERR_TUNNEL_UNKNOWN', /^No tunnel is called/],
      ['POST', '/v1/tunnels/first/restart?force=maybe', 400, 'ERR_BAD_REQUEST', /^query\.force: /],
      ['POST', '/v1/tunnels/first/restart?forse=true', 400, 'ERR_BAD_REQUEST', /forse/],
      ['GET', '/v1/tunnels/first/restart', 405, 'ERR_METHOD_NOT_ALLOWED', /is for POST, found GET/],
      ['OPTIONS', '/v1/tunnels', 405, 'ERR_METHOD_NOT_ALLOWED', /is for GET/],
      ['GET', '/v1/tunnels/first/logs?lines=0', 400, 'ERR_BAD_REQUEST', /lines: expected a number from 1 to 10000/],
      ['GET', '/v1/tunnels/first/logs?lines=1e3', 400, 'ERR_BAD_REQUEST', /lines: expected a number/],
      ['GET', '/v1/tunnels/first/logs?lines=3&lines=4', 400, 'ERR_BAD_REQUEST', /lines: expected a number/],
      ['GET', '/v1/ports/0', 400, 'ERR_BAD_REQUEST', /port: expected a number from 1 to 65535/],
      ['GET', '/v1/ports/65536', 400, 'ERR_BAD_REQUEST', /port: expected a number/],
      ['GET', '/v1/ports/80?host=evil.example', 400, 'ERR_BAD_REQUEST', /host: expected an IP address/],
      ['GET', '/v1/ports/80?host=1.2.3', 400, 'ERR_BAD_REQUEST', /host: expected an IP address/],
      ['GET', '/v1/ports/80?host=abc', 400, 'ERR_BAD_REQUEST', /host: expected an IP address/],
      ['GET', '/v1/operations/none', 404, 'ERR_OPERATION_UNKNOWN', /^There is no operation 'none'/],
      ['GET', '/v2/tunnels', 404, 'ERR_ROUTE_UNKNOWN', /^There is no GET \/v2\/tunnels/],
      ['GET', '/v1/tunnels/', 404, 'ERR_ROUTE_UNKNOWN', /^There is no GET/],
      ['GET', '/v1/tunnels/%00', 404, 'ERR_TUNNEL_UNKNOWN', /^No tunnel is called/],
      ['GET', '/v1/tunnels/a%2Fb', 404, 'ERR_TUNNEL_UNKNOWN', /^No tunnel is called 'a\/b'/],
      ['GET', '/v1/tunnels/%zz', 404, 'ERR_TUNNEL_UNKNOWN', /^No tunnel is called/],
      ['GET', `/v1/tunnels/${'x'.repeat(301)}`, 400, 'ERR_BAD_REQUEST', /^path\.id: /],
    ];
    for (const [method, path, status, code, detail] of cases) {
      it(`${method} ${path.slice(0, 60)} is ${status} ${code}`, async () => {
        const reply = await call(method, path);
        expect([reply.status, reply.body.code]).to.deep.equal([status, code]);
        expect(reply.body.detail).to.match(detail);
        expect(reply.headers['content-type']).to.equal('application/problem+json');
      });
    }
  });

  it('waits with its answers until the boot knows every tunnel; health is said at once', async () => {
    let finishBoot = () => {};
    const booted = new Promise<void>((resolve) => {
      finishBoot = resolve;
    });
    const clock = createFakeClock();
    const routes = createRoutes({
      config: daemon.config,
      supervisor: daemon.supervisor,
      logs: { fileOf: () => '', write: () => undefined, tail: () => [], follow: () => () => undefined },
      reloader: {} as Reloader,
      journal: { append: () => undefined, recent: () => [], subscribe: () => () => undefined },
      tokens: openTokens([], []),
      sessions: createSessions(clock),
      failures: createFailures(clock),
      ...{ clock, version: '0', booted, phase: () => 'starting' as const, shutdown: () => undefined },
    });
    const ask = (path: string) => {
      const row = routes.find((one) => one.path === path);
      const request = { params: {}, query: {}, body: undefined, access: null };
      return row?.handle({ ...request, incoming: { headers: {} } as http.IncomingMessage });
    };
    expect(await ask('/readyz')).to.deep.include({ status: 503, body: { status: 'starting' } });
    let answered = false;
    const answer = ask('/v1/tunnels')?.then((given) => {
      answered = true;
      return given;
    });
    // A whole turn of the event loop: an answer that waits for nothing would be here.
    await new Promise((resolve) => setImmediate(resolve));
    expect(answered).to.equal(false);
    finishBoot();
    expect(await answer).to.have.property('bytes');
  });
});
