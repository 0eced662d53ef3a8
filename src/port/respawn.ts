import { known, type Proc } from '../proc/read.js';
import {
  describeProcess,
  isGone,
  isSame,
  type ProcessInfo,
  type ProcessRef,
  type ProcessStat,
  type ProcessTable,
  readArguments,
  readChildren,
  readCommand,
  readStat,
} from '../proc/stat.js';
import { ancestors } from '../proc/tree.js';
import type { Clock } from '../time.js';
import { isDaemon, readLocks } from './daemons.js';

/** A port that is listened on again within this time of being freed has been taken by whoever starts its holder again. */
const RETURN_MS = 50;
/** A successor that has been started by then is given this long to listen: Node alone needs 40 to 300 ms to begin. */
const SUCCESSOR_MS = 1000;
/** A parent that has started something else goes on with its script: with the pause of its loop, as likely as not. */
const GOES_ON_MS = 150;
const LOOK_MS = 3;

/** Someone who is to be killed, and those above who may start it again, nearest first. */
export interface Suspicion {
  readonly command: string;
  readonly above: readonly { readonly stat: ProcessStat; readonly command: string }[];
}

/**
 * Who may start this process again: a parent that lives on, and when it ends with its child (an `sh -c`, an npm) the one
 * above it. Undefined where nobody can: the parent is this very process, or a shell that waits for this process, or one
 * that adopts orphans. So the chains that a dead manager has left, and our own, cost no waiting.
 */
export function suspect(proc: Proc, table: ProcessTable, child: ProcessStat): Suspicion | undefined {
  const own = ancestors(table, table.get(process.pid));
  const above: ProcessStat[] = [];
  let below = child;
  for (const parent of ancestors(table, child)) {
    if (parent.pid === process.pid || !mayStart(proc, parent, below)) break;
    if (shells.has(parent.comm) && own.includes(parent)) break;
    above.push(parent);
    below = parent;
  }
  if (above.length === 0) return undefined;
  return {
    command: readCommand(proc, child),
    above: above.map((stat) => ({ stat, command: readCommand(proc, stat) })),
  };
}

const shells: ReadonlySet<string> = new Set('sh ash bash dash fish ksh mksh tcsh csh zsh busybox'.split(' '));
/** Pid 1 of a container that waits for orphans and starts nothing twice. */
const reapers: ReadonlySet<string> = new Set(['tini', 'dumb-init', 'docker-init', 'catatonit']);

function mayStart(proc: Proc, parent: ProcessStat, child: ProcessStat): boolean {
  if (parent.comm === 'systemd') {
    const unit = unitOf(proc, child.pid);
    return unit !== undefined && unit !== unitOf(proc, process.pid);
  }
  // What has made itself a daemon was adopted by pid 1 and is in a session of its own; a script's child is in the script's.
  return parent.pid !== 1 || (!reapers.has(parent.comm) && parent.sid === child.sid);
}

/** The service of systemd that a process belongs to, by its control group: the innermost, below a person's own manager. */
export function unitOf(proc: Proc, pid: number): string | undefined {
  return /^\d+:[^:\n]*:\S*\/([^/\n]+\.service)(?=\/|$)/m.exec(known(proc.text(`${pid}/cgroup`)) ?? '')?.[1];
}

interface Watch {
  readonly proc: Proc;
  readonly clock: Clock;
  readonly signal: AbortSignal | undefined;
  readonly deadline: number;
  /** Start times from here on are of processes that came after the kill. */
  readonly sinceTicks: number;
  /** By the tables, and not by a bind: that could be what keeps the successor from its port. */
  readonly isHeld: () => Promise<boolean>;
}

/** Watches those who might start the dead again, as long as there are any. True: the port is listened on. */
export async function comesBack(suspicions: readonly Suspicion[], watch: Watch): Promise<boolean> {
  const { proc, clock, signal, deadline, isHeld } = watch;
  const began = clock.now();
  const old = new Set<number>();
  let watched = suspicions;
  let end = began + RETURN_MS;
  while (watched.length > 0) {
    if (await isHeld()) return true;
    const present = watched.flatMap((one) => forgetDead(proc, one));
    // One that ends because its child has ended hands the question on to its own parent.
    if (present.some((one, at) => one !== watched[at])) end = Math.max(end, clock.now() + RETURN_MS);
    watched = present;
    const born = watched.map((one) => lookForBorn(one, { ...watch, old }));
    // Between the pause of a loop and the next start there is nobody for an instant.
    if (born.includes('another')) end = Math.max(end, began + GOES_ON_MS);
    const isStarting = born.includes('successor') && clock.now() < began + SUCCESSOR_MS;
    if (clock.now() >= deadline || (clock.now() >= end && !isStarting)) return false;
    await clock.sleep(LOOK_MS, signal);
  }
  return false;
}

function forgetDead(proc: Proc, suspicion: Suspicion): Suspicion[] {
  const [nearest, ...rest] = suspicion.above;
  if (!nearest) return [];
  const now = readStat(proc, nearest.stat.pid);
  if (!isGone(now) && isSame(now, nearest.stat)) return [suspicion];
  return forgetDead(proc, { command: nearest.command, above: rest });
}

/** Has it started somebody since, and as it started the dead one? Who is `old` is not looked at twice. */
function lookForBorn(
  { command, above: [parent] }: Suspicion,
  { proc, sinceTicks, old }: Pick<Watch, 'proc' | 'sinceTicks'> & { readonly old: Set<number> },
): 'successor' | 'another' | undefined {
  let born: 'another' | undefined;
  for (const pid of parent ? readChildren(proc, parent.stat.pid) : []) {
    const child = old.has(pid) ? undefined : readStat(proc, pid);
    if (child && child.startTicks < sinceTicks) old.add(pid);
    else if (!isGone(child)) {
      if (readCommand(proc, child) === command) return 'successor';
      born = 'another';
    }
  }
  return born;
}

/**
 * Who has started a new holder: the first above it that was there before, if it is one of those suspected. Somebody else
 * below the same shell, who waited for the port, is no reason to blame the shell.
 */
export function findRespawner(
  proc: Proc,
  suspicions: readonly Suspicion[],
  { holders, sinceTicks }: { readonly holders: readonly ProcessRef[]; readonly sinceTicks: number },
): ProcessInfo | undefined {
  const suspects = suspicions.flatMap(({ above }) => above.map(({ stat }) => stat));
  for (const holder of holders) {
    if (holder.startTicks < sinceTicks) continue;
    let stat = readStat(proc, holder.pid);
    while (stat) {
      stat = readStat(proc, stat.ppid);
      if (stat && suspects.some((one) => isSame(one, stat))) return describeProcess(proc, stat);
      if (stat && stat.startTicks < sinceTicks) break;
    }
  }
  return undefined;
}

/** Those who serve more than one: a person's login, a service manager. Nor is a shell in which a person types. */
const managers = /^(systemd|sshd|sshd-session|login|init|tmux: server|screen|dockerd|containerd.*|conmon)$/;

/** May it be killed for what it starts? A tunward daemon may not, for one of its tunnels. What is above this process may not either; that the kill itself refuses. */
export function isKeeper(proc: Proc, { pid }: ProcessInfo): boolean {
  const isManager = pid === 1 || managers.test(readStat(proc, pid)?.comm ?? '');
  return isManager || isTypedIn(proc, pid) || isDaemon(proc, { pid }, readLocks(proc));
}

/** A shell without a script and without `-c`: what it runs was typed, and with it would go all else that its terminal has. */
function isTypedIn(proc: Proc, pid: number): boolean {
  const comm = readStat(proc, pid)?.comm ?? '';
  const [, ...words] = readArguments(proc, pid);
  if (comm === 'busybox') words.shift();
  return shells.has(comm) && words.every((word) => /^[-+]/.test(word) && !/^-[a-z]*c/.test(word));
}

/** What makes it stop starting the holder again. */
export function remedyFor(proc: Proc, respawner: ProcessInfo, holder: ProcessInfo | undefined): string {
  const { pid, command } = respawner;
  const comm = readStat(proc, pid)?.comm ?? '';
  if (comm === 'systemd') {
    const unit = (holder && unitOf(proc, holder.pid)) ?? '<unit>';
    return `stop its unit (systemctl ${pid === 1 ? '' : '--user '}stop ${unit})`;
  }
  if (command.includes('supervisord')) return 'stop the program there (supervisorctl stop <program>)';
  if (comm.startsWith('PM2')) return 'stop the app there (pm2 stop <app>)';
  if (comm === 'runsv') return 'stop the service there (sv down <service>)';
  if (comm === 's6-supervise') return 'stop the service there (s6-svc -d <service>)';
  if (isDaemon(proc, { pid }, readLocks(proc))) return "stop the tunnel there ('tunward stop NAME')";
  if (isTypedIn(proc, pid)) return 'end what was typed there (Ctrl-C in its terminal)';
  if (isKeeper(proc, respawner)) return 'end the service there';
  return `end that one first (tunward kill ${pid}), or have it killed too (--respawner, {respawner: true})`;
}
