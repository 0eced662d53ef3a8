import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { createUsageReader, readUsage, sumUsage, type Usage } from '#lib/proc/usage.js';
import { until } from '#lib/time.js';
import { createFakeProc, type FakeProcess, statLine } from '../support/fakeproc.js';
import { startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { startScript } from '../support/sockets.js';

const reaper = createReaper();

describe('readUsage()', () => {
  afterEach(() => reaper.end());

  it('tells the CPU time of a process that burns, as that process counts it', async function () {
    this.timeout(30_000);
    // 400 ms of CPU, however long that takes, then what it counted, then nothing.
    const program = `const burnt = () => { const { user, system } = process.cpuUsage(); return (user + system) / 1000; };
      const end = burnt() + 400; while (burnt() < end); console.log(burnt()); setTimeout(() => {}, 60_000);`;
    const child = await startScript(reaper, process.execPath, ['-e', program]);
    const usage = await readUsage(child.pid);
    expect(usage).to.include({ pid: child.pid, ppid: process.pid });
    // The program says 400 and what node took to start; the kernel counts in ticks, user and system apart.
    expect(usage?.ctime).to.be.within(380, 400 + 2000);
    expect(usage?.cpu).to.be.closeTo(((usage?.ctime ?? 0) / (usage?.elapsed ?? 0)) * 100, 0.01);
    expect(usage?.timestamp).to.be.closeTo(Date.now(), 1000);
    // From now on it is idle: what it was since its start stays high, what it is since the last look falls.
    const reader = createUsageReader();
    const first = reader.read([child.pid]).get(child.pid)?.cpu ?? 0;
    const idle = await until(() => (reader.read([child.pid]).get(child.pid)?.cpu ?? 100) <= first / 4, {
      timeoutMs: 10_000,
      everyMs: 250,
    });
    expect(idle).to.equal(true);
  });

  it('tells the memory of a process as /proc/<pid>/statm does', async () => {
    const { pid } = await startTree(reaper, { memoryMb: 64 }).ready;
    const pages = Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]);
    const memory = (await readUsage(pid))?.memory ?? 0;
    expect(memory).to.be.greaterThan(64e6);
    // The kernel counts pages in batches for each thread or processor (2 MB at most with a few of either).
    expect(memory).to.be.closeTo(pages * 4096, 4e6);
  });

  it('is undefined for who is gone, is a zombie, or only bears the number', async () => {
    const { pid, startTicks } = await startTree(reaper, {}).ready;
    expect(await readUsage({ pid, startTicks })).to.include({ pid });
    expect(await readUsage({ pid, startTicks: startTicks + 1 })).to.equal(undefined);
    expect(await readUsage(2 ** 22 + 1)).to.equal(undefined);
    using fake = createFakeProc();
    fake.add({ pid: 7, state: 'Z' });
    expect(await readUsage(7, { proc: fake.proc })).to.equal(undefined);
  });

  it('rejects with the reason of an abort', async () => {
    const reason = new Error('enough');
    const outcome = await readUsage(process.pid, { signal: AbortSignal.abort(reason) }).catch((error) => error);
    expect(outcome).to.equal(reason);
  });
});

describe('createUsageReader()', () => {
  it('tells the average since the start first, then what it was since the last look', () => {
    using fake = createFakeProc();
    const reader = createUsageReader({ proc: fake.proc });
    const cpuAt = (upS: number, cpuTicks: number): number | undefined => {
      show(fake, { pid: 7, startTicks: 1000 }, { upS, cpuTicks });
      return reader.read([7]).get(7)?.cpu;
    };
    expect(cpuAt(20, 100)).to.equal(10); // 1 s of 10 s
    expect(cpuAt(21, 150)).to.equal(50);
    expect(cpuAt(22, 350)).to.equal(200); // two threads
    expect(cpuAt(24, 350)).to.equal(0);
  });

  it('keeps its answer while no time has gone by that a tick could be a share of', () => {
    using fake = createFakeProc();
    const reader = createUsageReader({ proc: fake.proc });
    const cpuAt = (upS: number, cpuTicks: number): number | undefined => {
      show(fake, { pid: 7, startTicks: 0 }, { upS, cpuTicks });
      return reader.read([7]).get(7)?.cpu;
    };
    expect([cpuAt(10, 100), cpuAt(10.01, 102), cpuAt(10.19, 110), cpuAt(10.2, 110)]).to.deep.equal([10, 10, 10, 50]);
  });

  it('begins anew with a process that has the number of another one, and forgets who is not asked for', () => {
    using fake = createFakeProc();
    const reader = createUsageReader({ proc: fake.proc });
    show(fake, { pid: 7, startTicks: 0 }, { upS: 10, cpuTicks: 500 });
    show(fake, { pid: 8, startTicks: 0 }, { upS: 10, cpuTicks: 100 });
    expect([...reader.read([7, 8]).values()].map(({ cpu }) => cpu)).to.deep.equal([50, 10]);
    show(fake, { pid: 7, startTicks: 1000 }, { upS: 20, cpuTicks: 100 });
    expect([...reader.read([7, 9]).keys()]).to.deep.equal([7]);
    expect(reader.read([7]).get(7)).to.include({ cpu: 10, ctime: 1000, elapsed: 10_000 });
    // 8 was forgotten: its average again, and not what it was since it was seen.
    show(fake, { pid: 8, startTicks: 0 }, { upS: 20, cpuTicks: 1100 });
    expect(reader.read([8]).get(8)?.cpu).to.equal(55);
  });

  it('says 0 where it is not known how long this host is up', () => {
    using fake = createFakeProc();
    fake.add({ pid: 7, rssPages: 3 });
    expect(createUsageReader({ proc: fake.proc }).read([7]).get(7)).to.include({
      ...{ cpu: 0, elapsed: 0, memory: 3 * fake.proc.pageSize, ppid: 1 },
    });
  });
});

describe('sumUsage()', () => {
  it('adds what they use, and is of the first one', () => {
    const root: Usage = { cpu: 0.1, memory: 10, ppid: 1, pid: 7, ctime: 5, elapsed: 9, timestamp: 3 };
    const child: Usage = { cpu: 0.2, memory: 20, ppid: 7, pid: 8, ctime: 6, elapsed: 4, timestamp: 3 };
    expect(sumUsage([root, child])).to.deep.equal({ ...root, cpu: 0.3, memory: 30, ctime: 11 });
    expect(sumUsage([])).to.equal(null);
  });
});

/** A process as it is when the host is up for so long. */
function show(
  fake: ReturnType<typeof createFakeProc>,
  shown: FakeProcess,
  at: { upS: number; cpuTicks: number },
): void {
  fake.write('uptime', `${at.upS.toFixed(2)} 1.00\n`);
  fake.write(`${shown.pid}/stat`, statLine({ ...shown, userTicks: at.cpuTicks }));
}
