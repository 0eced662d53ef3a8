import net from 'node:net';
import { expect } from 'chai';
import { takeLock } from '#lib/daemon/instance.js';
import { createSupervisor } from '#lib/index.js';
import { findListeners } from '#lib/port/listeners.js';
import { startChain } from '../support/chains.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive } from '../support/proc.js';
import { startListener } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { makeSpec } from '../support/specs.js';
import { type Sshd, startSshd } from '../support/sshd.js';
import { said, startTunward, tunward } from './run.js';

describe('tunward open', () => {
  const reaper = createReaper();
  let sshd: Sshd;
  before(async function () {
    need(this, 'sshd', 'ssh');
    sshd = await startSshd();
  });
  afterEach(() => reaper.end());
  after(() => sshd?.stop());

  it('keeps a local forward up until Ctrl-C, and leaves nothing behind', async () => {
    const port = await freeLocalPort();
    const forward = `127.0.0.1:${port}:127.0.0.1:${sshd.port}`;
    const open = startTunward(reaper, ['open', '-F', sshd.sshConfigFile, '-L', forward, '--engine', 'ssh', 'rig']);
    await said(open, 'stderr', 'Ctrl-C ends it');
    expect(open.stderr()).to.contain(`rig  up  127.0.0.1:${port} → 127.0.0.1:${sshd.port} via rig`);
    expect(await greeting(port)).to.match(/^SSH-2\.0-/);
    const holders = (await findListeners(port)).flatMap((listener) => listener.holders);
    expect(holders).to.have.length(1);
    open.child.kill('SIGINT');
    expect((await open.ended).code).to.equal(0);
    expect(holders.map(({ pid, startTicks }) => isAlive(pid, startTicks))).to.deep.equal([false]);
  });

  it('goes through other hosts with -J', async () => {
    const port = await freeLocalPort();
    const words = [
      '-J',
      `rig,127.0.0.1:${sshd.port}`,
      '-i',
      sshd.identityFile,
      '-o',
      'StrictHostKeyChecking=accept-new',
    ];
    const forward = ['-L', `127.0.0.1:${port}:127.0.0.1:${sshd.port}`];
    const open = startTunward(reaper, ['open', '-F', sshd.sshConfigFile, ...words, ...forward, 'rig']);
    await said(open, 'stderr', 'Ctrl-C ends it');
    expect(open.stderr()).to.contain(` via rig, 127.0.0.1:${sshd.port}, rig\n`);
    expect(await greeting(port)).to.match(/^SSH-2\.0-/);
    const chain = reaper.living().filter(({ pid }) => pid !== open.pid);
    expect(chain).to.have.length(3);
    open.child.kill('SIGINT');
    expect((await open.ended).code).to.equal(0);
    expect(chain.map(({ pid, startTicks }) => isAlive(pid, startTicks))).to.deep.equal([false, false, false]);
  });

  it('keeps a remote forward up, and tells what happens as records with --json', async () => {
    const port = await freeLocalPort();
    const words = ['-R', `127.0.0.1:${port}:localhost:${sshd.port}`, '-o', 'Compression=yes', '--name', 'back'];
    const open = startTunward(reaper, ['open', '-F', sshd.sshConfigFile, ...words, 'rig', '--json']);
    await said(open, 'stderr', 'Ctrl-C ends it');
    expect(await greeting(port)).to.match(/^SSH-2\.0-/);
    open.child.kill('SIGTERM');
    const { code, stdout } = await open.ended;
    expect(code).to.equal(0);
    const events = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    const up = events.find(({ type }) => type === 'tunnel.up');
    expect(up.status).to.deep.include({
      name: 'back',
      direction: 'local_to_remote',
      remote_host: 'rig',
      listen: [{ side: 'remote', host: '127.0.0.1', port }],
      target: `localhost:${sshd.port}`,
    });
  });

  it('lets the server choose the port of -R 0:…, and says which', async () => {
    const open = startTunward(reaper, ['open', '-F', sshd.sshConfigFile, '-R', `0:127.0.0.1:${sshd.port}`, 'rig']);
    await said(open, 'stderr', 'Ctrl-C ends it');
    const [, port] = /up +127\.0\.0\.1:(\d+) \(remote\)/.exec(open.stderr() + open.stdout()) ?? [];
    expect(await greeting(Number(port))).to.match(/^SSH-2\.0-/);
    open.child.kill('SIGTERM');
    expect((await open.ended).code).to.equal(0);
    expect((await tunward(reaper, ['open', '-L', `0:127.0.0.1:${sshd.port}`, 'rig'])).code, '-L wants one').to.equal(2);
  });

  it('is told at once where it cannot be seamless', async () => {
    const { code, stderr } = await tunward(reaper, ['open', '-R', '8080:localhost:80', '--seamless', 'rig']);
    expect(code).to.equal(2);
    expect(stderr).to.match(/^error: seamless: expected seamless for a tunnel that listens here/);
  });

  it('ends with 3 when a stranger holds the port, and names it; with --force the stranger goes', async () => {
    const stranger = await startListener(reaper).ready;
    const forward = `127.0.0.1:${stranger.ports[0]?.port}:127.0.0.1:${sshd.port}`;
    const args = ['open', '-F', sshd.sshConfigFile, '-L', forward, 'rig'];
    const { code, stderr } = await tunward(reaper, args);
    expect(code, stderr).to.equal(3);
    expect(stderr).to.contain(`held by pid ${stranger.pid}`);
    expect(isAlive(stranger.pid, stranger.startTicks)).to.equal(true);
    const open = startTunward(reaper, [...args, '--force', '--yes']);
    await said(open, 'stderr', 'Ctrl-C ends it');
    expect(isAlive(stranger.pid, stranger.startTicks)).to.equal(false);
    open.child.kill('SIGINT');
    expect((await open.ended).code).to.equal(0);
  });

  it('leaves the tunnel of a daemon that runs to that daemon, and takes over from one that is gone', async () => {
    const port = await freeLocalPort();
    const forward = `127.0.0.1:${port}:127.0.0.1:${sshd.port}`;
    const env = { TUNNEL_ID: 'd'.repeat(32), TUNWARD_INSTANCE: 'd'.repeat(32) };
    const words = ['-L', forward];
    const ready = async () => (await findListeners(port)).length > 0;
    const chain = await startChain(reaper, sshd, { program: 'ssh', words, env, ready });
    const lock = await takeLock(env.TUNWARD_INSTANCE);
    const args = ['open', '-F', sshd.sshConfigFile, '-L', forward, 'rig'];
    const refused = await tunward(reaper, args);
    const listen = { host: '127.0.0.1', port };
    const target = { host: '127.0.0.1', port: sshd.port };
    const ends = { side: 'local', listen, forward: { side: 'local', listen, target } } as const;
    const spec = makeSpec({ ...ends, remoteHost: 'rig', sshConfig: sshd.sshConfigFile });
    const supervisor = createSupervisor({ env: process.env });
    await supervisor.reconcile([spec]);
    const error = await supervisor.start(spec.id).catch((thrown: unknown) => thrown);
    await supervisor.close();
    lock.release();
    expect(refused.code, refused.stderr).to.equal(3);
    expect(refused.stderr).to.contain(`held by pid ${chain.root.pid}`);
    expect(error).to.include({ code: 'ERR_PORT_HELD' });
    expect(chain.isAlive()).to.equal(true);
    const open = startTunward(reaper, args);
    await said(open, 'stderr', 'Ctrl-C ends it');
    expect(chain.isAlive()).to.equal(false);
    open.child.kill('SIGINT');
    expect((await open.ended).code).to.equal(0);
  });

  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGHUP', 129],
  ] as const) {
    it(`gives up a start that is under way at ${signal}, and leaves nothing behind`, async () => {
      const sockets: net.Socket[] = [];
      const mute = net.createServer((socket) => sockets.push(socket.on('error', () => socket.destroy())));
      await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve));
      const asked = new Promise((resolve) => mute.once('connection', resolve));
      const { port } = mute.address() as net.AddressInfo;
      const args = ['open', '-p', String(port), '-L', `${await freeLocalPort()}:127.0.0.1:1`, 'nobody@127.0.0.1'];
      const open = startTunward(reaper, args);
      await asked;
      open.child.kill(signal);
      expect((await open.ended).code, open.stderr()).to.equal(code);
      expect(reaper.living()).to.deep.equal([]);
      mute.close();
      for (const socket of sockets) socket.destroy();
    });
  }

  it('ends with 1 when the first start fails, and says why', async () => {
    const [port, closed] = [await freeLocalPort(), await freeLocalPort()];
    const args = ['open', '-p', String(closed), '-L', `${port}:127.0.0.1:1`, 'nobody@127.0.0.1'];
    const { code, stderr } = await tunward(reaper, args);
    expect(code).to.equal(1);
    expect(stderr).to.contain(`port ${closed}: Connection refused`);
  });
});

/** What a server says first. */
function greeting(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const client = net.connect({ port, host: '127.0.0.1' });
    client.once('error', reject);
    client.once('data', (data) => {
      client.destroy();
      resolve(data.toString());
    });
  });
}
