import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import net, { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { expect } from 'chai';
import { openProc } from '#lib/proc/read.js';
import { systemClock, until } from '#lib/time.js';
import { type Chains, createChains } from '#lib/tunnel/chain.js';
import { checkTarget } from '#lib/tunnel/check.js';
import type { Link } from '#lib/tunnel/engine.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive, sendSignal, statOf } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';
import { makeSpec } from '../support/specs.js';
import { type Sshd, startSshd } from '../support/sshd.js';

const deadline = { timeoutMs: 10_000 };
const nobody = { address: '127.0.0.1', port: 0 };

describe('an ssh behind a front', () => {
  const reaper = createReaper();
  const links: Link[] = [];
  let sshd: Sshd;
  let dir: string;
  let folder: string;
  let echo: net.Server;
  let chains: Chains;

  before(async function () {
    need(this, 'sshd', 'autossh');
    sshd = await startSshd();
  });
  after(() => sshd?.stop());

  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-test-'));
    folder = join(dir, 'links');
    echo = net.createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => undefined);
      socket.pipe(socket);
    });
    await new Promise<void>((resolve) => echo.listen(0, '127.0.0.1', resolve));
    const env = { ...process.env, ...reaper.env };
    chains = createChains({
      ...{ instance: 'e'.repeat(32), env, knownHosts: null, proc: openProc(), clock: systemClock },
      socketFolder: folder,
    });
  });

  afterEach(async () => {
    await Promise.all(links.splice(0).map((link) => link.stop()));
    echo.close();
    await reaper.end();
    expect(existsSync(folder), 'the folder of the sockets').to.equal(false);
    rmSync(dir, { recursive: true });
  });

  const echoPort = () => (echo.address() as AddressInfo).port;

  async function specOf(engine: TunnelSpec['engine'], changes: Partial<TunnelSpec> = {}): Promise<TunnelSpec> {
    const port = await freeLocalPort();
    return makeSpec({
      ...{ side: 'local', listen: { host: '127.0.0.1', port }, engine, remoteHost: 'rig' },
      ...{ sshConfig: sshd.sshConfigFile, seamless: { drainMs: 0, connectWaitMs: 0 } },
      forward: { side: 'local', listen: { host: '127.0.0.1', port }, target: { host: '127.0.0.1', port: echoPort() } },
      ...changes,
    });
  }

  async function start(spec: TunnelSpec): Promise<Link> {
    const link = await chains.engineFor(spec).start(spec, {
      ...{ signal: new AbortController().signal, onOutput: () => undefined, isBehindFront: true },
    });
    links.push(link);
    if (link.root) reaper.ownPid(link.root.pid, link.root.startTicks);
    const isReady = async () => (await link.check()) === 'ready';
    expect(await until(isReady, deadline), 'ready').to.equal(true);
    return link;
  }

  async function open({ carrier }: Link): Promise<Duplex> {
    if (!carrier) throw new Error('There is no carrier');
    return carrier.open(nobody, AbortSignal.timeout(10_000));
  }

  /** What comes back, and how it ended. */
  function hear(stream: Duplex) {
    const heard = { text: '', end: '' };
    stream.setEncoding('utf8');
    stream.on('data', (chunk: string) => {
      heard.text += chunk;
    });
    stream.once('end', () => {
      heard.end ||= 'end';
    });
    stream.on('error', (error: NodeJS.ErrnoException) => {
      heard.end ||= error.code ?? 'error';
    });
    stream.resume();
    return heard;
  }

  for (const engine of ['ssh', 'autossh'] as const) {
    it(`listens on a socket of ours and on no port, and carries both ways: ${engine}`, async () => {
      const spec = await specOf(engine);
      const link = await start(spec);
      expect(readdirSync(folder)).to.have.length(1);
      const probe = net.connect(spec.forward.listen.port, '127.0.0.1');
      const refused = await new Promise<NodeJS.ErrnoException>((resolve) => probe.once('error', resolve));
      expect(refused.code).to.equal('ECONNREFUSED');
      const stream = await open(link);
      const heard = hear(stream);
      stream.end('hello');
      await until(() => heard.end, deadline);
      expect(heard).to.deep.equal({ text: 'hello', end: 'end' });
      expect(link.carrier?.isAlive()).to.equal(true);
    });

    it(`has two lives of one tunnel side by side, and ends one without the other: ${engine}`, async () => {
      const spec = await specOf(engine);
      const [one, other] = [await start(spec), await start(spec)];
      const stream = await open(other);
      const heard = hear(stream);
      const { killed, survivors } = await one.stop();
      expect([killed.length, survivors]).to.deep.equal([engine === 'ssh' ? 1 : 2, []]);
      stream.write('still there');
      await until(() => heard.text === 'still there', deadline);
      expect(heard).to.deep.equal({ text: 'still there', end: '' });
      expect(await other.check()).to.equal('ready');
      stream.destroy();
    });

    it(`is known to be gone by the time its connections end, however it was killed: ${engine}`, async () => {
      for (let round = 0; round < 10; round++) {
        const link = await start(await specOf(engine));
        const stream = await open(link);
        const heard = hear(stream);
        stream.write('x');
        await until(() => heard.text === 'x', deadline);
        let wasAlive: boolean | undefined;
        for (const end of ['end', 'error', 'close']) {
          stream.once(end, () => {
            wasAlive ??= link.carrier?.isAlive();
          });
        }
        const root = link.root ?? { pid: 0, startTicks: 0 };
        const child = engine === 'ssh' ? root : childOf(root.pid);
        sendSignal(child, 'SIGKILL');
        await until(() => wasAlive !== undefined, deadline);
        expect(wasAlive).to.equal(false);
        await link.exited;
        stream.destroy();
      }
    });
  }

  function childOf(parent: number) {
    const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
    const child = pids.map((pid) => statOf(Number(pid))).find((stat) => stat?.ppid === parent);
    if (!child || !isAlive(child.pid)) throw new Error(`pid ${parent} has no child`);
    return child;
  }

  it('is checked by a connection that ends: a target that refuses, and one that is there', async () => {
    const check = { http: null, everyMs: 10_000, timeoutMs: 3000 };
    const context = { check, proc: openProc(), clock: systemClock, signal: new AbortController().signal };
    const good = await specOf('ssh');
    expect(await checkTarget(good, { ...context, link: await start(good) })).to.include({ verdict: 'ok' });
    const target = { host: '127.0.0.1', port: await freeLocalPort() };
    const bad = await specOf('ssh', { forward: { ...good.forward, target } });
    const outcome = await checkTarget(bad, { ...context, link: await start(bad) });
    expect(outcome).to.include({ verdict: 'target', reason: 'target_refused' });
    expect(outcome.detail).to.match(/Connection refused/);
  });

  it('is asked by HTTP through itself', async () => {
    const { createServer } = await import('node:http');
    const web = createServer((request, response) => {
      response.statusCode = request.url === '/up' ? 200 : 503;
      response.end();
    });
    await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
    try {
      const target = { host: '127.0.0.1', port: (web.address() as AddressInfo).port };
      const spec = await specOf('ssh');
      const own = { ...spec, forward: { ...spec.forward, target } };
      const link = await start(own);
      const context = { link, proc: openProc(), clock: systemClock, signal: new AbortController().signal };
      const ask = (http: string) => checkTarget(own, { ...context, check: { http, everyMs: 1, timeoutMs: 3000 } });
      expect(await ask('/up')).to.include({ verdict: 'ok' });
      expect(await ask('/down')).to.include({ verdict: 'target', detail: 'GET /down answers 503' });
    } finally {
      web.close();
    }
  });

  // the path is gone, /proc/net/unix still has it: "ready" for ever, while nobody can connect any more.
  it('is no longer ready when its socket has been removed', async () => {
    const link = await start(await specOf('ssh'));
    rmSync(folder, { recursive: true });
    await open(link).catch(() => undefined);
    expect(link.carrier?.isAlive()).to.equal(false);
    const isWaiting = async () => (await link.check()) !== 'ready';
    expect(await until(isWaiting, { timeoutMs: 12_000 }), 'not ready').to.equal(true);
  });
});
