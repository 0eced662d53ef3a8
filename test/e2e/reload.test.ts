import { expect } from 'chai';
import { until } from '#lib/time.js';
import { makeHome, type RunningDaemon, startUp, tunnelIn } from '../support/daemon.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';
import { type Sshd, startSshd } from '../support/sshd.js';

describe('SIGHUP reads the configuration again', () => {
  const reaper = createReaper();
  const home = makeHome();
  let sshd: Sshd;
  let daemon: RunningDaemon;
  let tunnel: (name: string, port: number, more?: object) => Record<string, unknown>;
  let ports: number[];

  before(async function () {
    need(this, 'ssh', 'sshd');
    sshd = await startSshd();
    const common = { remote_host: 'rig', ssh_config: sshd.sshConfigFile, remote_port: `127.0.0.1:${sshd.port}` };
    tunnel = (name, port, more) => ({ ...common, name, local_port: port, ...more });
    ports = await Promise.all([freeLocalPort(), freeLocalPort(), freeLocalPort(), freeLocalPort()]);
    home.configure({}, [
      tunnel('kept', ports[0] ?? 0),
      tunnel('leaving', ports[1] ?? 0),
      tunnel('changed', ports[2] ?? 0),
    ]);
    daemon = await startUp(reaper, home);
  });

  after(async () => {
    await daemon?.end('SIGTERM');
    await reaper.end();
    await sshd?.stop();
    home.remove();
  });

  it('starts what is new, stops what has left, restarts what changed, and touches nothing else', async () => {
    const [kept, leaving, changed] = await Promise.all(
      ['kept', 'leaving', 'changed'].map((name) => tunnelIn(home, name, 'up')),
    );
    const options = { ssh_options: { Compression: 'yes' } };
    home.configure({}, [
      tunnel('new', ports[3] ?? 0),
      tunnel('changed', ports[2] ?? 0, options),
      tunnel('kept', ports[0] ?? 0),
    ]);
    process.kill(daemon.pid, 'SIGHUP');
    await tunnelIn(home, 'new', 'up');
    const replaced = async () => (await tunnelIn(home, 'changed', 'up')).pid !== changed.pid;
    expect(await until(replaced, { timeoutMs: 5000 })).to.equal(true);
    expect((await tunnelIn(home, 'kept', 'up')).chain).to.deep.equal(kept.chain);
    expect(isAlive(leaving.pid)).to.equal(false);
    const { body } = await home.api('GET', '/v1/tunnels');
    expect(body.tunnels.map(({ name }: { name: string }) => name)).to.deep.equal(['new', 'changed', 'kept']);
    expect(home.logLines(leaving.id).at(-1)).to.match(/Stopped$/);
  });

  it('changes nothing for a file that is wrong, and says why', async () => {
    const before = await tunnels();
    home.configure({}, [tunnel('new', 99_999)]);
    process.kill(daemon.pid, 'SIGHUP');
    expect(
      await until(() => /local_port: expected a port from 1 to 65535/.test(daemon.stderr()), { timeoutMs: 5000 }),
    ).to.equal(true);
    expect(await tunnels()).to.deep.equal(before);
  });

  /** All but what they use, which goes on changing. */
  async function tunnels(): Promise<object[]> {
    const { body } = await home.api('GET', '/v1/tunnels');
    return body.tunnels.map(({ usage: _usage, ...rest }: Record<string, unknown>) => rest);
  }
});
