import { expect } from 'chai';
import { createCensus } from '#lib/proc/census.js';
import { openProc } from '#lib/proc/read.js';
import { readPids } from '#lib/proc/stat.js';
import { createFakeClock } from '../support/fakeclock.js';
import { createFakeProc } from '../support/fakeproc.js';

describe('createCensus()', () => {
  it('hands out one table for a second, and an empty one after that', async () => {
    const clock = createFakeClock();
    const census = createCensus(openProc(), clock, ['TUNNEL_ID']);
    const first = census.table();
    expect(first.size).to.equal(0);
    await clock.advance(999);
    expect(census.table()).to.equal(first);
    await clock.advance(1);
    const second = census.table();
    expect(second).not.to.equal(first);
    expect(second.size).to.equal(0);
    await clock.advance(999);
    expect(census.table()).to.equal(second);
  });

  it('lists all processes once for as long as nothing is forked', () => {
    using fake = createFakeProc();
    const { proc } = createCensus(fake.proc, createFakeClock(), ['TUNNEL_ID']);
    const forked = (count: number) => fake.write('stat', `cpu 1 2\nprocesses ${count}\n`);
    forked(7);
    fake.add({ pid: 10 }, { pid: 20 });
    expect(readPids(proc)).to.deep.equal([10, 20]);
    fake.remove('10');
    // Who has gone is found to be gone by whoever looks at it.
    expect(readPids(proc)).to.deep.equal([10, 20]);
    fake.add({ pid: 30 });
    forked(8);
    expect(readPids(proc)).to.deep.equal([20, 30]);
    expect(proc.list('30/task')).to.deep.equal(['30']);
  });

  it('lists them each time where nobody counts', () => {
    using fake = createFakeProc();
    const { proc } = createCensus(fake.proc, createFakeClock(), ['TUNNEL_ID']);
    fake.add({ pid: 10 });
    expect(readPids(proc)).to.deep.equal([10]);
    fake.add({ pid: 20 });
    expect(readPids(proc)).to.deep.equal([10, 20]);
  });
});
