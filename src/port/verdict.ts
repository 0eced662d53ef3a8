import type { KillReport } from '../kill.js';
import type { Socket } from '../proc/net.js';
import { known, type Proc } from '../proc/read.js';
import { type ProcessInfo, readStat, readUserName } from '../proc/stat.js';
import { isDaemon, readLocks } from './daemons.js';
import type { HiddenReason } from './hidden.js';
import type { Listener } from './listeners.js';
import type { HostProbe } from './probe.js';
import { endpoint, introduce, introduceAll, nameOf } from './words.js';

export type Verdict =
  | 'free'
  | 'listening'
  | 'respawned'
  | 'client_holds'
  | 'time_wait'
  | 'hidden_bind'
  | HiddenReason
  | 'pid1'
  | 'stuck'
  | 'protected'
  | 'forbidden'
  | 'no_address';

/** What is so, and the one sentence that says what is known of it and what to do. */
export interface Judgement {
  readonly verdict: Verdict;
  readonly explanation: string;
}

/** The listeners of a port, judged by who holds them. */
export function judgeListeners(proc: Proc, listeners: readonly Listener[], target: string): Judgement {
  const port = listeners[0]?.port ?? 0;
  const holders = holdersOf(listeners);
  const [first] = holders;
  if (!first) {
    const hidden = listeners.find((listener) => listener.hiddenReason);
    const verdict = hidden?.hiddenReason ?? 'listening';
    return { verdict, explanation: `Port ${port} is ${hidden?.hidden ?? 'listened on'}` };
  }
  const held = (by: ProcessInfo) => `Port ${port} is held by ${introduce(by)}`;
  const init = holders.find(({ pid }) => pid === 1);
  if (init) return { verdict: 'pid1', explanation: `${held(init)}, which is never killed: ${REMEDY.pid1}` };
  const locks = readLocks(proc);
  const daemon = holders.find((holder) => isDaemon(proc, holder, locks));
  if (daemon) return { verdict: 'protected', explanation: `${held(daemon)}, ${WHY_DAEMON}: ${DAEMON_REMEDY}` };
  const above = readAncestors(proc);
  const own = holders.find(({ pid }) => above.includes(pid));
  if (own) {
    const who = own.pid === process.pid ? 'this very process' : 'an ancestor of this process';
    return { verdict: 'protected', explanation: `${held(own)}, ${who}, which is never killed: ${REMEDY.protected}` };
  }
  const hidden = listeners.find((listener) => listener.hiddenReason);
  // One that nobody shows stays, whoever else is killed.
  const rest = hidden ? `, but ${endpoint(hidden)} is ${hidden.hidden}` : '';
  const explanation = `Port ${port} is held by ${introduceAll(holders)}: "tunward free ${target}" kills it with its chain${rest}`;
  return { verdict: 'listening', explanation };
}

const REMEDY = {
  pid1: 'stop the service in it, or the container',
  protected: 'close the port there',
  stuck: 'it dies when the disk or the file server that it waits for answers',
  other_user: 'try again as that user, or as root',
} as const;

/** What a daemon listens for is its tunnel's, seamless or by the embedded engine: all its others would die for it. */
export const WHY_DAEMON = 'a tunward daemon that listens for its tunnel';

export const DAEMON_REMEDY = "'tunward stop NAME' (or the tunnel's settings) frees it";

/** A conflict without a listener, by the other sockets that are in the way and those who have them open. */
export function judgeSockets(port: number, rows: readonly Socket[], owners: readonly ProcessInfo[]): Judgement {
  const live = rows.find(({ inode }) => inode !== 0);
  if (live) {
    const [first] = owners;
    const who = first ? introduceAll(owners) : `a process of ${readUserName(live.uid)} that cannot be seen here`;
    const explanation = `Port ${port} is the near end of a connection to ${farEnd(live)} of ${who}: it is free when that connection has ended, so end it there or take another port`;
    return { verdict: 'client_holds', explanation };
  }
  const [ended] = rows;
  if (ended) {
    const explanation = `Port ${port} was the near end of a connection to ${farEnd(ended)} that has ended (${ended.state}), and nobody has it: wait, about a minute`;
    return { verdict: 'time_wait', explanation };
  }
  const explanation = `Port ${port} is bound by a socket that does not listen, and the kernel's tables name no owner of such a one: end the program that has bound it, or wait until it listens`;
  return { verdict: 'hidden_bind', explanation };
}

/** Nothing is in the way: then it is free, or may not or cannot be bound. */
export function judgeProbes(
  proc: Proc,
  port: number,
  { probes, isTakenElsewhere = false }: { readonly probes: readonly HostProbe[]; readonly isTakenElsewhere?: boolean },
): Judgement {
  if (probes.every(({ probe }) => probe === 'absent')) {
    const hosts = probes.map(({ host }) => host).join(', ');
    const off = hosts.includes(':') && known(proc.text('net/if_inet6')) === undefined ? ' (IPv6 is off here)' : '';
    const explanation = `This host has no address ${hosts} to bind port ${port} on${off}: use one that it has, as 127.0.0.1`;
    return { verdict: 'no_address', explanation };
  }
  if (probes.some(({ probe }) => probe === 'forbidden')) {
    const first = Number(known(proc.text('sys/net/ipv4/ip_unprivileged_port_start')) ?? 1024);
    const who = readUserName(process.geteuid?.() ?? 0);
    const why =
      port < first
        ? `ports below ${first} need root or CAP_NET_BIND_SERVICE, so use that or a port from ${first} on`
        : 'a security policy of this host forbids it, so ask there or use another port';
    return { verdict: 'forbidden', explanation: `Port ${port} may not be bound by ${who}: ${why}` };
  }
  if (isTakenElsewhere) {
    const hosts = probes.filter(({ probe }) => probe === 'free').map(({ host }) => host);
    const explanation = `Port ${port} is free on ${hosts.join(', ')}: it was bound there, and cannot be on all addresses at once, since a socket that does not listen has it on another one (tunward who '*:${port}')`;
    return { verdict: 'free', explanation };
  }
  return { verdict: 'free', explanation: `Port ${port} is free: it was bound` };
}

/** Somebody who was to be killed is left. */
export function judgeSurvivors(port: number, kill: KillReport, after: Judgement & { free: boolean }): Judgement {
  const survivor = kill.survivors[0];
  if (!survivor) return after;
  const who = nameOf(survivor);
  const verdict = verdictOf(kill.survivors.map(({ why }) => why)) ?? (after.free ? 'stuck' : after.verdict);
  const remedy = remedyFor(verdict, survivor.why);
  if (after.free) {
    return {
      verdict,
      explanation: `Port ${port} was bound, but ${who} of its chain is left (${survivor.why})${remedy}`,
    };
  }
  return { verdict, explanation: `Cannot free port ${port}: ${who} still has it (${survivor.why})${remedy}` };
}

/** It was freed, and is held again. */
export function judgeReturn(
  port: number,
  { respawner, holder, remedy }: { respawner: ProcessInfo; holder: ProcessInfo | undefined; remedy: string },
): Judgement {
  const by = holder ? ` by ${nameOf(holder)}` : '';
  const explanation = `Port ${port} was freed and is held again${by}: ${nameOf(respawner)} of ${respawner.user} starts it again; ${remedy}`;
  return { verdict: 'respawned', explanation };
}

function remedyFor(verdict: Verdict, why: string): string {
  if (why.includes('tracer')) return '; end that tracer, or have it let go';
  return verdict in REMEDY ? `; ${REMEDY[verdict as keyof typeof REMEDY]}` : '';
}

function verdictOf(whys: readonly string[]): Verdict | undefined {
  if (whys.some((why) => why.includes('pid 1'))) return 'pid1';
  if (whys.some((why) => why.startsWith('protected'))) return 'protected';
  if (whys.some((why) => why.startsWith('not permitted'))) return 'other_user';
  if (whys.some((why) => why.startsWith('stuck'))) return 'stuck';
  return undefined;
}

export function explainFreed(port: number, kill: KillReport | null): string {
  const pids = kill?.killed.map(({ pid }) => pid) ?? [];
  if (pids.length === 0) return `Port ${port} is free: it was bound`;
  return `Port ${port} is free: killed ${pids.length === 1 ? 'pid' : 'pids'} ${pids.join(', ')}, then bound it`;
}

/** Each process once, however many sockets it has; the oldest first, which is the one that opened it before it forked. */
export function holdersOf(listeners: readonly Listener[]): ProcessInfo[] {
  const holders = listeners.flatMap((listener) => listener.holders);
  const each = [...new Map(holders.map((holder) => [holder.pid, holder])).values()];
  return each.sort((one, other) => one.startTicks - other.startTicks || one.pid - other.pid);
}

/** This process and all above it, nearest first. */
export function readAncestors(proc: Proc): number[] {
  const pids: number[] = [];
  for (let pid = process.pid; pid > 0 && !pids.includes(pid); pid = readStat(proc, pid)?.ppid ?? 0) pids.push(pid);
  return pids;
}

function farEnd({ remoteAddress, remotePort }: Socket): string {
  return endpoint({ address: remoteAddress, port: remotePort });
}
