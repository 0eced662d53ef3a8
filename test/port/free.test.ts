import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { expect } from 'chai';
import { takeLock } from '#lib/daemon/instance.js';
import { type FreePortOptions, freePort } from '#lib/port/free.js';
import type { PortReport } from '#lib/port/inspect.js';
import { findListeners } from '#lib/port/listeners.js';
import { isPortFree } from '#lib/port/wait.js';
import { openProc, type Proc } from '#lib/proc/read.js';
import { readUserName } from '#lib/proc/stat.js';
import { systemClock, until } from '#lib/time.js';
import { guardBystanders } from '../support/bystanders.js';
import { need } from '../support/need.js';
import { which } from '../support/paths.js';
import { freeLocalPort } from '../support/port.js';
import { descendantsOf, isAlive, sendSignal, statOf } from '../support/proc.js';
import { type Actor, type Shape, startClient, startListener, startRespawner, startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { startLeaderless, startPerlSocket, startScript } from '../support/sockets.js';
import { type Sshd, startSshd } from '../support/sshd.js';
import { asNobody } from '../support/stranger.js';

const reaper = createReaper();

describe('freePort()', () => {
  const crowd = guardBystanders(reaper);

  it('says of a free port that it is, and kills nobody', async () => {
    const port = await freeLocalPort();
    expect(await freePort(port)).to.deep.include({ port, host: null, free: true, verdict: 'free', kill: null });
  });

  it('kills the listener, proves the port free and leaves every client alone', async () => {
    const { pid, ports } = await startListener(reaper, { children: [{}] }).ready;
    const port = ports[0]?.port ?? 0;
    const clients = await Promise.all(
      ['ssh', 'autossh', 'node'].map((comm) => startClient(reaper, { port, comm }).ready),
    );
    const report = await freePort(port);
    expect(report).to.include({ free: true, verdict: 'free' });
    expect(report.explanation).to.match(
      new RegExp(`^Port ${port} is free: killed pids .*\\b${pid}\\b.*, then bound it$`),
    );
    expect(killed(report)).to.have.length(2);
    expect(report.kill?.killed[0]).to.include({ pid, why: `listens on port ${port}` });
    expect(report.kill?.survivors).to.deep.equal([]);
    expect(await isPortFree(port)).to.equal(true);
    for (const client of clients) expectUnharmed(client);
  });

  it('leaves a holder of another user than the one it is told, whoever had the port when that was asked', async () => {
    const { pid, ports } = await startListener(reaper).ready;
    const port = ports[0]?.port ?? 0;
    const report = await freePort(port, { user: 'somebody else', timeoutMs: 500 });
    const own = readUserName(process.geteuid?.() ?? 0);
    expect(report).to.include({ port, free: false, verdict: 'listening' });
    expect(report.kill?.killed).to.deep.equal([]);
    expect(report.kill?.left[0]).to.include({ pid, why: `spared, since it is ${own}'s` });
    expect(await freePort(port, { user: own })).to.include({ free: true, verdict: 'free' });
  });

  it('lists every row that was in the way with its holder, of both families', async function () {
    need(this, 'ipv6');
    const port = await freeLocalPort();
    const { pid } = await listenAt(port, '127.0.0.1', '::1');
    const report = await freePort(port);
    expect(report.free).to.equal(true);
    expect(report.listeners.map(({ address }) => address)).to.deep.equal(['127.0.0.1', '::1']);
    for (const listener of report.listeners) {
      expect(listener.holders.map((holder) => holder.pid)).to.deep.equal([pid]);
      expect(listener).not.to.have.property('hidden');
    }
  });

  for (const host of ['0.0.0.0', '::']) {
    it(`frees a listener on ${host} and reports it, though the address contains others that are proved too`, async function () {
      if (host === '::') need(this, 'ipv6');
      const { pid, ports } = await startListener(reaper, { host }).ready;
      const port = ports[0]?.port ?? 0;
      const report = await freePort(port);
      expect(report).to.include({ free: true, explanation: `Port ${port} is free: killed pid ${pid}, then bound it` });
      expect(report.listeners.map(({ address }) => address)).to.deep.equal([host]);
    });
  }

  it('kills everyone who has inherited the socket', async function () {
    need(this, 'perl');
    const port = await freeLocalPort();
    const parent = await startPerlSocket(reaper, { port, script: 'listen($s, 5); fork; fork; setpgrp(0, 0)' });
    const all = await familyOf(parent.pid, 4);
    const report = await freePort(port);
    expect(report.free).to.equal(true);
    expect(killed(report)).to.have.members(all);
    expect(report.listeners).to.have.length(1);
  });

  it('kills both who share a port by SO_REUSEPORT', async function () {
    need(this, 'perl');
    const port = await freeLocalPort();
    const options = ['SO_REUSEPORT'] as const;
    const one = await startPerlSocket(reaper, { port, options, script: 'listen($s, 5)' });
    const other = await startPerlSocket(reaper, { port, options, script: 'listen($s, 5)' });
    const report = await freePort(port);
    expect(report.free).to.equal(true);
    expect(killed(report)).to.have.members([one.pid, other.pid]);
    expect(report.listeners).to.have.length(2);
  });

  it('frees a port that is held by one whose first thread has ended, and by one who is stopped', async function () {
    need(this, 'python3');
    const port = await freeLocalPort();
    const threads = await startLeaderless(reaper, port);
    expect(killed(await freePort(port))).to.deep.equal([threads.pid]);
    const stopped = await listenAt(port, '127.0.0.1');
    sendSignal(stopped, 'SIGSTOP');
    expect(killed(await freePort(port))).to.deep.equal([stopped.pid]);
  });

  for (const [name, program] of [
    ['a thread has in descriptors of its own', threaded],
    ['is registered with a ring of io_uring', registered],
  ] as const) {
    it(`frees a port that ${name}, which no folder of descriptors shows`, async function () {
      need(this, 'python3');
      const port = await freeLocalPort();
      const { pid, firstLine } = await startScript(reaper, 'python3', ['-c', program(port)]);
      if (firstLine !== 'ready') {
        process.stderr.write(`\n*** SKIPPED *** ${name}: ${firstLine}\n`);
        return this.skip();
      }
      const [listener] = await findListeners(port);
      expect(listener?.holders.map((holder) => holder.pid)).to.deep.equal([pid]);
      const report = await freePort(port);
      expect(report).to.include({ free: true, verdict: 'free' });
      expect(killed(report)).to.deep.equal([pid]);
      expect(report.listeners[0]?.holders[0]?.pid).to.equal(pid);
    });
  }

  it('resolves only when a big process has given its port back', async () => {
    const { ports } = await startListener(reaper, { memoryMb: 300 }).ready;
    const port = ports[0]?.port ?? 0;
    expect((await freePort(port)).free).to.equal(true);
    await new Promise<void>((resolve, reject) => {
      const server = net.createServer().once('error', reject);
      server.listen({ port, host: '127.0.0.1' }, () => server.close(() => resolve()));
    });
  });

  describe('with a host', () => {
    before(function () {
      need(this, 'ipv6');
    });

    it('spares a listener on another address', async () => {
      const port = await freeLocalPort();
      const near = await listenAt(port, '127.0.0.1');
      const far = await listenAt(port, '127.0.0.2');
      const report = await freePort(port, { host: '127.0.0.1' });
      expect(report).to.include({ free: true, host: '127.0.0.1' });
      expect(killed(report)).to.deep.equal([near.pid]);
      expectUnharmed(far);
      expect(killed(await freePort(port))).to.deep.equal([far.pid]);
    });

    it('spares the listener of the other family', async () => {
      const port = await freeLocalPort();
      const six = await startTree(reaper, { listen: [{ port, host: '::', ipv6Only: true }] }).ready;
      const four = await listenAt(port, '0.0.0.0');
      expect(killed(await freePort(port, { host: '127.0.0.1' }))).to.deep.equal([four.pid]);
      expectUnharmed(six);
      const again = await listenAt(port, '0.0.0.0');
      expect(killed(await freePort(port, { host: '::1' }))).to.deep.equal([six.pid]);
      expectUnharmed(again);
    });

    for (const [holder, host] of [
      ['::', '127.0.0.1'],
      ['::ffff:127.0.0.1', '127.0.0.1'],
      ['::ffff:127.0.0.1', '::ffff:7f00:1'],
      ['127.0.0.1', '*'],
      ['::1', '0:0:0:0:0:0:0:1'],
      ['::1', 'localhost'],
      ['::ffff:127.0.0.2', undefined],
    ] as const) {
      it(`frees ${host ?? 'every address'} of a listener on ${holder}`, async () => {
        const port = await freeLocalPort();
        const { pid } = await listenAt(port, holder);
        const report = await freePort(port, { host });
        expect(report).to.include({ free: true, verdict: 'free' });
        expect(killed(report)).to.deep.equal([pid]);
      });
    }

    it('does not take an IPv6-only listener for the cause of a hidden bind', async function () {
      need(this, 'perl');
      const port = await freeLocalPort();
      const six = await startTree(reaper, { listen: [{ port, host: '::', ipv6Only: true }] }).ready;
      const hidden = await startPerlSocket(reaper, { port });
      const report = await freePort(port, { host: '127.0.0.1' });
      expect(report).to.include({ free: false, verdict: 'hidden_bind', kill: null });
      expectUnharmed(six);
      expect(isAlive(hidden.pid)).to.equal(true);
    });

    for (const host of ['example.com', 'localhost.', '']) {
      it(`refuses the name '${host}', and nobody is touched`, async () => {
        const { ports, ...listener } = await startListener(reaper).ready;
        const error = await freePort(ports[0]?.port ?? 0, { host }).catch((thrown: unknown) => thrown);
        expect(error).to.be.an.instanceOf(TypeError);
        expectUnharmed(listener);
      });
    }
  });

  describe('when nobody is to be killed', () => {
    it('says client_holds of a client on the port, and spares it', async () => {
      const { ports } = await startListener(reaper).ready;
      const client = net.connect({ port: ports[0]?.port ?? 0, host: '127.0.0.1' });
      await new Promise<void>((resolve) => client.once('connect', () => resolve()));
      const report = await freePort(client.localPort ?? 0, { host: '127.0.0.1', timeoutMs: 500 });
      expect(report).to.include({ free: false, verdict: 'client_holds', kill: null });
      client.destroy();
    });

    it('says no_address of an address that is not here', async () => {
      expect(await freePort(9443, { host: '203.0.113.7' })).to.include({
        free: false,
        verdict: 'no_address',
        kill: null,
      });
    });

    it('says protected of its own listener, and kills nobody who has the port beside it', async function () {
      need(this, 'ipv6');
      const server = net.createServer();
      await new Promise<void>((resolve) => server.listen({ port: 0, host: '127.0.0.1' }, resolve));
      const { port } = server.address() as net.AddressInfo;
      const beside = await listenAt(port, '::1');
      const report = await freePort(port, { timeoutMs: 2000 });
      expect(report).to.include({ free: false, verdict: 'protected' });
      expect(killed(report)).to.deep.equal([]);
      expect(report.kill?.survivors[0]).to.include({ pid: process.pid, why: 'protected: this very process' });
      expect(report.explanation).to.include(`Cannot free port ${port}: pid ${process.pid}`);
      expectUnharmed(beside);
      server.close();
    });

    it('says of a tunward daemon that it listens for a tunnel, and kills nobody who has the port beside it', async function () {
      need(this, 'ipv6');
      const lock = await takeLock('this process is one');
      const server = net.createServer();
      await new Promise<void>((resolve) => server.listen({ port: 0, host: '127.0.0.1' }, resolve));
      const { port } = server.address() as net.AddressInfo;
      const beside = await listenAt(port, '::1');
      for (const dryRun of [true, false]) {
        const report = await freePort(port, { dryRun, timeoutMs: 2000 });
        expect(report).to.include({ free: false, verdict: 'protected' });
        expect(report.kill).to.deep.include({ killed: [], survivors: [] });
        expect(report.kill?.left.map(({ pid }) => pid)).to.have.members([process.pid, beside.pid]);
        expect(report.explanation).to.match(/a tunward daemon that listens for its tunnel: 'tunward stop NAME'/);
      }
      expectUnharmed(beside);
      server.close();
      lock.release();
    });

    it('says in a dry run who would be killed, and touches nobody', async () => {
      const shape = await startListener(reaper, { children: [{}, { setsid: true }] }).ready;
      const [near, away] = shape.children;
      const report = await freePort(shape.ports[0]?.port ?? 0, { dryRun: true });
      expect(report).to.include({ free: false, verdict: 'listening' });
      expect(killed(report)).to.have.members([shape.pid, near?.pid]);
      expect(report.kill?.left.map(({ pid }) => pid)).to.deep.equal([away?.pid]);
      expect(report.listeners[0]?.holders[0]?.pid).to.equal(shape.pid);
      for (const one of [shape, ...shape.children]) expectUnharmed(one);
    });
  });

  describe('below the holder', () => {
    const actor: Actor = { listen: [{ host: '127.0.0.1' }], children: [{}, { setsid: true }] };

    it('leaves what is in another session, and lists it', async () => {
      const shape = await startTree(reaper, actor).ready;
      const [near, away] = shape.children;
      const report = await freePort(shape.ports[0]?.port ?? 0);
      expect(report.free).to.equal(true);
      expect(killed(report)).to.have.members([shape.pid, near?.pid]);
      expect(report.kill?.left.map(({ pid }) => pid)).to.deep.equal([away?.pid]);
      expectUnharmed(away ?? shape);
    });

    it('kills all with tree: true', async () => {
      const shape = await startTree(reaper, actor).ready;
      const report = await freePort(shape.ports[0]?.port ?? 0, { tree: true });
      expect(killed(report)).to.have.members([shape.pid, ...shape.children.map(({ pid }) => pid)]);
      expect(report.kill?.left).to.deep.equal([]);
    });

    it('kills all below an ssh', async () => {
      const shape = await startTree(reaper, { ...actor, comm: 'ssh' }).ready;
      const report = await freePort(shape.ports[0]?.port ?? 0);
      expect(killed(report)).to.have.members([shape.pid, ...shape.children.map(({ pid }) => pid)]);
    });
  });

  describe('above the holder', () => {
    const env = { TUNNEL_ID: 'free.test', TUNWARD_INSTANCE: 'free.test' };

    it('kills a parent of the same tunnel, which would start it again', async () => {
      const port = await freeLocalPort();
      const child = { setsid: true, listen: [{ port, host: '127.0.0.1' }] };
      const respawner = startRespawner(reaper, { count: 1, child, env });
      const shape = await respawner.ready;
      const report = await freePort(port);
      expect(report.free).to.equal(true);
      expect(killed(report)).to.include(shape.pid);
      expect(reaper.living().filter(({ pid }) => killed(report).includes(pid))).to.deep.equal([]);
      expect(respawner.respawned).to.deep.equal([]);
    });

    it('kills the holder also when that parent ends in the moment in which it was to be killed', async () => {
      const port = await freeLocalPort();
      const listen = [{ port, host: '127.0.0.1' }];
      const { pid, children } = await startTree(reaper, {
        comm: 'autossh',
        children: [{ comm: 'ssh', setsid: true, listen }],
      }).ready;
      const real = openProc();
      const pin: Proc['pin'] = (which) => {
        if (which === pid) endAtOnce(pid);
        return real.pin(which);
      };
      const report = await freePort(port, { proc: { ...real, pin } });
      expect(report).to.include({ free: true, verdict: 'free' });
      expect(killed(report)).to.deep.equal([children[0]?.pid]);
    });

    it('spares a parent that is another’s', async () => {
      const port = await freeLocalPort();
      const listen = [{ port, host: '127.0.0.1' }];
      const parent = await startTree(reaper, { children: [{ listen, env }] }).ready;
      expect(killed(await freePort(port))).to.deep.equal([parent.children[0]?.pid]);
      expectUnharmed(parent);
    });
  });

  describe('with a bound', () => {
    it('keeps it, and says who is not dead yet', async () => {
      const { pid, ports } = await startListener(reaper, { memoryMb: 500 }).ready;
      const port = ports[0]?.port ?? 0;
      const report = await freePort(port, { timeoutMs: 1 });
      expect(report.tookMs).to.be.below(1000);
      expect(report.free).to.equal(false);
      expect(report.verdict).to.be.oneOf(['listening', 'stuck']);
      expect(report.explanation).to.include(`pid ${pid}`);
    });

    it('touches nobody when there is no time at all', async () => {
      const { ports, ...listener } = await startListener(reaper).ready;
      const report = await freePort(ports[0]?.port ?? 0, { timeoutMs: 0 });
      expect(report).to.include({ free: false, verdict: 'listening', kill: null });
      expectUnharmed(listener);
    });

    it('rejects with the reason of an abort before it began, and nobody is touched', async () => {
      const { ports, ...listener } = await startListener(reaper).ready;
      const reason = new Error('enough');
      const aborted = freePort(ports[0]?.port ?? 0, { signal: AbortSignal.abort(reason) });
      expect(await aborted.catch((error: unknown) => error)).to.equal(reason);
      expectUnharmed(listener);
    });

    it('rejects with the reason of an abort in the middle, and nobody stays stopped', async () => {
      const { ports, ...listener } = await startListener(reaper).ready;
      const reason = new Error('enough');
      const control = new AbortController();
      const sleep = (ms: number, signal?: AbortSignal) => {
        control.abort(reason);
        return systemClock.sleep(ms, signal);
      };
      const options = { signal: control.signal, clock: { ...systemClock, sleep } };
      const outcome = freePort(ports[0]?.port ?? 0, options);
      expect(await outcome.catch((error: unknown) => error)).to.equal(reason);
      expect(await until(() => 'SR'.includes(statOf(listener.pid)?.state ?? 'gone'), { timeoutMs: 5000 })).to.equal(
        true,
      );
    });

    for (const [port, options] of [
      [0, {}],
      ['80', {}],
      [80, { timeoutMs: Number.NaN }],
      [80, { timeoutMs: -1 }],
    ] as readonly [number, FreePortOptions][]) {
      it(`throws for ${JSON.stringify(port)} and ${String(options.timeoutMs)} ms`, async () => {
        const error = await freePort(port, options).catch((thrown: unknown) => thrown);
        expect(error instanceof TypeError || error instanceof RangeError, String(error)).to.equal(true);
      });
    }
  });

  it('is over in time under a client that connects again and again', async () => {
    const { ports } = await startListener(reaper).ready;
    const port = ports[0]?.port ?? 0;
    let stop = false;
    const connected = new Set<net.Socket>();
    const reconnect = (): void => {
      if (stop) return;
      const socket = net.connect({ port, host: '127.0.0.1' });
      connected.add(socket);
      socket.on('connect', () => socket.destroy()).on('error', () => socket.destroy());
      socket.on('close', () => connected.delete(socket) && setImmediate(reconnect));
    };
    for (let at = 0; at < 5; at++) reconnect();
    try {
      const report = await freePort(port);
      expect(report).to.include({ free: true, verdict: 'free' });
      expect(report.tookMs).to.be.below(3000);
    } finally {
      stop = true;
      for (const socket of connected) socket.destroy();
    }
  });

  it('does not see a listener of another network namespace', async function () {
    need(this, 'root', 'unshare');
    const port = await freeLocalPort();
    const server = `require('net').createServer().listen(${port}, '0.0.0.0', () => console.log('ready'))`;
    const { pid } = await startScript(reaper, which('unshare') ?? '', ['-n', process.execPath, '-e', server]);
    expect(await freePort(port)).to.include({ free: true, kill: null });
    expect(isAlive(pid)).to.equal(true);
  });

  describe('of a tunnel', () => {
    let sshd: Sshd;
    before(async function () {
      need(this, 'sshd', 'ssh', 'autossh', 'ipv6');
      sshd = await startSshd();
    });
    after(async () => {
      await sshd?.stop();
    });

    it('kills autossh and ssh as one chain, and the port stays free', async () => {
      const port = await freeLocalPort();
      for (let round = 0; round < 5; round++) {
        const autossh = await startAutossh(sshd, port);
        const report = await freePort(port);
        expect(report.free).to.equal(true);
        expect(report.listeners.map(({ address }) => address)).to.deep.equal(['127.0.0.1', '::1']);
        const [ssh] = report.listeners.map(({ holders }) => holders[0]?.pid);
        expect(report.listeners.flatMap(({ holders }) => holders.map(({ pid }) => pid))).to.deep.equal([ssh, ssh]);
        expect(killed(report)).to.deep.equal([autossh, ssh]);
        expect(report.kill?.killed[0]?.why).to.equal(`starts ${ssh} again, which listens on port ${port}`);
      }
      // A successor would be there within 0.4 s.
      const back = () => findListeners(port).then((rows) => rows.length > 0);
      expect(await until(back, { timeoutMs: 1000, everyMs: 50 })).to.equal(undefined);
      expect(reaper.living()).to.deep.equal([]);
    });
  });

  describe('as an ordinary user', () => {
    let seen: Record<string, PortReport>;
    let pid: number;
    const floor = Number(readFileSync('/proc/sys/net/ipv4/ip_unprivileged_port_start', 'utf8'));
    before(async function () {
      need(this, 'root');
      const low = await freeLowPorts(2);
      const listener = await startListener(crowd, { listen: [{ port: low[0] ?? 0, host: '127.0.0.1' }] }).ready;
      pid = listener.pid;
      const args = [listener.ports[0]?.port, ...low].map(String);
      seen = (await asNobody('test/port/stranger.js', args)) as Record<string, PortReport>;
    });

    it('says whose the listener is, and that it cannot be freed', () => {
      for (const report of [seen.who, seen.free]) {
        expect(report).to.include({ free: false, verdict: 'other_user' });
        expect(report?.listeners[0]).to.include({ uid: 0 });
        expect(report?.listeners[0]).to.include({ hiddenReason: 'other_user' });
        expect(report?.listeners[0]?.hidden).to.include('which only root may look into');
        expect(report?.explanation).to.include('held by a process of root');
      }
      expect(isAlive(pid)).to.equal(true);
    });

    it('names the listener of a port that it may not bind anyway', () => {
      for (const report of [seen.heldLow, seen.freeHeldLow]) {
        expect(report).to.include({ free: false, verdict: 'other_user' });
        expect(report?.listeners).to.have.length(1);
      }
      expect(seen.isHeldFree).to.equal(false);
    });

    it('says forbidden of a low port that nobody holds', function () {
      if (floor <= 1023) return this.skip(); // anybody may bind any port here
      expect(seen.freeLow).to.include({ free: false, verdict: 'forbidden' });
      expect(seen.isLowFree).to.equal('ERR_ACCESS_DENIED');
    });
  });
});

function killed(report: PortReport): number[] {
  return report.kill?.killed.map(({ pid }) => pid) ?? [];
}

/** A process and its descendants, when there are so many. */
async function familyOf(pid: number, count: number): Promise<number[]> {
  const family = () => [pid, ...descendantsOf(pid).map((child) => child.pid)];
  await until(() => family().length === count, { timeoutMs: 5000 });
  return family();
}

function listenAt(port: number, ...hosts: string[]): Promise<Shape> {
  return startTree(reaper, { listen: hosts.map((host) => ({ port, host })) }).ready;
}

function expectUnharmed({ pid, startTicks }: { readonly pid: number; readonly startTicks: number }): void {
  expect(isAlive(pid, startTicks), `${pid} lives`).to.equal(true);
  expect(statOf(pid)?.state).to.be.oneOf(['S', 'R', 'D']);
}

/** Resolves to the pid of an autossh whose ssh listens on 127.0.0.1 and ::1. */
async function startAutossh(sshd: Sshd, port: number): Promise<number> {
  const wrapped = '/usr/lib/autossh/autossh'; // on Debian a script is called autossh
  const forwards = ['127.0.0.1', '[::1]'].flatMap((host) => ['-L', `${host}:${port}:127.0.0.1:1`]);
  const ssh = ['-F', sshd.sshConfigFile, '-S', 'none', '-o', 'ExitOnForwardFailure=yes', '-N', ...forwards, sshd.host];
  const child = spawn(which('autossh') === '/usr/bin/autossh' ? wrapped : 'autossh', ['-M', '0', ...ssh], {
    env: { ...process.env, ...reaper.env, AUTOSSH_GATETIME: '0' },
    detached: true,
    stdio: 'ignore',
  });
  reaper.own(child);
  const up = () => findListeners(port).then((rows) => rows.length === 2);
  if (!(await until(up, { timeoutMs: 10_000, everyMs: 20 }))) throw new Error(`no tunnel: ${sshd.log()}`);
  return child.pid ?? 0;
}

async function freeLowPorts(count: number): Promise<number[]> {
  const found: number[] = [];
  for (let port = 1000; found.length < count && port > 900; port--) {
    if (await isPortFree(port, { host: '*' })) found.push(port);
  }
  return found;
}

/** A thread unshares its descriptors (CLONE_FILES), listens, and nobody else in the process has the socket. */
function threaded(port: number): string {
  return `
import ctypes, socket, threading, time
def listen():
    if ctypes.CDLL(None).unshare(0x400) != 0: raise OSError("unshare")
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("127.0.0.1", ${port})); s.listen(5)
    print("ready", flush=True); time.sleep(170)
threading.Thread(target=listen).start()
time.sleep(170)`;
}

/** IORING_REGISTER_FILES of io_uring_register(2): the ring has the socket, and its descriptor is closed. */
function registered(port: number): string {
  return `
import ctypes, socket, time
libc = ctypes.CDLL(None, use_errno=True)
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("127.0.0.1", ${port})); s.listen(5)
ring = libc.syscall(425, 4, ctypes.create_string_buffer(120))
if ring < 0 or libc.syscall(427, ring, 2, (ctypes.c_int * 1)(s.fileno()), 1) != 0:
    print("this kernel lets nobody use io_uring (errno %d)" % ctypes.get_errno(), flush=True)
else:
    s.close(); print("ready", flush=True)
time.sleep(170)`;
}

/** Resolves nothing and awaits nothing: when it returns, the process is over. */
function endAtOnce(pid: number): void {
  sendSignal({ pid, startTicks: statOf(pid)?.startTicks ?? 0 }, 'SIGKILL');
  const deadline = performance.now() + 5000;
  // With its threads: a leader that ended before them is not over.
  while (isAlive(pid)) if (performance.now() > deadline) throw new Error(`${pid} does not end`);
}
