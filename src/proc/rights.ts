import { known, type Proc } from './read.js';

/** Capabilities (capabilities(7)) by their bit. */
export const CAP_KILL = 5n;
export const CAP_NET_BIND_SERVICE = 10n;
export const CAP_SYS_PTRACE = 19n;

/** Who is shown of the processes of others, by the options of this /proc (proc(5)). */
export interface Hidepid {
  /** `1` to `4`, or by name, as it was mounted. */
  readonly level: string;
  /** The group from which levels 1 and 2 hide nobody; root's where none is named. */
  readonly gid: number;
}

/** Does this /proc keep the processes of other users from us? */
export function hidesOthers(proc: Proc): boolean {
  const hidepid = readHidepid(proc);
  if (hidepid === undefined || maySeeAll(proc)) return false;
  // Level 4 asks for the right to trace each, whatever the group.
  const isByGroup = !['4', 'ptraceable'].includes(hidepid.level);
  return !(isByGroup && readGroups(proc).includes(hidepid.gid));
}

/** The hidepid option, where it hides anything. The last mount on a place is the one that is seen. */
export function readHidepid(proc: Proc): Hidepid | undefined {
  const lines = (known(proc.text('self/mountinfo')) ?? '').split('\n');
  const mount = lines.findLast((line) => line.split(' ')[4] === proc.root && / - proc /.test(line));
  // Behind the dash stand the type, what was mounted (a name that anybody may choose), and the options of this /proc.
  const options = mount?.slice(mount.indexOf(' - ')).split(' ')[4]?.split(',') ?? [];
  const valueIn = (name: string) => options.find((option) => option.startsWith(`${name}=`))?.slice(name.length + 1);
  const level = valueIn('hidepid');
  return level === undefined || level === '0' || level === 'off'
    ? undefined
    : { level, gid: Number(valueIn('gid') ?? 0) };
}

/** Has this process a capability: in effect now, or handed on to a program that an ordinary user starts (`CapAmb`)? */
export function hasCapability(
  proc: Proc,
  capability: bigint,
  set: 'CapEff' | 'CapAmb' = 'CapEff',
): boolean | undefined {
  const bits = new RegExp(`^${set}:\\s*([0-9a-f]+)`, 'm').exec(known(proc.text('self/status')) ?? '')?.[1];
  return bits === undefined ? undefined : ((BigInt(`0x${bits}`) >> capability) & 1n) === 1n;
}

/** Whom hidepid does not bind: the bearers of CAP_SYS_PTRACE, as root is. */
function maySeeAll(proc: Proc): boolean {
  return hasCapability(proc, CAP_SYS_PTRACE) ?? process.geteuid?.() === 0;
}

/** The group of its files and those besides. */
function readGroups(proc: Proc): number[] {
  const status = known(proc.text('self/status')) ?? '';
  const own = /^Gid:\s*\d+\s+\d+\s+\d+\s+(\d+)$/m.exec(status)?.[1] ?? '';
  const besides = /^Groups:[ \t]*(.*)$/m.exec(status)?.[1] ?? '';
  return `${own} ${besides}`.split(' ').filter(Boolean).map(Number);
}

/** What /proc/self/ns/pid links to in the namespace that a host boots with (PROC_PID_INIT_INO of the kernel). */
const FIRST_PID_NAMESPACE = 'pid:[4026531836]';

/** Does this process see all there are? A container has a PID namespace of its own. */
export function isInFirstPidNamespace(proc: Proc): boolean {
  return known(proc.link('self/ns/pid')) === FIRST_PID_NAMESPACE;
}
