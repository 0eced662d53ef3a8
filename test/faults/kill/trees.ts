// The cases of the catalogue that kill trees made for it: K4, K5, K8, K9, K17. None needs ssh.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { killTree } from '#lib/kill.js';
import { systemClock, until } from '#lib/time.js';
import { fault, spread } from '../../support/fault.js';
import { inNamespace } from '../../support/namespace.js';
import { descendantsOf, sendSignal, statOf } from '../../support/proc.js';
import { createReaper, type Reaper } from '../../support/reaper.js';
import { startScript } from '../../support/sockets.js';

export function treeCases(): void {
  const respawner = 'kills a parent that replaces its children at once, each in a session of its own';
  fault({ id: 'K4', title: respawner, times: 500, needs: ['perl'] }, async (times) => {
    const took: number[] = [];
    for (let round = 0; round < times; round++) {
      await using reaper = createReaper();
      const { pid } = await startRespawner(reaper);
      const { survivors, tookMs } = await killTree(pid);
      expect(survivors).to.deep.equal([]);
      expect(reaper.living(), `round ${round}`).to.deep.equal([]);
      took.push(tookMs);
    }
    const leaks = await countLeaksOfSnapshot(100);
    return `${took.length}/${times}, ${spread(took)}; a snapshot killed leaf first leaks ${leaks}/100`;
  });

  const comets = 'ends comets, which fork, leave and are another, by their marker';
  fault({ id: 'K5', title: comets, times: 100, needs: ['root', 'unshare', 'perl'] }, async (times) => {
    const figures: string[] = [];
    for (const [everyMs, exec] of [
      ['2', '0'],
      ['0.3', '0'],
      ['0.5', '1'],
    ] as const) {
      const run = await inNamespace('test/kill/comets.js', [String(times), everyMs, exec], { timeoutMs: 120_000 });
      expect([run.get('leaked'), run.get('falseReports')], `every ${everyMs} ms`).to.deep.equal([0, 0]);
      const took = run.get<number[]>('took');
      expect(took).to.have.length(times);
      figures.push(`every ${everyMs} ms${exec === '1' ? ' with exec' : ''} ${times}/${times}, ${spread(took)}`);
    }
    return figures.join('; ');
  });

  const thaw = 'never lets a stopped child in a group of its own run on';
  fault({ id: 'K8', title: thaw, times: 200, needs: ['perl'] }, async (times) => {
    const dir = mkdtempSync(join(tmpdir(), 'tunward-thaw-'));
    const took: number[] = [];
    for (let round = 0; round < times; round++) {
      await using reaper = createReaper();
      const woken = join(dir, String(round));
      const script = `$| = 1; $SIG{HUP} = 'IGNORE'; if (!fork) { setpgrp(0, 0);
        $SIG{CONT} = sub { open(my $f, '>', '${woken}') }; print "ready\\n"; sleep 1 while 1 } sleep 1 while 1`;
      const { pid } = await startScript(reaper, 'perl', ['-e', script]);
      const [child] = descendantsOf(pid);
      expect(child?.pgid, 'a group of its own').to.equal(child?.pid);
      const { killed, tookMs } = await killTree(pid);
      expect(killed).to.have.length(2);
      expect(existsSync(woken), 'it ran on').to.equal(false);
      took.push(tookMs);
    }
    rmSync(dir, { recursive: true });
    return `${took.length}/${times}, ${spread(took)}`;
  });

  const vfork = 'does not wait for a vfork parent to stop, which it never does';
  fault({ id: 'K9', title: vfork, times: 50, reduced: 3, needs: ['cc'] }, async (times) => {
    const dir = mkdtempSync(join(tmpdir(), 'tunward-vfork-'));
    const program = compile(dir, vforker);
    const frozen: number[] = [];
    for (let round = 0; round < times; round++) {
      await using reaper = createReaper();
      const { pid } = await startScript(reaper, program, []);
      const states = () => [pid, ...descendantsOf(pid).map((child) => child.pid)].map((one) => statOf(one)?.state);
      expect(await until(() => states().join('') === 'DT', { timeoutMs: 5000 }), states().join('')).to.equal(true);
      frozen.push(await freezeTime(() => killTree(pid)));
      expect(reaper.living()).to.deep.equal([]);
    }
    rmSync(dir, { recursive: true });
    expect(Math.max(...frozen)).to.be.below(150);
    return `${frozen.length}/${times}, frozen in ${spread(frozen)} (bound 100 ms)`;
  });

  const reuse = 'spares the process that got the number of one that was to be killed';
  fault({ id: 'K17', title: reuse, times: 200, needs: ['root', 'unshare'] }, async (times) => {
    const run = await inNamespace('test/kill/reuse.js', [String(times)], { timeoutMs: 300_000 });
    expect(run.get('reused'), 'rounds in which the number was used again').to.equal(times);
    expect([run.get('harmed'), run.get('mistaken')]).to.deep.equal([0, 0]);
    return `${times}/${times} spared, ${run.get('sameTick')} of them born in the same tick`;
  });
}

/** Keeps three children, each in a session of its own, and replaces a dead one at once; 200 in all. */
async function startRespawner(reaper: Reaper): Promise<{ pid: number }> {
  const script = `use POSIX (); $| = 1; my $left = 200;
    sub start { return if $left-- <= 0; return if fork; POSIX::setsid(); sleep 1 while 1 }
    start() for 1..3; print "ready\\n"; start() while wait() > 0; sleep 1 while 1`;
  return await startScript(reaper, 'perl', ['-e', script]);
}

/** What others do: one snapshot, and SIGKILL to each in it, children first. Answers in how many rounds somebody was left. */
async function countLeaksOfSnapshot(rounds: number): Promise<number> {
  let leaks = 0;
  for (let round = 0; round < rounds; round++) {
    await using reaper = createReaper();
    const { pid } = await startRespawner(reaper);
    const tree = [statOf(pid), ...descendantsOf(pid)].flatMap((stat) => stat ?? []).reverse();
    for (const ref of tree) sendSignal(ref, 'SIGKILL');
    await until(() => tree.every((ref) => statOf(ref.pid)?.startTicks !== ref.startTicks), { timeoutMs: 1000 });
    if (reaper.living().length > 0) leaks++;
  }
  return leaks;
}

/** Its child stops before it executes anything: until then the parent is in D, and no SIGSTOP stops it. */
const vforker = `#include <signal.h>
#include <unistd.h>
int main(void) {
  write(1, "ready\\n", 6);
  if (vfork() == 0) { raise(SIGSTOP); _exit(0); }
  for (;;) pause();
}
`;

function compile(dir: string, source: string): string {
  const program = join(dir, 'program');
  writeFileSync(`${program}.c`, source);
  execFileSync('cc', ['-o', program, `${program}.c`], { stdio: ['ignore', 'ignore', 'pipe'] });
  return program;
}

/** How long it took from the first SIGSTOP to the first SIGKILL. */
async function freezeTime(act: () => Promise<unknown>): Promise<number> {
  const first = new Map<unknown, number>();
  const kill = process.kill;
  process.kill = (pid, signal) => {
    if (!first.has(signal)) first.set(signal, systemClock.now());
    return kill(pid, signal);
  };
  try {
    await act();
  } finally {
    process.kill = kill;
  }
  return (first.get('SIGKILL') ?? Number.NaN) - (first.get('SIGSTOP') ?? Number.NaN);
}
