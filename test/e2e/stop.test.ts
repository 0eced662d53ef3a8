import { copyFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { probeAddress } from '#lib/port/probe.js';
import { systemClock, until } from '#lib/time.js';
import { startChain } from '../support/chains.js';
import { type Home, makeHome, spawnUp, startUp, tunnelIn } from '../support/daemon.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { createReaper } from '../support/reaper.js';
import { type Sshd, startSshd } from '../support/sshd.js';

/** Docker gives 10 s and then kills; nothing here takes as much as one. */
describe('the end of a daemon', () => {
  const reaper = createReaper();
  const servers: Server[] = [];
  let home: Home;
  let sshd: Sshd;
  let common: { readonly remote_host: string; readonly ssh_config: string };

  before(async function () {
    need(this, 'ssh', 'sshd');
    sshd = await startSshd();
    common = { remote_host: 'rig', ssh_config: sshd.sshConfigFile };
  });
  beforeEach(() => {
    home = makeHome();
  });
  afterEach(async () => {
    await reaper.end();
    for (const server of servers.splice(0)) server.close();
    home.remove();
  });
  after(() => sshd?.stop());

  it('closes ssh so that the far side frees its port at once', async () => {
    const port = await freeLocalPort();
    const target = `127.0.0.1:${sshd.port}`;
    home.configure({}, [
      { ...common, name: 'back', direction: 'local_to_remote', local_port: target, remote_port: port },
    ]);
    const daemon = await startUp(reaper, home);
    await tunnelIn(home, 'back', 'up');
    expect(await probeAddress('127.0.0.1', port), 'the far side is this host').to.equal('busy');
    expect(await daemon.end('SIGTERM')).to.equal(0);
    const ended = systemClock.now();
    const isFree = async () => (await probeAddress('127.0.0.1', port)) === 'free';
    expect(await until(isFree, { timeoutMs: 5000, everyMs: 5 })).to.equal(true);
    expect(systemClock.now() - ended).to.be.below(500);
  });

  it('is not put off by a client that stays, nor by a start that gets no answer', async () => {
    const silent = createServer((caller) => caller.on('error', () => undefined).resume());
    servers.push(silent.listen(0, '127.0.0.1'));
    await until(() => silent.address(), { timeoutMs: 1000 });
    const blackHole = join(home.dir, 'ssh_config');
    const { port } = silent.address() as { port: number };
    home.configure({ restart_timeout_ms: 60_000 }, [
      { ...common, name: 'silent', ssh_config: blackHole, local_port: await freeLocalPort(), remote_port: 1 },
    ]);
    writeFileSync(blackHole, `Host rig\n  HostName 127.0.0.1\n  Port ${port}\n`);
    const daemon = await startUp(reaper, home);
    const answer = home.api('POST', '/v1/tunnels/silent/restart').catch((error: Error) => error);
    await tunnelIn(home, 'silent', 'starting');
    const began = systemClock.now();
    expect(await daemon.end('SIGTERM')).to.equal(0);
    expect(systemClock.now() - began).to.be.below(3000);
    expect(await answer).to.be.instanceOf(Error);
  });

  it('does not wait for a boot: told to end while it looks for leftovers, it ends', async () => {
    const port = await freeLocalPort();
    const target = `127.0.0.1:${sshd.port}`;
    const slow = join(home.dir, 'slow_config');
    home.configure({}, [{ ...common, name: 'slow', ssh_config: slow, local_port: port, remote_port: target }]);
    copyFileSync(sshd.sshConfigFile, slow);
    writeFileSync(slow, 'Match exec "sleep 30"\n', { flag: 'a' });
    // The same forward, so that it is asked where ours would go: that takes `ssh -G` to the bound of 5 s.
    const words = ['-L', `127.0.0.1:${port}:${target}`];
    const isUp = async () => (await probeAddress('127.0.0.1', port)) === 'busy';
    await startChain(reaper, sshd, { program: 'ssh', words, ready: isUp });
    const daemon = spawnUp(reaper, home);
    const asks = () => reaper.living().some(({ command }) => command.includes('ssh -G'));
    expect(await until(asks, { timeoutMs: 10_000 }), daemon.stderr()).to.equal(true);
    const began = systemClock.now();
    expect(await daemon.end('SIGTERM'), daemon.stderr()).to.equal(0);
    expect(systemClock.now() - began).to.be.below(2000);
    expect(daemon.stderr()).not.to.include('ready');
  });

  it('goes when its time is over, and says who is left', async () => {
    const tunnels = ['one', 'two'].map(async (name) => {
      return { ...common, name, local_port: await freeLocalPort(), remote_port: `127.0.0.1:${sshd.port}` };
    });
    home.configure({ stop_timeout_ms: 1 }, await Promise.all(tunnels));
    const daemon = await startUp(reaper, home);
    for (const name of ['one', 'two']) await tunnelIn(home, name, 'up');
    expect(await daemon.end('SIGTERM')).to.equal(1);
    expect(daemon.stderr()).to.match(/the (tunnels|API): not over after 1 ms, and not waited for any more/);
  });

  it('says what a clean end took', async () => {
    home.configure({}, []);
    const daemon = await startUp(reaper, home);
    expect(await daemon.end('SIGTERM')).to.equal(0);
    expect(daemon.stderr()).to.match(/stopped after \d+(\.\d)? ms\n$/);
  });
});
