import { expect } from 'chai';
import fc from 'fast-check';
import type { ProcessStat } from '#lib/proc/stat.js';
import { ancestors, descendants } from '#lib/proc/tree.js';

/** `[pid, ppid, startTicks]` a row. */
function tableOf(...rows: readonly (readonly [number, number, number?])[]): Map<number, ProcessStat> {
  return new Map(
    rows.map(([pid, ppid, startTicks = 100]) => {
      const rest = {
        pgid: 1,
        sid: 1,
        comm: 'x',
        state: 'S',
        kernelThread: false,
        threads: 1,
        rssBytes: 0,
        cpuTicks: 0,
      };
      return [pid, { pid, ppid, startTicks, ...rest }];
    }),
  );
}

const pids = (stats: readonly ProcessStat[]): number[] => stats.map(({ pid }) => pid);
const ref = (pid: number, startTicks = 100) => ({ pid, startTicks });

describe('descendants()', () => {
  it('lists all below, parents before their children, itself left out', () => {
    const table = tableOf([1, 0], [5, 1], [9, 5], [6, 9], [7, 5], [8, 1]);
    expect(pids(descendants(table, ref(5)))).to.deep.equal([9, 7, 6]);
  });

  it('does not take a recycled number for a child: that is older than its parent', () => {
    const table = tableOf([5, 1, 200], [6, 5, 100], [7, 6, 300], [8, 5, 200]);
    expect(pids(descendants(table, ref(5, 200)))).to.deep.equal([8]);
  });

  it('finds those of a root that is no longer in the table', () => {
    expect(pids(descendants(tableOf([6, 5], [7, 6]), ref(5)))).to.deep.equal([6, 7]);
  });

  it('ends in any table, and names nobody twice', () => {
    const row = fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 0, max: 9 }), fc.nat({ max: 3 }));
    fc.assert(
      fc.property(fc.array(row), fc.integer({ min: 1, max: 9 }), (rows, pid) => {
        const table = tableOf(...rows);
        const below = pids(descendants(table, ref(pid, 0)));
        expect(below).to.have.length(new Set(below).size);
        expect(below).not.to.include(pid);
        const above = pids(ancestors(table, table.get(pid)));
        expect(above).to.have.length(new Set(above).size);
        expect(above).not.to.include(pid);
      }),
    );
  });
});

describe('ancestors()', () => {
  it('lists the parents up to pid 1, nearest first', () => {
    expect(pids(ancestors(tableOf([1, 0], [5, 1], [9, 5], [6, 9]), ref(6)))).to.deep.equal([9, 5, 1]);
  });

  it('stops at a circle and at a parent that is younger', () => {
    expect(pids(ancestors(tableOf([5, 6], [6, 7], [7, 5]), ref(5)))).to.deep.equal([6, 7]);
    expect(pids(ancestors(tableOf([5, 6, 100], [6, 1, 101], [1, 0, 0]), ref(5)))).to.deep.equal([]);
  });

  it('answers none for a number that is another process by now', () => {
    expect(ancestors(tableOf([1, 0], [5, 1, 100]), ref(5, 99))).to.deep.equal([]);
    expect(ancestors(tableOf([1, 0]), ref(5))).to.deep.equal([]);
  });
});
