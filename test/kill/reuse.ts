// What namespace.test.ts runs: pids that another process gets between the look and the signal.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { killChains, killTree } from '#lib/kill.js';
import { openProc } from '#lib/proc/read.js';
import { readPinned, readStat, readUptimeTicks } from '#lib/proc/stat.js';
import { until } from '#lib/time.js';
import { assertIsolated, emit } from '../support/namespace.js';
import { descendantsOf, isAlive, sendSignal, statOf } from '../support/proc.js';
import { startDaemonized } from '../support/processes.js';
import { createReaper, type Reaper } from '../support/reaper.js';

assertIsolated();
const rounds = Number(process.argv[2]);
const proc = openProc();
let reused = 0;
let harmed = 0;
let sameTick = 0;
let mistaken = 0;
// Somebody else may be quicker and get the number: such a round does not count.
for (let round = 0; reused < rounds && round < 2 * rounds; round++) {
  await using reaper = createReaper();
  // Pid 1 adopts and reaps it: its number is free while this program is inside confirm(). It is as young as can be, so
  // that its heir is born in the same tick at times, and only the pin tells them apart.
  const orphan = Number(spawnSync('sh', ['-c', 'sleep 60 >/dev/null 2>&1 & echo $!'], { encoding: 'utf8' }).stdout);
  reaper.ownPid(orphan);
  const victim = statOf(orphan) ?? { pid: 0, startTicks: 0 };
  const pin = proc.pin(victim.pid);
  const heir: { pid: number } = { pid: 0 };
  const confirm = (): boolean => {
    process.kill(victim.pid, 'SIGKILL');
    const deadline = performance.now() + 5000;
    while (statOf(victim.pid) && performance.now() < deadline);
    writeFileSync('/proc/sys/kernel/ns_last_pid', String(victim.pid - 1));
    const child = spawn('sleep', ['60'], { stdio: 'ignore' });
    reaper.own(child);
    heir.pid = child.pid ?? 0;
    return true;
  };
  const target = { ref: victim, why: 'target', below: 'all' } as const;
  const report = await killChains([target], { proc, confirm });
  if (heir.pid === victim.pid) reused++;
  if (statOf(heir.pid)?.startTicks === victim.startTicks) sameTick++;
  if (!isAlive(heir.pid) || statOf(heir.pid)?.state === 'T' || report.killed.length > 0) harmed++;
  if (typeof pin !== 'object' || readPinned(proc, pin) !== undefined) mistaken++;
  if (typeof pin === 'object') pin.close();
}
emit('reused', reused);
emit('sameTick', sameTick);
emit('harmed', harmed);
emit('mistaken', mistaken);

// The number of a member that left during the grace goes to a stranger, whose children look like its own.
{
  await using reaper = createReaper();
  const obedient = await startDaemonized(reaper, { children: [{ ignore: ['SIGTERM'] }] }).ready;
  const killing = killTree(obedient, { graceMs: 600 });
  await until(() => statOf(obedient.pid) === undefined, { timeoutMs: 5000 });
  writeFileSync('/proc/sys/kernel/ns_last_pid', String(obedient.pid - 1));
  const stranger = spawn('sh', ['-c', 'sleep 60 & sleep 61 & wait'], { stdio: 'ignore' });
  reaper.own(stranger);
  const { pid = 0 } = stranger;
  await until(() => descendantsOf(pid).length === 2, { timeoutMs: 5000 });
  const family = [pid, ...descendantsOf(pid).map((child) => child.pid)];
  const { killed, survivors } = await killing;
  const spared = family.filter((one) => isAlive(one) && statOf(one)?.state !== 'T').length;
  emit('stranger', { reused: pid === obedient.pid, spared, killed: killed.length, survivors: survivors.length });
}

// The number of the leader of a session goes to the leader of another session between two looks, during the grace.
{
  await using reaper = createReaper();
  const stubborn = `$SIG{TERM} = "IGNORE"; sleep 1 while 1`;
  const leading = `use POSIX; POSIX::setsid(); if (!fork) { POSIX::setsid(); ${stubborn} } sleep 1 while 1`;
  const script = `perl -e '${leading}' >/dev/null 2>&1 & echo $!`;
  const pid = Number(spawnSync('sh', ['-c', script], { encoding: 'utf8' }).stdout);
  reaper.ownPid(pid);
  await until(() => descendantsOf(pid).length === 1 && statOf(pid)?.sid === pid, { timeoutMs: 5000 });
  const [kept] = descendantsOf(pid);
  await until(() => statOf(kept?.pid ?? 0)?.sid === kept?.pid, { timeoutMs: 5000 });
  if (kept) reaper.ownPid(kept.pid);
  const strangers: number[] = [];
  let reads = 0;
  const text: typeof proc.text = (path) => {
    if (path === 'stat' && ++reads === 2) strangers.push(...replace(pid, reaper));
    return proc.text(path);
  };
  const { killed, survivors } = await killTree(pid, { graceMs: 300, proc: { ...proc, text } });
  const spared = strangers.filter((one) => isAlive(one) && statOf(one)?.state !== 'T').length;
  const reused = strangers[0] === pid && statOf(pid)?.sid === pid;
  emit('session', { reused, spared, killed: killed.length, survivors: survivors.length });
}

// The number of a parent goes to a stranger after it was seen alive, and before the table is read.
{
  await using reaper = createReaper();
  const script = `perl -e '$SIG{TERM} = "IGNORE"; sleep 1 while 1' >/dev/null 2>&1 & echo $!`;
  const pid = Number(spawnSync('sh', ['-c', script], { encoding: 'utf8' }).stdout);
  reaper.ownPid(pid);
  const parent = statOf(pid) ?? { pid: 0, startTicks: 0 };
  await until(() => /perl/.test(String(proc.text(`${pid}/cmdline`))), { timeoutMs: 5000 });
  // A start is known by the tick (10 ms): an heir within the same one would be the same process to anybody.
  await until(() => (readUptimeTicks(proc) ?? 0) > parent.startTicks, { timeoutMs: 5000 });
  const strangers: number[] = [];
  let reads = 0;
  let isDue = false;
  const text: typeof proc.text = (path) => {
    if (path === 'stat' && ++reads === 2) {
      spawnSync('true'); // something was forked, so there will be a table
      isDue = true;
    }
    return proc.text(path);
  };
  const list: typeof proc.list = (path) => {
    if (path === '.' && isDue) {
      isDue = false;
      sendSignal(parent, 'SIGKILL');
      strangers.push(...replace(pid, reaper));
    }
    return proc.list(path);
  };
  await killTree(parent, { graceMs: 100, proc: { ...proc, text, list } });
  const spared = strangers.filter((one) => isAlive(one) && statOf(one)?.state !== 'T').length;
  emit('parent', { reused: strangers[0] === pid, spared });
}

/** Waits until nobody has the number, and gives it to the leader of a new session of three. In one tick. */
function replace(pid: number, reaper: Reaper): number[] {
  const deadline = performance.now() + 5000;
  while (statOf(pid) && performance.now() < deadline);
  writeFileSync('/proc/sys/kernel/ns_last_pid', String(pid - 1));
  const heir = spawn('sh', ['-c', 'sleep 60 & sleep 61 & wait'], { stdio: 'ignore', detached: true });
  reaper.own(heir);
  while (descendantsOf(heir.pid ?? 0).length < 2 && performance.now() < deadline);
  return [heir.pid ?? 0, ...descendantsOf(heir.pid ?? 0).map((child) => child.pid)];
}

// A ref from long ago, whose number has gone to somebody else.
const former = spawn('sleep', ['60']);
const ref = { pid: former.pid ?? 0, startTicks: statOf(former.pid ?? 0)?.startTicks ?? 0 };
await until(() => (readStat(proc, ref.pid)?.state ?? '') === 'S', { timeoutMs: 5000 });
former.kill('SIGKILL');
await once(former, 'exit');
const began = performance.now();
await until(() => performance.now() - began > 50, { timeoutMs: 5000 });
writeFileSync('/proc/sys/kernel/ns_last_pid', String(ref.pid - 1));
const heir = spawn('sleep', ['60']);
const report = await killTree(ref);
emit('formerRef', { reused: heir.pid === ref.pid, alive: isAlive(heir.pid ?? 0), killed: report.killed.length });
heir.kill('SIGKILL');
