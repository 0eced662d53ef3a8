import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { type KillReport, killChains, killTree } from '#lib/kill.js';
import { createCensus } from '#lib/proc/census.js';
import { openProc, type Proc } from '#lib/proc/read.js';
import { type ProcessRef, readTable } from '#lib/proc/stat.js';
import { systemClock, until } from '#lib/time.js';
import { guardBystanders } from './support/bystanders.js';
import { createFakeProc, statLine } from './support/fakeproc.js';
import { need } from './support/need.js';
import { descendantsOf, isAlive, sendSignal, statOf } from './support/proc.js';
import {
  type Shape,
  startClient,
  startDaemonized,
  startListener,
  startRespawner,
  startStubborn,
  startTree,
} from './support/processes.js';
import { createReaper } from './support/reaper.js';
import { asNobody } from './support/stranger.js';

const reaper = createReaper();
const nothing = { killed: [], left: [], survivors: [] };

describe('killing', () => {
  const crowd = guardBystanders(reaper);

  describe('killTree()', () => {
    it('kills a process and everything below it, and says why each had to go', async () => {
      const shape = await startTree(reaper, { children: [{ children: [{}] }, { setsid: true }] }).ready;
      const report = await killTree(shape.pid);
      expectGone(everyone(shape));
      expect(pids(report)).to.have.members(everyone(shape).map(({ pid }) => pid));
      expect(report.killed[0]).to.include({ pid: shape.pid, startTicks: shape.startTicks, why: 'target' });
      for (const { pid, why, command } of report.killed.slice(1)) {
        expect(why, String(pid)).to.match(/^child of \d+$/);
        expect(command).to.include('actor.mjs');
      }
      expect(report).to.deep.include({ left: [], survivors: [] });
      expect(report.tookMs).to.be.within(0, 5000);
    });

    it('kills what ignores every polite signal', async () => {
      const stubborn = { ignore: ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGCONT'] as const };
      const shape = await startStubborn(reaper, { children: [stubborn, stubborn] }).ready;
      await killTree(shape);
      expectGone(everyone(shape));
    });

    it('kills a chain that is stopped', async () => {
      const shape = await startTree(reaper, { children: [{ children: [{}] }] }).ready;
      for (const ref of everyone(shape)) sendSignal(ref, 'SIGSTOP');
      expect(pids(await killTree(shape))).to.have.length(3);
      expectGone(everyone(shape));
    });

    it('kills a parent that replaces each dead child at once, and every child, in sessions of their own', async () => {
      for (let round = 0; round < 5; round++) {
        const respawner = startRespawner(reaper, { count: 3, child: { setsid: true } });
        await respawner.ready;
        const { survivors } = await killTree(respawner.pid);
        expect(survivors).to.deep.equal([]);
        expect(reaper.living()).to.deep.equal([]);
      }
    });

    it('kills a child in a process group of its own, and never lets it run on in between', async function () {
      need(this, 'perl');
      const dir = mkdtempSync(join(tmpdir(), 'tunward-kill-'));
      for (let round = 0; round < 10; round++) {
        const woken = join(dir, String(round));
        const child = startPerl(`$SIG{HUP} = 'IGNORE';
          if (!fork) { setpgrp(0, 0); $SIG{CONT} = sub { open(my $f, '>', '${woken}') }; print "ready\\n"; sleep 1 while 1 }
          sleep 1 while 1`);
        await lineOf(child);
        const [below] = descendantsOf(child.pid ?? 0);
        expect(below?.pgid).to.equal(below?.pid);
        const report = await killTree(child.pid ?? 0);
        expect(pids(report)).to.have.members([child.pid, below?.pid]);
        expect(existsSync(woken), 'continued by the kernel').to.equal(false);
      }
      rmSync(dir, { recursive: true });
    });

    it('finds in the session of a leader what lost its parent', async () => {
      const leader = spawn('sh', ['-c', '(sleep 170 & echo $!); exec sleep 171'], {
        ...{ detached: true, env: { ...process.env, ...reaper.env } },
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      reaper.own(leader);
      const orphan = Number(await lineOf(leader));
      expect(await until(() => statOf(orphan)?.ppid !== leader.pid, { timeoutMs: 5000 })).to.equal(true);
      const report = await killTree(leader.pid ?? 0);
      expect(report.killed.find(({ pid }) => pid === orphan)?.why).to.equal(`in the session of ${leader.pid}`);
      expect(isAlive(orphan)).to.equal(false);
    });

    it('spares a sibling of the same group and session, and the parent', async () => {
      // What a shell makes of `one | two`: one group, one session, and neither came from the other.
      const shell = spawn('sh', ['-c', 'sleep 170 & echo $!; sleep 171 & echo $!; wait'], {
        ...{ detached: true, env: { ...process.env, ...reaper.env } },
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      reaper.own(shell);
      const [target = 0, sibling = 0] = (await linesOf(shell, 2)).map(Number);
      expect(statOf(target)?.pgid).to.equal(statOf(sibling)?.pgid);
      expect(pids(await killTree(target))).to.deep.equal([target]);
      for (const pid of [sibling, shell.pid ?? 0]) {
        expect(isAlive(pid)).to.equal(true);
        expectUnharmed(pid);
      }
    });

    it('spares a sibling also when the target leads their group', async function () {
      need(this, 'perl');
      const parent = startPerl(`my $one = fork; if (!$one) { setpgrp(0, 0); sleep 1 while 1 }
        my $two = fork; if (!$two) { select(undef, undef, undef, 0.01) while !eval { setpgrp(0, $one) }; sleep 1 while 1 }
        select(undef, undef, undef, 0.01) while getpgrp($two) != $one; print "$one $two\\n"; sleep 1 while 1`);
      const [leader = 0, sibling = 0] = (await lineOf(parent)).split(' ').map(Number);
      expect(statOf(sibling)?.pgid).to.equal(leader);
      expect(pids(await killTree(leader))).to.deep.equal([leader]);
      expectUnharmed(sibling);
      expectUnharmed(parent.pid ?? 0);
    });

    it('stops from the top down, then kills from the bottom up, in one tick', async () => {
      const shape = await startTree(reaper, { children: [{ children: [{}] }, {}] }).ready;
      const sent: (readonly [number, unknown])[] = [];
      const ticksOfKills = new Set<number>();
      let tick = 0;
      const kill = process.kill;
      process.kill = (pid, signal) => {
        sent.push([pid, signal]);
        if (signal === 'SIGKILL') ticksOfKills.add(tick);
        queueMicrotask(() => tick++);
        return kill(pid, signal);
      };
      try {
        await killTree(shape);
      } finally {
        process.kill = kill;
      }
      const orderOf = (name: string) => sent.filter(([, signal]) => signal === name).map(([pid]) => pid);
      const [stopped, ended] = [orderOf('SIGSTOP'), orderOf('SIGKILL')];
      // Who is slow to stop is sent SIGSTOP again.
      expect(new Set(stopped)).to.deep.equal(new Set(everyone(shape).map(({ pid }) => pid)));
      expect(ended).to.have.length(4);
      expect(sent.slice(-4).map(([, signal]) => signal)).to.deep.equal(Array(4).fill('SIGKILL'));
      for (const parent of everyone(shape)) {
        for (const child of parent.children) {
          expect(stopped.indexOf(parent.pid)).to.be.below(stopped.indexOf(child.pid));
          expect(ended.indexOf(parent.pid)).to.be.above(ended.indexOf(child.pid));
        }
      }
      expect(ticksOfKills.size).to.equal(1);
    });

    it('stops again who was continued by somebody else, before anybody is killed', async function () {
      need(this, 'perl');
      const child = startPerl(`print "ready\\n"; fork; fork; sleep 1 while 1`);
      await lineOf(child);
      const family = () => [statOf(child.pid ?? 0), ...descendantsOf(child.pid ?? 0)].flatMap((stat) => stat ?? []);
      expect(await until(() => family().length === 4, { timeoutMs: 5000 })).to.equal(true);
      const seen = new Set<string>();
      const proc = openProc();
      const pin: Proc['pin'] = (pid) => {
        const real = proc.pin(pid);
        if (typeof real !== 'object') return real;
        const stat = () => {
          const line = real.stat();
          // At the moment in which the last of them has been seen to be stopped, all run on.
          if (/\) T /.test(String(line)) && seen.size < 4 && seen.add(`${pid}`).size === 4) {
            for (const ref of family()) sendSignal(ref, 'SIGCONT');
          }
          return line;
        };
        return { ...real, stat };
      };
      let whenKilled = '';
      const kill = process.kill;
      process.kill = (pid, signal) => {
        if (signal === 'SIGKILL')
          whenKilled ||= family()
            .map(({ state }) => state)
            .join('');
        return kill(pid, signal);
      };
      await killTree(child.pid ?? 0, { proc: { ...proc, pin } }).finally(() => {
        process.kill = kill;
      });
      expect(seen.size).to.equal(4);
      expect(whenKilled).to.equal('TTTT');
    });

    it('names the tracer that keeps a process from ending', async function () {
      need(this, 'python3');
      const { pid } = await startTree(reaper, { children: [{}] }).ready;
      // PTRACE_SEIZE with PTRACE_O_TRACEEXIT: it is told of the end before that happens, and does nothing about it.
      const script = `import ctypes, time
assert ctypes.CDLL(None).ptrace(0x4206, ${pid}, None, ctypes.c_void_p(0x40)) == 0
print("ready", flush=True)
time.sleep(170)`;
      const tracer = startScript('python3', ['-c', script]);
      await lineOf(tracer);
      const { killed, survivors } = await killTree(pid, { timeoutMs: 400 });
      expect(killed).to.have.length(1);
      const why = `stuck at its tracer (t), pid ${tracer.pid}, SIGKILL is pending`;
      expect(survivors.map((survivor) => [survivor.pid, survivor.why])).to.deep.equal([[pid, why]]);
      tracer.kill('SIGKILL');
      expect(await until(() => !isAlive(pid), { timeoutMs: 5000 })).to.equal(true);
    });

    it('leaves the clients of a listener alone', async () => {
      const listener = await startListener(reaper).ready;
      const client = await startClient(reaper, { port: listener.ports[0]?.port ?? 0, comm: 'ssh' }).ready;
      await killTree(listener);
      expect(isAlive(client.pid, client.startTicks)).to.equal(true);
    });

    it('does nothing to who is already gone, or has the number of one who is', async () => {
      const { pid, startTicks } = await startTree(reaper, {}).ready;
      expect(await killTree({ pid, startTicks: startTicks + 1 })).to.deep.include(nothing);
      expect(isAlive(pid, startTicks)).to.equal(true);
      await killTree(pid);
      expect(await killTree(pid)).to.deep.include(nothing);
      expect(await killTree({ pid, startTicks })).to.deep.include(nothing);
    });

    it('counts a zombie as gone, as a target and below one', async () => {
      const parent = await startTree(reaper, { children: [{}] }).ready;
      const zombie = parent.children[0] ?? parent;
      sendSignal(parent, 'SIGSTOP'); // it reaps nobody
      sendSignal(zombie, 'SIGKILL');
      await until(() => !isAlive(zombie.pid), { timeoutMs: 5000 });
      expect(statOf(zombie.pid)?.state).to.equal('Z');
      expect(await killTree(zombie.pid)).to.deep.include(nothing);
      expect(pids(await killTree(parent))).to.deep.equal([parent.pid]);
    });

    it('kills a process whose first thread has ended', async function () {
      need(this, 'python3');
      // 60 is SYS_exit: that thread alone ends.
      const child = startScript('python3', ['-c', leaderless]);
      await lineOf(child);
      await until(() => statOf(child.pid ?? 0)?.state === 'Z', { timeoutMs: 5000 });
      expect(isAlive(child.pid ?? 0)).to.equal(true);
      expect(pids(await killTree(child.pid ?? 0))).to.deep.equal([child.pid]);
      expect(isAlive(child.pid ?? 0)).to.equal(false);
    });

    it('signals nobody for the number of a thread, and says whose thread it is', async () => {
      const { pid } = await startTree(reaper, {}).ready;
      const [thread = 0] = readdirSync(`/proc/${pid}/task`)
        .map(Number)
        .filter((tid) => tid !== pid);
      expect(statOf(thread), 'readable, and in no listing').to.include({ pid: thread });
      const report = await killTree(thread);
      expect(report.killed).to.deep.equal([]);
      expect(report.survivors.map((survivor) => [survivor.pid, survivor.why])).to.deep.equal([
        [thread, `protected: a thread of pid ${pid}, and no process`],
      ]);
      expectUnharmed(pid);
    });

    it('refuses itself, its ancestors and pid 1, and nobody below them is touched', async () => {
      const { pid } = await startTree(reaper, {}).ready;
      for (const [target, why] of [
        [process.pid, 'protected: this very process'],
        [process.ppid, 'protected: an ancestor of this process'],
        [1, 'protected: pid 1'],
      ] as const) {
        // In a namespace of our own the parent is pid 1.
        const expected = target === 1 ? 'protected: pid 1' : why;
        const report = await killTree(target);
        expect(report.killed).to.deep.equal([]);
        expect(report.survivors.map((survivor) => [survivor.pid, survivor.why])).to.deep.equal([[target, expected]]);
      }
      expect(isAlive(pid)).to.equal(true);
    });

    it('kills as one when twenty ask at once', async () => {
      const shape = await startTree(reaper, { children: [{}, {}] }).ready;
      const reports = await Promise.all(Array.from({ length: 20 }, () => killTree(shape)));
      expectGone(everyone(shape));
      expect(reports.flatMap(({ survivors }) => survivors)).to.deep.equal([]);
    });

    it('leaves no descriptor open in 50 kills', async () => {
      const count = () => readdirSync('/proc/self/fd').length;
      const before = count();
      for (let round = 0; round < 50; round++) {
        const child = spawn('sleep', ['170'], { stdio: 'ignore', env: { ...process.env, ...reaper.env } });
        const exit = once(child, 'exit');
        expect(pids(await killTree(child.pid ?? 0))).to.deep.equal([child.pid]);
        await exit;
      }
      expect(await until(() => count() === before, { timeoutMs: 5000 })).to.equal(true);
    });
  });

  describe('killTree() and what is no pid', () => {
    const sent: unknown[] = [];
    const kill = process.kill;
    before(() => {
      process.kill = (...args) => {
        sent.push(args);
        return true;
      };
    });
    after(() => {
      process.kill = kill;
    });

    const traps: readonly unknown[] = ['', [], false, true, '1', -1, 0, Number.NaN, 1.5, 2 ** 31, null, undefined, {}];
    for (const trap of [...traps, [7], { pid: -1, startTicks: 0 }, { pid: '7', startTicks: 0 }, { pid: 7 }]) {
      it(`throws for ${JSON.stringify(trap)} (${typeof trap}), and signals nobody`, async () => {
        const error = await killTree(trap as number).catch((thrown: unknown) => thrown);
        expect(error instanceof TypeError || error instanceof RangeError, String(error)).to.equal(true);
        expect(sent).to.deep.equal([]);
      });
    }

    it('throws for a bound that is none', async () => {
      for (const options of [{ timeoutMs: Number.NaN }, { graceMs: -1 }, { timeoutMs: '5' as never }]) {
        const error = await killTree(process.pid, options).catch((thrown: unknown) => thrown);
        expect(error instanceof TypeError || error instanceof RangeError, String(error)).to.equal(true);
      }
      expect(sent).to.deep.equal([]);
    });

    it('throws where /proc is not mounted, or counts the processes of another namespace', async () => {
      using fake = createFakeProc();
      fake.add({ pid: 7 });
      for (const pid of [7, 8]) {
        const error = await killTree(pid, { proc: fake.proc }).catch((thrown: unknown) => thrown);
        expect(error, String(pid)).to.have.property('code', 'ERR_PROC_FORMAT');
      }
      const wrongSelf = { ...fake.proc, link: () => String(process.pid + 1) };
      const error = await killTree(7, { proc: wrongSelf }).catch((thrown: unknown) => thrown);
      expect(error).to.have.property('code', 'ERR_PROC_FORMAT');
      expect(sent).to.deep.equal([]);
    });
  });

  describe('with a grace', () => {
    it('lets the obedient leave by themselves', async () => {
      const { child, pid, ready } = startTree(reaper, {});
      await ready;
      const report = await killTree(pid, { graceMs: 10_000 });
      expect(pids(report)).to.deep.equal([pid]);
      await exitOf(child);
      expect(child.signalCode).to.equal('SIGTERM');
      expect(report.tookMs).to.be.below(9000);
    });

    it('continues who is stopped, so that it can obey', async () => {
      const { child, pid, startTicks, ready } = startTree(reaper, {});
      await ready;
      sendSignal({ pid, startTicks }, 'SIGSTOP');
      await killTree(pid, { graceMs: 10_000 });
      await exitOf(child);
      expect(child.signalCode).to.equal('SIGTERM');
    });

    it('kills the stubborn when it is over, and what they have started meanwhile', async function () {
      need(this, 'perl');
      const child = startPerl(`$SIG{TERM} = sub { if (!fork) { $SIG{TERM} = 'IGNORE'; sleep 1 while 1 } };
        print "ready\\n"; sleep 1 while 1`);
      await lineOf(child);
      const report = await killTree(child.pid ?? 0, { graceMs: 150 });
      expect(report.tookMs).to.be.at.least(150);
      expect(report.killed).to.have.length(2);
      expect(reaper.living()).to.deep.equal([]);
    });

    it('keeps the bound on everything: the grace gives way', async () => {
      const { pid, ready } = startStubborn(reaper);
      await ready;
      const report = await killTree(pid, { graceMs: 60_000, timeoutMs: 800 });
      expect(pids(report)).to.deep.equal([pid]);
      expect(report.tookMs).to.be.within(250, 4000);
    });

    it('leaves time to obey within a short bound too', async () => {
      const { pid, ready } = startStubborn(reaper);
      await ready;
      const report = await killTree(pid, { graceMs: 300, timeoutMs: 400 });
      expect(pids(report)).to.deep.equal([pid]);
      expect(report.tookMs).to.be.at.least(200);
    });
  });

  describe('killChains()', () => {
    it('kills whoever carries the marker, wherever it is in the table', async () => {
      const env = { TUNNEL_ID: 'test', TUNWARD_INSTANCE: `kill.test ${process.pid}` };
      const marker = Object.entries(env).map(([name, value]) => `${name}=${value}`);
      const root = await startTree(reaper, { env, children: [{ setsid: true }] }).ready;
      const daemon = await startDaemonized(reaper, { env, children: [{ env: { TUNNEL_ID: 'lost' } }] }).ready;
      const other = await startTree(reaper, { env: { ...env, TUNNEL_ID: 'test2' } }).ready;
      const report = await killChains([{ ref: root, why: 'root', below: 'all' }], { marker });
      expectGone([...everyone(root), ...everyone(daemon)]);
      expect(report.killed.find(({ pid }) => pid === daemon.pid)?.why).to.equal('carries TUNNEL_ID=test');
      expect(report.killed).to.have.length(4);
      expect(isAlive(other.pid)).to.equal(true);
    });

    it('spares below a holder what is in a session of its own, and lists it', async () => {
      const shape = await startTree(reaper, { children: [{}, { setsid: true, children: [{}] }] }).ready;
      const [near, away] = shape.children;
      const report = await killChains([{ ref: shape, why: 'holds', below: 'session' }]);
      expect(pids(report)).to.have.members([shape.pid, near?.pid]);
      expect(report.left.map(({ pid }) => pid)).to.deep.equal([away?.pid]);
      for (const { pid } of everyone(away ?? shape)) expectUnharmed(pid);
    });

    it('names nobody twice: who was spared as a session of its own, and then found by the marker, has died', async () => {
      const env = { TUNNEL_ID: `twice ${process.pid}` };
      const shape = await startTree(reaper, { children: [{ setsid: true, env }] }).ready;
      const marker = [`TUNNEL_ID=${env.TUNNEL_ID}`];
      const report = await killChains([{ ref: shape, why: 'holds', below: 'session' }], { marker });
      expect(pids(report)).to.have.members(everyone(shape).map(({ pid }) => pid));
      expect(report).to.deep.include({ left: [], survivors: [] });
    });

    it('spares who no longer carries the marker when it is held on to', async () => {
      const env = { TUNNEL_ID: `lost ${process.pid}` };
      const { pid } = await startTree(reaper, { env }).ready;
      const proc = openProc();
      let reads = 0;
      const text: Proc['text'] = (path) => (path === `${pid}/environ` && ++reads > 1 ? 'PATH=/bin\0' : proc.text(path));
      const report = await killChains([], { marker: [`TUNNEL_ID=${env.TUNNEL_ID}`], proc: { ...proc, text } });
      expect(reads).to.be.greaterThan(1);
      expect(report).to.deep.include(nothing);
      expectUnharmed(pid);
    });

    it('knows its ancestors as they are now, not by the table it was given', async () => {
      const { pid, startTicks } = await startTree(reaper, {}).ready;
      const table = await readTable(openProc(), () => undefined);
      const proc = openProc();
      // Since the table was read our parent has left, and the target has become the parent of its heir.
      const text: Proc['text'] = (path) =>
        path === `${process.ppid}/stat` ? statLine({ pid: process.ppid, ppid: pid }) : proc.text(path);
      const target = { ref: { pid, startTicks }, why: 'x', below: 'all' } as const;
      const report = await killChains([target], { table, proc: { ...proc, text } });
      expect(report.survivors.map(({ why }) => why)).to.deep.equal(['protected: an ancestor of this process']);
      expect(report.killed).to.deep.equal([]);
      expectUnharmed(pid);
    });

    it('kills by a look that others have had a moment ago, and who has been born since', async () => {
      const env = { TUNNEL_ID: `census ${process.pid}`, TUNWARD_INSTANCE: 'x' };
      const census = createCensus(openProc(), systemClock, Object.keys(env));
      const marker = Object.entries(env).map(([name, value]) => `${name}=${value}`);
      const bystander = await startTree(reaper, {}).ready;
      // Who has looked before: two others, for whom nobody was to be killed.
      for (const other of ['TUNNEL_ID=one', 'TUNNEL_ID=two'])
        await killChains([], { census, proc: census.proc, marker: [other] });
      const known = census.table().size;
      const root = await startTree(reaper, { env, children: [{}] }).ready;
      const daemon = await startDaemonized(reaper, { env }).ready;
      const target = { ref: root, why: 'x', below: 'all' } as const;
      const report = await killChains([target], { census, proc: census.proc, marker });
      expect(pids(report)).to.have.members([...everyone(root), daemon].map(({ pid }) => pid));
      expect(report.survivors).to.deep.equal([]);
      expect(known).to.be.greaterThan(0);
      expectUnharmed(bystander.pid);
    });

    it('kills nobody by an old row whose number is another one’s now', async () => {
      const census = createCensus(openProc(), systemClock, ['TUNNEL_ID']);
      const { pid, startTicks } = await startTree(reaper, {}).ready;
      const stranger = await startTree(reaper, {}).ready;
      await killChains([], { census, marker: ['TUNNEL_ID=none'] });
      // As a look has seen it before the number changed hands: a child of the target.
      const row = census.table().get(stranger.pid);
      if (!row) throw new Error('the stranger is in no table');
      census.table().set(stranger.pid, { ...row, ppid: pid, startTicks: row.startTicks - 1 });
      const target = { ref: { pid, startTicks }, why: 'x', below: 'all' } as const;
      expect(pids(await killChains([target], { census }))).to.deep.equal([pid]);
      expectUnharmed(stranger.pid);
    });

    it('says in a dry run who would go, and touches nobody', async () => {
      const shape = await startTree(reaper, { children: [{}] }).ready;
      const report = await killChains([{ ref: shape, why: 'holds', below: 'all' }], { dryRun: true });
      expect(pids(report)).to.deep.equal(everyone(shape).map(({ pid }) => pid));
      for (const { pid } of everyone(shape)) expectUnharmed(pid);
    });

    it('touches nobody when what was decided is no longer so', async () => {
      const { pid, startTicks } = await startTree(reaper, {}).ready;
      const target = { ref: { pid, startTicks }, why: 'holds', below: 'all' } as const;
      expect(await killChains([target], { confirm: () => false })).to.deep.include(nothing);
      expectUnharmed(pid);
    });

    it('reports who is not dead when the time is over', async () => {
      // Hundreds of megabytes take the kernel longer to tear down than there is time.
      const { pid, startTicks } = await startTree(reaper, { memoryMb: 400 }).ready;
      const report = await killChains([{ ref: { pid, startTicks }, why: 'holds', below: 'all' }], { timeoutMs: 0 });
      expect(report.killed).to.deep.equal([]);
      expect(report.survivors).to.have.length(1);
      expect(report.survivors[0]?.why).to.match(/^still in state \w after SIGKILL$/);
      expect(await until(() => !isAlive(pid), { timeoutMs: 5000 })).to.equal(true);
    });

    for (const [what, leader] of [
      ['a process', 'D'],
      ['a thread of a process whose first one has ended', 'Z'],
    ] as const) {
      it(`calls stuck ${what} in uninterruptible sleep when the time is over, and tries no more`, async () => {
        const { pid = 0 } = spawn('sleep', ['170'], { stdio: 'ignore' });
        reaper.ownPid(pid);
        const startTicks = statOf(pid)?.startTicks ?? 0;
        const target = { ref: { pid, startTicks }, why: 'holds', below: 'all' } as const;
        const sent: unknown[] = [];
        const kill = process.kill;
        process.kill = (_, signal) => {
          sent.push(signal);
          return true;
        };
        const report = await killChains([target], { timeoutMs: 200, proc: procThatWaits(leader) }).finally(() => {
          process.kill = kill;
        });
        const why = 'stuck in uninterruptible sleep (D), SIGKILL is pending';
        expect(report.survivors.map((survivor) => survivor.why)).to.deep.equal([why]);
        expect(report.killed).to.deep.equal([]);
        expect(sent).to.deep.equal(['SIGSTOP', 'SIGKILL']);
      });
    }

    it('plans by a table that goes in a circle, holds no such process, or a child older than its parent', async () => {
      using fake = createFakeProc();
      fake.add({ pid: 7, ppid: 8 }, { pid: 8, ppid: 7 }, { pid: 9, ppid: 1 });
      fake.add({ pid: 10, ppid: 9, startTicks: 99 }, { pid: 11, ppid: 1, sid: 9, startTicks: 99 });
      fake.add({ pid: 12, ppid: 9 }, { pid: 13, ppid: 1, sid: 9 });
      fake.add({ pid: 14, ppid: 12, flags: 0x0020_0000 }, { pid: 15, ppid: 14 });
      const plan = (ref: ProcessRef) =>
        killChains([{ ref, why: 'x', below: 'all' }], { proc: fake.proc, dryRun: true });
      expect(pids(await plan({ pid: 7, startTicks: 100 }))).to.deep.equal([7, 8]);
      expect(await plan({ pid: 7, startTicks: 99 })).to.deep.include(nothing);
      expect(await plan({ pid: 5, startTicks: 100 })).to.deep.include(nothing);
      const report = await plan({ pid: 9, startTicks: 100 });
      expect(pids(report)).to.deep.equal([9, 12, 13]);
      expect(report.survivors.map(({ pid, why }) => [pid, why])).to.deep.equal([[14, 'protected: kernel thread']]);
    });
  });

  describe('as an ordinary user', () => {
    let seen: Record<string, unknown>;
    let pid: number;
    before(async function () {
      need(this, 'root');
      const listener = await startListener(crowd).ready;
      pid = listener.pid;
      seen = await asNobody('test/kill/stranger.js', [String(pid)]);
    });

    it('reports a process of root as not permitted', () => {
      expect(seen.uid).to.equal(65_534);
      const { killed, survivors } = seen.kill as KillReport;
      expect(killed).to.deep.equal([]);
      expect(survivors).to.have.length(1);
      expect(survivors[0]).to.include({ pid, why: 'not permitted: it belongs to root' });
      expect(isAlive(pid)).to.equal(true);
      expectUnharmed(pid);
    });

    it('grants no grace to those it may not ask', () => {
      const { survivors, tookMs } = seen.grace as KillReport;
      expect(survivors).to.have.length(1);
      expect(tookMs).to.be.below(4000);
    });

    it('sees that descriptors and environment are denied, which is not the same as gone', () => {
      expect(seen.denied).to.deep.equal([true, true]);
      expect([seen.stat, seen.marker]).to.deep.equal(['string', 'lacks']);
    });
  });
});

function everyone(shape: Shape): Shape[] {
  return [shape, ...shape.children.flatMap(everyone)];
}

function pids(report: Pick<KillReport, 'killed'>): number[] {
  return report.killed.map(({ pid }) => pid);
}

function expectGone(refs: readonly ProcessRef[]): void {
  const living = refs.filter(({ pid, startTicks }) => isAlive(pid, startTicks));
  expect(living, 'still alive').to.deep.equal([]);
}

function expectUnharmed(pid: number): void {
  // A process that a page or a terminal has to wait for is in D for an instant.
  expect(statOf(pid)?.state, String(pid)).to.be.oneOf(['S', 'R', 'D']);
}

/** The system's /proc, in which all have two threads: the first is in the state that is given, and the other waits for a disk. */
function procThatWaits(leader: string): Proc {
  const proc = openProc();
  // The state is the third field, the count of threads the twentieth.
  const show = (line: string, state: string) =>
    line.replace(/\) [A-Z] ((?:\S+ ){16})\d+ /, (_, between) => `) ${state} ${between}2 `);
  const pin: Proc['pin'] = (pid) => {
    const real = proc.pin(pid);
    if (typeof real !== 'object') return real;
    const stat = () => {
      const line = real.stat();
      return typeof line === 'string' ? show(line, leader) : line;
    };
    return { ...real, stat };
  };
  const list: Proc['list'] = (path) => (path.endsWith('/task') ? ['leader', 'other'] : proc.list(path));
  const text: Proc['text'] = (path) => {
    const [, pid, task] = /^(\d+)\/task\/(\w+)\/stat$/.exec(path) ?? [];
    const line = proc.text(pid ? `${pid}/stat` : path);
    return pid && typeof line === 'string' ? show(line, task === 'leader' ? leader : 'D') : line;
  };
  return { ...proc, pin, list, text };
}

const leaderless = `
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(170,)).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall(60, 0)`;

function startPerl(script: string): ChildProcess {
  return startScript('perl', ['-e', `$| = 1; ${script}`]);
}

function startScript(program: string, args: readonly string[]): ChildProcess {
  const env = { ...process.env, ...reaper.env };
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'inherit'] });
  reaper.own(child);
  return child;
}

async function lineOf(child: ChildProcess): Promise<string> {
  return (await linesOf(child, 1))[0] ?? '';
}

/** Its first lines; rejects when it ends before. */
async function linesOf(child: ChildProcess, count: number): Promise<string[]> {
  let text = '';
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  const lines = () => (text.split('\n').length > count ? text.split('\n').slice(0, count) : undefined);
  const found = await until(lines, { timeoutMs: 10_000 });
  if (!found) throw new Error(`It said no ${count} lines: ${text}`);
  return found;
}

async function exitOf(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}
