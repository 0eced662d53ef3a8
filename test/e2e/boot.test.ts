import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { type Lock, takeLock } from '#lib/daemon/instance.js';
import { until } from '#lib/time.js';
import { type Chain, startChain } from '../support/chains.js';
import { type Home, makeHome, type RunningDaemon, spawnUp, startUp, tunnelIn } from '../support/daemon.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive } from '../support/proc.js';
import { type Shape, startListener, startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { type Sshd, startSshd } from '../support/sshd.js';

const ours = '0123456789abcdef0123456789abcdef';
const living = 'fedcba9876543210fedcba9876543210';

describe('boot over leftovers', () => {
  const reaper = createReaper();
  let home: Home;
  let sshd: Sshd;
  let daemon: RunningDaemon;
  let port: Record<'plain' | 'back' | 'marked' | 'foreign' | 'any' | 'elsewhere', number>;
  let stale: Record<'marker' | 'forward' | 'port', Chain>;
  let spared: Record<'otherForward' | 'otherInstance' | 'person', Chain>;
  let strangers: Record<'foreign' | 'any' | 'second', Shape>;
  let lock: Lock;

  before(async function () {
    this.timeout(60_000);
    need(this, 'ssh', 'sshd', 'autossh');
    home = makeHome();
    sshd = await startSshd();
    const names = ['plain', 'back', 'marked', 'foreign', 'any', 'elsewhere'] as const;
    port = Object.fromEntries(
      await Promise.all(names.map(async (name) => [name, await freeLocalPort()])),
    ) as typeof port;
    const target = `127.0.0.1:${sshd.port}`;
    const answers = (number: number, host?: string) => async () => (await accepts(number, host)) === true;
    stale = {
      // Left by this installation, for a tunnel that is no longer in the configuration.
      marker: await startChain(reaper, sshd, {
        words: ['-L', `127.0.0.1:${port.marked}:${target}`],
        env: { TUNNEL_ID: 'f'.repeat(32), TUNWARD_INSTANCE: ours },
        ready: answers(port.marked),
      }),
      // Without any marker: the same remote forward to the same place, found by its arguments alone.
      forward: await startChain(reaper, sshd, { words: ['-R', `${port.back}:${target}`], ready: answers(port.back) }),
      // To the same port here, from another tool, without a marker.
      port: await startChain(reaper, sshd, { words: ['-L', `${port.plain}:localhost:1`], ready: answers(port.plain) }),
    };
    lock = await takeLock(living);
    spared = {
      otherForward: await startChain(reaper, sshd, {
        program: 'ssh',
        words: ['-L', `127.0.0.2:${port.plain}:${target}`],
        ready: answers(port.plain, '127.0.0.2'),
      }),
      otherInstance: await startChain(reaper, sshd, {
        words: ['-L', `127.0.0.1:${port.elsewhere}:${target}`],
        env: { TUNNEL_ID: 'e'.repeat(32), TUNWARD_INSTANCE: living },
        ready: answers(port.elsewhere),
      }),
      person: await startChain(reaper, sshd, { program: 'ssh', words: ['-T'], ready: () => true }),
    };
    strangers = {
      foreign: await startListener(reaper, { port: port.foreign }).ready,
      any: await startListener(reaper, { port: port.any }).ready,
      second: await startTree(reaper, { listen: [{ port: port.foreign, host: '127.0.0.2' }] }).ready,
    };
    mkdirSync(home.stateDir, { recursive: true, mode: 0o700 });
    writeFileSync(join(home.stateDir, 'instance'), `${ours}\n`, { mode: 0o600 });
    const common = { remote_host: 'rig', ssh_config: sshd.sshConfigFile, remote_port: target };
    home.configure({}, [
      { ...common, name: 'plain', local_port: port.plain },
      { ...common, name: 'back', direction: 'local_to_remote', local_port: target, remote_port: port.back },
      { ...common, name: 'foreign', local_port: port.foreign },
      { ...common, name: 'any', local_port: port.any, takeover: 'any' },
      { ...common, name: 'elsewhere', local_port: port.elsewhere },
    ]);
    daemon = await startUp(reaper, home);
    for (const name of ['plain', 'back', 'any']) await tunnelIn(home, name, 'up');
  });

  after(async () => {
    await daemon?.end('SIGTERM');
    lock?.release();
    await reaper.end();
    await sshd?.stop();
    home?.remove();
  });

  it('kills what carries its marker, though the tunnel has left the configuration', () => {
    expect(stale.marker.refs().filter(({ pid, startTicks }) => isAlive(pid, startTicks))).to.deep.equal([]);
  });

  it('kills the chain with the same remote forward to the same place, and has the forward itself', async () => {
    expect(stale.forward.isAlive()).to.equal(false);
    expect((await tunnelIn(home, 'back', 'up')).chain).to.have.lengthOf(1);
    expect(await accepts(port.back)).to.equal(true);
  });

  it('kills the autossh and the ssh that held its port, and says so in the log of events', async () => {
    expect(stale.port.isAlive()).to.equal(false);
    expect(daemon.stderr()).to.include(String(stale.port.root.pid));
  });

  it('leaves a stranger on its port alone, and names it', async () => {
    const { reason, last_error } = (await home.api('GET', '/v1/tunnels/foreign')).body;
    expect(reason).to.equal('local_port_busy');
    expect(last_error).to.include(`pid ${strangers.foreign.pid}`);
    expect(isAlive(strangers.foreign.pid, strangers.foreign.startTicks)).to.equal(true);
  });

  it('kills the stranger where takeover is any, and only the one on its address', () => {
    expect(isAlive(strangers.any.pid, strangers.any.startTicks)).to.equal(false);
    expect(isAlive(strangers.second.pid, strangers.second.startTicks)).to.equal(true);
  });

  it('leaves the same forward on 127.0.0.2, and a person’s ssh to the same host', () => {
    expect([spared.otherForward.isAlive(), spared.person.isAlive()]).to.deep.equal([true, true]);
  });

  it('leaves the chain of another living daemon, even on its own port', async () => {
    expect(spared.otherInstance.isAlive()).to.equal(true);
    const { status, body } = await home.api('POST', '/v1/tunnels/elsewhere/restart');
    expect([status, body.code]).to.deep.equal([409, 'ERR_PORT_HELD']);
    expect(spared.otherInstance.isAlive()).to.equal(true);
  });

  it('never reports an address in use in any log', async () => {
    const { body } = await home.api('GET', '/v1/tunnels');
    for (const { id } of body.tunnels) {
      expect(
        home.logLines(id).filter((line) => /address (already )?in use|cannot listen to port/i.test(line)),
      ).to.deep.equal([]);
    }
  });
});

/** Does anything listen there? */
async function accepts(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ port, host });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

describe('a daemon that dies', () => {
  const reaper = createReaper();
  let home: Home;
  let sshd: Sshd;
  let ports: number[];

  before(async function () {
    need(this, 'ssh', 'sshd', 'autossh');
    home = makeHome();
    sshd = await startSshd();
    ports = [await freeLocalPort(), await freeLocalPort(), await freeLocalPort()];
    const common = { remote_host: 'rig', ssh_config: sshd.sshConfigFile, remote_port: `127.0.0.1:${sshd.port}` };
    home.configure({}, [
      { ...common, name: 'one', local_port: ports[0] },
      { ...common, name: 'two', local_port: ports[1], engine: 'autossh' },
      { ...common, name: 'three', direction: 'local_to_remote', local_port: sshd.port, remote_port: ports[2] },
    ]);
  });

  afterEach(() => reaper.end());

  after(async () => {
    await sshd?.stop();
    home?.remove();
  });

  async function allUp() {
    return Promise.all(['one', 'two', 'three'].map((name) => tunnelIn(home, name, 'up')));
  }

  it('by SIGKILL leaves chains that the next one finds, kills and replaces', async () => {
    const first = await startUp(reaper, home);
    const before = await allUp();
    await first.end('SIGKILL');
    const chains = before.flatMap(({ chain }) => chain);
    expect(
      chains.every(({ pid, start_ticks }) => isAlive(pid, start_ticks)),
      'they outlive it',
    ).to.equal(true);
    const second = await startUp(reaper, home);
    const after = await allUp();
    expect(chains.filter(({ pid, start_ticks }) => isAlive(pid, start_ticks))).to.deep.equal([]);
    expect(after.map(({ attempt }) => attempt)).to.deep.equal([0, 0, 0]);
    for (const { id } of after) {
      expect(home.logLines(id).filter((line) => /in use|cannot listen/i.test(line))).to.deep.equal([]);
    }
    expect(await second.end('SIGTERM')).to.equal(0);
    expect(
      after.flatMap(({ chain }) => chain).filter(({ pid, start_ticks }) => isAlive(pid, start_ticks)),
    ).to.deep.equal([]);
  });

  it('has written down what it started: the next one finds it also when the mark of both is lost', async () => {
    const config = readFileSync(home.configFile, 'utf8');
    const first = await startUp(reaper, home);
    const chains = (await allUp()).flatMap(({ chain }) => chain);
    const ledger = JSON.parse(readFileSync(join(home.stateDir, 'ledger.json'), 'utf8'));
    expect(ledger.chains.map(({ pid }: { pid: number }) => pid)).to.have.length(3);
    await first.end('SIGKILL');
    writeFileSync(join(home.stateDir, 'instance'), 'lost');
    // By forward or port they would be found all the same.
    const moved = config.replaceAll('"local_port"', '"takeover": "own", "local_port"');
    writeFileSync(home.configFile, moved);
    const second = await startUp(reaper, home);
    const after = await allUp();
    expect(chains.filter(({ pid, start_ticks }) => isAlive(pid, start_ticks))).to.deep.equal([]);
    expect(after.map(({ attempt }) => attempt)).to.deep.equal([0, 0, 0]);
    expect(await second.end('SIGTERM')).to.equal(0);
    expect(JSON.parse(readFileSync(join(home.stateDir, 'ledger.json'), 'utf8')).chains).to.deep.equal([]);
    writeFileSync(home.configFile, config);
  });

  it('is not replaced while it lives: a second one refuses, and harms nothing', async () => {
    const first = await startUp(reaper, home);
    const before = await allUp();
    const second = spawnUp(reaper, home);
    expect(await second.exited).to.equal(1);
    expect(second.stderr()).to.match(/ERR_DAEMON_RUNNING|another tunward daemon/i);
    expect((await allUp()).map(({ chain }) => chain)).to.deep.equal(before.map(({ chain }) => chain));
    expect(await first.end('SIGTERM')).to.equal(0);
  });

  it('starts over a forged, a truncated or a planted state file, and kills nobody', async () => {
    const bystander = await startChain(reaper, sshd, {
      program: 'ssh',
      words: ['-L', `127.0.0.2:${ports[0]}:127.0.0.1:1`],
      env: { TUNNEL_ID: 'x', TUNWARD_INSTANCE: '' },
      ready: () => accepts(ports[0] ?? 0, '127.0.0.2'),
    });
    const file = join(home.stateDir, 'instance');
    const plants = {
      empty: () => writeFileSync(file, ''),
      truncated: () => writeFileSync(file, ours.slice(0, 11)),
      forged: () => writeFileSync(file, '[1, -1, 0, "", {"pid": 1}]\n'),
      link: () => symlinkSync('/etc/passwd', file),
    };
    for (const [name, plant] of Object.entries(plants)) {
      rmSync(file, { force: true });
      plant();
      const daemon = await startUp(reaper, home);
      await allUp();
      expect(bystander.isAlive(), `the bystander after ${name}`).to.equal(true);
      expect(await daemon.end('SIGTERM'), daemon.stderr()).to.equal(0);
    }
  });

  it('touches nothing when its configuration is bad', async () => {
    const first = await startUp(reaper, home);
    const before = await allUp();
    await first.end('SIGKILL');
    const good = readFileSync(home.configFile, 'utf8');
    writeFileSync(home.configFile, good.replace('"local_port"', '"local_prot"'));
    const bad = spawnUp(reaper, home);
    expect(await bad.exited).to.equal(78);
    expect(bad.stderr()).to.match(/tunward\.yaml:\d+:\d+: tunnels\[0\]/);
    expect(before.flatMap(({ chain }) => chain).every(({ pid, start_ticks }) => isAlive(pid, start_ticks))).to.equal(
      true,
    );
    writeFileSync(home.configFile, good);
  });
});

describe('while it boots', () => {
  const reaper = createReaper();
  const home = makeHome();

  after(async () => {
    await reaper.end();
    home.remove();
  });

  it('says that it is there, and answers for its tunnels when it knows them', async () => {
    const tunnels = Array.from({ length: 20 }, (_, at) => ({
      remote_host: 'nobody.invalid',
      remote_port: 1,
      local_port: 11_000 + at,
    }));
    home.configure({}, tunnels);
    const daemon = spawnUp(reaper, home);
    const lists: number[] = [];
    const ask = async () => {
      // Nobody listens at the socket before the daemon does.
      const answer = await home.api('GET', '/v1/tunnels').catch(() => undefined);
      if (answer) lists.push(answer.body.tunnels.length);
      return lists.length >= 3;
    };
    expect(await until(ask, { timeoutMs: 10_000, everyMs: 1 }), daemon.stderr()).to.equal(true);
    expect(lists).to.deep.equal([20, 20, 20]);
    expect(await daemon.end('SIGTERM')).to.equal(0);
  });
});
