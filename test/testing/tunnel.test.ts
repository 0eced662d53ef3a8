import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { startSshServer, startTunnel, type TestSshServer } from 'tunward/testing';
import { isTunwardError } from '#lib/errors.js';
import { fetchText } from '../support/daemon.js';
import { need } from '../support/need.js';
import { startService } from '../support/servers.js';

describe('startTunnel()', () => {
  let server: TestSshServer;

  before(function () {
    need(this, 'ssh', 'autossh');
  });

  beforeEach(async () => {
    server = await startSshServer();
  });

  afterEach(() => server.close());

  for (const engine of ['auto', 'ssh', 'autossh'] as const) {
    it(`opens one by engine ${engine}, which can be restarted and killed, and is up again by itself`, async () => {
      await using service = await startService();
      await using tunnel = await startTunnel({ server, target: service.port, engine });
      expect(tunnel.status()).to.include({
        state: 'up',
        remoteHost: 'tunward-test',
        engine: engine === 'auto' ? 'ssh' : engine,
      });
      expect(tunnel.status().listen).to.deep.equal([{ side: 'local', host: '127.0.0.1', port: tunnel.port }]);
      expect(await fetchText(tunnel.port)).to.equal('served');
      const { kill } = await tunnel.restart();
      expect(kill.killed).to.have.length(engine === 'autossh' ? 2 : 1);
      expect(await fetchText(tunnel.port)).to.equal('served');
      await tunnel.kill();
      await tunnel.waitFor(({ state, restarts }) => state === 'up' && restarts === 2, { timeoutMs: 15_000 });
      expect(tunnel.status().lastRestart).to.include({ asked: false, reason: 'killed' });
      expect(await fetchText(tunnel.port)).to.equal('served');
      expect(server.forwards.map(({ port }) => port)).to.deep.equal(Array(3).fill(service.port));
    });
  }

  it('leads to a server of this process, or to an address', async () => {
    const local = http.createServer((_request, answer) => answer.end('local'));
    await new Promise<void>((resolve) => local.listen(0, resolve));
    const { port } = local.address() as AddressInfo;
    try {
      await using one = await startTunnel({ server, target: local });
      await using two = await startTunnel({ server, target: { host: 'localhost', port } });
      expect(await Promise.all([one, two].map(({ port: at }) => fetchText(at)))).to.deep.equal(['local', 'local']);
    } finally {
      local.closeAllConnections();
      await new Promise((resolve) => local.close(resolve));
    }
    const error = await startTunnel({ server, target: net.createServer() }).catch((thrown: unknown) => thrown);
    expect(error)
      .to.be.instanceOf(TypeError)
      .and.property('message')
      .match(/call its listen\(\) first/);
  });

  it('asks nothing of the person who runs the test: no agent, no file of theirs', async () => {
    await using service = await startService();
    const env = {
      ...process.env,
      HOME: join(tmpdir(), 'no-such-home'),
      SSH_AUTH_SOCK: join(tmpdir(), 'no-such-agent'),
    };
    await using tunnel = await startTunnel({ server, target: service.port, env });
    expect(await fetchText(tunnel.port)).to.equal('served');
    const words = tunnel.status().chain[0]?.command ?? '';
    expect(words).to.include(`-F ${server.sshConfigFile}`);
    expect(server.logins.map(({ method, accepted }) => `${method} ${accepted}`)).to.deep.equal([
      'none false',
      'publickey true',
    ]);
  });

  it('answers what a server asks, a key and a code one after the other', async () => {
    await using asking = await startSshServer({
      publicKey: true,
      keyboardInteractive: [{ prompt: 'Code: ', answer: '123456' }],
      authenticationMethods: ['publickey,keyboard-interactive'],
    });
    await using service = await startService();
    const asked: string[] = [];
    const prompt = ({ text }: { text: string }): string => {
      asked.push(text);
      return '123456';
    };
    await using tunnel = await startTunnel({ server: asking, target: service.port, prompt });
    expect(asked.map((text) => text.slice(-'Code: '.length))).to.deep.equal(['Code: ']);
    expect(await fetchText(tunnel.port)).to.equal('served');
    expect(asking.logins.filter(({ accepted }) => accepted).map(({ isPartial }) => isPartial)).to.deep.equal([
      true,
      false,
    ]);
  });

  it('is what the server makes of it: a reason for each misbehaviour', async () => {
    const cases: readonly [(misbehaving: TestSshServer) => void, string][] = [
      [(misbehaving) => misbehaving.refuse('connection'), 'refused'],
      [(misbehaving) => misbehaving.refuse('login'), 'auth_failed'],
      [(misbehaving) => misbehaving.changeHostKey(), 'host_key_changed'],
    ];
    for (const [misbehave, reason] of cases) {
      await using misbehaving = await startSshServer();
      misbehave(misbehaving);
      const error = await startTunnel({ server: misbehaving, target: 1 }).catch((thrown: unknown) => thrown);
      expect(isTunwardError(error, 'ERR_START_FAILED') && error.info.reason).to.equal(reason);
    }
  });

  it('comes back when the server does', async () => {
    await using service = await startService();
    await using tunnel = await startTunnel({ server, target: service.port });
    server.refuse('connection');
    server.drop();
    await tunnel.waitFor(({ state }) => state === 'backoff', { timeoutMs: 15_000 });
    await server.resume();
    await tunnel.waitFor(({ state }) => state === 'up', { timeoutMs: 15_000 });
    expect(await fetchText(tunnel.port)).to.equal('served');
  });

  it('waits as long as it is told, and says what the tunnel is in its place', async () => {
    await using tunnel = await startTunnel({ server, target: 1 });
    const error = await tunnel.waitFor(({ state }) => state === 'fatal', { timeoutMs: 20 }).catch((thrown) => thrown);
    expect(isTunwardError(error, 'ERR_TIMEOUT')).to.equal(true);
    expect(error.message).to.match(/has not become what was waited for in 20 ms: it is up$/);
  });
});
