import { expect } from 'chai';
import { createCensus } from '#lib/proc/census.js';
import { createFakeClock } from '../support/fakeclock.js';

describe('createCensus()', () => {
  it('hands out one table for a second, and an empty one after that', async () => {
    const clock = createFakeClock();
    const census = createCensus(clock, ['TUNNEL_ID']);
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
});
