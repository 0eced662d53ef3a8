import { walkNumbers } from '../proc/fd.js';
import type { Socket } from '../proc/net.js';
import { known, type Proc } from '../proc/read.js';
import { hidesOthers, isInFirstPidNamespace } from '../proc/rights.js';
import {
  describeProcess,
  type ProcessInfo,
  type ProcessStat,
  readPids,
  readPidsNewestFirst,
  readStat,
  readUids,
  readUserName,
} from '../proc/stat.js';
import type { Slice } from '../time.js';
import { nameOf } from './words.js';

/** Why a socket is in the tables and in no process that can be seen. */
export type HiddenReason = 'other_user' | 'outside_pid_namespace' | 'in_flight_fd' | 'kernel';

export interface Hidden {
  readonly reason: HiddenReason;
  /** What is known and what to do; it follows "Port 9443 is ". */
  readonly text: string;
}

/**
 * Explains a listener whose inode no process showed in a whole scan, as far as the kernel lets one tell. In this order,
 * from what is certain to what remains:
 * a socket without an inode has no file, so it is the kernel's own; a message that waits with a descriptor in it is
 * counted in the receiver's fdinfo; processes that would not show their descriptors may have it; and only when all have
 * shown theirs can it be nobody's here: outside this PID namespace, or, in the first one, the kernel's.
 */
export async function explainHidden(
  proc: Proc,
  row: Socket,
  { refusing, slice }: { readonly refusing: readonly number[]; readonly slice: Slice },
): Promise<Hidden> {
  const owner = readUserName(row.uid);
  if (row.inode === 0)
    return ofKernel(await findServices(proc, slice), 'by the kernel itself', 'its socket has no inode');
  const isOwn = row.uid === (process.geteuid?.() ?? 0);
  const isHiding = hidesOthers(proc);
  const isComplete = refusing.length === 0 && !isHiding;
  if (isComplete || isOwn) {
    const receiver = await findReceiver(proc, slice);
    if (receiver) return inFlight(owner, receiver);
  }
  const bearers = await findBearers(proc, refusing, { uid: row.uid, slice });
  if (!isComplete && !isOwn) return ofOtherUser(proc, row.uid, { isHiding, bearers });
  if (bearers.length > 0) return ofOneThatRefuses(proc, owner, bearers);
  if (refusing.length > 0 && isRoot()) return ofOneThatRefuses(proc, owner, refusing);
  if (isHiding) return ofOneThatIsHidden(owner);
  if (!isInFirstPidNamespace(proc)) return outside(proc, owner);
  if (isComplete) {
    const by = 'by no process, so most likely by the kernel itself';
    return ofKernel(await findServices(proc, slice), by, 'all show what they have open');
  }
  const text = `held by a socket of ${owner} that no process of ${owner} shows: another user's process has it, so look again as root`;
  return { reason: 'other_user', text };
}

function ofOtherUser(
  proc: Proc,
  uid: number,
  { isHiding, bearers }: { readonly isHiding: boolean; readonly bearers: readonly number[] },
): Hidden {
  const owner = readUserName(uid);
  const only = isHiding ? undefined : describeOnly(proc, bearers);
  const guess = only ? ` (most likely ${nameOf(only)}, its only one)` : '';
  const hiding = isHiding ? ', and this /proc hides the processes of others (hidepid)' : '';
  const who = uid === 0 ? 'root' : `${owner} or root`;
  // Root of a container mostly lacks the capability: that it be root is no advice to it.
  const why = isRoot() ? 'root may look into with CAP_SYS_PTRACE alone' : `only ${who} may look into`;
  const as = isRoot() ? `${owner}, or with that capability (docker run --cap-add SYS_PTRACE)` : who;
  const text = `held by a process of ${owner}${guess}, which ${why}${hiding}: look again, or free it, as ${as}`;
  return { reason: 'other_user', text };
}

/**
 * Its own user, and even root, may be refused: who was started with capabilities of its own or guards its memory
 * (PR_SET_DUMPABLE) shows itself to CAP_SYS_PTRACE alone; a security module may keep that back too (ptrace(2)).
 */
function ofOneThatRefuses(proc: Proc, owner: string, refusing: readonly number[]): Hidden {
  const only = describeOnly(proc, refusing);
  const likely = only ? `most likely ${nameOf(only)}` : `one of ${refusing.length}`;
  if (!isRoot()) {
    const end = only ? `, or end it (tunward kill ${only.pid})` : '';
    const text = `held by a process of ${owner} that shows only root what it has open (${likely}): it was started with privileges of its own, or guards its memory, so look, or free it, as root${end}`;
    return { reason: 'other_user', text };
  }
  const elsewhere = isInFirstPidNamespace(proc) ? '' : ', or by one outside of this container';
  const text = `held by a process of ${owner} that not even this root may look into (${likely})${elsewhere}: it has privileges that this process lacks, or is guarded, so look, or free it, from where it was started`;
  return { reason: 'other_user', text };
}

function ofOneThatIsHidden(owner: string): Hidden {
  const text = `held by a socket of ${owner} that no process has which this /proc shows: it hides some (hidepid), so look again as root`;
  return { reason: 'other_user', text };
}

function inFlight(owner: string, receiver: ProcessInfo): Hidden {
  const text = `held by a socket of ${owner} that no process has open: most likely it waits in a message to ${nameOf(receiver)}, and is free when that takes it and closes it, or ends`;
  return { reason: 'in_flight_fd', text };
}

function outside(proc: Proc, owner: string): Hidden {
  const text = `held by a process of ${owner} that this /proc (${proc.root}) does not show: it runs outside of this PID namespace (this container), or is the kernel, so free it there`;
  return { reason: 'outside_pid_namespace', text };
}

function ofKernel(services: readonly string[], by: string, evidence: string): Hidden {
  const seen = services.length > 0 ? `, where ${services.join(', ')} runs` : '';
  const text = `held ${by}${seen} (${evidence}): stop the service that listens in it, as an NFS, SMB or iSCSI server does`;
  return { reason: 'kernel', text };
}

/** Threads of the kernel that listen for TCP connections: NFS, its locks, SMB, iSCSI, NVMe, and the cluster file systems. */
async function findServices(proc: Proc, slice: Slice): Promise<string[]> {
  const listening = /^(nfsd|lockd|ksmbd|iscsi_np|nvmet|o2net|dlm_recv|krdsd)/;
  const found = new Set<string>();
  for (const pid of readPids(proc)) {
    const stat = readStat(proc, pid);
    const name = stat?.kernelThread ? listening.exec(stat.comm)?.[0] : undefined;
    if (name) found.add(name);
    const pause = slice();
    if (pause) await pause;
  }
  return [...found];
}

/** Those of them that run as this user. /proc gives the folder of one that guards its memory to root, so status is asked. */
async function findBearers(
  proc: Proc,
  pids: readonly number[],
  { uid, slice }: { readonly uid: number; readonly slice: Slice },
): Promise<number[]> {
  const bearers: number[] = [];
  for (const pid of pids) {
    if (readUids(proc, pid).includes(uid)) bearers.push(pid);
    const pause = slice();
    if (pause) await pause;
  }
  return bearers;
}

/** Of several none can be named. */
function describeOnly(proc: Proc, pids: readonly number[]): ProcessInfo | undefined {
  const stat = pids.length === 1 ? readStat(proc, pids[0] ?? 0) : undefined;
  return stat && describeProcess(proc, stat);
}

function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

/**
 * A process with a unix socket in which descriptors wait to be received (`scm_fds` in its fdinfo, since Linux 5.6). Which
 * descriptors they are, the kernel does not say.
 */
async function findReceiver(proc: Proc, slice: Slice): Promise<ProcessInfo | undefined> {
  for (const pid of readPidsNewestFirst(proc)) {
    const stat = readStat(proc, pid);
    if (stat && (await isReceiver(proc, stat, slice))) return describeProcess(proc, stat);
  }
  return undefined;
}

async function isReceiver(proc: Proc, { pid }: ProcessStat, slice: Slice): Promise<boolean> {
  for (const fd of walkNumbers(proc, `${pid}/fd`)) {
    const pause = slice();
    if (pause) await pause;
    if (!known(proc.link(`${pid}/fd/${fd}`))?.startsWith('socket:')) continue;
    if (/^scm_fds:\s*[1-9]/m.test(known(proc.text(`${pid}/fdinfo/${fd}`)) ?? '')) return true;
  }
  return false;
}
