import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { allGone, fetchText, makeHome, type RunningDaemon, startUp, tunnelIn } from '../support/daemon.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive } from '../support/proc.js';
import { startClient } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { type Sshd, startSshd } from '../support/sshd.js';

const inUse = /address (already )?in use|cannot listen to port/i;
const startLine = /Starting tunnel \((remote to local|local to remote)\): /;

describe('restart through the API', () => {
  const reaper = createReaper();
  const home = makeHome();
  let sshd: Sshd;
  let daemon: RunningDaemon;
  let target: Server;
  let targetPort: number;
  const ports: Record<string, number> = {};

  before(async function () {
    need(this, 'ssh', 'sshd', 'autossh');
    sshd = await startSshd();
    target = createServer((_request, answer) => answer.end('served'));
    await new Promise<void>((resolve) => target.listen(0, '127.0.0.1', resolve));
    targetPort = (target.address() as AddressInfo).port;
    for (const name of ['plain', 'chained', 'back']) ports[name] = await freeLocalPort();
    const common = { remote_host: 'rig', ssh_config: sshd.sshConfigFile };
    home.configure({}, [
      { ...common, name: 'plain', local_port: ports.plain, remote_port: `127.0.0.1:${targetPort}`, engine: 'ssh' },
      {
        ...common,
        name: 'chained',
        local_port: ports.chained,
        remote_port: `127.0.0.1:${targetPort}`,
        engine: 'autossh',
      },
      {
        ...common,
        name: 'back',
        direction: 'local_to_remote',
        local_port: `127.0.0.1:${targetPort}`,
        remote_port: ports.back,
      },
    ]);
    daemon = await startUp(reaper, home);
    for (const name of Object.keys(ports)) await tunnelIn(home, name, 'up');
  });

  after(async () => {
    const code = await daemon?.end('SIGTERM');
    await reaper.end();
    await sshd?.stop();
    target?.close();
    home.remove();
    expect(code, 'exit code of the daemon').to.equal(0);
  });

  it('tells what each chain uses', async () => {
    for (const name of Object.keys(ports)) {
      const { pid, chain, usage } = await tunnelIn(home, name, 'up');
      expect(usage, name).to.have.all.keys('cpu', 'memory', 'ppid', 'pid', 'ctime', 'elapsed', 'timestamp');
      expect(usage).to.include({ pid, ppid: daemon?.pid });
      // An ssh has 5 to 12 MB, and an autossh 1.
      expect(usage.memory).to.be.within(2e6, 60e6);
      expect(chain).to.have.lengthOf(name === 'chained' ? 2 : 1);
    }
  });

  it('restarts 200 times without meeting an address in use, one start line each, no survivor', async function () {
    this.timeout(180_000);
    await Promise.all(
      [
        ['plain', 70],
        ['chained', 70],
        ['back', 60],
      ].map(([name, times]) => restartMany(String(name), Number(times))),
    );
    expect(target.listening, 'the service behind the -R tunnel').to.equal(true);
    expect(await fetchText(targetPort)).to.equal('served');
  });

  async function restartMany(name: string, times: number): Promise<void> {
    for (let round = 0; round < times; round++) {
      const before = await tunnelIn(home, name, 'up');
      const { status, body } = await home.api('POST', `/v1/tunnels/${name}/restart`);
      expect(status, JSON.stringify(body)).to.equal(200);
      expect(body).to.include({ id: before.id, name, state: 'up' });
      expect(body.kill.survivors).to.deep.equal([]);
      expect(body.kill.killed.map(({ pid }: { pid: number }) => pid)).to.include.members(
        before.chain.map(({ pid }: { pid: number }) => pid),
      );
      expect(await allGone(before.chain, 0), 'the old chain is gone').to.equal(true);
      expect(body.tunnel.chain).to.not.deep.equal(before.chain);
      expect(await fetchText(ports[name] ?? 0)).to.equal('served');
      const log = readFileSync(body.tunnel.log_file, 'utf8');
      expect(log.split('\n').filter((line) => startLine.test(line))).to.have.lengthOf(1);
      expect(home.logLines(before.id).filter((line) => inUse.test(line))).to.deep.equal([]);
    }
  }

  it('gives twenty restarts at once one cycle and twenty equal answers', async () => {
    const { restarts } = await tunnelIn(home, 'chained', 'up');
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => home.api('POST', '/v1/tunnels/chained/restart')),
    );
    expect(answers.map(({ status }) => status)).to.deep.equal(Array(20).fill(200));
    expect(new Set(answers.map(({ body }) => body.tunnel.pid)).size).to.equal(1);
    expect((await tunnelIn(home, 'chained', 'up')).restarts).to.equal(restarts + 1);
  });

  it('leaves the clients of the port alone, also one that is called ssh', async () => {
    const clients = [
      startClient(reaper, { port: ports.plain ?? 0 }),
      startClient(reaper, { port: ports.plain ?? 0, comm: 'ssh' }),
    ];
    for (const client of clients) await client.ready;
    for (let round = 0; round < 3; round++) {
      expect((await home.api('POST', '/v1/tunnels/plain/restart?force=true')).status).to.equal(200);
    }
    expect(clients.map(({ pid, startTicks }) => isAlive(pid, startTicks))).to.deep.equal([true, true]);
  });

  it('says what the tunnel is in every field of the contract', async () => {
    const { status, body } = await home.api('GET', '/v1/tunnels/back');
    expect(status).to.equal(200);
    expect(Object.keys(body)).to.have.members([
      ...[
        'id',
        'name',
        'state',
        'desired',
        'reason',
        'health',
        'health_reason',
        'direction',
        'engine',
        'listen',
        'seamless',
      ],
      ...[
        'target',
        'remote_host',
        'jump',
        'groups',
        'interactive',
        'enabled',
        'pid',
        'chain',
        'usage',
        'traffic',
        'since',
        'attempt',
      ],
      ...['restarts', 'last_restart', 'next_retry_at', 'last_error', 'remedy', 'log_file'],
    ]);
    expect(body).to.deep.include({
      state: 'up',
      desired: 'up',
      reason: null,
      health: 'ok',
      remedy: null,
      target: `127.0.0.1:${targetPort}`,
    });
    expect(body.listen).to.deep.equal([{ side: 'remote', host: '127.0.0.1', port: ports.back }]);
    expect(body.chain[0]).to.have.all.keys('pid', 'start_ticks', 'command');
    expect(new Date(body.since).toISOString()).to.equal(body.since);
  });

  it('stops, stays stopped, and starts again', async () => {
    const before = await tunnelIn(home, 'plain', 'up');
    const stopped = await home.api('POST', '/v1/tunnels/plain/stop');
    expect(stopped.status).to.equal(200);
    expect(stopped.body).to.include({ state: 'stopped' });
    expect(await allGone(before.chain, 0)).to.equal(true);
    expect(await fetchText(ports.plain ?? 0)).to.equal(undefined);
    const started = await home.api('POST', '/v1/tunnels/plain/start');
    expect(started.body).to.include({ state: 'up' });
    expect(await fetchText(ports.plain ?? 0)).to.equal('served');
  });

  it('finds tunnels by id, by name and by prefix, and says which it does not know', async () => {
    const { id } = await tunnelIn(home, 'plain', 'up');
    expect((await home.api('GET', `/v1/tunnels/${id.slice(0, 8)}`)).body.name).to.equal('plain');
    const { status, body } = await home.api('GET', '/v1/tunnels/nobody');
    expect(status).to.equal(404);
    expect(body).to.include({ code: 'ERR_TUNNEL_UNKNOWN', status: 404 });
  });

  it('comes up again by itself when its ssh is killed', async () => {
    const before = await tunnelIn(home, 'chained', 'up');
    process.kill(before.chain.at(-1).pid, 'SIGKILL');
    expect(await allGone(before.chain)).to.equal(true);
    // Until the daemon has heard of the exit it says "up", of a chain that is gone.
    const again = async () => {
      const now = await tunnelIn(home, 'chained', 'up');
      return now.restarts > before.restarts && now;
    };
    const after = await until(again, { timeoutMs: 10_000, everyMs: 20 });
    expect(after?.pid).to.not.be.oneOf([undefined, null, before.pid]);
    expect(home.logLines(before.id).at(-2)).to.match(/Reconnecting \(attempt 1\)/);
  });

  it('restarts a chain that is stopped by a signal within 6 s', async () => {
    const before = await tunnelIn(home, 'chained', 'up');
    for (const { pid } of before.chain) process.kill(pid, 'SIGSTOP');
    const { status, body } = await home.api('POST', '/v1/tunnels/chained/restart');
    expect(status).to.equal(200);
    expect(body.took_ms).to.be.below(6000);
    expect(await allGone(before.chain, 0)).to.equal(true);
  });

  it('notices by itself that a chain is stopped by a signal, and replaces it', async () => {
    const before = await tunnelIn(home, 'plain', 'up');
    process.kill(before.pid, 'SIGSTOP');
    await tunnelIn(home, 'plain', 'starting', 4000);
    expect((await home.api('GET', '/v1/tunnels/plain')).body).to.include({ reason: 'frozen' });
    const after = await tunnelIn(home, 'plain', 'up', 12_000);
    expect(after.pid).to.not.equal(before.pid);
    expect(await allGone(before.chain)).to.equal(true);
  });
});
