import { symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { findSocketInodes, type Holder, holds, readSocketInodes, scanHolders, stillHolds } from '#lib/proc/fd.js';
import { readListeners } from '#lib/proc/net.js';
import { denied, openProc, type Proc } from '#lib/proc/read.js';
import { readStat, readTable } from '#lib/proc/stat.js';
import { createFakeProc, type FakeProc } from '../support/fakeproc.js';
import { freeLocalPort } from '../support/port.js';
import { startListener } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { startPerlSocket } from '../support/sockets.js';

const noSlice = (): undefined => undefined;

async function holdersOf(proc: Proc, ...inodes: number[]): Promise<string[]> {
  const found: string[] = [];
  const scan = scanHolders(proc, new Set(inodes), { slice: noSlice });
  for await (const holder of scan) found.push(...holder.inodes.map((inode) => `${holder.stat.pid}:${inode}`));
  return found;
}

describe('scanHolders()', () => {
  it('names everyone who holds an inode, the newest first', async () => {
    using fake = createFakeProc();
    addCrowd(fake);
    expect(await holdersOf(fake.proc, 5)).to.deep.equal(['40:5', '30:5', '20:5', '10:5']);
    expect(await holdersOf(fake.proc, 5, 6)).to.have.members(['30:5', '10:5', '40:5', '20:5', '20:6', '50:6']);
  });

  it('with a table names first what this process has started, and every ssh and autossh', async () => {
    using fake = createFakeProc();
    addCrowd(fake);
    fake.add({ pid: process.pid, startTicks: 50 }, { pid: 15, ppid: process.pid, sockets: [5] });
    const table = await readTable(fake.proc, noSlice);
    const found: number[] = [];
    for await (const { stat } of scanHolders(fake.proc, new Set([5]), { table, slice: noSlice })) found.push(stat.pid);
    expect(found).to.deep.equal([30, 15, 10, 40, 20]);
  });

  it('with a table reads nothing of those who come after the one that is enough', async () => {
    using fake = createFakeProc();
    addCrowd(fake);
    const table = await readTable(fake.proc, noSlice);
    const asked: string[] = [];
    const list: Proc['list'] = (path) => {
      asked.push(path);
      return fake.proc.list(path);
    };
    for await (const _first of scanHolders({ ...fake.proc, list }, new Set([5]), { table, slice: noSlice })) break;
    expect(asked).to.deep.equal(['.', '30/fd']);
  });

  it('goes through the inodes once, however many processes there are: a server has thousands of connections', async () => {
    using fake = createFakeProc();
    addCrowd(fake);
    let rounds = 0;
    class Counted extends Set<number> {
      override [Symbol.iterator]() {
        rounds++;
        return super[Symbol.iterator]();
      }
    }
    const found: number[] = [];
    for await (const { stat } of scanHolders(fake.proc, new Counted([5, 6]), { slice: noSlice })) found.push(stat.pid);
    expect(found).to.have.length.above(3);
    expect(rounds).to.equal(1);
  });

  for (const [what, script] of [
    ['all of them in use', ''],
    ['a third of them in use', 'for my $n (0 .. $#f) { close $f[$n] if $n % 3 && fileno($f[$n]) != 1024 }'],
  ]) {
    it(`finds the sockets of a process with descriptors by the thousand, ${what}`, async () => {
      await using reaper = createReaper();
      const open = 'our @f = map { open(my $f, "<", "/dev/null") or die $!; $f } 1 .. 3000;';
      const last = 'socket(our $late, PF_INET, SOCK_STREAM, 0) or die; listen($late, 5) or die;';
      const [port, other] = [await freeLocalPort(), await freeLocalPort()];
      const bound = last.replace('listen', `bind($late, sockaddr_in(${other}, INADDR_LOOPBACK)) or die; listen`);
      const { pid } = await startPerlSocket(reaper, { port, script: `${open} listen($s, 5); ${bound} ${script}` });
      const real = openProc();
      const inodes = [port, other].map((each) => readListeners(real, each)[0]?.inode ?? 0);
      const expected = inodes.map((inode) => `${pid}:${inode}`);
      // Before Linux 6.2 the kernel does not say how many there are.
      for (const proc of [real, { ...real, size: () => 0 }]) {
        expect(await holdersOf(proc, ...inodes)).to.have.members(expected);
        for (const inode of inodes) expect(holds(proc, statOrThrow(proc, pid), new Set([inode]))).to.equal(true);
        expect(readSocketInodes(proc, statOrThrow(proc, pid))).to.include.members(inodes);
      }
    });
  }

  it('looks into the threads of a process whose leader has ended', async () => {
    using fake = createFakeProc();
    const thread = { sockets: [5], environ: [] };
    fake.add({ pid: 10, state: 'Z', threads: 2, thread }, { pid: 20, state: 'Z', threads: 1, thread });
    expect(await holdersOf(fake.proc, 5)).to.deep.equal(['10:5']);
    expect(holds(fake.proc, statOrThrow(fake.proc, 10), new Set([5]))).to.equal(true);
    expect(holds(fake.proc, statOrThrow(fake.proc, 20), new Set([5]))).to.equal(false);
  });

  it('counts those that do not show their descriptors', async () => {
    using fake = createFakeProc();
    fake.add({ pid: 10, sockets: [5] }, { pid: 11, sockets: [5] });
    const list: Proc['list'] = (path) => (path === '11/fd' ? denied : fake.proc.list(path));
    const scan = scanHolders({ ...fake.proc, list }, new Set([5]), { slice: noSlice });
    expect((await scan.next()).value).to.have.nested.property('stat.pid', 10);
    expect(await scan.next()).to.deep.equal({ done: true, value: { refusing: [11] } });
    expect(readSocketInodes({ ...fake.proc, list }, statOrThrow(fake.proc, 11))).to.deep.equal([]);
  });

  it('is asked to pause also within one process with many descriptors', async () => {
    using fake = createFakeProc();
    fake.add({ pid: 10, sockets: Array.from({ length: 3000 }, (_, at) => at + 1000) });
    const pauses: number[] = [];
    let read = 0;
    const links: Proc['links'] = (folder, names, from, to) => {
      read += to - from;
      return fake.proc.links(folder, names, from, to);
    };
    const slice = () => {
      pauses.push(read);
      read = 0;
      return undefined;
    };
    const scan = scanHolders({ ...fake.proc, links }, new Set([5]), { slice });
    for await (const _holder of scan) throw new Error('found somebody');
    expect(pauses.reduce((sum, count) => sum + count, read)).to.be.greaterThanOrEqual(3001);
    expect(Math.max(...pauses)).to.be.at.most(64);
  });

  it('looks again where it was found, and through all only when it is there no more', async () => {
    using fake = createFakeProc();
    fake.add({ pid: 10, sockets: [...Array.from({ length: 200 }, (_, at) => at + 1000), 5] });
    let read = 0;
    const links: Proc['links'] = (...all) => {
      read++;
      return fake.proc.links(...all);
    };
    const proc = { ...fake.proc, links };
    const inodes = new Set([5]);
    const found: Holder[] = [];
    for await (const holder of scanHolders(proc, inodes, { slice: noSlice })) found.push(holder);
    const holder = found[0] ?? expect.fail('nobody was found');
    expect(holder.places).to.deep.equal(['10/fd/200']);
    read = 0;
    expect([stillHolds(proc, holder, inodes), read]).to.deep.equal([true, 0]);
    // It has a second descriptor of it.
    fake.remove('10/fd/200');
    symlinkSync('socket:[5]', join(fake.root, '10/fd/201'));
    expect(stillHolds(proc, holder, inodes)).to.equal(true);
    fake.remove('10/fd/201');
    expect(stillHolds(proc, holder, inodes)).to.equal(false);
  });

  it('is asked to pause also when all sockets of a process are wanted', async () => {
    using fake = createFakeProc();
    const sockets = Array.from({ length: 300 }, (_, at) => at + 1000);
    fake.add({ pid: 10, sockets });
    let pauses = 0;
    const slice = () => void pauses++;
    const found = await findSocketInodes(fake.proc, statOrThrow(fake.proc, 10), slice);
    expect(found).to.have.members(sockets).and.to.have.length(300);
    expect(pauses).to.be.at.least(4);
  });

  it('finds a real listener, and no one else', async () => {
    await using reaper = createReaper();
    const { pid, ports } = await startListener(reaper).ready;
    const proc = openProc();
    const [row] = readListeners(proc, ports[0]?.port ?? 0);
    const inode = row?.inode ?? 0;
    expect(await holdersOf(proc, inode)).to.deep.equal([`${pid}:${inode}`]);
    expect(readSocketInodes(proc, statOrThrow(proc, pid))).to.include(inode);
    expect(holds(proc, statOrThrow(proc, pid), new Set([inode]))).to.equal(true);
    expect(holds(proc, statOrThrow(proc, process.pid), new Set([inode]))).to.equal(false);
  });
});

function addCrowd(fake: FakeProc): void {
  fake.write('loadavg', '0 0 0 1/9 900\n');
  fake.add(
    { pid: 10, comm: 'autossh', sockets: [5] },
    { pid: 20, comm: 'node', sockets: [1, 5, 6] },
    { pid: 30, comm: 'ssh', sockets: [5] },
    { pid: 40, comm: 'sshd', sockets: [5] },
    { pid: 50, sockets: [55, 6] },
    { pid: 60, comm: 'kworker', flags: 0x0020_0000 },
  );
}

function statOrThrow(proc: Proc, pid: number) {
  const stat = readStat(proc, pid);
  if (!stat) throw new Error(`no process ${pid}`);
  return stat;
}
