import { readFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { tunward, tunwardJson } from '../cli/run.js';
import { allGone, fetchText, makeHome, type RunningDaemon, startUp, tunnelIn } from '../support/daemon.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { descendantsOf, isAlive } from '../support/proc.js';
import { type Shape, startListener } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { type Sshd, startSshd } from '../support/sshd.js';

/** What the ancestor got wrong, in its history or to its end: one case for each that can be had here, and no test had. */
describe('what the ancestor got wrong', () => {
  const reaper = createReaper();
  const home = makeHome();
  const name = 'the "web" of our friends, on 8080 (blue) & more';
  let sshd: Sshd;
  let daemon: RunningDaemon;
  let service: Shape;
  let common: Readonly<Record<string, unknown>>;

  before(async function () {
    need(this, 'ssh', 'sshd', 'autossh');
    sshd = await startSshd();
    service = await startListener(reaper).ready;
    common = { remote_host: 'rig', ssh_config: sshd.sshConfigFile, remote_port: `127.0.0.1:${sshd.port}` };
    home.configure({ backoff: { min_ms: 100, max_ms: 300 } }, [
      { ...common, name, local_port: await freeLocalPort() },
      { ...common, name: 'chained', engine: 'autossh', local_port: await freeLocalPort() },
      {
        ...{ ...common, name: 'exposed', direction: 'local_to_remote', takeover: 'any' },
        ...{ local_port: service.ports[0]?.port, remote_port: await freeLocalPort() },
      },
    ]);
    daemon = await startUp(reaper, home);
    for (const each of [name, 'chained', 'exposed']) await tunnelIn(home, each, 'up');
  });

  after(async () => {
    const code = await daemon?.end('SIGTERM');
    await reaper.end();
    await sshd?.stop();
    home.remove();
    expect(code, daemon?.stderr()).to.equal(0);
  });

  it('keeps a long name with blanks and quotes whole, and the host of a host:port, in its answers and in what it prints', async () => {
    const record = await tunnelIn(home, name, 'up');
    expect(record.target).to.equal(`127.0.0.1:${sshd.port}`);
    const byName = await home.api('GET', `/v1/tunnels/${encodeURIComponent(name)}`);
    expect([byName.body.id, byName.body.name]).to.deep.equal([record.id, name]);
    const shown = await tunward(reaper, ['ls', '--socket', home.socket]);
    expect(shown.stdout).to.include(name);
    expect(shown.stdout).to.include(`127.0.0.1:${sshd.port}`);
    const restarted = await tunward(reaper, ['restart', name, '--socket', home.socket]);
    expect(restarted.code, restarted.stderr).to.equal(0);
  });

  it('is not left busy by a client that goes away in the middle of a restart, and the tunnel comes up', async () => {
    const before = await tunnelIn(home, 'chained', 'up');
    const caller = http.request({ socketPath: home.socket, method: 'POST', path: '/v1/tunnels/chained/restart' });
    caller.setHeader('content-type', 'application/json');
    caller.on('error', () => undefined); // it is this very end that goes away
    caller.end();
    const isUnderWay = async () => (await home.api('GET', '/v1/tunnels/chained')).body.state !== 'up';
    expect(await until(isUnderWay, { timeoutMs: 5000, everyMs: 1 })).to.equal(true);
    caller.destroy();
    const after = await tunnelIn(home, 'chained', 'up');
    expect(after.pid).to.not.equal(before.pid);
    expect((await home.api('POST', '/v1/tunnels/chained/restart')).status).to.equal(200);
  });

  it('never takes the service that a remote forward exposes for what is in its way, by force neither', async () => {
    for (const path of ['restart', 'restart?force=true', 'stop', 'start?force=true']) {
      expect((await home.api('POST', `/v1/tunnels/exposed/${path}`)).status, path).to.equal(200);
      expect(isAlive(service.pid, service.startTicks), path).to.equal(true);
    }
    // At the next boot neither, over a chain that was left.
    await daemon.end('SIGKILL');
    daemon = await startUp(reaper, home);
    await tunnelIn(home, 'exposed', 'up');
    expect(isAlive(service.pid, service.startTicks)).to.equal(true);
  });

  it('leaves no ssh behind when it stops a tunnel whose ssh does not listen to its autossh', async () => {
    const { chain } = await tunnelIn(home, 'chained', 'up');
    expect(chain).to.have.length(2);
    process.kill(chain[1].pid, 'SIGSTOP');
    const { status, body } = await home.api('POST', '/v1/tunnels/chained/stop');
    expect([status, body.kill.survivors]).to.deep.equal([200, []]);
    expect(await allGone(chain, 0)).to.equal(true);
    expect((await home.api('POST', '/v1/tunnels/chained/start')).status).to.equal(200);
  });

  it('notices that an autossh is gone, and replaces it and the ssh that it left', async () => {
    const { chain } = await tunnelIn(home, 'chained', 'up');
    process.kill(chain[0].pid, 'SIGKILL');
    const isReplaced = async () => {
      const now = (await home.api('GET', '/v1/tunnels/chained')).body;
      return now.state === 'up' && now.chain.length === 2 && now.chain[0].pid !== chain[0].pid;
    };
    expect(await until(isReplaced, { timeoutMs: 10_000, everyMs: 20 })).to.equal(true);
    expect(await allGone(chain, 0)).to.equal(true);
  });

  it('has one row and one chain for a tunnel however often it died and was started again', async () => {
    for (let n = 0; n < 3; n++) {
      const { chain } = await tunnelIn(home, 'chained', 'up');
      process.kill(chain[1].pid, 'SIGKILL');
      expect(await allGone(chain)).to.equal(true);
      expect((await home.api('POST', '/v1/tunnels/chained/restart')).status).to.equal(200);
    }
    const { id, chain } = await tunnelIn(home, 'chained', 'up');
    const read = () => JSON.parse(readFileSync(join(home.stateDir, 'ledger.json'), 'utf8')).chains;
    const rows = () => read().filter(({ tunnel }: { tunnel: string }) => tunnel === id);
    await until(() => rows().length === 1, { timeoutMs: 2000 });
    expect(rows().map(({ pid }: { pid: number }) => pid)).to.deep.equal([chain[0].pid]);
    const mine = descendantsOf(daemon.pid).filter(({ comm }) => comm === 'autossh');
    expect(mine.map(({ pid }) => pid)).to.deep.equal([chain[0].pid]);
  });

  it('leaves one that is meant for a person alone at its start, and says so to who would start it', async () => {
    const before = readFileSync(home.configFile, 'utf8');
    const { tunnels } = JSON.parse(before);
    const asking = { ...common, name: 'asking', local_port: await freeLocalPort(), interactive: true };
    home.configure({}, [...tunnels, asking]);
    process.kill(daemon.pid, 'SIGHUP');
    const isKnown = async () => (await home.api('GET', '/v1/tunnels/asking')).status === 200;
    expect(await until(isKnown, { timeoutMs: 5000, everyMs: 20 })).to.equal(true);
    const { status, body } = await home.api('POST', '/v1/tunnels/asking/start');
    expect([status, body.code]).to.deep.equal([409, 'ERR_TUNNEL_CONFLICT']);
    expect((await home.api('GET', '/v1/tunnels/asking')).body).to.include({
      pid: null,
      attempt: 0,
      next_retry_at: null,
    });
  });
});

describe('what the ancestor got wrong, under ssh-standard', () => {
  const reaper = createReaper();
  const home = makeHome();
  let sshd: Sshd;
  let service: http.Server;

  before(async function () {
    need(this, 'ssh', 'sshd');
    sshd = await startSshd();
    service = http.createServer((_request, answer) => answer.end('from here'));
    await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve));
  });

  after(async () => {
    await reaper.end();
    await sshd?.stop();
    service?.closeAllConnections();
    service?.close();
    home.remove();
  });

  it('starts a tunnel by hand in the same direction as at boot', async () => {
    const address = service.address();
    const local = typeof address === 'object' ? address?.port : undefined;
    const remote = await freeLocalPort();
    // What elsewhere is called local_to_remote: this service is offered at the server.
    const tunnel = { remote_host: 'rig', ssh_config: sshd.sshConfigFile, direction: 'remote_to_local' };
    home.configure({ direction_mode: 'ssh-standard' }, [
      { ...tunnel, name: 'web', local_port: local, remote_port: remote },
    ]);
    const daemon = await startUp(reaper, home);
    const booted = await tunnelIn(home, 'web', 'up');
    expect(await fetchText(remote)).to.equal('from here');
    for (const acts of [['stop', 'start'], ['restart']]) {
      for (const act of acts) expect((await home.api('POST', `/v1/tunnels/web/${act}`)).status, act).to.equal(200);
      const { listen, direction } = await tunnelIn(home, 'web', 'up');
      expect({ listen, direction }).to.deep.equal({ listen: booted.listen, direction: booted.direction });
      expect(await fetchText(remote)).to.equal('from here');
    }
    expect(await daemon.end('SIGTERM')).to.equal(0);
  });

  it('has no tunnels, and says so in JSON, where its file has none', async () => {
    home.configure({}, []);
    const daemon = await startUp(reaper, home);
    expect((await home.api('GET', '/v1/tunnels')).body).to.deep.equal({ tunnels: [] });
    expect(await tunwardJson(reaper, ['ls', '--socket', home.socket])).to.deep.equal({ tunnels: [] });
    expect(await daemon.end('SIGTERM')).to.equal(0);
  });
});
