import { isErrno } from './errors.js';
import type { Census } from './proc/census.js';
import { checkMarker, createMarkerSearch, type Marker } from './proc/marker.js';
import { whyProtected } from './proc/protected.js';
import { known, type Pin, type Proc } from './proc/read.js';
import {
  isGone,
  isSame,
  type ProcessRef,
  type ProcessStat,
  readCommand,
  readForkCount,
  readPinned,
  readStat,
  readThreadStates,
  readTracer,
  readUserName,
  updateTable,
} from './proc/stat.js';
import { childrenOf } from './proc/tree.js';
import { type Clock, createSlice, growing, until } from './time.js';

export interface KilledProcess extends ProcessRef {
  readonly command: string;
  /** Why it had to go: `holds 127.0.0.1:9443`, `child of 812`, `carries the marker`. */
  readonly why: string;
}

export interface Survivor {
  readonly pid: number;
  readonly command: string;
  /** What kept it: `protected: pid 1`, `stuck in uninterruptible sleep (D), SIGKILL is pending`, `not permitted: …`. */
  readonly why: string;
}

/** What became of a kill. Nobody is in two lists; who left by itself, before any signal, is in none. */
export interface KillReport {
  readonly killed: readonly KilledProcess[];
  /** Below the target, and spared: in a session of its own under a holder that is no tunnel. */
  readonly left: readonly KilledProcess[];
  readonly survivors: readonly Survivor[];
  readonly tookMs: number;
}

/** One process that must go, and how much of what is below it. */
export interface KillTarget {
  readonly ref: ProcessRef;
  readonly why: string;
  /** `all` descendants, or those in the target's own `session`. */
  readonly below: 'all' | 'session';
}

interface Member {
  readonly stat: ProcessStat;
  readonly pin: Pin;
  readonly command: string;
  readonly why: string;
  readonly below: KillTarget['below'];
  /** What it was sent last: SIGTERM, SIGSTOP, SIGKILL. */
  sent: 'nothing' | 'asked' | 'stopped' | 'killed';
  refused: boolean;
  /** Seen to be over. Its number may be another's from now on, so it is never looked up again. */
  gone: boolean;
}

/** Why somebody is to die, and who of those below. With a marker: on condition that it carries that. */
interface Grounds {
  readonly why: string;
  readonly below: KillTarget['below'];
  readonly marker?: Marker | undefined;
}

export interface HuntOptions {
  readonly proc: Proc;
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
  readonly marker?: Marker | undefined;
  readonly table?: Map<number, ProcessStat> | undefined;
  readonly census?: Census | undefined;
}

/**
 * One kill, step by step: decide, ask (when there is a grace), freeze, burst, watch; and close, whatever happened. The
 * only place that sends signals, each to a member, who has passed the gate (`admit`) and is held by a pin.
 */
export function openHunt(targets: readonly KillTarget[], options: HuntOptions) {
  const { proc, clock, signal, marker, census } = options;
  const slice = createSlice(signal);
  const table = options.table ?? census?.table() ?? new Map<number, ProcessStat>();
  const members: Member[] = [];
  const byPid = new Map<number, Member>();
  /** Sessions that members lead, as long as somebody is in them: so long no one else's can have the number. */
  const sessions = new Map<number, Member>();
  const left: KilledProcess[] = [];
  const survivors: Survivor[] = [];
  const search =
    marker && marker.length > 0 ? createMarkerSearch(proc, marker, { memory: census?.markers }) : undefined;
  let forks: number | undefined;
  /** What is done to whoever turns up, in the tick in which it is found. */
  let onSight: (member: Member) => void = () => {};
  /** The last look has found somebody who was not there before. */
  let isStillForking = false;

  if (open.size === 0) process.on('exit', closeAll);
  open.add(close);
  return { decide, plan, ask, freeze, burst, watch, report, close };

  async function decide(): Promise<void> {
    forks = readForkCount(proc);
    await updateTable(proc, table, slice);
    for (const { ref, why, below } of targets) {
      // What is in no listing and can be read is a thread; the gate says so.
      const stat = table.get(ref.pid) ?? readStat(proc, ref.pid);
      if (stat && isSame(stat, ref)) admit(stat, { why, below });
    }
    await admitBelow(members);
    if (await admitCarriers()) await admitBelow(members);
  }

  function plan(): KillReport {
    const planned = new Set(members.map(({ stat }) => stat.pid));
    return { killed: members.map(toKilled), left: left.filter(({ pid }) => !planned.has(pid)), survivors, tookMs: 0 };
  }

  /** The polite way, on request: the tree may leave by itself. Who is born meanwhile is noted while its parent lives. */
  async function ask(deadline: number): Promise<void> {
    for (const member of living()) {
      if (!send(member, 'SIGTERM')) continue;
      member.sent = 'asked';
      send(member, 'SIGCONT');
    }
    const haveLeft = async () => {
      await look();
      return living().every(({ refused }) => refused);
    };
    await until(haveLeft, { timeoutMs: deadline - clock.now(), everyMs: growing(10), signal, clock });
  }

  /** Top-down and again, until all are stopped and nothing new has appeared: who is stopped cannot fork. */
  async function freeze(deadline: number): Promise<void> {
    onSight = stop;
    // A pace of its own, so that the first of them are stopped in the tick in which it was confirmed.
    const pace = createSlice(signal);
    for (const member of [...members]) {
      stop(member);
      await pace();
    }
    let haveStopped = false;
    let progress = { known: 0, stopped: 0, at: clock.now(), looks: 0 };
    const isFrozen = async () => {
      // In this order: what is born before its parent stops is found by the look after that.
      const isSettled = (await look()) === 0 && haveStopped;
      const running = await whoever((member) => !hasStopped(member));
      // Again, since somebody may have continued them: each other, or a kill that was given up.
      for (const member of running) stop(member);
      haveStopped = running.length === 0;
      return (isSettled && haveStopped) || isHopeless(members.length - running.length);
    };
    // Not by the clock alone: where a look takes long, those who fork have had as long, and a burst would miss the last.
    const isHopeless = (stopped: number) => {
      const hasMoved = members.length > progress.known || stopped > progress.stopped;
      if (hasMoved) progress = { known: members.length, stopped, at: clock.now(), looks: 0 };
      else progress.looks++;
      return progress.looks >= FREEZE_LOOKS && clock.now() - progress.at >= FREEZE_MS;
    };
    await until(isFrozen, { timeoutMs: (deadline - clock.now()) / 2, everyMs: soon, signal, clock });
    signal?.throwIfAborted();
  }

  /**
   * Leaf first, and no await between two signals: killing a stopped parent first would make the kernel wake an orphaned
   * group with SIGHUP and SIGCONT, and a pause would let autossh start the next ssh.
   */
  function burst(): void {
    onSight = kill;
    for (const member of [...members].sort(youngestFirst)) kill(member);
  }

  /** Until all are gone and three looks in a row have found nobody new; who turns up is killed on sight. */
  async function watch(deadline: number): Promise<void> {
    const isOver = async () => {
      let found = await look();
      // It may be forking: the next look follows at once.
      while (found > 0 && clock.now() < deadline) found = await look();
      isStillForking = found > 0;
      if (isStillForking || search?.isPending()) return false;
      if ((await whoever((member) => !member.refused && current(member) !== undefined)).length > 0) return false;
      for (let empty = 1; empty < EMPTY_LOOKS; empty++) if ((await look()) > 0 || search?.isPending()) return false;
      return true;
    };
    await until(isOver, { timeoutMs: deadline - clock.now(), everyMs: soon, signal, clock });
  }

  function report(tookMs: number): KillReport {
    const alive = living();
    const killed = members.filter(({ gone, sent }) => gone && sent !== 'nothing');
    const remaining = alive.filter(({ sent, refused }) => sent !== 'nothing' || refused).map(toSurvivor);
    // The time was over before it was: the last of the dead has had children.
    const last = isStillForking && alive.length === 0 ? killed.pop() : undefined;
    if (last) remaining.push({ pid: last.stat.pid, command: last.command, why: 'what it starts was still appearing' });
    // A carrier of the marker may have been spared before, as a session of its own below a holder.
    const met = new Set([...killed.map(({ stat }) => stat.pid), ...[...survivors, ...remaining].map(({ pid }) => pid)]);
    return {
      killed: killed.map(toKilled),
      left: left.filter(({ pid }) => !met.has(pid)),
      survivors: [...survivors, ...remaining],
      tookMs: Math.round(tookMs * 100) / 100,
    };
  }

  /** Whoever was stopped and did not get SIGKILL (an abort, a failure) must run on as if nothing had been. */
  function close(): void {
    open.delete(close);
    if (open.size === 0) process.off('exit', closeAll);
    const failures = members.flatMap((member) => {
      try {
        if (member.sent === 'stopped') send(member, 'SIGCONT');
        forget(member);
        return [];
      } catch (error) {
        // The others must not stay stopped for this one's sake.
        return [error];
      }
    });
    if (failures.length > 0) throw failures[0];
  }

  /** Who is new, and how many of them belong. While nothing was forked nobody can be new: then it is one small read. */
  async function look(): Promise<number> {
    const before = forks;
    forks = readForkCount(proc);
    if (forks !== undefined && forks === before && !search?.isPending()) return 0;
    // Those who lived before the table is read: a number of the dead may be another's in it.
    const parents = await whoever((member) => current(member) !== undefined);
    const carriers = await admitCarriers();
    await updateTable(proc, table, slice);
    forgetSessions();
    return carriers + (await admitBelow([...parents, ...members.slice(members.length - carriers)]));
  }

  async function admitCarriers(): Promise<number> {
    const before = members.length;
    await search?.look(slice, table, ({ pid }) => {
      // Read again: the number in the table may be another's by now.
      const row = readStat(proc, pid);
      if (row) admit(row, { why: `carries ${marker?.[0]}`, below: 'all', marker });
    });
    return members.length - before;
  }

  /** Everything below these, and what is in a session that a member leads, also when its parent is gone. */
  async function admitBelow(parents: readonly Member[]): Promise<number> {
    const before = members.length;
    const children = childrenOf(table);
    const queue: { stat: ProcessStat; below: KillTarget['below'] }[] = [...parents];
    for (const { stat: parent, below } of queue) {
      const offspring = children.get(parent.pid);
      // It lived before the table was read. Whose children these are is certain if its number is nobody else's after that.
      if (!offspring || hasChangedHands(parent)) continue;
      for (const stat of offspring) {
        if (stat.startTicks < parent.startTicks) continue;
        if (below === 'session' && stat.sid !== parent.sid) spare(stat, `below ${parent.pid}, in session ${stat.sid}`);
        else if (admit(stat, { why: `child of ${parent.pid}`, below })) queue.push({ stat, below });
        await slice();
      }
    }
    for (const stat of table.values()) {
      // A session is inherited by fork alone, so it is the leader's offspring. A group is not: a shell puts siblings in one.
      const leader = sessions.get(stat.sid);
      if (leader && leader.stat.startTicks <= stat.startTicks) {
        admit(stat, { why: `in the session of ${leader.stat.pid}`, below: leader.below });
      }
    }
    return members.length - before;
  }

  /** A number stays reserved while it is that of a session, so where a stranger has it, all of that session are gone. */
  function forgetSessions(): void {
    const inhabited = new Set([...table.values()].map(({ sid }) => sid));
    for (const [sid, { stat }] of sessions) {
      if (!inhabited.has(sid) || hasChangedHands(stat)) sessions.delete(sid);
    }
  }

  function hasChangedHands(former: ProcessRef): boolean {
    const heir = readStat(proc, former.pid);
    return heir !== undefined && !isSame(heir, former);
  }

  /**
   * The gate that every pid passes before it can be signalled: makes it a member. False: it is one, or may be none.
   * True also for one that is gone: its children are still ours.
   */
  function admit(row: ProcessStat, grounds: Grounds): boolean {
    const former = byPid.get(row.pid);
    if (former && (!former.gone || isSame(former.stat, row))) return false;
    const pin = proc.pin(row.pid);
    if (typeof pin !== 'object') return true;
    try {
      // All that is read by number is read between the pin and the look through it: it is of that process, or void.
      const command = readCommand(proc, row);
      const refusal = whyProtected(proc, row);
      const lacks = grounds.marker !== undefined && checkMarker(proc, row.pid, grounds.marker) === 'lacks';
      const stat = readPinned(proc, pin);
      if (isGone(stat) || !isSame(stat, row)) return true;
      // This very process may have been started with the marker (from a shell inside a tunnel): no failure, and no target.
      if (refusal && grounds.marker) spare(stat, refusal);
      else if (refusal) protect(stat, refusal);
      if (refusal || lacks) return false;
      join({ ...grounds, stat, pin, command, sent: 'nothing', refused: false, gone: false });
      return true;
    } finally {
      if (byPid.get(row.pid)?.pin !== pin) pin.close();
    }
  }

  function join(member: Member): void {
    members.push(member);
    byPid.set(member.stat.pid, member);
    table.set(member.stat.pid, member.stat);
    if (member.stat.sid === member.stat.pid) sessions.set(member.stat.pid, member);
    onSight(member);
  }

  function spare(stat: ProcessStat, why: string): void {
    if (left.some(({ pid }) => pid === stat.pid)) return;
    left.push({ pid: stat.pid, startTicks: stat.startTicks, command: readCommand(proc, stat), why });
  }

  function protect(stat: ProcessStat, why: string): void {
    if (survivors.some(({ pid }) => pid === stat.pid)) return;
    survivors.push({ pid: stat.pid, command: readCommand(proc, stat), why });
  }

  function living(): Member[] {
    return members.filter((member) => current(member) !== undefined);
  }

  /** The members of whom it is so, asked in slices: there may be thousands. */
  async function whoever(is: (member: Member) => boolean): Promise<Member[]> {
    const found: Member[] = [];
    for (const member of [...members]) {
      if (is(member)) found.push(member);
      await slice();
    }
    return found;
  }

  /** What the member is now, undefined once it is over: then it is let go for good. */
  function current(member: Member): ProcessStat | undefined {
    if (member.gone) return undefined;
    const now = readPinned(proc, member.pin);
    // The pin alone says so; the start ticks beside it cost nothing, and this is where a stranger would die.
    if (!isGone(now) && isSame(now, member.stat)) return now;
    forget(member);
    return undefined;
  }

  function forget(member: Member): void {
    if (!member.gone) member.pin.close();
    member.gone = true;
  }

  /**
   * T stopped, t traced, Z dead; and D, since a vfork parent whose child is stopped waits in it for ever. Of each thread:
   * one may still be inside fork when the first, whose state is the process's, has stopped.
   */
  function hasStopped(member: Member): boolean {
    const now = current(member);
    if (member.refused || now === undefined) return true;
    if (!isHalted(now.state)) return false;
    return now.threads <= 1 || readThreadStates(proc, now.pid).every(isHalted);
  }

  /** One that somebody else has stopped is left as it is, so that it is not continued either when this is given up. */
  function stop(member: Member): void {
    if (current(member)?.state === 'T') return;
    if (send(member, 'SIGSTOP')) member.sent = 'stopped';
  }

  function kill(member: Member): void {
    if (send(member, 'SIGKILL')) member.sent = 'killed';
  }

  /** Identity through the pin and the signal in one tick: the number cannot change hands in between. */
  function send(member: Member, name: NodeJS.Signals): boolean {
    if (current(member) === undefined) return false;
    try {
      process.kill(member.stat.pid, name);
      return true;
    } catch (error) {
      if (isErrno(error, 'ESRCH')) return false;
      if (!isErrno(error, 'EPERM')) throw error;
      member.refused = true;
      return false;
    }
  }

  function toSurvivor(member: Member): Survivor {
    const { stat, command, refused } = member;
    const now = current(member) ?? stat;
    const { state } = now;
    if (refused) return { pid: stat.pid, command, why: `not permitted: it belongs to ${readOwner(proc, stat.pid)}` };
    // The first thread ends at once and shows Z; another that waits for a disk keeps every socket of the process.
    const isStuck = state === 'D' || (now.threads > 1 && readThreadStates(proc, stat.pid).includes('D'));
    if (isStuck) return { pid: stat.pid, command, why: 'stuck in uninterruptible sleep (D), SIGKILL is pending' };
    // A tracer may ask to be told of the end before it happens (PTRACE_O_TRACEEXIT), sockets still open, and take its time.
    const tracer = state === 't' ? readTracer(proc, stat.pid) : undefined;
    if (tracer) return { pid: stat.pid, command, why: `stuck at its tracer (t), pid ${tracer}, SIGKILL is pending` };
    return { pid: stat.pid, command, why: `still in state ${state} after SIGKILL` };
  }
}

/** Those that are not over. Should this process end before they are (an exception that nobody catches), they end with it. */
const open = new Set<() => void>();

function closeAll(): void {
  for (const close of open) close();
}

function readOwner(proc: Proc, pid: number): string {
  const uid = known(proc.owner(String(pid)));
  return uid === undefined ? 'another user' : readUserName(uid);
}

function toKilled({ stat, command, why }: Member): KilledProcess {
  return { pid: stat.pid, startTicks: stat.startTicks, command, why };
}

function isHalted(state: string): boolean {
  return 'TtZXD'.includes(state);
}

/** A child is never older than its parent, and within one tick (10 ms) it has the higher number. */
function youngestFirst({ stat: one }: Member, { stat: other }: Member): number {
  return other.startTicks - one.startTicks || other.pid - one.pid;
}

/** Most are stopped, and gone, within a fraction of a millisecond; who waits for a disk may take for ever. */
function soon(check: number): number {
  if (check <= 10) return 0;
  return check <= 100 ? 1 : 5;
}

/**
 * With nobody new and no more of them stopped for this long and so many looks, who runs on is continued by others all the
 * time, and is killed as it is. The kernel needs some milliseconds to stop what runs.
 */
const FREEZE_MS = 100;
const FREEZE_LOOKS = 20;
/** One look that finds nobody proves nothing: a child can be born behind the reader's back. */
const EMPTY_LOOKS = 3;

/** Is somebody there who may not be signalled? Where /proc hides others (hidepid) it is all that can be known. */
export function isForbidden(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    if (isErrno(error, 'EPERM')) return true;
    if (isErrno(error, 'ESRCH')) return false;
    throw error;
  }
}
