import { readdirSync } from 'node:fs';
import { expect } from 'chai';
import { isPid } from '#lib/proc/pid.js';
import { whyProtected } from '#lib/proc/protected.js';
import { openProc, type Proc } from '#lib/proc/read.js';
import { type ProcessStat, readStat } from '#lib/proc/stat.js';
import { statLine } from '../support/fakeproc.js';
import { startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';

describe('whyProtected()', () => {
  const proc = openProc();
  const row = { startTicks: 1, ppid: 1, pgid: 1, sid: 1, comm: 'x', state: 'S', threads: 1, rssBytes: 0, cpuTicks: 0 };
  const stat = (pid: number, kernelThread = false): ProcessStat => ({ ...row, pid, kernelThread });

  for (const [pid, why] of [
    [0, 'protected: no pid'],
    [-1, 'protected: no pid'],
    [1.5, 'protected: no pid'],
    [Number.NaN, 'protected: no pid'],
    [2 ** 22 + 1, 'protected: no pid'],
    [1, 'protected: pid 1'],
    [process.pid, 'protected: this very process'],
  ] as const) {
    it(`says '${why}' of ${pid}`, () => {
      expect(whyProtected(proc, stat(pid))).to.equal(why);
      expect(isPid(pid)).to.equal(!why.endsWith('no pid'));
    });
  }

  it('protects what belongs to the kernel', () => {
    expect(whyProtected(proc, stat(4242, true))).to.equal('protected: kernel thread');
  });

  it('lets go a process of no importance, and protects its threads', async () => {
    await using reaper = createReaper();
    const { pid } = await startTree(reaper, {}).ready;
    for (const tid of readdirSync(`/proc/${pid}/task`).map(Number)) {
      const why = tid === pid ? undefined : `protected: a thread of pid ${pid}, and no process`;
      const thread = readStat(proc, tid);
      expect(thread && whyProtected(proc, thread), String(tid)).to.equal(why);
    }
  });

  it('protects the whole line above this process, and ends where that goes in a circle', async () => {
    await using reaper = createReaper();
    const { pid } = await startTree(reaper, {}).ready;
    const line = new Map([
      [process.ppid, 4_000_001],
      [4_000_001, pid],
      [pid, process.ppid],
    ]);
    const text: Proc['text'] = (path) => {
      const ppid = line.get(Number(/^(\d+)\/stat$/.exec(path)?.[1]));
      return ppid === undefined ? proc.text(path) : statLine({ pid: Number(path.split('/')[0]), ppid });
    };
    const shown = { ...proc, text };
    for (const above of [4_000_001, pid]) {
      expect(whyProtected(shown, stat(above))).to.equal('protected: an ancestor of this process');
    }
    expect(whyProtected(shown, stat(4_000_002))).to.equal(undefined);
  });
});
