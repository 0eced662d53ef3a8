import net from 'node:net';
import { expect } from 'chai';
import { takeLock } from '#lib/daemon/instance.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive } from '../support/proc.js';
import { startClient, startListener, startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { startShellLoop } from '../support/respawners.js';
import { startInFlight } from '../support/sockets.js';
import { said, startTunward, tunward, tunwardJson } from './run.js';

describe('tunward who', () => {
  const reaper = createReaper();
  afterEach(() => reaper.end());

  it('reports the holder, its chain and the clients as JSON in snake_case', async () => {
    const listener = startListener(reaper, { children: [{}] });
    const { pid, startTicks, ports } = await listener.ready;
    const { port = 0 } = ports[0] ?? {};
    const client = await startClient(reaper, { port }).ready;
    const report = await tunwardJson(reaper, ['who', String(port)]);
    expect(report).to.include({ port, host: null, free: false, verdict: 'listening', kill: null });
    expect(report.took_ms).to.be.a('number');
    expect(report.listeners).to.have.length(1);
    const [{ holders, ...socket }] = report.listeners;
    expect(socket).to.include({ protocol: 'tcp', address: '127.0.0.1', port });
    expect(holders).to.have.length(1);
    expect(holders[0]).to.include({ pid, start_ticks: startTicks });
    expect(holders[0]).to.have.all.keys('pid', 'start_ticks', 'command', 'user', 'age_s');
    expect(report.clients.map((one: { pid: number }) => one.pid)).to.deep.equal([client.pid]);
  });

  it('ends with 0 also for a port that nobody holds', async () => {
    const port = await freeLocalPort();
    expect(await tunwardJson(reaper, ['who', String(port)])).to.include({ port, free: true, verdict: 'free' });
  });

  it('draws the holder, what is below it, and who is connected', async () => {
    const { pid, ports, children } = await startListener(reaper, { children: [{}] }).ready;
    const { port = 0 } = ports[0] ?? {};
    const client = await startClient(reaper, { port }).ready;
    const { code, stdout } = await tunward(reaper, ['who', `127.0.0.1:${port}`]);
    expect(code).to.equal(0);
    const lines = stdout.split('\n');
    expect(lines[0]).to.contain(`Port ${port} is held by pid ${pid}`);
    expect(stdout).to.contain(`listening on 127.0.0.1:${port}`);
    expect(stdout).to.match(new RegExp(`node ${pid} +holds it +\\w+ +\\d+s +\\S*node `));
    expect(lines.some((line) => line.includes(`└─ node ${children[0]?.pid}`))).to.equal(true);
    const connected = lines.indexOf('connected, and never touched for that');
    expect(connected).to.be.greaterThan(0);
    expect(lines.slice(connected).some((line) => line.includes(`node ${client.pid}  ESTABLISHED`))).to.equal(true);
    expect(lines.slice(0, connected).some((line) => line.includes(`node ${client.pid} `))).to.equal(false);
  });

  it('draws what is above the holder, and says who may start it again', async function () {
    need(this, 'perl');
    const port = await freeLocalPort();
    const loop = await startShellLoop(reaper, { port, pauseMs: 0 });
    const { stdout } = await tunward(reaper, ['who', String(port)]);
    const lines = stdout.split('\n');
    const at = lines.findIndex((line) => line.includes(` sh ${loop.pid} `));
    expect(lines[at - 1]).to.match(new RegExp(`node ${process.pid} `));
    expect(lines[at]).to.match(/└─ sh \d+ +may start it again +/);
    expect(lines[at + 1]).to.match(/ {2}└─ perl \d+ +holds it +/);
    const { chain } = await tunwardJson(reaper, ['who', String(port)]);
    const roles = chain.map((one: { role: string; starts_again: string | null }) => [one.role, one.starts_again]);
    expect(roles.slice(-2)).to.deep.equal([
      ['above', 'maybe'],
      ['holds', null],
    ]);
    expect(chain.at(-1)).to.deep.include({ holds: [`127.0.0.1:${port}`], tunnel: null, ppid: loop.pid });
  });

  it('says who holds which address where they differ, and only there', async () => {
    const one = await startListener(reaper, { host: '127.0.0.1' }).ready;
    const port = one.ports[0]?.port ?? 0;
    const alone = await tunward(reaper, ['who', String(port)]);
    expect(alone.stdout).to.match(new RegExp(`node ${one.pid} +holds it +`));
    const other = await startListener(reaper, { host: '127.0.0.2', port }).ready;
    const { stdout } = await tunward(reaper, ['who', String(port)]);
    expect(stdout).to.match(new RegExp(`node ${one.pid} +holds 127\\.0\\.0\\.1:${port} +`));
    expect(stdout).to.match(new RegExp(`node ${other.pid} +holds 127\\.0\\.0\\.2:${port} +`));
  });

  it('says of a tunnel of tunward which it is, and whether its daemon runs', async () => {
    const env = { TUNNEL_ID: '0123456789abcdef', TUNWARD_INSTANCE: 'f'.repeat(32) };
    const { ports } = await startListener(reaper, { env }).ready;
    const port = String(ports[0]?.port);
    const tunnel = { id: env.TUNNEL_ID, instance: env.TUNWARD_INSTANCE, daemon_runs: false };
    expect((await tunwardJson(reaper, ['who', port])).chain.at(-1)).to.deep.include({ role: 'holds', tunnel });
    const { stdout } = await tunward(reaper, ['who', port]);
    expect(stdout).to.include('tunnel 01234567 of a tunward daemon that is gone');
    const lock = await takeLock(env.TUNWARD_INSTANCE);
    const running = await tunward(reaper, ['who', port]);
    const plan = await tunward(reaper, ['free', port, '--dry-run']);
    lock.release();
    for (const { stdout } of [running, plan]) expect(stdout).to.include('tunward stop 01234567 ends it for good');
  });

  it('says of a socket in no process whose it is, and why it cannot be seen', async function () {
    need(this, 'python3');
    const { port } = await startInFlight(reaper);
    const { code, stdout } = await tunward(reaper, ['who', String(port)]);
    expect(code).to.equal(0);
    expect(stdout.split('\n')[0]).to.match(/is held by a socket of \w+ that no process has open: .*message to pid/);
    expect(stdout).to.match(/a socket of \w+ \(uid \d+, inode \d+\), in no process that can be seen here/);
  });

  it('takes an IPv6 address in brackets', async () => {
    const port = await freeLocalPort();
    expect(await tunwardJson(reaper, ['who', `[::1]:${port}`])).to.include({ port, host: '::1', free: true });
  });
});

describe('tunward free', () => {
  const reaper = createReaper();
  afterEach(() => reaper.end());

  it('kills the listener with its children, leaves the client alone, and says what it did', async () => {
    const listener = await startListener(reaper, { children: [{}] }).ready;
    const { port = 0 } = listener.ports[0] ?? {};
    const client = await startClient(reaper, { port }).ready;
    const { code, stdout } = await tunward(reaper, ['free', String(port)]);
    expect(code).to.equal(0);
    expect(stdout).to.match(new RegExp(`✔ ${port} is free after [\\d.]+ m?s, proved by binding 127.0.0.1`));
    expect(stdout).to.match(new RegExp(`held by +node ${listener.pid} `));
    expect(stdout).to.match(new RegExp(`killed +node ${listener.pid} +listens on port ${port}`));
    expect(stdout).to.match(new RegExp(`killed +node ${listener.children[0]?.pid} +child of ${listener.pid}`));
    expect(isAlive(listener.pid, listener.startTicks)).to.equal(false);
    expect(isAlive(client.pid, client.startTicks)).to.equal(true);
  });

  it('frees several ports, and reports each as JSON', async () => {
    const one = await startListener(reaper).ready;
    const other = await startListener(reaper).ready;
    const never = await freeLocalPort();
    const [first = 0, second = 0] = [one.ports[0]?.port, other.ports[0]?.port];
    const { ports } = await tunwardJson(reaper, ['free', String(first), `127.0.0.1:${second}`, String(never)]);
    expect(ports.map((report: { port: number }) => report.port)).to.deep.equal([first, second, never]);
    expect(ports.map((report: { free: boolean }) => report.free)).to.deep.equal([true, true, true]);
    const killed = ports.map(
      ({ kill }: { kill: { killed: { pid: number }[] } | null }) => kill?.killed[0]?.pid ?? null,
    );
    expect(killed).to.deep.equal([one.pid, other.pid, null]);
  });

  it('with --dry-run says who would go, kills nobody and ends with 3', async () => {
    const listener = await startListener(reaper).ready;
    const { port = 0 } = listener.ports[0] ?? {};
    const { code, stdout } = await tunward(reaper, ['free', String(port), '--dry-run']);
    expect(code).to.equal(3);
    expect(stdout).to.match(new RegExp(`^○ ${port} would be freed: 1 killed`));
    expect(stdout).to.match(new RegExp(`would kill +node ${listener.pid} `));
    expect(isAlive(listener.pid, listener.startTicks)).to.equal(true);
  });

  it('with --dry-run tells those who go from those who stay, and says why each', async () => {
    const listener = await startListener(reaper, { children: [{}, { setsid: true }] }).ready;
    const { port = 0 } = listener.ports[0] ?? {};
    const client = await startClient(reaper, { port }).ready;
    const [near, away] = listener.children.map(({ pid }) => pid);
    const { stdout } = await tunward(reaper, ['free', String(port), '--dry-run']);
    expect(stdout).to.match(/would be freed: 2 killed, 1 left alone \(a dry run: nobody was touched\)/);
    expect(stdout).to.match(new RegExp(`would kill +node ${near} +child of ${listener.pid}`));
    expect(stdout).to.match(new RegExp(`left alone +node ${away} +below ${listener.pid}, in session ${away}`));
    expect(stdout).to.match(new RegExp(`not touched +node ${client.pid} +connected, ESTABLISHED`));
  });

  it('names what starts the holder again, and kills it with --respawner alone', async function () {
    need(this, 'perl');
    const port = await freeLocalPort();
    const loop = await startShellLoop(reaper, { port, pauseMs: 0 });
    const plan = await tunward(reaper, ['free', String(port), '--dry-run']);
    expect(plan.stdout).to.match(new RegExp(`not killed +sh ${loop.pid} +may start it again \\(--respawner\\)`));
    const named = await tunward(reaper, ['free', String(port)]);
    expect(named.code).to.equal(3);
    expect(named.stdout).to.match(
      new RegExp(`✖ Port ${port} was freed and is held again .*pid ${loop.pid} .*--respawner`),
    );
    expect(named.stdout).to.match(new RegExp(`starts it +sh ${loop.pid} `));
    expect(isAlive(loop.pid)).to.equal(true);
    const freed = await tunward(reaper, ['free', String(port), '--respawner']);
    expect(freed.code, freed.stdout).to.equal(0);
    expect(isAlive(loop.pid)).to.equal(false);
  });

  it('with --dry-run says how a service manager is kept from starting it again, which --respawner spares', async () => {
    const manager = await startTree(reaper, { comm: 'systemd', children: [{ listen: [{ host: '127.0.0.1' }] }] }).ready;
    const port = manager.children[0]?.ports[0]?.port;
    const { stdout } = await tunward(reaper, ['free', String(port), '--dry-run']);
    expect(stdout).to.match(
      new RegExp(`not killed +\\S+ ${manager.pid} +may start it again: stop its unit \\(systemctl --user stop `),
    );
    expect(stdout).not.to.include('--respawner');
  });

  it('spares what has a session of its own, unless --tree is given', async () => {
    const start = () => startListener(reaper, { children: [{ setsid: true }] }).ready;
    const [spared, taken] = [await start(), await start()];
    await tunwardJson(reaper, ['free', String(spared.ports[0]?.port)]);
    await tunwardJson(reaper, ['free', String(taken.ports[0]?.port), '--tree']);
    const below = [spared.children[0], taken.children[0]];
    expect(below.map((child) => isAlive(child?.pid ?? 0, child?.startTicks))).to.deep.equal([true, false]);
  });

  it('ends with 3 when a port is still held: by an ancestor of the command', async () => {
    const server = net.createServer((client) => client.destroy());
    await new Promise<void>((resolve) => server.listen({ port: 0, host: '127.0.0.1' }, resolve));
    const address = server.address();
    const port = address !== null && typeof address === 'object' ? address.port : 0;
    try {
      const { code, stdout, stderr } = await tunward(reaper, ['free', String(port), '--json', '--timeout', '500']);
      expect(code, stderr).to.equal(3);
      const [report] = JSON.parse(stdout).ports;
      expect(report).to.include({ port, free: false, verdict: 'protected' });
      expect(report.kill.survivors[0]).to.include({ pid: process.pid });
    } finally {
      server.close();
    }
  });
});

describe('tunward wait', () => {
  const reaper = createReaper();
  // Node says on stderr when the first pause begins: by then the command has looked, and found that it must wait.
  const tellingTimers = { env: { NODE_DEBUG: 'timer' } };
  afterEach(() => reaper.end());

  it('ends as soon as somebody listens', async () => {
    const port = await freeLocalPort();
    const args = ['wait', String(port), '--listening', '--timeout', '15000', '--json'];
    const waiting = startTunward(reaper, args, tellingTimers);
    await said(waiting, 'stderr', 'TIMER');
    await startListener(reaper, { port }).ready;
    const { code, stdout } = await waiting.ended;
    expect(code).to.equal(0);
    const answer = JSON.parse(stdout);
    expect(answer).to.include({ port, state: 'listening' });
    expect(answer).to.have.all.keys('port', 'state', 'took_ms');
  });

  it('ends as soon as the port is free', async () => {
    const listener = startListener(reaper);
    const { port = 0 } = (await listener.ready).ports[0] ?? {};
    const waiting = startTunward(reaper, ['wait', String(port), '--free', '--timeout', '15000'], tellingTimers);
    await said(waiting, 'stderr', 'TIMER');
    await listener.kill();
    const { code, stdout } = await waiting.ended;
    expect(code).to.equal(0);
    expect(stdout).to.contain(`Port ${port} is free after`);
  });

  it('ends with 124 when the time is over, and says so as JSON too', async () => {
    const port = await freeLocalPort();
    const { code, stdout, stderr } = await tunward(reaper, [
      'wait',
      String(port),
      '--listening',
      '--timeout',
      '50',
      '--json',
    ]);
    expect(code).to.equal(124);
    expect(JSON.parse(stdout).error).to.include({ code: 'ERR_TIMEOUT', timeout_ms: 50 });
    expect(stderr).to.contain(`Port ${port} is not listening after 50 ms`);
  });

  it('answers Ctrl-C at once, with 130', async () => {
    const port = await freeLocalPort();
    const waiting = startTunward(reaper, ['wait', String(port), '--listening', '--timeout', '15000'], tellingTimers);
    await said(waiting, 'stderr', 'TIMER');
    waiting.child.kill('SIGINT');
    const { code, stdout, stderr } = await waiting.ended;
    expect(code).to.equal(130);
    expect(stdout).to.equal('');
    expect(stderr).to.not.contain('error');
  });
});
