import { expect } from 'chai';
import { holds, readSocketInodes, scanHolders } from '#lib/proc/fd.js';
import { readListeners } from '#lib/proc/net.js';
import { denied, openProc, type Proc } from '#lib/proc/read.js';
import { readStat } from '#lib/proc/stat.js';
import { createFakeProc } from '../support/fakeproc.js';
import { startListener } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';

const noSlice = (): undefined => undefined;

async function holdersOf(proc: Proc, ...inodes: number[]): Promise<string[]> {
  const found: string[] = [];
  const scan = scanHolders(proc, new Set(inodes), { slice: noSlice });
  for await (const { inode, stat } of scan) found.push(`${stat.pid}:${inode}`);
  return found;
}

describe('scanHolders()', () => {
  it('names everyone who holds an inode: ssh and autossh first, then the newest', async () => {
    using fake = createFakeProc();
    fake.write('loadavg', '0 0 0 1/9 900\n');
    fake.add(
      { pid: 10, comm: 'autossh', sockets: [5] },
      { pid: 20, comm: 'node', sockets: [1, 5, 6] },
      { pid: 30, comm: 'ssh', sockets: [5] },
      { pid: 40, comm: 'sshd', sockets: [5] },
      { pid: 50, sockets: [55, 6] },
      { pid: 60, comm: 'kworker', flags: 0x0020_0000, sockets: [5] },
    );
    expect(await holdersOf(fake.proc, 5)).to.deep.equal(['30:5', '10:5', '40:5', '20:5']);
    expect(await holdersOf(fake.proc, 5, 6)).to.have.members(['30:5', '10:5', '40:5', '20:5', '20:6', '50:6']);
  });

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
    expect(await scan.next()).to.deep.equal({ done: true, value: { deniedCount: 1 } });
    expect(readSocketInodes({ ...fake.proc, list }, statOrThrow(fake.proc, 11))).to.deep.equal([]);
  });

  it('is asked to pause also within one process with many descriptors', async () => {
    using fake = createFakeProc();
    fake.add({ pid: 10, sockets: Array.from({ length: 300 }, (_, at) => at + 1000) });
    let pauses = 0;
    const slice = () => {
      pauses++;
      return undefined;
    };
    for await (const _holder of scanHolders(fake.proc, new Set([5]), { slice })) throw new Error('found somebody');
    expect(pauses).to.be.greaterThan(300);
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

function statOrThrow(proc: Proc, pid: number) {
  const stat = readStat(proc, pid);
  if (!stat) throw new Error(`no process ${pid}`);
  return stat;
}
