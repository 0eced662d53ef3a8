import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import net from 'node:net';
import { expect } from 'chai';
import { startSshServer, type TestSshServer } from '#lib/testing.js';
import { until } from '#lib/time.js';
import { tunward } from '../cli/run.js';
import { type Home, makeHome, type RunningDaemon, startUp, tunnelIn } from '../support/daemon.js';
import { freeLocalPort } from '../support/port.js';
import { createReaper, type Reaper } from '../support/reaper.js';

describe('a daemon with few descriptors, and a tunnel with many clients', () => {
  let reaper: Reaper;
  let home: Home;
  let server: TestSshServer;
  let daemon: RunningDaemon;
  const clients: net.Socket[] = [];
  const ends: string[] = [];

  beforeEach(async () => {
    reaper = createReaper();
    home = { ...makeHome(), through: ['prlimit', '--nofile=200'] };
    server = await startSshServer();
    // One whose connections stay: it says nothing.
    const target = net.createServer((socket) => socket.on('error', () => undefined));
    target.listen(0, '127.0.0.1');
    await once(target, 'listening');
    const { port: far } = target.address() as net.AddressInfo;
    const port = await freeLocalPort();
    const remote = { remote_host: server.tunnelOptions.remoteHost, remote_port: `127.0.0.1:${far}` };
    home.configure({ ssh_config: server.sshConfigFile }, [
      { ...remote, name: 'front', engine: 'embedded', local_port: port, seamless: true },
    ]);
    daemon = await startUp(reaper, home);
    await tunnelIn(home, 'front', 'up');
    ends.length = 0;
    for (let count = 0; count < 400; count++) {
      let end = 'a clean end';
      const socket = net.connect(port, '127.0.0.1').on('error', (error: NodeJS.ErrnoException) => {
        end = String(error.code);
      });
      socket.resume().once('close', () => ends.push(end));
      clients.push(socket);
    }
    await until(() => ends.length > 150, { timeoutMs: 10_000 });
    target.unref();
    target.close();
  });

  afterEach(async () => {
    for (const socket of clients.splice(0)) socket.destroy();
    await daemon.end('SIGTERM');
    await reaper.end();
    await server.close();
    home.remove();
  });

  // A tunnel that is restarted or stopped would give them back; nobody can ask for that any more.
  it('answers its API', async () => {
    const answer = await home.api('GET', '/v1/tunnels').catch((error: Error) => error);
    expect(answer).to.have.property('status', 200);
  });

  // libuv accepts and closes: an end without an answer, which a client may take for an empty one; `refused` is 0.
  it('resets whom it has no descriptor for, as it says of all it turns away', () => {
    expect(new Set(ends)).to.deep.equal(new Set(['ECONNRESET']));
  });
});

describe('a daemon without a descriptor left', () => {
  let reaper: Reaper;
  let home: Home;
  let daemon: RunningDaemon;

  beforeEach(async () => {
    reaper = createReaper();
    home = makeHome();
    home.configure({}, [
      { name: 'one', remote_host: 'nobody@nowhere', remote_port: 80, local_port: 9001, enabled: false },
    ]);
    daemon = await startUp(reaper, home);
  });

  afterEach(async () => {
    limit(1000);
    await daemon.end('SIGTERM');
    await reaper.end();
    home.remove();
  });

  /** The soft limit: what is open stays open. */
  function limit(descriptors: number): void {
    execFileSync('prlimit', ['--pid', String(daemon.pid), `--nofile=${descriptors}:`]);
  }

  /** So that the lowest number that is free is one too high: of several looks, since one may meet a file that is being read. */
  async function exhaust(): Promise<void> {
    const lowest: number[] = [];
    const look = () => {
      const open = new Set(readdirSync(`/proc/${daemon.pid}/fd`).map(Number));
      let number = 0;
      while (open.has(number)) number++;
      return lowest.push(number) === 5;
    };
    await until(look, { timeoutMs: 5000, everyMs: 10 });
    limit(Math.min(...lowest));
  }

  it('rejects no configuration that it could not look at, says why, and has nothing to take when it can again', async () => {
    await exhaust();
    const said = await until(() => daemon.stderr().includes('no descriptor left'), { timeoutMs: 10_000 });
    limit(1000);
    expect(said, daemon.stderr()).to.equal(true);
    process.kill(daemon.pid, 'SIGHUP');
    expect(await until(() => daemon.stderr().includes('read again'), { timeoutMs: 10_000 })).to.equal(true);
    expect(daemon.stderr()).to.not.contain('rejected');
    // That of SIGHUP alone.
    expect(daemon.stderr().split('read again')).to.have.length(2);
  });

  it('is asked to read it, and says that it could not', async () => {
    await exhaust();
    await until(() => daemon.stderr().includes('no descriptor left'), { timeoutMs: 10_000 });
    process.kill(daemon.pid, 'SIGHUP');
    const twice = () => daemon.stderr().split('no descriptor left').length > 2;
    expect(await until(twice, { timeoutMs: 5000 }), daemon.stderr()).to.equal(true);
    expect(daemon.stderr()).to.not.contain('rejected');
  });

  it('is said to be there, by a command that it hangs up on', async () => {
    await exhaust();
    const { code, stderr } = await tunward(reaper, ['ls', '-c', home.configFile]);
    expect({ code, stderr }).to.deep.equal({
      code: 75,
      stderr: `error: The daemon at ${home.socket} is there, and hangs up on whoever asks: it has no descriptor left (raise its ulimit -n), or too many clients\n`,
    });
  });

  it('is what doctor finds', async () => {
    await exhaust();
    const { code, stdout } = await tunward(reaper, ['doctor', '-c', home.configFile, '--json']);
    const found = JSON.parse(stdout).checks.find(({ check }: { check: string }) => check === 'daemon');
    expect({ code, status: found.status }).to.deep.equal({ code: 1, status: 'failed' });
    expect(found.finding).to.contain('hangs up on whoever asks');
  });
});
