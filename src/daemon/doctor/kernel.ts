import fs from 'node:fs';
import path from 'node:path';
import { hasIpv6Loopback } from '../../port/probe.js';
import { known, type Proc } from '../../proc/read.js';
import { CAP_SYS_PTRACE, hasCapability, hidesOthers, isInFirstPidNamespace, readHidepid } from '../../proc/rights.js';
import { type ProcessStat, readArguments, readCommand, readStat } from '../../proc/stat.js';
import { type Clock, systemClock } from '../../time.js';
import { putInitInFront, readInit } from '../init.js';
import { type Check, count, failed, ok, type Surroundings, unknown, warning } from './check.js';

/** What the kernel shows, and who is pid 1 in it. */
export function checkKernel(surroundings: Surroundings): Check[] {
  const { proc, uid } = surroundings;
  if (readStat(proc, process.pid) === undefined) {
    const remedy =
      'mount it (mount -t proc proc /proc): without it no holder of a port can be named, and no tunnel kept';
    return [failed('proc', `${proc.root} does not show this process`, remedy)];
  }
  return [checkVisibility(proc, uid), checkPid1(surroundings), checkContainer(proc), checkIpv6()];
}

function checkVisibility(proc: Proc, uid: number): Check {
  const { level } = readHidepid(proc) ?? {};
  if (hidesOthers(proc)) {
    const finding = `it hides the processes of other users (hidepid=${level}): whoever of them holds a port is not named`;
    return warning('proc', finding, 'mount it with hidepid=0, or with gid= a group of this user');
  }
  if (uid === 0 && hasCapability(proc, CAP_SYS_PTRACE) === false) {
    const finding = 'this root may not look into processes of other users (no CAP_SYS_PTRACE)';
    return warning('proc', finding, 'docker run --cap-add SYS_PTRACE, where others hold ports that are to be freed');
  }
  const ofOthers = uid === 0 ? '' : '; what other users have open is shown to root alone';
  return ok('proc', `it shows all processes${ofOthers}`);
}

function checkPid1({ proc, daemon }: Surroundings): Check {
  const stat = readStat(proc, 1);
  if (!stat) return unknown('pid 1', 'it is not to be seen');
  const name = `pid 1 is ${readCommand(proc, stat).slice(0, 60)}`;
  const { zombies, advice } = readInit(proc, process.pid);
  const dead = Math.max(zombies, daemon?.zombies ?? 0);
  const finding = dead === 0 ? name : `${name}; ${count(dead, 'zombie')}`;
  const isTunward = process.pid === 1 || daemon?.pid === 1;
  return advice !== undefined || isTunward || isNode(proc, stat)
    ? warning('pid 1', finding, putInitInFront)
    : ok('pid 1', finding);
}

/** Newer ones call their first thread, and so the process, MainThread. */
function isNode(proc: Proc, { pid, comm }: ProcessStat): boolean {
  return comm === 'node' || path.basename(readArguments(proc, pid)[0] ?? '') === 'node';
}

function checkContainer(proc: Proc): Check {
  const kind = ['/.dockerenv', '/run/.containerenv'].find((file) => fs.existsSync(file));
  const group = (known(proc.text('self/cgroup')) ?? '').split('\n').find((row) => row.startsWith('0::'));
  const place = group === undefined || group === '0::/' ? '' : `, control group ${group.slice(3)}`;
  if (isInFirstPidNamespace(proc) && kind === undefined) return ok('container', `none${place}`);
  const why = kind ?? 'a PID namespace of its own';
  return ok('container', `yes (${why})${place}; who holds a port outside of it cannot be killed from here`);
}

function checkIpv6(): Check {
  return ok('ipv6', hasIpv6Loopback() ? 'localhost is 127.0.0.1 and ::1' : 'there is no ::1: localhost is 127.0.0.1');
}

/** Before this there was no tunward, and long after it a clock is not set at all. */
const BEGAN = Date.UTC(2026, 0, 1);
const LATEST = Date.UTC(2100, 0, 1);

/** Begins a look at the clock; the answer is for the end, when some time has gone by on both clocks. */
export function watchClock(config: Surroundings['config'], clock: Clock = systemClock): () => Check {
  const begun = { wall: clock.wallTime(), steady: clock.now() };
  return () => {
    const wall = clock.wallTime();
    const remedy = 'set it, and keep it (NTP): certificates, logs and the times of a status depend on it';
    if (wall < BEGAN || wall > LATEST) return warning('clock', `it says ${new Date(wall).toISOString()}`, remedy);
    const jump = Math.round(wall - begun.wall - (clock.now() - begun.steady));
    if (Math.abs(jump) > 1000) return warning('clock', `it was moved by ${jump} ms while it was looked at`, remedy);
    const written = config ? fs.statSync(config.file, { throwIfNoEntry: false })?.mtimeMs : undefined;
    if (written !== undefined && written > wall + 60_000) {
      const when = new Date(written).toISOString();
      return warning('clock', `it is behind: ${config?.file} is from ${when}, and it is ${iso(wall)} now`, remedy);
    }
    return ok('clock', iso(wall));
  };
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
