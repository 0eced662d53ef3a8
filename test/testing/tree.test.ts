import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { createInterface } from 'node:readline';
import { expect } from 'chai';
import { killTree } from 'tunward';
import { reservePort, type SpawnedTree, spawnTree, type TreeShape } from 'tunward/testing';
import { until } from '#lib/time.js';
import { repoRoot } from '../support/paths.js';
import { commandOf, descendantsOf, environOf, isAlive, type Ref, statOf } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';

describe('spawnTree()', () => {
  it('starts a tree of the shape that was asked for', async () => {
    await using tree = await spawnTree({
      title: 'root-of-it',
      env: { COLOUR: 'blue' },
      listen: [{}, { host: '127.0.0.2' }],
      children: [{ setsid: true, children: [{}] }, { listen: [{}] }],
    });
    const [first, second] = tree.children;
    if (!first?.children[0] || !second) throw new Error(`wrong shape: ${JSON.stringify(tree)}`);
    expect(statOf(tree.pid)).to.include({ ppid: process.pid, startTicks: tree.startTicks, comm: 'root-of-it' });
    expect(commandOf(tree.pid)).to.match(/^root-of-it/);
    expect(statOf(first.pid)).to.include({ ppid: tree.pid, sid: first.pid });
    expect(statOf(first.children[0].pid)).to.include({ ppid: first.pid, sid: first.pid });
    expect(statOf(second.pid)?.sid).to.equal(statOf(process.pid)?.sid);
    expect(environOf(first.children[0].pid)).to.include('COLOUR=blue');
    for (const port of [...tree.ports, ...second.ports]) expect(port).to.be.greaterThan(0);
    expect(tree.ports).to.have.length(2);
    expect(await firstWord(second.ports[0] ?? 0)).to.equal(`${second.pid}\n`);
    expect(tree.living()).to.have.length(4).and.deep.equal(tree.processes());
    const { survivors, killed } = await tree.kill();
    expect([survivors.length, killed.length, tree.living().length]).to.deep.equal([0, 4, 0]);
  });

  it('ignores what it was told to, and is ended all the same', async () => {
    const shape = { ignore: ['SIGTERM', 'SIGHUP'], listen: [{}] } as const;
    await using tree = await spawnTree(shape, { lifetimeMs: Number.POSITIVE_INFINITY });
    for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.kill(tree.pid, signal);
    // It answers a client that came after the signals.
    expect(await firstWord(tree.ports[0] ?? 0)).to.equal(`${tree.pid}\n`);
    expect((await killTree(tree)).survivors).to.deep.equal([]);
    expect(tree.living()).to.deep.equal([]);
  });

  it('starts a child again as often as it was told to', async () => {
    await using tree = await spawnTree({ respawn: 1, children: [{ setsid: true, listen: [{}] }] });
    process.kill(tree.children[0]?.pid ?? 0, 'SIGKILL');
    const again = await until(() => tree.processes()[2], { timeoutMs: 10_000 });
    expect(tree.living().map(({ pid }) => pid)).to.have.members([tree.pid, again?.pid]);
    process.kill(again?.pid ?? 0, 'SIGKILL');
    expect(await until(() => tree.living().length === 1, { timeoutMs: 10_000 })).to.equal(true);
  });

  it('makes a daemon, and ends that too', async () => {
    const daemon: TreeShape = { listen: [{}], ignore: ['SIGTERM'] };
    let left: Ref | undefined;
    {
      await using tree = await spawnTree({
        leave: true,
        children: [{ setsid: true, leave: true, children: [daemon] }],
      });
      left = tree.children[0]?.children[0];
      expect(tree.living().map(({ pid }) => pid)).to.deep.equal([left?.pid]);
      expect(descendantsOf(process.pid).map(({ pid }) => pid)).not.to.include(left?.pid);
    }
    expect(isAlive(left?.pid ?? 0, left?.startTicks)).to.equal(false);
  });

  it('ends also what nobody has told it of', async () => {
    await using reaper = createReaper();
    await using tree = await spawnTree({});
    // As if a process of the tree had started it, in a session of its own, and were gone.
    const marker = environOf(tree.pid).find((entry) => entry.startsWith('LC_TUNWARD_TEST_TREE=')) ?? '';
    const env = { ...reaper.env, [marker.split('=')[0] ?? '']: marker.split('=')[1] };
    const stray = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], {
      env,
      detached: true,
      stdio: 'ignore',
    });
    reaper.own(stray);
    const { killed } = await tree.kill();
    expect(killed.map(({ pid }) => pid)).to.have.members([tree.pid, stray.pid]);
  });

  it('holds a connection as a client, and survives its server', async () => {
    await using server = await spawnTree({ listen: [{}] });
    await using client = await spawnTree({ connect: { port: server.ports[0] ?? 0 } });
    await server.kill();
    expect([server.living().length, client.living().length]).to.deep.equal([0, 1]);
  });

  it('says who cannot play its part, and leaves nobody', async () => {
    await using reserved = await reservePort();
    const failure = await failureOf({ children: [{ setsid: true }, { listen: [{ port: reserved.port }] }] });
    expect(failure).to.have.property('code', 'ERR_SPAWN_FAILED');
    expect(failure.message).to.match(/^Cannot start process 0\.1 of the tree: .*EADDRINUSE/);
    expect(descendantsOf(process.pid).filter(({ pid }) => commandOf(pid).includes('testing/actor.js'))).to.deep.equal(
      [],
    );
    const many = { children: Array.from({ length: 100 }, () => ({})) };
    expect((await failureOf(many)).message).to.equal('Cannot start a tree of 101 processes: expected 100 or less');
    for (const respawn of [-1, 0.5, 101, Number.NaN]) {
      const { name, message } = await failureOf({ children: [{ respawn }] });
      expect(`${name}: ${message}`).to.equal(
        `RangeError: Cannot use ${respawn} as respawn: expected an integer from 0 to 100`,
      );
    }
  });

  it('ends by itself when its time is over', async () => {
    await using tree = await spawnTree({ ignore: ['SIGTERM'] }, { lifetimeMs: 300 });
    expect(await until(() => tree.living().length === 0, { timeoutMs: 10_000 })).to.equal(true);
  });

  it('ends with the program that started it, daemons and the stubborn too', async () => {
    await using reaper = createReaper();
    const shape = { ignore: ['SIGTERM', 'SIGHUP'], children: [{ setsid: true, leave: true, children: [{}] }, {}] };
    const program = `
      import { spawnTree } from 'tunward/testing';
      const tree = await spawnTree(${JSON.stringify(shape)});
      console.log(JSON.stringify(tree.living()));
      setInterval(() => {}, 1000);
    `;
    const env = { ...process.env, ...reaper.env };
    const starter = spawn(process.execPath, ['--input-type=module', '-e', program], {
      cwd: repoRoot,
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    reaper.own(starter);
    const [line] = await once(createInterface({ input: starter.stdout }), 'line');
    const tree = JSON.parse(line) as Ref[];
    expect(tree.filter(({ pid, startTicks }) => isAlive(pid, startTicks))).to.have.length(3);
    starter.kill('SIGKILL');
    const living = () => tree.filter(({ pid, startTicks }) => isAlive(pid, startTicks));
    await until(() => living().length === 0, { timeoutMs: 10_000 });
    expect(living()).to.deep.equal([]);
  });

  it('keeps no program from ending', async () => {
    const program = `import { spawnTree } from 'tunward/testing'; console.log((await spawnTree({})).pid)`;
    const child = execFile(process.execPath, ['--input-type=module', '-e', program], {
      cwd: repoRoot,
      timeout: 15_000,
    });
    let said = '';
    child.stdout?.on('data', (text: string) => {
      said += text;
    });
    expect(await once(child, 'close')).to.deep.equal([0, null]);
    expect(await until(() => !isAlive(Number(said)), { timeoutMs: 10_000 })).to.equal(true);
  });
});

async function failureOf(shape: TreeShape): Promise<Error> {
  return spawnTree(shape).then(
    async (tree: SpawnedTree) => {
      await tree.kill();
      return new Error('it was started');
    },
    (error: Error) => error,
  );
}

async function firstWord(port: number): Promise<string> {
  const socket = net.connect(port, '127.0.0.1');
  const [data] = await once(socket, 'data');
  socket.destroy();
  return String(data);
}
