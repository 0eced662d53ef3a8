import { isIPv6, SocketAddress } from 'node:net';
import os from 'node:os';
import { TunwardError } from '../errors.js';
import type { Slice } from '../time.js';
import { denied, known, type Proc } from './read.js';

export type Protocol = 'tcp' | 'tcp6';

/** A row of /proc/net/tcp or tcp6 (proc_pid_net(5)): one end of a connection, or a listener. */
export interface Socket {
  readonly protocol: Protocol;
  readonly address: string;
  readonly port: number;
  readonly remoteAddress: string;
  readonly remotePort: number;
  /** `LISTEN`, `ESTABLISHED`, `TIME_WAIT` … */
  readonly state: string;
  readonly uid: number;
  /** 0 where no process owns the row any more, as in TIME_WAIT. */
  readonly inode: number;
}

/** The kernel's numbers for TCP states (include/net/tcp_states.h). */
const stateNames: Readonly<Record<string, string>> = {
  '01': 'ESTABLISHED',
  '02': 'SYN_SENT',
  '03': 'SYN_RECV',
  '04': 'FIN_WAIT1',
  '05': 'FIN_WAIT2',
  '06': 'TIME_WAIT',
  '07': 'CLOSE',
  '08': 'CLOSE_WAIT',
  '09': 'LAST_ACK',
  '0A': 'LISTEN',
  '0B': 'CLOSING',
  '0C': 'NEW_SYN_RECV',
};

/**
 * The listeners of a port, or of every port, in this network namespace. The kernel writes LISTEN rows first (tcp_seq_start() of
 * net/ipv4/tcp_ipv4.c), so reading stops at the first row of a connection: 0.1 ms, where 15,000 connections take 90.
 * gVisor orders rows otherwise, and so do kernels before 4.4: none found is not the last word about a port that cannot be
 * bound, {@link confirmListeners} is.
 */
export function readListeners(proc: Proc, port?: number): Socket[] {
  const listeners: Socket[] = [];
  for (const protocol of protocols(proc)) {
    for (const line of readListenRows(proc, protocol)) {
      if (port !== undefined && !line.includes(hexPort(port))) continue;
      const row = parseSocket(line, protocol);
      if (row?.state === 'LISTEN' && (port === undefined || row.port === port)) listeners.push(row);
    }
  }
  return listeners;
}

/**
 * Which of these sockets listens on an address; undefined: none. Row by row, up to that one: whoever asks for a page makes
 * the kernel look through its whole hash of connections for rows to fill it with, 5 ms where the LISTEN rows take 0.1.
 */
export function findListener(
  proc: Proc,
  { host, port }: { readonly host: string; readonly port: number },
  inodes: ReadonlySet<number>,
): number | undefined {
  // The kernel's table has no zone (`fe80::1%eth0`).
  const [address = ''] = host.split('%');
  const protocol = isIPv6(address) ? 'tcp6' : 'tcp';
  const wanted = hexPort(port);
  for (const line of readListenRows(proc, protocol, ROW_BYTES)) {
    if (!line.includes(wanted)) continue;
    const row = parseSocket(line, protocol);
    if (row?.state === 'LISTEN' && row.port === port && row.address === address && inodes.has(row.inode))
      return row.inode;
  }
  return undefined;
}

/**
 * Which of these sockets listens at a path, as /proc/net/unix has it (`__SO_ACCEPTCON` among its flags,
 * include/uapi/linux/net.h); undefined: none.
 */
export function findUnixListener(proc: Proc, path: string, inodes: ReadonlySet<number>): number | undefined {
  const table = known(proc.text('net/unix')) ?? '';
  for (const line of linesWith(table, ` ${path}\n`)) {
    const [, flags, inode] = /^\S+: \S+ \S+ ([0-9A-F]{8}) 0001 \S+ +(\d+) /.exec(line) ?? [];
    if (flags === '00010000' && inodes.has(Number(inode)) && line.endsWith(` ${path}`)) return Number(inode);
  }
  return undefined;
}

/** A row of tcp has 150 bytes, one of tcp6 some more. */
const ROW_BYTES = 150;

/** The same, whatever the order of the rows is: both tables are read to their end. */
export async function confirmListeners(proc: Proc, port: number, slice: Slice): Promise<Socket[]> {
  return findRows(proc, { protocols: allProtocols, text: hexPort(port), slice }, (row) => {
    return row.state === 'LISTEN' && row.port === port;
  });
}

/** Every listener there is, whatever the order of the rows is: for `ps` and `tree`. */
export async function readAllListeners(proc: Proc, slice: Slice): Promise<Socket[]> {
  return findRows(proc, { protocols: protocols(proc), text: ' 0A ', slice }, ({ state }) => state === 'LISTEN');
}

/** Every row that has the port at its near or at its far end, whatever its state. Reads both tables to their end. */
export async function readSockets(proc: Proc, port: number, slice: Slice): Promise<Socket[]> {
  return findRows(proc, { protocols: allProtocols, text: hexPort(port), slice }, (row) => {
    return row.port === port || (row.remotePort === port && row.state !== 'LISTEN');
  });
}

/** The two ends of a connection, as one of them is seen: its own port and the far one. */
export interface Ends {
  readonly protocol: Protocol;
  readonly port: number;
  readonly remotePort: number;
}

/** One end of a connection: its state, and how many bytes have come in there that its process has not read. */
export interface Unread {
  readonly state: string;
  readonly bytes: number;
}

/**
 * How far the process at that end has read (`rx_queue`); undefined where there is no such row. A FIN counts as one byte
 * until the process has been told of it: tcp_recvmsg_locked() of net/ipv4/tcp.c moves past it when it answers 0.
 */
export async function readUnread(proc: Proc, ends: Ends, slice: Slice): Promise<Unread | undefined> {
  const near = hexPort(ends.port);
  for (const page of readTablePages(proc, ends.protocol)) {
    for (const line of linesWith(page, near)) {
      const row = parseSocket(line, ends.protocol);
      if (row?.port !== ends.port || row.remotePort !== ends.remotePort) continue;
      const queue = /^\s*\d+: \S+ \S+ \S+ [0-9A-F]{8}:([0-9A-F]{8}) /.exec(line)?.[1];
      if (queue !== undefined) return { state: row.state, bytes: Number.parseInt(queue, 16) };
    }
    const pause = slice();
    if (pause) await pause;
  }
  return undefined;
}

const allProtocols: readonly Protocol[] = ['tcp', 'tcp6'];

/**
 * tcp6 costs 0.5 to 7 ms even without a row (the kernel walks its whole hash), so it is asked first whether one is there.
 * The answer counts no TIME_WAIT, and is a sum over processors that may be off for an instant: not for a last word.
 */
function protocols(proc: Proc): readonly Protocol[] {
  const none = /^TCP6: inuse 0$/m.test(known(proc.text('net/sockstat6')) ?? '');
  return none ? ['tcp'] : allProtocols;
}

/**
 * The lines of one table up to the first connection. Of a row only the state is looked at: to take apart 400 of them, for
 * the two that somebody wants, takes 2 ms.
 */
function* readListenRows(proc: Proc, protocol: Protocol, size?: number): Generator<string> {
  for (const page of readTablePages(proc, protocol, size)) {
    for (let at = 0, end = 0; at < page.length; at = end + 1) {
      end = page.indexOf('\n', at);
      if (end < 0) end = page.length;
      const line = page.slice(at, end);
      if (listening.test(line)) yield line;
      else if (connected.test(line) && parseSocket(line, protocol)) return;
    }
    // A page that has room for another row is the last one: the kernel fills it until it is full or the table ends. To
    // be told so by an empty read costs as much as all before, since the kernel walks its hash again.
    if (size === undefined && page.length <= LAST_PAGE) return;
  }
}

const listening = /^\s*\d+: \S+ \S+ 0A /;
/** Neither SYN_RECV nor NEW_SYN_RECV: who knocks at a listener stands beside it in the tables of kernels before 4.4. */
const connected = /^\s*\d+: \S+ \S+ (?!03|0C)[0-9A-F]{2} /;

/** The kernel's pages have 4096 bytes or more, and no row has 512. */
const LAST_PAGE = 4096 - 512;

interface RowSearch {
  readonly protocols: readonly Protocol[];
  /** What a line must contain to be looked at: of 30,000 rows only a few are taken apart. */
  readonly text: string;
  readonly slice: Slice;
}

async function findRows(proc: Proc, search: RowSearch, isWanted: (row: Socket) => boolean): Promise<Socket[]> {
  const found: Socket[] = [];
  for (const protocol of search.protocols) {
    for (const page of readTablePages(proc, protocol)) {
      for (const line of linesWith(page, search.text)) {
        const row = parseSocket(line, protocol);
        if (row && isWanted(row)) found.push(row);
      }
      const pause = search.slice();
      if (pause) await pause;
    }
  }
  return found;
}

function* linesWith(page: string, text: string): Generator<string> {
  for (let at = page.indexOf(text); at >= 0; ) {
    const end = page.indexOf('\n', at);
    yield page.slice(page.lastIndexOf('\n', at) + 1, end < 0 ? page.length : end);
    at = end < 0 ? -1 : page.indexOf(text, end);
  }
}

function hexPort(port: number): string {
  return `:${port.toString(16).toUpperCase().padStart(4, '0')} `;
}

/** Whole lines. */
function* readTablePages(proc: Proc, protocol: Protocol, size?: number): Generator<string> {
  // What a page ends with when it is cut in the middle of a row, which the kernel never does; gVisor may, and a file.
  let half = '';
  for (const page of proc.pages(`net/${protocol}`, size)) {
    if (page === denied) {
      throw new TunwardError('ERR_ACCESS_DENIED', `Cannot read ${proc.root}/net/${protocol}: permission denied`, {});
    }
    if (page !== undefined) {
      const text = half + page;
      const end = text.lastIndexOf('\n') + 1;
      half = text.slice(end);
      yield text.slice(0, end);
    }
    // Without IPv6 there is no tcp6. Without tcp this is no /proc, and "nobody listens" would be a guess.
    else if (protocol === 'tcp') {
      throw new TunwardError('ERR_PROC_FORMAT', `Cannot read ${proc.root}/net/tcp: is /proc mounted?`, {});
    }
  }
  if (half !== '') yield half;
}

/** One line of the table; undefined for its header and for what is no row, or not all of it: the inode ends with a blank. */
export function parseSocket(line: string, protocol: Protocol): Socket | undefined {
  const match =
    /^\s*\d+: ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) ([0-9A-F]{2}) \S+ \S+ \S+\s+(\d+)\s+\d+ (\d+) /.exec(
      line,
    );
  if (!match) return undefined;
  const [, address = '', port = '', remoteAddress = '', remotePort = '', state = '', uid, inode] = match;
  return {
    protocol,
    address: decodeAddress(address),
    port: Number.parseInt(port, 16),
    remoteAddress: decodeAddress(remoteAddress),
    remotePort: Number.parseInt(remotePort, 16),
    state: stateNames[state] ?? state,
    uid: Number(uid),
    inode: Number(inode),
  };
}

/**
 * The kernel prints an address as 32-bit words in the machine's own byte order: 127.0.0.1 is `0100007F` on x86 and
 * ARM, `7F000001` on s390x.
 */
export function decodeAddress(hex: string, endianness = os.endianness()): string {
  const bytes: number[] = [];
  for (let word = 0; word < hex.length; word += 8) {
    const octets = (hex.slice(word, word + 8).match(/../g) ?? []).map((octet) => Number.parseInt(octet, 16));
    bytes.push(...(endianness === 'LE' ? octets.reverse() : octets));
  }
  if (bytes.length === 4) return bytes.join('.');
  const groups = bytes.flatMap((byte, at) => (at % 2 === 0 ? [((byte << 8) | (bytes[at + 1] ?? 0)).toString(16)] : []));
  return new SocketAddress({ address: groups.join(':'), family: 'ipv6' }).address;
}
