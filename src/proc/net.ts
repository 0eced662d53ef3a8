import { SocketAddress } from 'node:net';
import os from 'node:os';
import { TunwardError } from '../errors.js';
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
 * The listeners of a port in this network namespace. The kernel writes LISTEN rows first, so reading stops at the
 * first row of a connection: 0.1 ms instead of 10 for 2,000 of them. `whole` reads on to the end, for the kernels that
 * order rows otherwise: use it before answering "nobody" about a port that cannot be bound.
 */
export function readListeners(proc: Proc, port: number, { whole = false } = {}): Socket[] {
  const listeners: Socket[] = [];
  for (const protocol of whole ? allProtocols : protocols(proc)) {
    const onRow = (row: Socket): boolean => {
      if (row.state === 'LISTEN') {
        if (row.port === port) listeners.push(row);
        return true;
      }
      return whole || row.state === 'SYN_RECV' || row.state === 'NEW_SYN_RECV';
    };
    readRows(proc, protocol, onRow, { whole });
  }
  return listeners;
}

/** Every listener there is, for `ps` and `tree`. */
export function readAllListeners(proc: Proc): Socket[] {
  const listeners: Socket[] = [];
  for (const protocol of protocols(proc)) {
    readRows(proc, protocol, (row) => {
      if (row.state === 'LISTEN') listeners.push(row);
      return true;
    });
  }
  return listeners;
}

/** Every row that has the port at its near or at its far end, whatever its state. Reads both tables whole. */
export function readSockets(proc: Proc, port: number): Socket[] {
  const found: Socket[] = [];
  for (const protocol of allProtocols) {
    readRows(proc, protocol, (row) => {
      if (row.port === port || (row.remotePort === port && row.state !== 'LISTEN')) found.push(row);
      return true;
    });
  }
  return found;
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
 * A page that has room for another row is the last one: the kernel fills it until it is full or the table ends. To be
 * told so by an empty read costs as much as all before, since the kernel walks its hash again. `whole` asks all the same.
 */
function readRows(proc: Proc, protocol: Protocol, onRow: (row: Socket) => boolean, { whole = true } = {}): void {
  const read = proc.pages(`net/${protocol}`, (page) => {
    for (const line of page.split('\n')) {
      const row = parseSocket(line, protocol);
      if (row && !onRow(row)) return false;
    }
    return whole || page.length > LAST_PAGE;
  });
  if (read === denied) {
    throw new TunwardError('ERR_ACCESS_DENIED', `Cannot read ${proc.root}/net/${protocol}: permission denied`, {});
  }
  // Without IPv6 there is no tcp6. Without tcp this is no /proc, and "nobody listens" would be a guess.
  if (read === undefined && protocol === 'tcp') {
    throw new TunwardError('ERR_PROC_FORMAT', `Cannot read ${proc.root}/net/tcp: is /proc mounted?`, {});
  }
}

/** The kernel's pages have 4096 bytes or more, and no row has 512. */
const LAST_PAGE = 4096 - 512;

/** One line of the table; undefined for its header and for what is no row. */
export function parseSocket(line: string, protocol: Protocol): Socket | undefined {
  const match =
    /^\s*\d+: ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) ([0-9A-F]{2}) \S+ \S+ \S+\s+(\d+)\s+\d+ (\d+)/.exec(
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
