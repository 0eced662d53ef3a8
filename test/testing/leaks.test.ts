import { AssertionError } from 'node:assert';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { watch as watchFile } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { assertNoLeaks, LeakError, type LeakWatch, reservePort, spawnTree, watchLeaks } from 'tunward/testing';
import { until } from '#lib/time.js';
import { repoRoot } from '../support/paths.js';
import { isAlive, sendSignal, statOf } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';

describe('watchLeaks()', () => {
  it('finds nothing where nothing was left', async () => {
    const watch = watchLeaks();
    {
      await using tree = await spawnTree({ listen: [{}], children: [{ setsid: true }] });
      await using reserved = await reservePort();
      const server = net.createServer().listen(0, '127.0.0.1');
      await once(server, 'listening');
      const found = await watch.find();
      // Before the assertion: a listener that stays open keeps the whole run from ending.
      server.close();
      const whats = found.map(({ what }) => what).join('; ');
      expect(found, `${whats}, where ${tree.pid} and ${reserved.port} are ours`).to.have.length(4);
    }
    await watch.assertNoLeaks();
    expect(await watch.find()).to.deep.equal([]);
  });

  it('names a child with its command and its ports, and what is below it', async () => {
    const watch = watchLeaks();
    await using tree = await spawnTree({ title: 'forgotten', listen: [{}], children: [{ title: 'below' }] });
    const error = await failureOf(watch);
    expect(error).to.be.instanceOf(LeakError).and.instanceOf(AssertionError).and.have.property('code', 'ERR_ASSERTION');
    const [port] = tree.ports;
    const [child] = tree.children;
    expect(error.message.split('\n')).to.deep.equal([
      '2 leaks:',
      `  process ${tree.pid} (forgotten), a child of this one, listens on 127.0.0.1:${port}`,
      `  process ${child?.pid} (below), below this one, a child of ${tree.pid}`,
    ]);
    const [first] = error.leaks;
    const { pid, startTicks } = tree;
    expect(first).to.deep.include({ kind: 'process', ref: { pid, startTicks }, command: 'forgotten', ports: [port] });
  });

  it('finds a daemon, which is nobody’s child any more', async () => {
    const watch = watchLeaks();
    const shape = { leave: true, children: [{ setsid: true, leave: true, children: [{ title: 'daemon' }] }] };
    await using tree = await spawnTree(shape);
    const daemon = tree.children[0]?.children[0];
    expect((await failureOf(watch)).message).to.equal(
      `1 leak:\n  process ${daemon?.pid} (daemon), started by this one, and gone its own way`,
    );
  });

  it('finds a child that has no environment', async () => {
    await using reaper = createReaper();
    const watch = watchLeaks();
    const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { env: {}, stdio: 'ignore' });
    reaper.own(child);
    expect((await failureOf(watch)).leaks.map(({ ref }) => ref?.pid)).to.deep.equal([child.pid]);
  });

  it('counts what was there before for nothing', async () => {
    await using former = await spawnTree({ children: [{}] });
    const server = net.createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const watch = watchLeaks();
    await watch.assertNoLeaks();
    expect(former.living()).to.have.length(2);
    server.close();
  });

  it('counts a zombie for dead', async () => {
    const watch = watchLeaks();
    await using tree = await spawnTree({ children: [{}] });
    const [child = tree] = tree.children;
    sendSignal(tree, 'SIGSTOP'); // it reaps nobody now
    sendSignal(child, 'SIGKILL');
    expect(await until(() => !isAlive(child.pid, child.startTicks), { timeoutMs: 5000 })).to.equal(true);
    expect((await watch.find()).map(({ ref }) => ref?.pid)).to.deep.equal([tree.pid]);
    expect(statOf(child.pid)).to.have.property('state', 'Z');
  });

  it('waits for what is on its way out, and not for ever', async () => {
    const watch = watchLeaks();
    const server = net.createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    setTimeout(() => server.close(), 100);
    await watch.assertNoLeaks({ waitMs: 5000 });

    const stays = net.createServer().listen(0, '::');
    await once(stays, 'listening');
    const began = performance.now();
    const { port } = stays.address() as net.AddressInfo;
    expect((await failureOf(watch, 150)).message).to.equal(`1 leak:\n  this process listens on [::]:${port}`);
    expect(performance.now() - began).to.be.within(140, 3000);
    expect((await failureOf(watch, 0)).leaks).to.have.length(1);
    stays.close();
    await watch.assertNoLeaks();
  });

  it('names a reservation that was never released', async () => {
    const watch = watchLeaks();
    await using reserved = await reservePort();
    expect((await failureOf(watch)).message).to.include(
      `port ${reserved.port} is reserved by this process and was never released`,
    );
    await reserved.release();
    await watch.assertNoLeaks();
  });

  it('counts what keeps the process from ending, and what does not for nothing', async () => {
    const watch = watchLeaks();
    const files = watchFile(tmpdir());
    try {
      expect((await failureOf(watch)).message).to.equal('1 leak:\n  1 × FSEventWrap keeps this process from ending');
      files.unref();
      await watch.assertNoLeaks();
    } finally {
      files.close();
    }
  });

  it('does not take the output of the program for something that was opened', async () => {
    const program = `
      import { assertNoLeaks, watchLeaks } from 'tunward/testing';
      const watch = watchLeaks();
      console.log('said');
      console.error('said');
      await watch.assertNoLeaks({ waitMs: 0 });
      await assertNoLeaks({ waitMs: 0 });
    `;
    const run = promisify(execFile)(process.execPath, ['--input-type=module', '-e', program], { cwd: repoRoot });
    expect(await run).to.deep.equal({ stdout: 'said\n', stderr: 'said\n' });
  });

  it('counts a connection', async () => {
    await using tree = await spawnTree({ listen: [{}] });
    const watch = watchLeaks();
    const socket = net.connect(tree.ports[0] ?? 0, '127.0.0.1');
    await once(socket, 'data');
    expect((await failureOf(watch)).message).to.include('1 × TCPSocketWrap');
    socket.destroy();
    await watch.assertNoLeaks();
  });

  it('counts timers by request alone, since a test runner has its own', async () => {
    await new Promise(setImmediate); // from now on mocha has one for this test
    const watches = [watchLeaks({ timers: true }), watchLeaks()] as const;
    const timer = setInterval(() => undefined, 10_000);
    try {
      expect((await failureOf(watches[0])).message).to.include('1 × Timeout keeps this process from ending');
      await watches[1].assertNoLeaks();
    } finally {
      clearInterval(timer);
    }
    await watches[0].assertNoLeaks();
  });

  it('refuses a time that is none', async () => {
    const failure = await watchLeaks().assertNoLeaks({ waitMs: Number.NaN }).then(String, String);
    expect(failure).to.match(/^RangeError: Cannot use NaN as waitMs/);
  });
});

describe('assertNoLeaks()', () => {
  it('speaks of what was started since the kit was loaded', async () => {
    await using tree = await spawnTree({ title: 'since-then' });
    const error = await assertNoLeaks({ waitMs: 0 }).then(
      () => 'none',
      (failure: Error) => failure.message,
    );
    expect(error).to.include(`process ${tree.pid} (since-then)`);
  });
});

async function failureOf(watch: LeakWatch, waitMs = 50): Promise<LeakError> {
  return watch.assertNoLeaks({ waitMs }).then(
    () => expect.fail('it found no leak'),
    (error: LeakError) => error,
  );
}
