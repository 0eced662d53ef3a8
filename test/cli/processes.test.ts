import { readdirSync } from 'node:fs';
import { expect } from 'chai';
import { readProcessTree } from '#lib/proc/family.js';
import { until } from '#lib/time.js';
import { describeSshCommand } from '#lib/tunnel/arguments.js';
import { readTunnelProcesses } from '#lib/tunnel/processes.js';
import { startChain } from '../support/chains.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { commandOf, isAlive } from '../support/proc.js';
import { startStubborn, startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { type Sshd, startSshd } from '../support/sshd.js';
import { asNobody } from '../support/stranger.js';
import { tunward, tunwardJson } from './run.js';

/** A number that no process has: the kernel's own limit of pids on 64 bit is not reached in a test. */
const nobody = '4194303';

describe('tunward tree', () => {
  const reaper = createReaper();
  afterEach(() => reaper.end());

  it('nests the whole tree as JSON, with ports and identities', async () => {
    const tree = await startTree(reaper, {
      children: [{ listen: [{ host: '127.0.0.1' }], children: [{}] }, {}],
    }).ready;
    const [first, second] = tree.children;
    const answer = await tunwardJson(reaper, ['tree', String(tree.pid)]);
    expect(answer).to.have.all.keys(
      'pid',
      'start_ticks',
      'state',
      'command',
      'age_s',
      'rss_bytes',
      'ports',
      'children',
    );
    expect(answer).to.include({ pid: tree.pid, start_ticks: tree.startTicks, command: commandOf(tree.pid) });
    expect(answer.rss_bytes).to.be.greaterThan(1_000_000);
    expect(answer.age_s).to.be.a('number');
    const byPid = new Map<number, { ports: number[]; children: { pid: number }[] }>(
      answer.children.map((child: { pid: number }) => [child.pid, child]),
    );
    expect([...byPid.keys()]).to.have.members([first?.pid, second?.pid]);
    expect(byPid.get(first?.pid ?? 0)?.ports).to.deep.equal([first?.ports[0]?.port]);
    expect(byPid.get(first?.pid ?? 0)?.children.map(({ pid }) => pid)).to.deep.equal([first?.children[0]?.pid]);
    expect(byPid.get(second?.pid ?? 0)).to.deep.include({ ports: [], children: [] });
  });

  it('draws it with branches, state, age, memory and ports', async () => {
    const tree = await startTree(reaper, { children: [{ listen: [{ host: '127.0.0.1' }] }, {}] }).ready;
    const { code, stdout } = await tunward(reaper, ['tree', String(tree.pid)]);
    expect(code).to.equal(0);
    const [root, one, other, ...rest] = stdout.split('\n');
    expect(root).to.match(new RegExp(`^node ${tree.pid}  [RS]  \\d+s  [\\d.]+ MB  `));
    expect(one).to.match(/^├─ node \d+/);
    expect(other).to.match(/^└─ node \d+/);
    expect(rest).to.deep.equal(['']);
    const listening = [one, other].find((line) => line?.includes(`node ${tree.children[0]?.pid}`));
    expect(listening).to.contain(`  :${tree.children[0]?.ports[0]?.port}  `);
  });

  it('ends with 4 when there is no such process, with the problem as JSON', async () => {
    const { code, stdout, stderr } = await tunward(reaper, ['tree', nobody, '--json']);
    expect(code).to.equal(4);
    expect(JSON.parse(stdout).error).to.include({ code: 'ERR_PROCESS_UNKNOWN', status: 404 });
    expect(stderr).to.contain(`No process has the pid ${nobody}`);
  });
});

describe('readProcessTree()', () => {
  const reaper = createReaper();
  afterEach(() => reaper.end());

  it('is undefined for a process that is gone, and rejects with the reason of its signal', async () => {
    expect(await readProcessTree(Number(nobody))).to.equal(undefined);
    const reason = new Error('enough');
    let thrown: unknown;
    await readProcessTree(process.pid, { signal: AbortSignal.abort(reason) }).catch((error: unknown) => {
      thrown = error;
    });
    expect(thrown).to.equal(reason);
  });
});

describe('tunward kill', () => {
  const reaper = createReaper();
  afterEach(() => reaper.end());

  it('kills the process and all below it, whatever they ignore', async () => {
    const tree = await startStubborn(reaper, { children: [{ ignore: ['SIGTERM'], setsid: true }] }).ready;
    const report = await tunwardJson(reaper, ['kill', String(tree.pid)]);
    expect(report).to.have.all.keys('killed', 'left', 'survivors', 'took_ms');
    const killed = report.killed.map(({ pid, start_ticks }: { pid: number; start_ticks: number }) => [
      pid,
      start_ticks,
    ]);
    const [child] = tree.children;
    expect(killed).to.have.deep.members([
      [tree.pid, tree.startTicks],
      [child?.pid, child?.startTicks],
    ]);
    expect(isAlive(tree.pid, tree.startTicks)).to.equal(false);
    expect(isAlive(child?.pid ?? 0, child?.startTicks)).to.equal(false);
  });

  it('with --grace lets it leave by itself, and counts it as killed', async () => {
    const started = startTree(reaper, {});
    const { pid } = await started.ready;
    const { code, stdout } = await tunward(reaper, ['kill', String(pid), '--grace', '5000']);
    expect(code).to.equal(0);
    expect(stdout).to.match(new RegExp(`killed +node ${pid} +target`));
    expect(await until(() => started.child.signalCode, { timeoutMs: 1000 })).to.equal('SIGTERM');
  });

  it('ends with 4 for a pid that is not there', async () => {
    const { code, stdout, stderr } = await tunward(reaper, ['kill', nobody]);
    expect(code).to.equal(4);
    expect(stdout).to.equal('');
    expect(stderr).to.equal(`error: No process has the pid ${nobody}\n`);
  });

  it('ends with 4 for the number of a thread, and names its process', async () => {
    const { pid } = await startTree(reaper, {}).ready;
    const thread = readdirSync(`/proc/${pid}/task`).find((tid) => Number(tid) !== pid);
    for (const command of ['kill', 'tree']) {
      const { code, stderr } = await tunward(reaper, [command, String(thread)]);
      expect(stderr).to.equal(`error: No process has the pid ${thread}: it is a thread of pid ${pid}\n`);
      expect(code).to.equal(4);
    }
    expect(isAlive(pid)).to.equal(true);
  });

  it('ends with 5 for a process that is protected: its own ancestor', async () => {
    const { code, stdout } = await tunward(reaper, ['kill', String(process.pid), '--json', '--timeout', '300']);
    expect(code).to.equal(5);
    const { survivors } = JSON.parse(stdout);
    const own = survivors.find(({ pid }: { pid: number }) => pid === process.pid);
    expect(own?.why).to.match(/^protected/);
  });

  it('says of who is protected that nobody was killed, and why', async () => {
    const { code, stdout } = await tunward(reaper, ['kill', '1']);
    expect(code).to.equal(5);
    expect(stdout).to.match(/^✖ pid 1 is still there, and nobody was killed\n {2}protected {2}\S.* 1 {2}pid 1 {2}/);
  });

  it('names what was given when that is no pid', async () => {
    const { code, stderr } = await tunward(reaper, ['kill', 'ssh']);
    expect(code).to.equal(2);
    expect(stderr).to.contain("'ssh' is invalid").and.contain('Expected a pid').and.not.contain('NaN');
  });
});

describe('a process that /proc hides (hidepid=2)', () => {
  const reaper = createReaper();
  afterEach(() => reaper.end());

  it('is not called missing: neither by tree nor by kill, and ps says that it does not see all', async function () {
    need(this, 'root', 'unshare');
    const { pid } = await startTree(reaper, {}).ready;
    const seen = await asNobody('test/cli/hidden.js', [String(pid)], { hidepid: 2 });
    const { tree, kill, ps } = seen as Record<string, { answer: unknown; said: string }>;
    expect(tree?.answer).to.include({ code: 'ERR_ACCESS_DENIED' });
    expect(JSON.stringify(tree?.answer)).to.contain(`Cannot look at pid ${pid}: it belongs to another user`);
    expect(kill?.answer).to.equal(5);
    expect(kill?.said).to.contain(`✖ pid ${pid} is still there, and nobody was killed`);
    expect(kill?.said).to.contain('not permitted: it belongs to another user, and /proc hides it');
    expect(ps?.said).to.contain('Those of other users are not seen: this /proc hides them (hidepid)');
    expect(isAlive(pid)).to.equal(true);
  });
});

describe('tunward ps', () => {
  const reaper = createReaper();
  let sshd: Sshd;
  before(async function () {
    need(this, 'sshd', 'ssh', 'autossh');
    sshd = await startSshd();
  });
  afterEach(() => reaper.end());
  after(() => sshd?.stop());

  it('shows whose an autossh and its ssh are, where they go, what they forward and hold', async () => {
    const port = await freeLocalPort();
    const tunnelId = 'f'.repeat(32);
    const chain = await startChain(reaper, sshd, {
      words: ['-L', `127.0.0.1:${port}:127.0.0.1:${sshd.port}`],
      env: { TUNNEL_ID: tunnelId },
      ready: async () => (await readTunnelProcesses()).some(({ ports }) => ports.includes(port)),
    });
    const root = chain.root.pid;
    const { processes } = await tunwardJson(reaper, ['ps']);
    const ours = processes.filter(({ pid }: { pid: number }) => chain.refs().some((ref) => ref.pid === pid));
    const [autossh, ssh] = ours;
    expect(ours.map(({ program }: { program: string }) => program)).to.deep.equal(['autossh', 'ssh']);
    expect(autossh).to.deep.include({ pid: root, start_ticks: chain.root.startTicks, ports: [], chain: [root] });
    expect(ssh).to.deep.include({ ppid: root, ports: [port], chain: [root, ssh.pid], tunnel_id: tunnelId });
    expect(ssh).to.have.all.keys(
      ...['pid', 'start_ticks', 'ppid', 'program', 'command', 'user', 'age_s', 'tunnel_id', 'instance'],
      ...['destination', 'forwards', 'ports', 'chain'],
    );
    const forward = {
      side: 'local',
      listen: { host: '127.0.0.1', port },
      target: { host: '127.0.0.1', port: sshd.port },
    };
    for (const process of ours) expect(process).to.deep.include({ destination: 'rig', forwards: [forward] });
    const { stdout } = await tunward(reaper, ['ps']);
    const row = stdout.split('\n').find((line) => line.startsWith(`${ssh.pid} `));
    expect(row).to.contain('tunnel ffffffff').and.contain(`-L 127.0.0.1:${port}:`).and.contain(`${root} → ${ssh.pid}`);
  });
});

describe('readTunnelProcesses()', () => {
  const reaper = createReaper();
  afterEach(() => reaper.end());

  it('names a chain from its top down, and counts what carries the same marker', async () => {
    // Actors by these names: nothing is connected.
    const proxy = { comm: 'ssh', listen: [{ host: '127.0.0.1' }] };
    const env = { TUNNEL_ID: 'e'.repeat(32), TUNWARD_INSTANCE: 'i'.repeat(32) };
    const top = await startTree(reaper, { comm: 'autossh', env, children: [{ comm: 'ssh', children: [proxy] }] }).ready;
    const [ssh] = top.children;
    const [below] = ssh?.children ?? [];
    const found = await readTunnelProcesses();
    const chains = [top, ssh, below].map((actor) => found.find(({ pid }) => pid === actor?.pid)?.chain);
    const pids = [top.pid, ssh?.pid, below?.pid];
    expect(chains).to.deep.equal([pids.slice(0, 1), pids.slice(0, 2), pids]);
    expect(found.find(({ pid }) => pid === below?.pid)).to.deep.include({
      program: 'ssh',
      ppid: ssh?.pid,
      ports: [below?.ports[0]?.port],
      tunnelId: env.TUNNEL_ID,
      instance: env.TUNWARD_INSTANCE,
      forwards: [],
    });
  });
});

describe('describeSshCommand()', () => {
  const describeWords = (words: string) => describeSshCommand(words.split(' '), 'ssh');

  it('shows the forwards of an ssh that runs a command, too', () => {
    const target = { host: 'db', port: 5432 };
    expect(describeWords('ssh -f -L 8080:db:5432 -p 22 me@gate sleep 99')).to.deep.equal({
      destination: 'me@gate',
      forwards: [{ side: 'local', listen: { host: 'localhost', port: 8080 }, target }],
    });
  });

  it('leaves out what it cannot tell apart, and answers for what is no command line of ssh', () => {
    expect(describeWords('ssh -L /tmp/a.sock:db:1 -D 1080 gate')).to.deep.equal({ destination: 'gate', forwards: [] });
    expect(describeSshCommand(['ssh: /run/mux [mux]'], 'ssh')).to.deep.equal({ destination: null, forwards: [] });
    expect(describeSshCommand([], 'ssh')).to.deep.equal({ destination: null, forwards: [] });
  });
});
