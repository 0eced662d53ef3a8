import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import {
  confirmListeners,
  decodeAddress,
  findListener,
  findUnixListener,
  parseSocket,
  readAllListeners,
  readListeners,
  readSockets,
} from '#lib/proc/net.js';
import { known, openProc, type Proc } from '#lib/proc/read.js';
import { createFakeProc, socketLine } from '../support/fakeproc.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';

const header = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n';
const loopback4 = '0100007F';
const noSlice = (): undefined => undefined;
const loopback6 = '00000000000000000000000001000000';

describe('decodeAddress()', () => {
  const table = [
    ['0100007F', 'LE', '127.0.0.1'],
    ['7F000001', 'BE', '127.0.0.1'],
    ['00000000', 'LE', '0.0.0.0'],
    ['0200A8C0', 'LE', '192.168.0.2'],
    ['00000000000000000000000000000000', 'LE', '::'],
    ['00000000000000000000000001000000', 'LE', '::1'],
    ['00000000000000000000000000000001', 'BE', '::1'],
    ['0000000000000000FFFF00000100007F', 'LE', '::ffff:127.0.0.1'],
    ['00000000000000000000FFFF7F000001', 'BE', '::ffff:127.0.0.1'],
    ['B80D0120000000000000000001000000', 'LE', '2001:db8::1'],
    ['000080FE00000000FF1E025601F0FEFF', 'LE', 'fe80::5602:1eff:fffe:f001'],
  ] as const;
  for (const [hex, endianness, address] of table) {
    it(`reads ${hex} (${endianness}) as ${address}`, () => expect(decodeAddress(hex, endianness)).to.equal(address));
  }

  it('reads back every address, in either byte order', () => {
    const words = fc.array(fc.uint8Array({ minLength: 4, maxLength: 4 }), { minLength: 4, maxLength: 4 });
    const toHex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex').toUpperCase();
    fc.assert(
      fc.property(words, ([v4 = new Uint8Array(4), ...rest]) => {
        expect(decodeAddress(toHex(v4), 'BE')).to.equal(v4.join('.'));
        expect(decodeAddress(toHex(v4.toReversed()), 'LE')).to.equal(v4.join('.'));
        const v6 = [v4, ...rest];
        const big = decodeAddress(v6.map(toHex).join(''), 'BE');
        expect(net.isIPv6(big)).to.equal(true);
        expect(decodeAddress(v6.map((word) => toHex(word.toReversed())).join(''), 'LE')).to.equal(big);
      }),
    );
  });
});

describe('parseSocket()', () => {
  it('reads a listener', () => {
    const line = socketLine({ address: loopback4, port: 9443, uid: 1000, inode: 61_327 });
    expect(parseSocket(line.trimEnd(), 'tcp')).to.deep.equal({
      protocol: 'tcp',
      address: '127.0.0.1',
      port: 9443,
      remoteAddress: '0.0.0.0',
      remotePort: 0,
      state: 'LISTEN',
      uid: 1000,
      inode: 61_327,
    });
  });

  it('reads a connection of IPv6, and a state that it has no name for', () => {
    const ends = { address: loopback6, port: 1, remoteAddress: loopback6, remotePort: 65_535 };
    expect(parseSocket(socketLine({ ...ends, state: '01' }), 'tcp6')).to.include({
      address: '::1',
      remoteAddress: '::1',
      remotePort: 65_535,
      state: 'ESTABLISHED',
    });
    expect(parseSocket(socketLine({ ...ends, state: '7E' }), 'tcp6')?.state).to.equal('7E');
  });

  it('reads back any row', () => {
    const port = fc.integer({ min: 0, max: 65_535 });
    const rest = fc.record({ port, remotePort: port, uid: fc.nat(), inode: fc.nat() });
    fc.assert(
      fc.property(rest, fc.constantFrom(loopback4, loopback6), (row, address) => {
        expect(parseSocket(socketLine({ address, ...row }), 'tcp')).to.include(row);
      }),
    );
  });

  it('answers undefined for the header, for addresses of odd length and for what is no row', () => {
    const row = socketLine({ address: loopback4, port: 9443 });
    const odd = ['', '7F', '0100007F01', '0'.repeat(31), '0'.repeat(40)].map((hex) => row.replace(loopback4, hex));
    for (const line of [header, '', '   0:', row.slice(0, 60), row.toLowerCase().replace(': 01', ': zz'), ...odd]) {
      expect(parseSocket(line, 'tcp'), line).to.equal(undefined);
    }
  });

  it('throws for no text whatever', () => {
    const hex = fc.stringMatching(/^[0-9A-F]{0,40}$/);
    const nearly = fc.tuple(hex, hex, hex, hex).map(([a, b, c, d]) => `  1: ${a}:${b} ${c}:${d} 0A 0:0 0:0 0 0 0 1`);
    fc.assert(fc.property(fc.oneof(fc.string(), nearly), (line) => void parseSocket(line, 'tcp6')));
  });
});

describe('readListeners()', () => {
  it('finds the port in both tables and leaves other ports and connections out', async () => {
    using fake = createFakeProc();
    const listener = { address: loopback4, port: 9443, inode: 7 };
    fake.write('net/tcp', header + socketLine(listener) + socketLine({ ...listener, port: 80, inode: 8 }));
    fake.write('net/tcp6', header + socketLine({ address: loopback6, port: 9443, inode: 9 }));
    expect(readListeners(fake.proc, 9443).map(({ inode }) => inode)).to.deep.equal([7, 9]);
    expect(readListeners(fake.proc).map(({ inode }) => inode)).to.deep.equal([7, 8, 9]);
    expect((await readAllListeners(fake.proc, noSlice)).map(({ inode }) => inode)).to.deep.equal([7, 8, 9]);
  });

  it('stops at the first connection, but past half-open ones, and reads on to confirm', async () => {
    using fake = createFakeProc();
    const rows = ['0A', '03', '0C', '01', '0A'].map((state, at) =>
      socketLine({ address: loopback4, port: 9443, state, inode: at }),
    );
    const [first = '', half = '', newHalf = '', connection = '', late = ''] = rows;
    fake.write('net/tcp', header + half + newHalf + first + connection + late);
    expect(readListeners(fake.proc, 9443).map(({ inode }) => inode)).to.deep.equal([0]);
    expect((await confirmListeners(fake.proc, 9443, noSlice)).map(({ inode }) => inode)).to.deep.equal([0, 4]);
  });

  it('does without IPv6, and does not read its table when nobody uses it', async () => {
    using fake = createFakeProc();
    fake.write('net/tcp', header);
    expect(readListeners(fake.proc, 9443)).to.deep.equal([]);
    fake.write('net/tcp6', header + socketLine({ address: loopback6, port: 9443 }));
    fake.write('net/sockstat6', 'TCP6: inuse 0\nUDP6: inuse 3\n');
    expect(readListeners(fake.proc, 9443)).to.deep.equal([]);
    // Not the last word: the count may be off for an instant, and it leaves out TIME_WAIT.
    expect(await confirmListeners(fake.proc, 9443, noSlice)).to.have.length(1);
    expect(await readSockets(fake.proc, 9443, noSlice)).to.have.length(1);
  });

  it('does not answer "nobody" where there is no table', () => {
    using fake = createFakeProc();
    expect(() => readListeners(fake.proc, 9443))
      .to.throw('is /proc mounted?')
      .with.property('code', 'ERR_PROC_FORMAT');
  });

  it('lists the sockets at either end of a port', async () => {
    using fake = createFakeProc();
    const near = socketLine({ address: loopback4, port: 9443, state: '06', remotePort: 5 });
    const far = socketLine({ address: loopback4, port: 5, state: '01', remotePort: 9443 });
    fake.write('net/tcp', header + near + far + socketLine({ address: loopback4, port: 6, remotePort: 7 }));
    expect((await readSockets(fake.proc, 9443, noSlice)).map(({ state }) => state)).to.deep.equal([
      'TIME_WAIT',
      'ESTABLISHED',
    ]);
  });

  it('misses none of 150 listeners, though it does not ask for the end of the table', async () => {
    const open = () =>
      new Promise<net.Server>((resolve) => {
        const server = net.createServer();
        server.listen({ port: 0, host: '127.0.0.1' }, () => resolve(server));
      });
    const servers = await Promise.all(Array.from({ length: 150 }, open));
    const proc = openProc();
    // Wherever the last page ends: one listener less each time.
    for (const server of servers) {
      const { port } = server.address() as net.AddressInfo;
      expect(readListeners(proc, port), String(port)).to.have.length(1);
      await new Promise((resolve) => server.close(resolve));
      expect(readListeners(proc, port), String(port)).to.have.length(0);
    }
  });

  for (const host of ['127.0.0.1', '0.0.0.0', '::1', '::', '::ffff:127.0.0.1']) {
    it(`sees a real listener on ${host}`, async function () {
      if (host.includes(':')) need(this, 'ipv6');
      const port = await freeLocalPort();
      const server = net.createServer();
      await new Promise<void>((resolve) => server.listen({ port, host }, resolve));
      try {
        const rows = readListeners(openProc(), port);
        expect(rows.map(({ address }) => address)).to.deep.equal([host]);
        expect(rows[0]).to.include({ port, uid: process.getuid?.(), state: 'LISTEN' });
        expect(await readAllListeners(openProc(), noSlice)).to.deep.include(rows[0]);
      } finally {
        server.close();
      }
    });
  }
});

describe('findUnixListener()', () => {
  it('finds the socket that listens at a path, as the kernel has it', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'tunward-test-'));
    const path = join(folder, 's');
    const server = net.createServer();
    const client = new net.Socket();
    try {
      await new Promise<void>((resolve) => server.listen(path, resolve));
      const proc = openProc();
      const links = readdirSync('/proc/self/fd').map((fd) => known(proc.link(`self/fd/${fd}`)) ?? '');
      const own = new Set(links.flatMap((link) => /^socket:\[(\d+)\]$/.exec(link)?.[1] ?? []).map(Number));
      const inode = findUnixListener(proc, path, own) ?? 0;
      expect(own.has(inode)).to.equal(true);
      expect(findUnixListener(proc, path, new Set([...own].filter((one) => one !== inode)))).to.equal(undefined);
      expect(findUnixListener(proc, `${path}x`, own)).to.equal(undefined);
      // The accepted end of a connection has the same path, and listens no more.
      await new Promise<void>((resolve) => client.connect(path, resolve));
      const table = (known(proc.text('net/unix')) ?? '').split('\n').filter((line) => line.endsWith(` ${path}`));
      const others = table.map((line) => Number(line.trim().split(/ +/)[6])).filter((one) => one !== inode);
      expect(others).to.have.length(1);
      expect(findUnixListener(proc, path, new Set(others))).to.equal(undefined);
    } finally {
      client.destroy();
      server.close();
      rmSync(folder, { recursive: true });
    }
  });

  it('takes no part of a path for a path, and no table that is not there for one', () => {
    using fake = createFakeProc();
    expect(findUnixListener(fake.proc, '/run/t/1', new Set([7]))).to.equal(undefined);
    const row = (inode: number, path: string, flags = '00010000', type = '0001') =>
      `ffff8880: 00000002 00000000 ${flags} ${type} 01 ${inode} ${path}\n`;
    const rows = [row(1, '/x/run/t/1'), row(2, '/run/t/1', '00000000'), row(3, '/run/t/1', '00010000', '0002')];
    fake.write('net/unix', ['Num RefCount\n', ...rows, row(4, '/run/t/11'), row(5, '/run/t/1')].join(''));
    expect(findUnixListener(fake.proc, '/run/t/1', new Set([1, 2, 3, 4]))).to.equal(undefined);
    expect(findUnixListener(fake.proc, '/run/t/1', new Set([1, 2, 3, 4, 5]))).to.equal(5);
  });
});

describe('findListener()', () => {
  const all = new Set([1, 2, 3, 4, 5, 6, 7, 8]);

  it('finds the one that listens on the address, among these sockets and no others', () => {
    using fake = createFakeProc();
    const row = (address: string, port: number, inode: number, state = '0A') =>
      socketLine({ address, port, inode, state });
    const rows = [row('0200007F', 9443, 1), row(loopback4, 94, 2), row(loopback4, 9443, 3), row(loopback4, 9443, 4)];
    fake.write('net/tcp', header + rows.join('') + row(loopback4, 9444, 5, '01') + row(loopback4, 9445, 6));
    fake.write('net/tcp6', header + row(loopback6, 9443, 7));
    const find = (host: string, port = 9443, inodes = all) => findListener(fake.proc, { host, port }, inodes);
    expect(find('127.0.0.1')).to.equal(3);
    expect(find('127.0.0.1', 9443, new Set([1, 2, 4]))).to.equal(4);
    expect(find('127.0.0.1', 9443, new Set([1, 2]))).to.equal(undefined);
    expect(find('127.0.0.1', 9444)).to.equal(undefined);
    expect(find('::1')).to.equal(7);
    expect(find('::1%lo')).to.equal(7);
    expect(find('::')).to.equal(undefined);
    // Behind the first connection no listener is looked for.
    expect(find('127.0.0.1', 9445)).to.equal(undefined);
  });

  it('asks the kernel for no more rows than it takes', async () => {
    const open = (host: string) =>
      new Promise<net.Server>((resolve) => {
        const server = net.createServer();
        server.listen({ port: 0, host }, () => resolve(server));
      });
    const servers = await Promise.all(Array.from({ length: 100 }, () => open('127.0.0.1')));
    const real = openProc();
    let read = 0;
    const proc: Proc = {
      ...real,
      *pages(path, size) {
        for (const page of real.pages(path, size)) {
          read += known(page)?.length ?? 0;
          yield page;
        }
      },
    };
    try {
      const table = known(real.text('net/tcp'))?.split('\n') ?? [];
      for (const server of servers) {
        const { port } = server.address() as net.AddressInfo;
        const row = table.findIndex((line) => parseSocket(line, 'tcp')?.port === port);
        const { inode = 0 } = parseSocket(table[row] ?? '', 'tcp') ?? {};
        read = 0;
        expect(findListener(proc, { host: '127.0.0.1', port }, new Set([inode]))).to.equal(inode);
        expect(read).to.be.at.most((row + 2) * 150);
      }
    } finally {
      for (const server of servers) server.close();
    }
  });

  for (const host of ['127.0.0.1', '::1', '0.0.0.0', '::']) {
    it(`finds a real listener on ${host}, however many there are`, async function () {
      if (host.includes(':')) need(this, 'ipv6');
      const servers: net.Server[] = [];
      try {
        for (let count = 0; count < 60; count++) {
          const server = net.createServer();
          servers.push(server);
          await new Promise<void>((resolve) => server.listen({ port: 0, host, ipv6Only: true }, resolve));
          const { port } = server.address() as net.AddressInfo;
          const [row] = readListeners(openProc(), port);
          const inode = row?.inode ?? 0;
          expect(findListener(openProc(), { host, port }, new Set([inode]))).to.equal(inode);
          expect(findListener(openProc(), { host, port }, new Set([inode + 1]))).to.equal(undefined);
        }
      } finally {
        for (const server of servers) server.close();
      }
    });
  }
});
