/** Tables of sockets as the kernel writes them (tcp4_seq_show, tcp6_seq_show), and as they may reach us. */
import net from 'node:net';
import os from 'node:os';
import { expect } from 'chai';
import fc from 'fast-check';
import { readSocketInodes } from '#lib/proc/fd.js';
import {
  confirmListeners,
  decodeAddress,
  parseSocket,
  readAllListeners,
  readListeners,
  readSockets,
  type Socket,
} from '#lib/proc/net.js';
import { openProc, type Proc } from '#lib/proc/read.js';
import { parseStat } from '#lib/proc/stat.js';
import { createFakeProc, statLine } from '../support/fakeproc.js';

const noSlice = (): undefined => undefined;

const states = {
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

/** One end of a connection as the kernel knows it: the bytes of its addresses, in the order of the wire. */
interface Row {
  readonly local: readonly number[];
  readonly port: number;
  readonly remote: readonly number[];
  readonly remotePort: number;
  readonly state: string;
  readonly uid: number;
  readonly inode: number;
  readonly refs: number;
}

const ports = fc.oneof(fc.constantFrom(0, 1, 80, 9443, 65_535), fc.nat(65_535));
const rowOf = (bytes: 4 | 16) => {
  const address = fc.oneof(
    fc.array(fc.nat(255), { minLength: bytes, maxLength: bytes }),
    fc.constant(Array<number>(bytes).fill(0)),
    ...(bytes === 16 ? [fc.array(fc.nat(255), { minLength: 4, maxLength: 4 }).map(mapped)] : []),
  );
  return fc.record({
    local: address,
    port: ports,
    remote: address,
    remotePort: ports,
    state: fc.constantFrom(...Object.keys(states)),
    uid: fc.nat(0xffff_ffff),
    inode: fc.oneof(fc.nat(), fc.nat(0xffff_ffff)),
    refs: fc.nat(9),
  });
};
const tables = fc.record({
  tcp: fc.array(rowOf(4), { maxLength: 40 }),
  tcp6: fc.array(rowOf(16), { maxLength: 40 }),
});
/** What stands in no table that a kernel writes: lines that are none, or were cut. */
const garbage = fc.oneof(
  fc.string(),
  fc.constantFrom('', '   0:', '  12: 0100007F:24E3 00000000:0000 0A', '  sl  local_address', '\0\0\0'),
  rowOf(4).chain((row) => fc.nat(70).map((size) => lineOf(row, 3).slice(0, size))),
);

describe('a row of /proc/net/tcp', () => {
  for (const bytes of [4, 16] as const) {
    it(`is read back, with addresses of ${bytes} bytes`, () => {
      fc.assert(
        fc.property(rowOf(bytes), fc.nat(100_000), (row, sl) => {
          const read = parseSocket(lineOf(row, sl), bytes === 4 ? 'tcp' : 'tcp6');
          expect(read && keyOf(read)).to.equal(expected(row));
        }),
      );
    });

    it(`is read exactly or not at all when it is cut off anywhere, with addresses of ${bytes} bytes`, () => {
      fc.assert(
        fc.property(rowOf(bytes), (row) => {
          const line = lineOf(row, 7);
          for (let size = 0; size < line.length; size++) {
            const read = parseSocket(line.slice(0, size), 'tcp');
            if (read) expect(keyOf(read), `cut to ${size}`).to.equal(expected(row));
            const torn = parseSocket(line.slice(size), 'tcp');
            if (torn) expect(keyOf(torn), `from ${size}`).to.equal(expected(row));
          }
        }),
        { numRuns: 40 },
      );
    });
  }

  it('has its addresses in the byte order of the machine', () => {
    fc.assert(
      fc.property(fc.oneof(rowOf(4), rowOf(16)), fc.constantFrom('LE', 'BE'), ({ local }, endianness) => {
        expect(expand(decodeAddress(hexOf(local, endianness), endianness))).to.deep.equal(local);
      }),
      { numRuns: 500 },
    );
  });
});

describe('the tables of sockets', () => {
  it('are read whole, whatever stands between the rows', async () => {
    await fc.assert(
      fc.asyncProperty(tables, fc.array(garbage, { maxLength: 5 }), fc.nat(), async ({ tcp, tcp6 }, junk, at) => {
        const proc = procOf({ tcp: mix(tableOf(tcp), junk, at), tcp6: mix(tableOf(tcp6), junk, at) });
        const all = [...listenersFirst(tcp), ...listenersFirst(tcp6)];
        const listening = all.filter(({ state }) => state === '0A');
        expect((await readAllListeners(proc, noSlice)).map(keyOf)).to.deep.equal(listening.map(expected));
        for (const port of new Set([9443, ...all.slice(0, 5).map((row) => row.port)])) {
          const found = listening.filter((row) => row.port === port).map(expected);
          expect((await confirmListeners(proc, port, noSlice)).map(keyOf)).to.deep.equal(found);
          expect(readListeners(proc, port).map(keyOf), 'the early stop').to.deep.equal(found);
          const either = all.filter((row) => row.port === port || (row.remotePort === port && row.state !== '0A'));
          expect((await readSockets(proc, port, noSlice)).map(keyOf)).to.deep.equal(either.map(expected));
        }
      }),
    );
  });

  it('are read whole also when a read ends in the middle of a row', async () => {
    await fc.assert(
      fc.asyncProperty(
        tables,
        fc.array(fc.integer({ min: 1, max: 4000 }), { minLength: 1, maxLength: 8 }),
        async (rows, sizes) => {
          // Nor need a table end with its last row’s line end.
          const proc = procOf({ tcp: tableOf(rows.tcp).trimEnd(), tcp6: tableOf(rows.tcp6) }, sizes);
          const all = [...listenersFirst(rows.tcp), ...listenersFirst(rows.tcp6)];
          const listening = all.filter(({ state }) => state === '0A');
          expect((await readAllListeners(proc, noSlice)).map(keyOf)).to.deep.equal(listening.map(expected));
          const port = rows.tcp.at(-1)?.port ?? 1;
          const either = all.filter((row) => row.port === port || (row.remotePort === port && row.state !== '0A'));
          expect((await readSockets(proc, port, noSlice)).map(keyOf)).to.deep.equal(either.map(expected));
          const found = listening.filter((row) => row.port === port).map(expected);
          expect((await confirmListeners(proc, port, noSlice)).map(keyOf)).to.deep.equal(found);
        },
      ),
    );
  });

  it('never make an early stop miss what a whole read finds, in the order of the kernel', async () => {
    const orders = fc.array(rowOf(4), { minLength: 60, maxLength: 120 });
    await fc.assert(
      fc.asyncProperty(orders, fc.constantFrom(1, 27, 28, 400), async (rows, rowsPerPage) => {
        // As the kernel hands it out: lines of 150 bytes, whole ones, 27 to a page; the last page is the rest.
        const proc = procOf({ tcp: tableOf(rows), tcp6: header }, [rowsPerPage * 150]);
        for (const { port } of rows.slice(0, 20)) {
          const whole = await confirmListeners(proc, port, noSlice);
          if (rowsPerPage >= 27) expect(readListeners(proc, port)).to.deep.equal(whole);
          expect(whole).to.have.length(rows.filter((row) => row.state === '0A' && row.port === port).length);
        }
      }),
      { numRuns: 30 },
    );
  });

  it('of 20,000 rows in a file are read to the last one', async () => {
    using fake = createFakeProc();
    const row = { local: [127, 0, 0, 1], remote: [0, 0, 0, 0], remotePort: 0, state: '0A', uid: 0, refs: 1 };
    const many = Array.from({ length: 20_000 }, (_, at) => ({ ...row, port: (at % 65_535) + 1, inode: at + 1 }));
    fake.write('net/tcp', tableOf(many));
    fake.write('net/tcp6', header);
    expect((await readAllListeners(fake.proc, noSlice)).map(({ inode }) => inode)).to.deep.equal(
      many.map(({ inode }) => inode),
    );
    expect(readListeners(fake.proc, 20_000)).to.have.length(1);
  });

  it('are empty with a header alone, and no guess without it', async () => {
    for (const tcp of ['', header, header.trimEnd()]) {
      expect(await readAllListeners(procOf({ tcp, tcp6: '' }), noSlice), JSON.stringify(tcp)).to.deep.equal([]);
    }
    const refused = await readAllListeners(procOf({}), noSlice).catch(String);
    expect(refused).to.include('is /proc mounted?');
  });

  it('leave tcp6 out only when /proc/net/sockstat6 counts nobody there', async () => {
    const row = fc.record({ count: fc.nat(20_000), udp: fc.nat(), size: fc.nat(60) });
    const [listener = ''] = [{ local: Array<number>(16).fill(0), remote: Array<number>(16).fill(0), port: 9443 }].map(
      (ends) => tableOf([{ ...ends, remotePort: 0, state: '0A', uid: 0, inode: 5, refs: 1 }]),
    );
    await fc.assert(
      fc.asyncProperty(row, async ({ count, udp, size }) => {
        const sockstat6 = `TCP6: inuse ${count}\nUDP6: inuse ${udp}\nUDPLITE6: inuse 0\nRAW6: inuse 0\nFRAG6: inuse 0 memory 0\n`;
        const found = (text: string) => readListeners(procOf({ tcp: header, tcp6: listener, sockstat6: text }), 9443);
        expect(found(sockstat6)).to.have.length(count === 0 ? 0 : 1);
        // Cut off, it may make us read in vain, and not the other way round.
        if (count > 0) expect(found(sockstat6.slice(0, size)), sockstat6.slice(0, size)).to.have.length(1);
      }),
    );
  });
});

describe('the links of descriptors', () => {
  const stat = parseStat(statLine({ pid: 7 }), 4096);
  const links = fc.oneof(
    fc.nat(0xffff_ffff).map((inode) => `socket:[${inode}]`),
    fc.nat().map((inode) => `pipe:[${inode}]`),
    fc.string(),
    fc.stringMatching(/^(\/tmp\/)?socket:\[[0-9x-]{0,5}\]?( \(deleted\)|\n)?$/),
  );

  it('name the inode of a socket, and nothing else does', () => {
    if (!stat) throw new Error('no stat');
    fc.assert(
      fc.property(fc.array(links), (targets) => {
        const list = (path: string) => (path === '7/fd' ? targets.map((_, fd) => String(fd)) : undefined);
        const links: Proc['links'] = (_folder, names, from, to) =>
          names.slice(from, to).flatMap((name) => targets[Number(name)] ?? []);
        const isSocket = (text: string) => text === `socket:[${/\d+/.exec(text)?.[0]}]`;
        const inodes = targets.filter(isSocket).map((text) => Number(text.slice('socket:['.length, -1)));
        expect(readSocketInodes({ ...openProc('/nowhere'), list, links }, stat)).to.deep.equal(inodes);
      }),
      { numRuns: 300 },
    );
  });
});

const header =
  '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     \n';

/** As the kernel: LISTEN rows first, each line of tcp 149 characters wide at least. */
function tableOf(rows: readonly Row[]): string {
  return (
    header +
    listenersFirst(rows)
      .map((row, at) => `${lineOf(row, at).padEnd(149)}\n`)
      .join('')
  );
}

function listenersFirst(rows: readonly Row[]): Row[] {
  return [...rows.filter(({ state }) => state === '0A'), ...rows.filter(({ state }) => state !== '0A')];
}

function lineOf({ local, port, remote, remotePort, state, uid, inode, refs }: Row, sl: number): string {
  const hex = (number: number) => number.toString(16).toUpperCase().padStart(4, '0');
  const ends = `${hexOf(local)}:${hex(port)} ${hexOf(remote)}:${hex(remotePort)}`;
  const queues = '00000000:00000000 00:00000000 00000000';
  const head = `${String(sl).padStart(4)}: ${ends} ${state} ${queues} ${String(uid).padStart(5)} ${'0'.padStart(8)} ${inode}`;
  // TIME_WAIT and half-open rows end after the pointer.
  return state === '06' || state === '0C'
    ? `${head} ${refs} 0000000000000000`
    : `${head} ${refs} 0000000000000000 100 0 0 10 -1`;
}

function hexOf(bytes: readonly number[], endianness = os.endianness()): string {
  const words = Array.from({ length: bytes.length / 4 }, (_, at) => bytes.slice(at * 4, at * 4 + 4));
  const ordered = words.flatMap((word) => (endianness === 'LE' ? word.reverse() : word));
  return Buffer.from(ordered).toString('hex').toUpperCase();
}

function expected({ local, port, remote, remotePort, state, uid, inode }: Row): string {
  const name = states[state as keyof typeof states];
  return JSON.stringify([local, port, remote, remotePort, name, uid, inode]);
}

function keyOf({ address, port, remoteAddress, remotePort, state, uid, inode }: Socket): string {
  return JSON.stringify([expand(address), port, expand(remoteAddress), remotePort, state, uid, inode]);
}

/** An address back into its bytes, without the code under test. */
function expand(address: string): number[] {
  if (net.isIPv4(address)) return address.split('.').map(Number);
  expect(net.isIPv6(address), address).to.equal(true);
  const [, head = address, v4] = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(address) ?? [];
  const tail = v4 === undefined ? [] : v4.split('.').map(Number);
  const [left = '', right] = head.replace(/([^:]):$/, '$1').split('::');
  const bytesOf = (text: string) =>
    text === ''
      ? []
      : text.split(':').flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 255]);
  const before = bytesOf(left);
  const after = [...bytesOf(right ?? ''), ...tail];
  return [...before, ...Array<number>(16 - before.length - after.length).fill(0), ...after];
}

function mapped(v4: readonly number[]): number[] {
  return [...Array<number>(10).fill(0), 255, 255, ...v4];
}

function mix(table: string, junk: readonly string[], at: number): string {
  const lines = table.split('\n');
  for (const [more, text] of junk.entries()) {
    const clean = text.replaceAll('\n', ' ');
    if (parseSocket(clean, 'tcp') === undefined)
      lines.splice(1 + ((at + more * 7) % Math.max(1, lines.length - 1)), 0, clean);
  }
  return lines.join('\n');
}

/** A /proc in memory, that hands its tables out in pages of these sizes, again and again. */
function procOf(
  { tcp, tcp6, sockstat6 }: { tcp?: string; tcp6?: string; sockstat6?: string },
  sizes: readonly number[] = [65_536],
): Proc {
  const files = new Map(Object.entries({ 'net/tcp': tcp, 'net/tcp6': tcp6, 'net/sockstat6': sockstat6 }));
  const pages = function* (path: string): Generator<string | undefined> {
    const text = files.get(path);
    if (text === undefined) return yield undefined;
    for (let at = 0, turn = 0; at < text.length; turn++) {
      const size = sizes[turn % sizes.length] ?? 65_536;
      yield text.slice(at, at + size);
      at += size;
    }
  };
  return { ...openProc('/nowhere'), pages, text: (path) => files.get(path) };
}
