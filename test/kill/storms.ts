// What namespace.test.ts runs: trees that do all they can not to be caught, killed without any marker.
import { killTree } from '#lib/kill.js';
import { openProc, type Proc } from '#lib/proc/read.js';
import { until } from '#lib/time.js';
import { assertIsolated, emit } from '../support/namespace.js';
import { createReaper } from '../support/reaper.js';
import { startScript } from '../support/sockets.js';

assertIsolated();
const rounds = Number(process.argv[2]);
/** How long each look at the table takes longer than it should, as on a machine that gives its time to others. */
const stallMs = Number(process.argv[3] ?? 0);
const links = stallMs > 0 ? 400 : 120;

function openStallingProc(): Proc {
  const proc = openProc();
  const list: Proc['list'] = (path) => {
    const names = proc.list(path);
    for (const end = performance.now() + (path === '.' ? stallMs : 0); performance.now() < end; );
    return names;
  };
  return { ...proc, list };
}

/** Each is perl, is bounded in what it forks, and keeps its line of parents. */
const storms: Readonly<Record<string, string>> = {
  // 255 processes, twice as many every millisecond.
  bomb: `sub grow { my $left = shift; return if $left == 0;
      for (1..2) { my $child = fork; if (!$child) { grow($left - 1); sleep 1 while 1 } nap(0.001) } }
    print "ready\\n"; grow(7); sleep 1 while 1`,
  // A chain that grows at its end, each link in a session of its own.
  sessions: `print "ready\\n"; for (1..${links}) { last if fork; POSIX::setsid(); nap(0.0005) } sleep 1 while 1`,
  // Workers that start programs all the time, half of them in sessions of their own.
  workers: `print "ready\\n"; for (1..4) { next if fork;
      for my $n (1..200) { if (!fork) { POSIX::setsid() if $n % 2; exec 'sleep', '60' } nap(0.002) } sleep 1 while 1 }
    sleep 1 while 1`,
  // A program that replaces itself, with a child each time.
  programs: `$ENV{LEFT} //= 150; print "ready\\n" if $ENV{LEFT} == 150; if (!fork) { sleep 1 while 1 } nap(0.001);
    exec $^X, '-MPOSIX', '-e', $ENV{SOURCE} if $ENV{LEFT}-- > 0; sleep 1 while 1`,
  // Three that send SIGCONT to all of them all the time, and a parent that forks.
  defiant: `print "ready\\n"; my $top = $$; for (1..3) { next if fork; my $end = time + 20;
      while (time < $end) { kill 'CONT', $top, map { $top + $_ } 1..3; nap(0.0005) } exit }
    for (1..200) { if (!fork) { POSIX::setsid(); sleep 1 while 1 } nap(0.003) } sleep 1 while 1`,
};

for (const [name, script] of Object.entries(storms)) {
  const source = `$| = 1; sub nap { select(undef, undef, undef, shift) } ${script}`;
  let leaked = 0;
  let survived = 0;
  for (let round = 0; round < rounds; round++) {
    const reaper = createReaper();
    const env = { ...reaper.env, SOURCE: source };
    const { pid } = await startScript({ ...reaper, env }, 'perl', ['-MPOSIX', '-e', source]);
    // In the middle of it: each round at another moment.
    const began = performance.now();
    await until(() => performance.now() - began > (120 * round) / rounds, { timeoutMs: 1000, everyMs: 2 });
    survived += (await killTree(pid, { proc: openStallingProc(), timeoutMs: 20_000 })).survivors.length;
    leaked += reaper.living().length;
    await reaper.end();
  }
  emit(name, { leaked, survived });
}
