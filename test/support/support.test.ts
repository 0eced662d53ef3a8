import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { inNamespace, type NamespaceResult } from './namespace.js';
import { need } from './need.js';
import { buildRoot, repoRoot, which } from './paths.js';
import { freeLocalPort } from './port.js';
import { descendantsOf, isAlive, sendSignal, statOf } from './proc.js';
import {
  startClient,
  startComet,
  startDaemonized,
  startListener,
  startRespawner,
  startStubborn,
  startTree,
} from './processes.js';
import { createReaper } from './reaper.js';
import { makeRootfs, runInRootfs } from './rootfs.js';
import { startSshd } from './sshd.js';

const run = promisify(execFile);

describe('test support', () => {
  describe('processes', () => {
    const reaper = createReaper();
    afterEach(() => reaper.end());

    it('reads a comm that looks like the fields behind it', async () => {
      const { pid, startTicks, ready } = startTree(reaper, { comm: 'x) S 1 (y' });
      await ready;
      expect(statOf(pid)).to.include({ comm: 'x) S 1 (y', ppid: process.pid, startTicks });
      expect(isAlive(pid, startTicks)).to.equal(true);
      expect(isAlive(pid, startTicks + 1)).to.equal(false);
    });

    it('counts a zombie as dead', async () => {
      // A parent that is stopped reaps nobody.
      const { pid, ready } = startTree(reaper, { children: [{}] });
      const zombie = (await ready).children[0];
      if (!zombie) throw new Error('no child');
      sendSignal({ pid, startTicks: statOf(pid)?.startTicks ?? 0 }, 'SIGSTOP');
      sendSignal(zombie, 'SIGKILL');
      // Not at once: while its other threads are still being taken down it is a zombie that lives.
      expect(await until(() => !isAlive(zombie.pid), { timeoutMs: 5000 })).to.equal(true);
      expect(statOf(zombie.pid)).to.include({ state: 'Z', threads: 1 });
    });

    it('starts a listener that a client holds a connection to', async () => {
      const port = await freeLocalPort();
      const listener = startListener(reaper, { port });
      expect((await listener.ready).ports).to.deep.equal([{ port, host: '127.0.0.1' }]);
      const client = startClient(reaper, { port });
      await client.ready;
      await listener.kill();
      expect(isAlive(listener.pid)).to.equal(false);
      expect(isAlive(client.pid, client.startTicks)).to.equal(true);
      expect(await accepts(port)).to.equal(false);
    });

    it('starts a process that no polite signal ends', async () => {
      const stubborn = startStubborn(reaper, { listen: [{ host: '127.0.0.1' }] });
      const { pid, ports } = await stubborn.ready;
      for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT'] as const) stubborn.child.kill(signal);
      // It says its pid to a client that came after the signals: it has survived them.
      expect(await firstWords(ports[0]?.port ?? 0)).to.equal(`${pid}\n`);
    });

    it('starts a daemon that pid 1 has adopted', async () => {
      const daemon = await startDaemonized(reaper, { listen: [{ host: '127.0.0.1' }] }).ready;
      const stat = statOf(daemon.pid);
      expect(descendantsOf(process.pid).map(({ pid }) => pid)).not.to.include(daemon.pid);
      expect(stat?.sid).not.to.equal(statOf(process.pid)?.sid);
      expect(reaper.living().map(({ pid }) => pid)).to.include(daemon.pid);
    });

    it('ends a respawner whose children are in sessions of their own', async () => {
      const respawner = startRespawner(reaper, { count: 3, child: { setsid: true } });
      const { children } = await respawner.ready;
      const [victim] = children;
      if (!victim) throw new Error('no child');
      sendSignal(victim, 'SIGKILL');
      expect(await until(() => respawner.respawned.length, { timeoutMs: 5000 })).to.equal(1);

      const left = await reaper.end();
      expect(left.map(({ pid }) => pid)).to.include.members([respawner.pid, respawner.respawned[0]?.pid]);
      expect(left).to.have.length(4);
      expect(reaper.living()).to.deep.equal([]);
      expect(await reaper.end()).to.deep.equal([]);
    });

    describe('startComet()', () => {
      before(function () {
        need(this, 'perl');
      });

      for (const exec of [false, true]) {
        it(`starts one that ${exec ? 'executes itself anew' : 'forks'} every few milliseconds, and ends it`, async () => {
          const comet = startComet(reaper, { exec, generations: 2000 });
          const { pid } = await comet.ready;
          expect(await until(() => !isAlive(pid), { timeoutMs: 5000 })).to.equal(true);
          expect(await until(() => reaper.living().length, { timeoutMs: 1000 })).to.be.greaterThan(0);
          await reaper.end();
          expect(reaper.living()).to.deep.equal([]);
        });
      }
    });
  });

  describe('the hook and the reporter', () => {
    it('fail a run that leaves processes behind, name them, end them, and say so in one line', async () => {
      const dir = mkdtempSync(join(tmpdir(), 'tunward-test-'));
      const summary = join(dir, 'summary');
      const support = join(buildRoot, 'test/support');
      const plugins = ['--require', join(support, 'hooks.js'), '--reporter', join(support, 'reporter.js')];
      const mocha = [join(repoRoot, 'node_modules/mocha/bin/mocha.js'), '--no-config', '--no-package', ...plugins];
      const env = { ...process.env, TUNWARD_TEST_SUMMARY: summary };
      const output = await run(process.execPath, [...mocha, join(support, 'programs/leaky.js')], { env }).then(
        () => 'it passed',
        (error: { stdout: string }) => error.stdout,
      );
      expect(output).to.match(/The tests left \d behind \(the processes are killed now\)/);
      expect(output.match(/^ +process \d+/gm)).to.have.length(2);
      const leaked = /^leaked (\d+)$/m.exec(output)?.[1];
      expect(output).to.match(new RegExp(`process ${leaked} \\(.*started by this one, and gone its own way`));
      expect(isAlive(Number(leaked))).to.equal(false);
      expect(readFileSync(summary, 'utf8')).to.equal('1 passed, 1 failed, 0 skipped\n');
      expect(output.trimEnd().split('\n').at(-1)).to.equal('1 passed, 1 failed, 0 skipped');
      rmSync(dir, { recursive: true });
    });
  });

  describe('startSshd()', () => {
    before(function () {
      need(this, 'sshd', 'ssh');
    });

    it('lets ssh in without a question, and takes its connections along when it stops', async () => {
      await using sshd = await startSshd();
      await using reaper = createReaper();
      const ssh = ['-F', sshd.sshConfigFile, '-o', 'BatchMode=yes', sshd.host];
      await run('ssh', [...ssh, 'true']);
      const session = run('ssh', [...ssh, 'sleep 60']);
      session.catch(() => undefined); // it ends with the server
      reaper.own(session.child);
      const sleeping = () => descendantsOf(sshd.pid).find(({ comm }) => comm === 'sleep');
      const sleep = await until(sleeping, { timeoutMs: 10_000 });
      expect(sleep, sshd.log()).not.to.equal(undefined);
      await sshd.stop();
      expect(isAlive(sleep?.pid ?? 0, sleep?.startTicks)).to.equal(false);
      expect(await accepts(sshd.port)).to.equal(false);
    });

    it('comes back with the same keys in the same folder', async () => {
      const dir = mkdtempSync(join(tmpdir(), 'tunward-test-'));
      const { port, stop } = await startSshd({ dir });
      await stop();
      {
        await using again = await startSshd({ dir, port, extra: ['MaxSessions 1'] });
        await run('ssh', ['-F', again.sshConfigFile, '-o', 'BatchMode=yes', again.host, 'true']);
      }
      rmSync(dir, { recursive: true });
    });
  });

  describe('inNamespace()', () => {
    let result: NamespaceResult;
    before(async function () {
      need(this, 'root', 'unshare');
      result = await inNamespace('test/support/programs/inside.js', ['one', 'two']);
    });

    it('passes arguments in and values out', () => {
      expect(result.get('args')).to.deep.equal(['one', 'two']);
      expect(() => result.get('nothing')).to.throw("emitted no 'nothing'");
    });

    it('shows nothing but its own processes', () => {
      expect(result.get<number[]>('pids')).to.have.length(2);
    });

    it('has a loopback interface', () => {
      expect(result.get('echo')).to.equal('hello');
    });

    it('has one also where there is no ip', async function () {
      const perl = which('perl');
      if (!perl) return need(this, 'perl');
      const bin = mkdtempSync(join(tmpdir(), 'tunward-test-'));
      symlinkSync(perl, join(bin, 'perl'));
      const bare = await inNamespace('test/support/programs/inside.js', [], { env: { PATH: bin } });
      expect(bare.get('echo')).to.equal('hello');
      rmSync(bin, { recursive: true });
    });

    it('tells what a failing program said', async () => {
      const failure = await rejection(inNamespace('test/support/programs/inside.js', ['throw']));
      expect(failure).to.match(/inside\.js failed\.[\s\S]*thrown on purpose/);
    });

    it('ends all of it at the deadline', async () => {
      const failure = await rejection(inNamespace('test/support/programs/inside.js', ['stay'], { timeoutMs: 1500 }));
      expect(failure).to.include('was not over after 1500 ms');
    });
  });

  describe('makeRootfs()', () => {
    let dir: string;
    before(function () {
      need(this, 'root', 'unshare', 'ssh', 'autossh');
      dir = mkdtempSync(join(tmpdir(), 'tunward-rootfs-'));
      makeRootfs(dir, ['ssh', 'autossh']);
    });
    after(() => {
      if (dir) rmSync(dir, { recursive: true, force: true });
    });

    it('holds node, ssh, autossh and no other program', async () => {
      const { stdout } = await runInRootfs(dir, ['node', '-e', listPrograms]);
      const found = JSON.parse(stdout) as { programs: string[]; pid: number };
      const real = [process.execPath, '/usr/bin/ssh', '/usr/lib/autossh/autossh'].map((path) => realpathSync(path));
      expect(found.programs).to.deep.equal(real.sort());
      expect(found.pid).to.equal(1);
      for (const name of ['sh', 'bash', 'ps', 'lsof', 'ss', 'ip']) {
        expect(await rejection(runInRootfs(dir, [name]))).to.match(/No such file/);
      }
    });

    it('runs what it holds, with what is bound into it', async () => {
      const ssh = await runInRootfs(dir, ['ssh', '-V']);
      expect(ssh.stderr).to.match(/^OpenSSH/);
      const script = `console.log(require('fs').readdirSync('/app').length)`;
      const { stdout } = await runInRootfs(dir, ['node', '-e', script], { bind: [[tmpdir(), '/app']] });
      expect(Number(stdout)).to.be.greaterThan(0);
    });

    it('reaches a server outside of it when it shares the network', async function () {
      need(this, 'sshd');
      await using sshd = await startSshd();
      const ssh = ['ssh', '-F', sshd.sshConfigFile, '-o', 'BatchMode=yes', sshd.host, 'echo there'];
      const { stdout } = await runInRootfs(dir, ssh, { network: 'shared', bind: [[sshd.dir, sshd.dir]] });
      expect(stdout).to.equal('there\n');
    });
  });
});

// Every file that could be executed and is no library.
const listPrograms = `
  const { readdirSync, accessSync, constants } = require('fs');
  const isProgram = (path) => { try { accessSync(path, constants.X_OK); return !/\\.so(\\.|$)/.test(path); } catch { return false; } };
  const walk = (dir) => readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const path = dir + (dir === '/' ? '' : '/') + entry.name;
    if (['/proc', '/dev', '/sys'].includes(path)) return [];
    return entry.isDirectory() ? walk(path) : entry.isFile() && isProgram(path) ? [path] : [];
  });
  console.log(JSON.stringify({ programs: walk('/').sort(), pid: process.pid }));`;

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

function firstWords(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: '127.0.0.1' });
    socket.once('error', reject).once('data', (data) => {
      socket.destroy();
      resolve(String(data));
    });
  });
}

async function rejection(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'it was fulfilled',
    (error: Error) => error.message,
  );
}
