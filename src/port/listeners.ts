import net from 'node:net';
import { type BackendOptions, usesPortable } from '../proc/backend.js';
import { type Holder, scanHolders, scanUnshown } from '../proc/fd.js';
import { confirmListeners, type Protocol, readListeners, type Socket } from '../proc/net.js';
import { openProc, type Proc } from '../proc/read.js';
import { describeProcess, type ProcessInfo } from '../proc/stat.js';
import { type Clock, createSlice, type Slice } from '../time.js';
import { explainHidden, type HiddenReason } from './hidden.js';
import { assertPort, probeAddress, resolveHosts } from './probe.js';

/** One listening socket and everyone who has it open. No holders is explained in `hidden`, never "nobody". */
export interface Listener {
  readonly protocol: Protocol;
  readonly address: string;
  readonly port: number;
  readonly inode: number;
  readonly uid: number;
  readonly holders: readonly ProcessInfo[];
  /** Why nobody is to be seen who has it, and what to do; it follows "Port 9443 is ". */
  readonly hidden?: string;
  readonly hiddenReason?: HiddenReason;
}

export interface PortOptions extends BackendOptions {
  /**
   * An IP address, `localhost` (127.0.0.1 and, where this host has it, ::1) or `*` (0.0.0.0 and ::). Other names are
   * refused: they are never probed by name. `::` is IPv6 alone, as ssh binds it; what Node binds without a host is `*`.
   * Not given: the addresses that are listened on, 127.0.0.1 and ::1.
   */
  readonly host?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly clock?: Clock | undefined;
}

export interface FindListenersOptions extends PortOptions {
  readonly protocol?: Protocol | undefined;
}

/** The library's {@link import('../door.js').findListeners}. */
export async function findListeners(port: number, options: FindListenersOptions = {}): Promise<Listener[]> {
  assertPort(port);
  if (usesPortable(options)) return (await import('./portable.js')).findListenersPortably(port, options);
  const proc = options.proc ?? openProc();
  const hosts = options.host === undefined ? undefined : resolveHosts(options.host);
  const first = await listenersInTheWay(proc, port, hosts);
  // "Nobody" is confirmed by the whole of the tables: a bind would be quicker, and in the way of who is about to listen.
  const isUnsure = first.length === 0 && hosts === undefined;
  const found = isUnsure ? await confirmListeners(proc, port, createSlice(options.signal)) : first;
  const rows = found.filter((row) => options.protocol === undefined || row.protocol === options.protocol);
  return withHolders(proc, rows, options.signal);
}

/** Every holder of each row. A row that has gone meanwhile is left out; one that nobody shows is explained. */
export async function withHolders(
  proc: Proc,
  rows: readonly Socket[],
  signal: AbortSignal | undefined,
): Promise<Listener[]> {
  const slice = createSlice(signal);
  const first = await findHolders(proc, rows, slice);
  const missing = rows.filter(({ inode }) => !first.holders.has(inode));
  if (missing.length === 0) return rows.map((row) => toListener(row, first.holders.get(row.inode)));
  // Closed while the scan went on, or handed to a process that it had passed: nobody is said to hide it before this.
  const present = await confirmListeners(proc, missing[0]?.port ?? 0, slice);
  const still = missing.filter(({ inode }) => present.some((row) => row.inode === inode));
  const again = await findHolders(proc, still, slice);
  await addUnshown(proc, still, again.holders, slice);
  const listeners: Listener[] = [];
  for (const row of rows) {
    const holders = first.holders.get(row.inode) ?? again.holders.get(row.inode);
    if (holders) listeners.push(toListener(row, holders));
    else if (still.includes(row)) {
      const { reason, text } = await explainHidden(proc, row, { refusing: again.refusing, slice });
      listeners.push({ ...toListener(row), hidden: text, hiddenReason: reason });
    }
  }
  return listeners;
}

/** Threads and rings may have what their process does not show; for a listener that nobody else has. */
async function addUnshown(proc: Proc, rows: readonly Socket[], holders: Map<number, ProcessInfo[]>, slice: Slice) {
  const hidden = new Set(rows.filter((row) => !holders.has(row.inode) && mayBeUnshown(row)).map(({ inode }) => inode));
  if (hidden.size === 0) return;
  for await (const holder of scanUnshown(proc, hidden, slice)) note(proc, holders, holder);
}

/** Of another user's socket it would be a search among this user's threads, seconds long where browsers run. */
export function mayBeUnshown({ uid }: Pick<Socket, 'uid'>): boolean {
  const own = process.geteuid?.() ?? 0;
  return own === 0 || uid === own;
}

async function findHolders(proc: Proc, rows: readonly Socket[], slice: Slice) {
  const holders = new Map<number, ProcessInfo[]>();
  if (rows.length === 0) return { holders, refusing: [] };
  const scan = scanHolders(proc, new Set(rows.map(({ inode }) => inode)), { slice });
  for (let step = await scan.next(); ; step = await scan.next()) {
    if (step.done) return { holders, refusing: step.value.refusing };
    note(proc, holders, step.value);
  }
}

function note(proc: Proc, holders: Map<number, ProcessInfo[]>, { stat, inodes }: Holder): void {
  const info = describeProcess(proc, stat);
  for (const inode of inodes) holders.set(inode, [...(holders.get(inode) ?? []), info]);
}

export function toListener(row: Socket, holders: readonly ProcessInfo[] = []): Listener {
  const { protocol, address, port, inode, uid } = row;
  return { protocol, address, port, inode, uid, holders };
}

/** The listeners that keep any of these addresses from being bound (undefined: all of the port). */
export async function listenersInTheWay(
  proc: Proc,
  port: number,
  hosts: readonly string[] | undefined,
): Promise<Socket[]> {
  const rows = readListeners(proc, port);
  if (hosts === undefined) return rows;
  return inTheWay(rows.length > 0 ? rows : await confirmListeners(proc, port, createSlice()), port, hosts);
}

/**
 * Of the listeners of a port. Whether `::` claims IPv4 too no table tells: it counts for an IPv4 address only when no IPv4
 * listener explains the conflict (with one of those beside it it must be IPv6 only) and a bind shows that it does.
 */
export async function inTheWay(all: readonly Socket[], port: number, hosts: readonly string[]): Promise<Socket[]> {
  const found = new Set<Socket>();
  for (const host of hosts) for (const row of conflicting(all, host)) found.add(row);
  const v4Unexplained = hosts.some((host) => net.isIPv4(host) && conflicting(all, host).length === 0);
  const both = v4Unexplained ? all.filter(({ address }) => address === '::') : [];
  // A socket for both families has the port on every IPv4 address. This one no one uses, so only such a socket makes it busy.
  if (both.length > 0 && (await probeAddress(UNUSED_V4, port)) !== 'free') for (const row of both) found.add(row);
  return [...found];
}

const UNUSED_V4 = '127.83.77.1';

/** The rows of which the table says for certain that this address cannot be bound beside them. */
export function conflicting(rows: readonly Socket[], host: string): Socket[] {
  const [bare = host] = host.split('%');
  if (!net.isIPv6(bare)) {
    const addresses = rows.map((row) => ({ row, v4: v4Of(row.address) }));
    return addresses
      .filter(({ v4 }) => v4 !== undefined && (v4 === bare || v4 === '0.0.0.0' || bare === '0.0.0.0'))
      .map(({ row }) => row);
  }
  // The probe of `::` is IPv6 only, so an IPv4 address in IPv6 clothes does not meet it.
  const v6 = rows.filter(({ address }) => net.isIPv6(address) && v4Of(address) === undefined);
  return v6.filter(({ address }) => address === bare || address === '::' || bare === '::');
}

/** The IPv4 address of a listener, also of an IPv6 socket that is bound to one (`::ffff:127.0.0.1`). */
export function v4Of(address: string): string | undefined {
  const v4 = address.replace(/^::ffff:/, '');
  return net.isIPv4(v4) ? v4 : undefined;
}

/** Without a host: the addresses that are listened on, and the loopback addresses. */
export function hostsToProve(rows: readonly Socket[]): string[] {
  return [...new Set([...resolveHosts('localhost'), ...rows.map(hostOf)])];
}

/** The address by whose bind a listener is met. */
export function hostOf({ address }: Pick<Socket, 'address'>): string {
  return v4Of(address) ?? address;
}
