import { readdirSync } from 'node:fs';
import net, { type AddressInfo } from 'node:net';
import { expect } from 'chai';
import { known, openProc, type Proc } from '#lib/proc/read.js';
import { until } from '#lib/time.js';
import { createPinBudget, createWatch, type Watch } from '#lib/tunnel/watch.js';
import { createFakeClock } from '../support/fakeclock.js';
import { createFakeProc, statLine } from '../support/fakeproc.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive, type Ref, sendSignal, statOf } from '../support/proc.js';
import { type Shape, startListener, startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { startScript } from '../support/sockets.js';

describe('createWatch()', () => {
  const reaper = createReaper();
  const clock = createFakeClock();
  const watches: Watch[] = [];
  let peer: net.Server | undefined;

  afterEach(async () => {
    for (const watch of watches.splice(0)) watch.close();
    peer?.close();
    await reaper.end();
  });

  /** A watch over a chain, and how often it has walked over the whole of it. The clock stands, so that it has no other reason to. */
  function watchOver(
    root: Ref & Partial<Pick<Shape, 'ports'>>,
    { pins = { left: 100 }, isGranted = (): boolean => true, proc = openProc() } = {},
  ) {
    let walks = 0;
    const counting: Proc = {
      ...proc,
      text: (path) => {
        if (path === `${root.pid}/stat`) walks++;
        return proc.text(path);
      },
    };
    const binds = (root.ports ?? []).map(({ port, host }) => ({ side: 'local' as const, host, port }));
    const watch = createWatch({ proc: counting, clock, root, binds, isGranted, pins });
    watches.push(watch);
    return { ...watch, walks: () => walks };
  }

  /** A signal does its work a moment after it was sent. */
  async function signalled(ref: Ref, signal: NodeJS.Signals, states: string): Promise<void> {
    sendSignal(ref, signal);
    const isDone = () => states.includes(statOf(ref.pid)?.state ?? 'X');
    expect(await until(isDone, { timeoutMs: 5000 })).to.equal(true);
  }

  /** A program of Node that listens, says where, and does something at SIGUSR2. */
  async function startServer(onSignal: string) {
    const script = `const server = require('net').createServer().listen(0, '127.0.0.1', () => console.log(server.address().port));
      setTimeout(() => process.exit(3), 180_000);
      process.on('SIGUSR2', () => { ${onSignal} });`;
    const { pid, firstLine } = await startScript(reaper, process.execPath, ['-e', script]);
    const startTicks = statOf(pid)?.startTicks ?? 0;
    return { pid, startTicks, ports: [{ port: Number(firstLine), host: '127.0.0.1' }] };
  }

  it('walks over a chain that is ready once, and then looks at what it has seen there; again after 10 s', async () => {
    const watch = watchOver(await startListener(reaper).ready);
    for (let look = 0; look < 5; look++) expect(watch.look()).to.equal('ready');
    expect(watch.walks()).to.equal(1);
    await clock.advance(10_000);
    for (let look = 0; look < 5; look++) expect(watch.look()).to.equal('ready');
    expect(watch.walks()).to.equal(2);
  });

  it('sees at once that the socket is closed, though its process lives', async () => {
    const server = await startServer('server.close()');
    const watch = watchOver(server);
    expect([watch.look(), watch.look()]).to.deep.equal(['ready', 'ready']);
    sendSignal(server, 'SIGUSR2');
    expect(await until(() => watch.look() === 'waiting', { timeoutMs: 5000 })).to.equal(true);
    expect(isAlive(server.pid, server.startTicks)).to.equal(true);
  });

  it('is ready again by another socket on the same address', async () => {
    const server = await startServer(
      'const { port } = server.address(); server.close(() => server.listen(port, "127.0.0.1"));',
    );
    const watch = watchOver(server);
    expect(watch.look()).to.equal('ready');
    sendSignal(server, 'SIGUSR2');
    // The first look at the other socket is a walk.
    const isAnother = () => watch.look() === 'ready' && watch.walks() > 1;
    expect(await until(isAnother, { timeoutMs: 5000 })).to.equal(true);
    expect(watch.look()).to.equal('ready');
  });

  it('reads the tables of sockets when there is something new in them, and not while it has but its connection', async () => {
    const server = net.createServer((socket) => socket.on('error', () => socket.destroy()));
    peer = server;
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const port = await freeLocalPort();
    const script = `const net = require('net');
      net.connect(${(server.address() as AddressInfo).port}, '127.0.0.1', () => console.log('connected'));
      setTimeout(() => process.exit(3), 180_000);
      process.on('SIGUSR2', () => net.createServer().listen(${port}, '127.0.0.1'));`;
    const { pid } = await startScript(reaper, process.execPath, ['-e', script]);
    const root = { pid, startTicks: statOf(pid)?.startTicks ?? 0, ports: [{ port, host: '127.0.0.1' }] };
    const real = openProc();
    let walks = 0;
    const links: Proc['links'] = (...words) => {
      walks++;
      return real.links(...words);
    };
    let tables = 0;
    const pages: Proc['pages'] = (path, size) => {
      tables++;
      return real.pages(path, size);
    };
    const watch = watchOver(root, { proc: { ...real, pages, links } });
    for (let look = 0; look < 20; look++) expect(watch.look()).to.equal('waiting');
    expect(tables).to.be.within(1, 2);
    // Since Linux 6.2 the kernel says how many descriptors there are: only when there are others are they walked over.
    if (known(real.size(`${root.pid}/fd`))) expect(walks).to.be.below(5);
    const before = walks;
    await clock.advance(50);
    watch.look();
    expect(walks).to.be.greaterThan(before);
    sendSignal(root, 'SIGUSR2');
    expect(await until(() => watch.look() === 'ready', { timeoutMs: 5000 })).to.equal(true);
  });

  it('sees at once who of the chain is stopped, and that it goes on', async () => {
    const root = await startListener(reaper, { children: [{}] }).ready;
    const watch = watchOver(root);
    for (const ref of [root, ...root.children]) {
      expect([watch.look(), watch.look()]).to.deep.equal(['ready', 'ready']);
      await signalled(ref, 'SIGSTOP', 'T');
      expect(watch.look()).to.equal('frozen');
      await signalled(ref, 'SIGCONT', 'SR');
    }
    expect(watch.look()).to.equal('ready');
  });

  it('finds within 10 s that somebody who has joined the chain is stopped', async () => {
    const server = await startServer(`require('child_process').spawn('sleep', ['180'], { stdio: 'ignore' });`);
    const watch = watchOver(server);
    expect(watch.look()).to.equal('ready');
    sendSignal(server, 'SIGUSR2');
    const find = () =>
      readdirSync('/proc')
        .map(Number)
        .find((pid) => statOf(pid)?.ppid === server.pid);
    const pid = (await until(find, { timeoutMs: 5000 })) ?? 0;
    await signalled({ pid, startTicks: statOf(pid)?.startTicks ?? 0 }, 'SIGSTOP', 'T');
    await clock.advance(9999);
    expect(watch.look()).to.equal('ready');
    await clock.advance(1);
    expect(watch.look()).to.equal('frozen');
  });

  it('goes on with those who are left when one of the chain has ended', async () => {
    const root = await startListener(reaper, { children: [{}] }).ready;
    const watch = watchOver(root);
    expect(watch.look()).to.equal('ready');
    await signalled(root.children[0] ?? root, 'SIGKILL', 'ZX');
    expect(watch.look()).to.equal('ready');
    expect(watch.walks()).to.equal(2);
  });

  it('has nothing to look at when the root has ended', async () => {
    const started = startListener(reaper);
    const watch = watchOver(await started.ready);
    expect(watch.look()).to.equal('ready');
    await started.kill();
    expect(watch.look()).to.equal('waiting');
  });

  it('is not taken in by another process that bears the number, even with the socket in the same place', () => {
    using fake = createFakeProc();
    fake.add({ pid: 7, startTicks: 100 });
    let hasChanged = false;
    const proc: Proc = {
      ...fake.proc,
      // What the kernel answers through a descriptor whose process is gone; a file in a folder would still be read.
      pin: (pid) => {
        const pin = fake.proc.pin(pid);
        return typeof pin === 'object' ? { ...pin, stat: () => (hasChanged ? undefined : pin.stat()) } : pin;
      },
    };
    const watch = watchOver({ pid: 7, startTicks: 100 }, { proc });
    expect([watch.look(), watch.look()]).to.deep.equal(['ready', 'ready']);
    fake.write('7/stat', statLine({ pid: 7, startTicks: 101 }));
    hasChanged = true;
    expect(watch.look()).to.equal('waiting');
  });

  it('waits for what else must be so', async () => {
    let isGranted = false;
    const watch = watchOver(await startTree(reaper, {}).ready, { isGranted: () => isGranted });
    expect(watch.look()).to.equal('waiting');
    isGranted = true;
    expect(watch.look()).to.equal('ready');
  });

  describe('the descriptors that it keeps', () => {
    const open = () => readdirSync('/proc/self/fd').length;

    it('are one for each process while it is ready, and none after that', async () => {
      const root = await startListener(reaper, { children: [{}] }).ready;
      const pins = { left: 2 };
      const before = open();
      const watch = watchOver(root, { pins });
      watch.look();
      expect([open() - before, pins.left]).to.deep.equal([2, 0]);
      await signalled(root, 'SIGSTOP', 'T');
      watch.look();
      expect([open() - before, pins.left]).to.deep.equal([0, 2]);
      await signalled(root, 'SIGCONT', 'SR');
      watch.look();
      watch.close();
      watch.close();
      expect([open() - before, pins.left]).to.deep.equal([0, 2]);
    });

    it('are not taken when there are none left for it, and it looks at everything then', async () => {
      const root = await startListener(reaper, { children: [{}] }).ready;
      const watch = watchOver(root, { pins: { left: 1 } });
      for (let look = 0; look < 3; look++) expect(watch.look()).to.equal('ready');
      expect(watch.walks()).to.equal(3);
      const real = openProc();
      const full: Proc = {
        ...real,
        pin: (pid) => {
          if (pid === root.pid) return real.pin(pid);
          throw Object.assign(new Error('too many open files'), { code: 'EMFILE' });
        },
      };
      const before = open();
      const other = watchOver(root, { proc: full });
      for (let look = 0; look < 3; look++) expect(other.look()).to.equal('ready');
      expect(open()).to.equal(before);
    });

    it('are a quarter of what this process may have', () => {
      using fake = createFakeProc();
      fake.write(
        'self/limits',
        'Limit  Soft Limit  Hard Limit  Units\nMax open files            4096                 4096                 files\n',
      );
      expect(createPinBudget(fake.proc)).to.deep.equal({ left: 1024 });
      fake.remove('self/limits');
      expect(createPinBudget(fake.proc)).to.deep.equal({ left: 256 });
    });
  });
});
