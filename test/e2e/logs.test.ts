import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { tunward, tunwardJson } from '../cli/run.js';
import { type Home, makeHome, startUp, tunnelIn } from '../support/daemon.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { codeOf, sendSignal, statOf } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';
import { type Sshd, startSshd } from '../support/sshd.js';

describe('the logs of a daemon', () => {
  const reaper = createReaper();
  let home: Home;
  let sshd: Sshd;

  before(async function () {
    need(this, 'ssh', 'sshd');
    sshd = await startSshd();
  });
  beforeEach(async () => {
    home = makeHome();
    const common = { remote_host: 'rig', ssh_config: sshd.sshConfigFile, remote_port: `127.0.0.1:${sshd.port}` };
    home.configure({}, [{ ...common, name: 'web', local_port: await freeLocalPort() }]);
  });
  afterEach(async () => {
    await reaper.end();
    home.remove();
  });
  after(async () => {
    await sshd?.stop();
  });

  it('survive a stop, a restart, a SIGKILL and the next boot', async () => {
    const first = await startUp(reaper, home);
    const { id, chain } = await tunnelIn(home, 'web', 'up');
    const lines = [home.logLines(id)];
    const keeps = () => {
      const now = home.logLines(id);
      for (const before of lines) expect(now.slice(0, before.length)).to.deep.equal(before);
      lines.push(now);
    };
    expect((await home.api('POST', '/v1/tunnels/web/stop')).status).to.equal(200);
    keeps();
    expect((await home.api('POST', '/v1/tunnels/web/start')).status).to.equal(200);
    expect((await home.api('POST', '/v1/tunnels/web/restart')).status).to.equal(200);
    keeps();
    await first.end('SIGKILL');
    keeps();
    const second = await startUp(reaper, home);
    await tunnelIn(home, 'web', 'up');
    keeps();
    const texts = home.logLines(id).map((line) => line.slice(22));
    expect(texts.filter((text) => text.startsWith('Starting tunnel'))).to.have.length(4);
    expect(texts).to.include.members(['Stopping', 'Stopped', `Up: pid ${chain[0].pid}`]);
    const { stdout } = await tunward(reaper, ['logs', 'web', '--socket', home.socket]);
    expect(stdout.split('\n').slice(0, -1), 'the past across all of it').to.deep.equal(home.logLines(id));
    expect(await second.end('SIGTERM')).to.equal(0);
    keeps();
  });

  it('keep nobody from starting when their disk is full, and go on when there is room again', async function () {
    need(this, 'root', 'unshare');
    mkdirSync(home.logDir);
    const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', home.logDir]);
    expect(status, String(stderr)).to.equal(0);
    try {
      const ballast = join(home.logDir, 'ballast');
      spawnSync('dd', ['if=/dev/zero', `of=${ballast}`, 'bs=4k']);
      const daemon = await startUp(reaper, home);
      const { id } = await tunnelIn(home, 'web', 'up');
      expect((await home.api('POST', '/v1/tunnels/web/restart')).status).to.equal(200);
      const told = () =>
        daemon
          .stderr()
          .split('\n')
          .filter((line) => line.includes('a log could not be written'));
      expect(await until(() => told().length > 0, { timeoutMs: 5000 })).to.equal(true);
      rmSync(ballast);
      expect((await home.api('POST', '/v1/tunnels/web/stop')).status).to.equal(200);
      expect(told(), 'once for all the lines').to.have.length(1);
      expect(told()[0]).to.contain(`Cannot write ${home.logDir}/tunnel_${id}.log: ENOSPC`);
      const texts = home.logLines(id).map((line) => line.slice(22));
      expect(texts[0]).to.match(/^… \d+ lines could not be written$/);
      expect(texts.at(-1)).to.equal('Stopped');
      expect(await daemon.end('SIGTERM')).to.equal(0);
    } finally {
      spawnSync('umount', [home.logDir]);
    }
  });

  it('and what it says itself, by `up -d`, stay within their bounds', async () => {
    const file = join(home.logDir, 'daemon.log');
    home.configure({ log: { max_bytes: 4096, keep: 3 } }, []);
    mkdirSync(home.logDir, { mode: 0o700 });
    writeFileSync(file, 'x'.repeat(4096), { mode: 0o600 });
    const { pid } = await tunwardJson(reaper, ['up', '-d', '-c', home.configFile]);
    reaper.ownPid(pid);
    expect(readFileSync(file, 'utf8'), 'a new one, since the old one was full').to.match(/ready {2}pid \d+/);
    expect(readFileSync(`${file}.1`)).to.have.length(4096);
    const texts = () => ['.2', '.1', ''].flatMap((end) => readIfThere(file + end));
    const reloads = () =>
      texts()
        .join('')
        .match(/configuration \//g)?.length ?? 0;
    // Each is read again when the one before has been told, about 80 bytes of it, until the first file has gone.
    for (let times = 0; texts()[0]?.startsWith('x'); times++) {
      expect(times).to.be.lessThan(500);
      const before = reloads();
      sendSignal({ pid, startTicks: statOf(pid)?.startTicks ?? 0 }, 'SIGHUP');
      expect(await until(() => reloads() !== before, { timeoutMs: 5000 })).to.equal(true);
    }
    for (const text of texts()) expect(text.length).to.be.lessThan(4096 + 200);
    expect((await tunward(reaper, ['down', '--socket', home.socket])).code).to.equal(0);
    expect(readdirSync(home.logDir).sort()).to.deep.equal(['daemon.log', 'daemon.log.1', 'daemon.log.2']);
    expect(readFileSync(file, 'utf8')).to.contain('stopping');
  });
});

/** Files are moved at any moment here. */
function readIfThere(file: string): string[] {
  try {
    return [readFileSync(file, 'utf8')];
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw error;
  }
}
