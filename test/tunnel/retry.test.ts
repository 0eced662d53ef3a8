import { expect } from 'chai';
import fc from 'fast-check';
import { reasons } from '#lib/tunnel/engine.js';
import { retryDelay, scheduleOf } from '#lib/tunnel/retry.js';

const backoff = { minMs: 1000, maxMs: 60_000, stableMs: 30_000 };
const [most, least] = [() => 1, () => 0];

/** The waits after failures of one kind in a row. */
function waits(reason: (typeof reasons)[number], count: number, random: () => number): number[] {
  return Array.from({ length: count }, (_, at) =>
    retryDelay({ attempt: at + 1, streak: at + 1, reason }, backoff, random),
  );
}

describe('retryDelay()', () => {
  it('is nothing for an attempt that was asked for, whatever failed before', () => {
    for (const reason of [null, ...reasons]) {
      expect(retryDelay({ attempt: 0, streak: 0, reason }, backoff, most)).to.equal(0);
    }
  });

  it('doubles its bound for a network, from the least to the most', () => {
    const bounds = [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000];
    for (const reason of ['refused', 'unreachable', 'timeout', 'exited', 'killed', 'local_port_busy'] as const) {
      expect(waits(reason, 8, most)).to.deep.equal(bounds);
    }
    expect(waits('refused', 3, () => 0.5)).to.deep.equal([500, 1000, 2000]);
  });

  it('tries a login again after 1, 5 and 15 minutes, and then every 30', () => {
    const minutes = [1, 5, 15, 30, 30, 30].map((each) => each * 60_000);
    expect(waits('auth_failed', 6, least)).to.deep.equal(minutes);
    expect(waits('needs_auth', 6, most)).to.deep.equal(minutes.map((ms) => ms + ms / 10));
  });

  it('begins with a minute when a login is refused after a network has failed for long', () => {
    expect(retryDelay({ attempt: 40, streak: 1, reason: 'auth_failed' }, backoff, least)).to.equal(60_000);
  });

  it('asks for a remote port every 5 seconds, for as long as it takes', () => {
    expect(waits('remote_port_busy', 100, least)).to.deep.equal(Array(100).fill(5000));
    expect(waits('remote_port_busy', 2, most)).to.deep.equal([5500, 5500]);
  });

  it('is whole milliseconds within the bounds of its schedule, whatever comes', () => {
    const streaks = fc.integer({ min: 1, max: 10_000 });
    const random = fc.double({ min: 0, max: 1, noNaN: true });
    const bounds = { network: [0, 60_000], login: [60_000, 33 * 60_000], remote_port: [5000, 5500] } as const;
    fc.assert(
      fc.property(fc.constantFrom(...reasons), streaks, random, (reason, streak, chance) => {
        const delay = retryDelay({ attempt: streak, streak, reason }, backoff, () => chance);
        const [from, to] = bounds[scheduleOf(reason)];
        expect(delay).to.be.within(from, to);
        expect(delay).to.satisfy(Number.isInteger);
      }),
    );
  });
});
