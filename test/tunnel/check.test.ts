import { once } from 'node:events';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import { expect } from 'chai';
import { openProc } from '#lib/proc/read.js';
import { systemClock, until } from '#lib/time.js';
import { createChains } from '#lib/tunnel/chain.js';
import { type CheckOutcome, checkTarget } from '#lib/tunnel/check.js';
import type { Link } from '#lib/tunnel/engine.js';
import type { CheckOptions, Endpoint, TunnelSpec } from '#lib/tunnel/spec.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { descendantsOf, sendSignal } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';
import { makeSpec } from '../support/specs.js';
import { type Sshd, startSshd } from '../support/sshd.js';

const proc = openProc();
const ok: CheckOutcome = { verdict: 'ok', reason: null, detail: null };

describe('checkTarget()', () => {
  const reaper = createReaper();
  const servers: net.Server[] = [];
  const sockets = new Set<net.Socket>();
  let sshd: Sshd;

  before(async function () {
    need(this, 'ssh', 'sshd');
    sshd = await startSshd();
  });

  afterEach(async () => {
    for (const socket of sockets) socket.destroy();
    for (const server of servers.splice(0)) server.close();
    await reaper.end();
  });

  after(() => sshd?.stop());

  /** A server of the test's; answers its port. */
  async function serve(server: net.Server): Promise<number> {
    servers.push(server);
    server.on('connection', (socket) => {
      sockets.add(socket);
      socket.on('error', () => undefined).once('close', () => sockets.delete(socket));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  }

  /** A tunnel to that port, up, and its link. */
  async function open(target: Endpoint): Promise<{ spec: TunnelSpec; link: Link }> {
    const listen = { host: '127.0.0.1', port: await freeLocalPort() };
    const spec = makeSpec({
      side: 'local',
      listen,
      forward: { side: 'local', listen, target },
      remoteHost: 'rig',
      sshConfig: sshd.sshConfigFile,
    });
    const env = { PATH: process.env.PATH, ...reaper.env };
    const chains = createChains({ instance: 'c'.repeat(32), env, knownHosts: null, proc, clock: systemClock });
    const link = await chains.engineFor(spec).start(spec, {
      signal: new AbortController().signal,
      onOutput: () => undefined,
    });
    if (link.root) reaper.ownPid(link.root.pid, link.root.startTicks);
    expect(await until(async () => (await link.check()) === 'ready', { timeoutMs: 10_000 })).to.equal(true);
    return { spec, link };
  }

  async function check(tunnel: { spec: TunnelSpec; link: Link }, options: Partial<CheckOptions> = {}) {
    const signal = new AbortController().signal;
    const wanted = { http: null, everyMs: 10_000, timeoutMs: 3000, ...options };
    return checkTarget(tunnel.spec, { check: wanted, link: tunnel.link, proc, clock: systemClock, signal });
  }

  const at = (port: number) => ({ host: '127.0.0.1', port });

  describe('of a local forward, by a connection alone', () => {
    it('is ok for a target that says something', async () => {
      const port = await serve(net.createServer((socket) => socket.write('220 hello\r\n')));
      expect(await check(await open(at(port)))).to.deep.equal(ok);
    });

    it('is ok for a target that waits in silence, and sends it no byte', async () => {
      let bytes = 0;
      const silent = net.createServer({ allowHalfOpen: true }, (socket) => {
        socket.on('data', (chunk) => {
          bytes += chunk.length;
        });
      });
      const port = await serve(silent);
      const tunnel = await open(at(port));
      const began = performance.now();
      expect(await check(tunnel)).to.deep.equal(ok);
      expect(performance.now() - began, 'the whole bound was waited for').to.be.below(2500);
      expect(bytes).to.equal(0);
    });

    it('is ok for a target that hangs up at once', async () => {
      const port = await serve(net.createServer((socket) => socket.destroy()));
      expect(await check(await open(at(port)))).to.deep.equal(ok);
    });

    it('says that the target refuses, in ssh\u2019s own words', async () => {
      const outcome = await check(await open(at(await freeLocalPort())));
      expect(outcome).to.include({ verdict: 'target', reason: 'target_refused' });
      expect(outcome.detail).to.match(/^channel \d+: open failed: connect failed: Connection refused$/);
    });

    it('is silent when the server does not answer, and when ssh itself is stopped', async () => {
      const port = await serve(net.createServer({ allowHalfOpen: true }));
      const tunnel = await open(at(port));
      signalSessions(sshd, 'SIGSTOP');
      const deaf = await check(tunnel, { timeoutMs: 400 });
      expect(deaf).to.deep.equal({
        verdict: 'silent',
        reason: 'timeout',
        detail: `nothing came back from 127.0.0.1:${port} within 400 ms`,
      });
      signalSessions(sshd, 'SIGCONT');
      expect(await check(tunnel)).to.deep.equal(ok);
      const root = tunnel.link.root ?? expect.fail('the link has no process');
      sendSignal(root, 'SIGSTOP');
      expect(await check(tunnel, { timeoutMs: 400 })).to.include({ verdict: 'silent' });
      sendSignal(root, 'SIGCONT');
    });

    it('is silent when nobody listens at its entrance', async () => {
      const port = await serve(net.createServer());
      const tunnel = await open(at(port));
      await tunnel.link.stop();
      expect(await check(tunnel)).to.include({ verdict: 'silent', reason: 'timeout' });
    });
  });

  describe('of a local forward, by HTTP', () => {
    it('asks for the path as the target is called, and takes any answer below 400', async () => {
      const asked: unknown[] = [];
      const port = await serve(
        http.createServer(({ url, headers, method }, answer) => {
          asked.push({ url, host: headers.host, method });
          answer.writeHead(url === '/moved' ? 302 : 204).end();
        }),
      );
      const tunnel = await open(at(port));
      expect(await check(tunnel, { http: '/health?deep=1' })).to.deep.equal(ok);
      expect(await check(tunnel, { http: '/moved' })).to.deep.equal(ok);
      expect(asked[0]).to.deep.equal({ url: '/health?deep=1', host: `127.0.0.1:${port}`, method: 'GET' });
    });

    it('says what the target answers when that is an error', async () => {
      const port = await serve(http.createServer((_request, answer) => answer.writeHead(503).end()));
      expect(await check(await open(at(port)), { http: '/health' })).to.deep.equal({
        verdict: 'target',
        reason: 'target_refused',
        detail: 'GET /health answers 503',
      });
    });

    it('tells a target that takes the question and is late from a tunnel through which nothing comes', async () => {
      const port = await serve(http.createServer(() => undefined));
      const tunnel = await open(at(port));
      const late = await check(tunnel, { http: '/', timeoutMs: 400 });
      expect(late).to.include({ verdict: 'target', detail: 'GET / is not answered within 400 ms' });
      signalSessions(sshd, 'SIGSTOP');
      expect(await check(tunnel, { http: '/', timeoutMs: 400 })).to.include({ verdict: 'silent', reason: 'timeout' });
      signalSessions(sshd, 'SIGCONT');
    });

    it('says that a target refuses, hangs up, or speaks something else', async () => {
      expect(await check(await open(at(await freeLocalPort())), { http: '/' })).to.include({ verdict: 'target' });
      const rude = await open(at(await serve(net.createServer((socket) => socket.destroy()))));
      expect(await check(rude, { http: '/' })).to.include({ verdict: 'target', reason: 'target_refused' });
      const other = await open(at(await serve(net.createServer((socket) => socket.end('220 hello\r\n')))));
      expect(await check(other, { http: '/' })).to.include({ detail: 'it answers, and not in HTTP' });
    });
  });

  describe('of a remote forward', () => {
    const link = { refusals: () => ({ count: 0, last: null }) };
    const remote = (port: number) => {
      const listen = { host: 'localhost', port: 8080 };
      return makeSpec({ forward: { side: 'remote', listen, target: at(port) } });
    };
    const look = (spec: TunnelSpec, options: Partial<CheckOptions> = {}) => {
      const wanted = { http: null, everyMs: 10_000, timeoutMs: 400, ...options };
      const signal = new AbortController().signal;
      return checkTarget(spec, { check: wanted, link, proc, clock: systemClock, signal });
    };

    it('asks the service here whether it answers', async () => {
      const port = await serve(net.createServer());
      expect(await look(remote(port))).to.deep.equal(ok);
      const mute = await serve(http.createServer(() => undefined));
      const late = { verdict: 'target', detail: 'GET / is not answered within 400 ms' };
      expect(await look(remote(mute), { http: '/' })).to.include(late);
    });

    it('says that it is not there', async () => {
      const port = await freeLocalPort();
      const refused = { verdict: 'target', reason: 'target_refused', detail: `connect ECONNREFUSED 127.0.0.1:${port}` };
      expect(await look(remote(port))).to.deep.equal(refused);
      expect(await look(remote(port), { http: '/' })).to.deep.equal(refused);
    });
  });

  it('ends with its signal', async () => {
    const port = await serve(http.createServer(() => undefined));
    const spec = makeSpec({ forward: { side: 'remote', listen: at(1), target: at(port) } });
    const gone = new AbortController();
    const link = { refusals: () => ({ count: 0, last: null }) };
    const wanted = { http: '/', everyMs: 1000, timeoutMs: 60_000 };
    const checking = checkTarget(spec, { check: wanted, link, proc, clock: systemClock, signal: gone.signal });
    gone.abort(new Error('no longer wanted'));
    await checking.then(
      () => expect.fail('it did not heed its signal'),
      (error: Error) => expect(error.message).to.equal('no longer wanted'),
    );
  });
});

/** Stops what serves the server's connections, or lets it go on. */
function signalSessions(sshd: Sshd, signal: 'SIGSTOP' | 'SIGCONT'): void {
  const sessions = descendantsOf(sshd.pid);
  expect(sessions, 'the server has no session').not.to.deep.equal([]);
  for (const session of sessions) sendSignal(session, signal);
}
