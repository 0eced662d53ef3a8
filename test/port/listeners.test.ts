import net from 'node:net';
import { expect } from 'chai';
import { freePort } from '#lib/port/free.js';
import { findListeners } from '#lib/port/listeners.js';
import { until } from '#lib/time.js';
import { createFakeProc, socketLine } from '../support/fakeproc.js';
import { need } from '../support/need.js';
import { which } from '../support/paths.js';
import { freeLocalPort } from '../support/port.js';
import { descendantsOf, statOf } from '../support/proc.js';
import { startClient, startListener, startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { startLeaderless, startPerlSocket, startScript } from '../support/sockets.js';

const reaper = createReaper();

describe('findListeners()', () => {
  afterEach(() => reaper.end());

  it('names the process, its user, its command and its age', async () => {
    const { pid, startTicks, ports } = await startListener(reaper).ready;
    const port = ports[0]?.port ?? 0;
    const [listener, ...others] = await findListeners(port);
    expect(others).to.deep.equal([]);
    expect(listener).to.include({ protocol: 'tcp', address: '127.0.0.1', port, uid: process.getuid?.() });
    expect(listener).not.to.have.property('hidden');
    expect(listener?.holders).to.have.length(1);
    expect(listener?.holders[0]).to.include({ pid, startTicks });
    expect(listener?.holders[0]?.command).to.include('actor.mjs');
    expect(listener?.holders[0]?.ageS).to.be.within(0, 60);
  });

  it('names everyone who has inherited the socket', async function () {
    need(this, 'perl');
    const port = await freeLocalPort();
    const parent = await startPerlSocket(reaper, { port, script: 'listen($s, 5); fork; fork' });
    await until(() => descendantsOf(parent.pid).length === 3, { timeoutMs: 5000 });
    const [listener, ...others] = await findListeners(port);
    expect(others).to.deep.equal([]);
    const all = [parent.pid, ...descendantsOf(parent.pid).map(({ pid }) => pid)];
    expect(all).to.have.length(4);
    expect(listener?.holders.map(({ pid }) => pid)).to.have.members(all);
  });

  it('names two sockets that share a port', async function () {
    need(this, 'perl');
    const port = await freeLocalPort();
    const options = ['SO_REUSEPORT'] as const;
    const one = await startPerlSocket(reaper, { port, options, script: 'listen($s, 5)' });
    const other = await startPerlSocket(reaper, { port, options, script: 'listen($s, 5)' });
    const listeners = await findListeners(port, { host: '127.0.0.1' });
    expect(listeners.flatMap(({ holders }) => holders.map(({ pid }) => pid))).to.have.members([one.pid, other.pid]);
    expect(new Set(listeners.map(({ inode }) => inode)).size).to.equal(2);
  });

  it('names a process whose first thread has ended', async function () {
    need(this, 'python3');
    const port = await freeLocalPort();
    const { pid } = await startLeaderless(reaper, port);
    const [listener] = await findListeners(port);
    expect(statOf(pid)?.state).to.equal('Z');
    expect(listener?.holders.map((holder) => holder.pid)).to.deep.equal([pid]);
  });

  it('names the holder of a multipath listener (MPTCP), where the kernel has them', async function () {
    need(this, 'perl');
    const port = await freeLocalPort();
    const program = `use Socket; socket(my $s, PF_INET, SOCK_STREAM, 262) or do { print "none\\n"; exit };
      bind($s, sockaddr_in(${port}, inet_aton('127.0.0.1'))) or die $!; listen($s, 5) or die $!; $| = 1; print "ready\\n"; sleep 170`;
    const { pid, firstLine } = await startScript(reaper, 'perl', ['-e', program]);
    if (firstLine === 'none') {
      process.stderr.write('\n*** SKIPPED *** this kernel has no MPTCP\n');
      return this.skip();
    }
    const listeners = await findListeners(port);
    expect(listeners.flatMap(({ holders }) => holders.map((holder) => holder.pid))).to.deep.equal([pid]);
    expect((await freePort(port)).kill?.killed.map((one) => one.pid)).to.deep.equal([pid]);
  });

  it('never names a client', async () => {
    const { pid, ports } = await startListener(reaper).ready;
    const port = ports[0]?.port ?? 0;
    await startClient(reaper, { port }).ready;
    const listeners = await findListeners(port);
    expect(listeners.flatMap(({ holders }) => holders.map((holder) => holder.pid))).to.deep.equal([pid]);
  });

  it('with a host names those alone that are in the way of a bind to it', async function () {
    need(this, 'ipv6');
    const port = await freeLocalPort();
    const near = await startTree(reaper, { listen: [{ port, host: '127.0.0.1' }] }).ready;
    const far = await startTree(reaper, { listen: [{ port, host: '127.0.0.2' }] }).ready;
    const six = await startTree(reaper, { listen: [{ port, host: '::', ipv6Only: true }] }).ready;
    const holdersAt = async (host?: string) =>
      (await findListeners(port, { host })).flatMap(({ holders }) => holders.map(({ pid }) => pid));
    expect(await holdersAt('127.0.0.1')).to.deep.equal([near.pid]);
    expect(await holdersAt('127.0.0.2')).to.deep.equal([far.pid]);
    expect(await holdersAt('127.0.0.3')).to.deep.equal([]);
    expect(await holdersAt('0:0:0:0:0:0:0:1')).to.deep.equal([six.pid]);
    expect(await holdersAt('localhost')).to.have.members([near.pid, six.pid]);
    expect(await holdersAt('*')).to.have.members([near.pid, far.pid, six.pid]);
    expect(await holdersAt()).to.have.members([near.pid, far.pid, six.pid]);
  });

  it('can be asked for one protocol', async function () {
    need(this, 'ipv6');
    const port = await freeLocalPort();
    const listen = ['127.0.0.1', '::1'].map((host) => ({ port, host }));
    await startTree(reaper, { listen }).ready;
    const addresses = async (protocol: 'tcp' | 'tcp6') =>
      (await findListeners(port, { protocol })).map(({ address }) => address);
    expect(await addresses('tcp')).to.deep.equal(['127.0.0.1']);
    expect(await addresses('tcp6')).to.deep.equal(['::1']);
  });

  it('finds by its descriptor a holder in another network namespace, and not the listeners in there', async function () {
    need(this, 'root', 'unshare', 'perl');
    const port = await freeLocalPort();
    const away = which('unshare') ?? 'unshare';
    const other = `listen($s, 5); if (!fork) { print "ready\\n"; exec '${away}', '-n', 'sleep', '170' }; wait`;
    const parent = await startPerlSocket(reaper, { port, script: other });
    const inside = () => descendantsOf(parent.pid).find(({ comm }) => comm === 'sleep');
    const below = await until(inside, { timeoutMs: 5000 });
    const [listener] = await findListeners(port);
    expect(listener?.holders.map(({ pid }) => pid)).to.have.members([parent.pid, below?.pid]);

    const elsewhere = await freeLocalPort();
    const server = `require('net').createServer().listen(${elsewhere}, '0.0.0.0', () => console.log('ready'))`;
    await startScript(reaper, away, ['-n', process.execPath, '-e', server]);
    expect(await findListeners(elsewhere)).to.deep.equal([]);
  });

  it('reads on before it says that nobody listens, where the order of the rows is another one', async () => {
    using fake = createFakeProc();
    const port = await freeLocalPort();
    const row = { address: '0100007F', uid: process.geteuid?.() ?? 0 };
    const connection = socketLine({ ...row, port: 1, remotePort: 2, state: '01', inode: 6 });
    fake.write('net/tcp', connection + socketLine({ ...row, port, inode: 5 }));
    fake.add({ pid: 7, sockets: [5] });
    const [listener] = await findListeners(port, { proc: fake.proc });
    expect(listener?.holders.map(({ pid }) => pid)).to.deep.equal([7]);
  });

  it('binds nothing, and so is in nobody’s way who is about to listen', async () => {
    const port = await freeLocalPort();
    const { listen } = net.Server.prototype;
    let binds = 0;
    net.Server.prototype.listen = function (this: net.Server, ...args: unknown[]) {
      binds++;
      return Reflect.apply(listen, this, args);
    };
    try {
      for (const host of [undefined, '127.0.0.1', '*']) expect(await findListeners(port, { host })).to.deep.equal([]);
    } finally {
      net.Server.prototype.listen = listen;
    }
    expect(binds).to.equal(0);
  });

  it('throws for a port or a host that is none, and the reason of an abort', async () => {
    const { ports } = await startListener(reaper).ready;
    const reason = new Error('enough');
    const outcomes = [
      findListeners(0),
      findListeners(80, { host: 'example.com' }),
      findListeners(ports[0]?.port ?? 0, { signal: AbortSignal.abort(reason) }),
    ].map((promise) => promise.catch((error: unknown) => error));
    const [badPort, badHost, aborted] = await Promise.all(outcomes);
    expect(badPort).to.be.an.instanceOf(RangeError);
    expect(badHost).to.be.an.instanceOf(TypeError);
    expect(aborted).to.equal(reason);
  });
});
