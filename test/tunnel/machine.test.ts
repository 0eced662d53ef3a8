import { expect } from 'chai';
import fc from 'fast-check';
import { reasons } from '#lib/tunnel/engine.js';
import {
  backoffDelay,
  type Condition,
  type Desired,
  type EventType,
  initialCondition,
  type MachineEvent,
  type State,
  transition,
} from '#lib/tunnel/machine.js';

const events: readonly EventType[] = [
  ...(['start', 'stop', 'restart', 'blocked', 'ready', 'lost', 'exited', 'timeout', 'respec'] as const),
];

/**
 * The state table of the architecture, a cell for each event in the order above: the next state, what is wanted then,
 * the attempt (`n` as before, `+` one more, `0`), the effect. A dot: nothing happens.
 */
const table: Readonly<Record<State, Readonly<Partial<Record<Desired, string>>>>> = {
  stopped: {
    down: 'starting/up/0/launch | . | starting/up/0/launch | . | . | . | . | . | .',
  },
  starting: {
    up: `. | stopping/down/n/teardown | stopping/up/0/teardown | backoff/up/+/wait | up/up/n/settle | .
      | backoff/up/+/wait | stopping/up/+/teardown | stopping/up/0/teardown`,
  },
  up: {
    up: `. | stopping/down/n/teardown | stopping/up/0/teardown | . | . | starting/up/n/recheck
      | backoff/up/+/wait | up/up/0/- | stopping/up/0/teardown`,
  },
  backoff: {
    up: `starting/up/0/launch | stopped/down/0/- | starting/up/0/launch | . | . | . | . | starting/up/n/launch
      | starting/up/0/launch`,
    // Something survived a stop: the retry cleans up again, and a changed spec does not start it.
    down: `starting/up/0/launch | stopped/down/0/- | starting/up/0/launch | . | . | . | . | stopping/down/n/teardown | .`,
  },
  stopping: {
    up: `stopping/up/0/- | stopping/down/n/- | stopping/up/0/- | . | . | . | backoff/up/n/wait | backoff/up/+/wait | .`,
    down: `stopping/up/0/- | . | stopping/up/0/- | . | . | . | stopped/down/0/- | backoff/down/+/wait | .`,
  },
  fatal: {
    up: `starting/up/0/launch | stopped/down/0/- | starting/up/0/launch | . | . | . | . | . | starting/up/0/launch`,
  },
};

const rows = Object.entries(table).flatMap(([state, byDesired]) =>
  Object.entries(byDesired).map(([desired, cells]) => ({ state, desired, cells: cells.split('|') })),
) as { state: State; desired: Desired; cells: string[] }[];

describe('transition()', () => {
  for (const { state, desired, cells } of rows) {
    const now: Condition = Object.freeze({ state, desired, attempt: 3, reason: 'timeout' });
    events.forEach((type, at) => {
      const expected = cells[at]?.trim() ?? 'missing';
      it(`${state}, wanted ${desired}: ${type} → ${expected}`, () => {
        const { next, effect } = transition(now, { type });
        const attempt = { 0: '0', 3: 'n', 4: '+' }[next.attempt] ?? String(next.attempt);
        const cell = `${next.state}/${next.desired}/${attempt}/${effect ?? '-'}`;
        const isSame = cell === `${state}/${desired}/n/-`;
        expect(isSame ? '.' : cell).to.equal(expected);
      });
    });
  }

  it('goes straight on after a restart that was asked for', () => {
    const restarting: Condition = { state: 'stopping', desired: 'up', attempt: 0, reason: null };
    expect(transition(restarting, { type: 'exited' })).to.deep.equal({
      next: { state: 'starting', desired: 'up', attempt: 0, reason: null },
      effect: 'launch',
    });
  });

  it('tries again to stop what survived, when a stop is asked for once more', () => {
    const stuck: Condition = { state: 'backoff', desired: 'down', attempt: 1, reason: 'stuck' };
    expect(transition(stuck, { type: 'stop' })).to.deep.equal({
      next: { state: 'stopping', desired: 'down', attempt: 1, reason: null },
      effect: 'teardown',
    });
  });

  it('is fatal where no retry can mend it, and nowhere else', () => {
    const starting: Condition = { state: 'starting', desired: 'up', attempt: 0, reason: null };
    const fatal = reasons.filter((reason) => transition(starting, { type: 'exited', reason }).next.state === 'fatal');
    expect(fatal).to.deep.equal(['host_key_changed', 'bad_spec']);
    const up: Condition = { ...starting, state: 'up' };
    expect(transition(up, { type: 'exited', reason: 'bad_spec' })).to.deep.equal({
      next: { state: 'fatal', desired: 'up', attempt: 1, reason: 'bad_spec' },
    });
  });

  const defaults: [State, EventType, string][] = [
    ['starting', 'blocked', 'local_port_busy'],
    ['starting', 'exited', 'exited'],
    ['starting', 'timeout', 'timeout'],
    ['up', 'lost', 'frozen'],
    ['up', 'exited', 'exited'],
    ['stopping', 'timeout', 'stuck'],
  ];
  for (const [state, type, reason] of defaults) {
    it(`says ${reason} for ${type} in ${state} when nothing else is known, else what is known`, () => {
      const now: Condition = { state, desired: 'up', attempt: 1, reason: null };
      expect(transition(now, { type }).next.reason).to.equal(reason);
      expect(transition(now, { type, reason: 'killed' }).next.reason).to.equal('killed');
    });
  }

  it('has no reason once it is up, stopped, or asked to start anew', () => {
    const now: Condition = { state: 'starting', desired: 'up', attempt: 2, reason: 'refused' };
    expect(transition(now, { type: 'ready' }).next.reason).to.equal(null);
    expect(transition({ ...now, state: 'backoff' }, { type: 'stop' }).next.reason).to.equal(null);
    expect(transition({ ...now, state: 'backoff' }, { type: 'restart' }).next.reason).to.equal(null);
    expect(transition({ ...now, state: 'backoff' }, { type: 'timeout' }).next.reason).to.equal('refused');
  });

  it('changes nothing that it is given, and answers the same to the same', () => {
    fc.assert(
      fc.property(walk, (steps) => {
        let now: Condition = Object.freeze(initialCondition);
        for (const event of steps) {
          const first = transition(now, Object.freeze(event));
          expect(transition(now, event)).to.deep.equal(first);
          now = Object.freeze(first.next);
        }
      }),
    );
  });

  it('keeps what must hold, whatever happens', () => {
    fc.assert(
      fc.property(walk, (steps) => {
        let now = initialCondition;
        for (const event of steps) {
          const { next, effect } = transition(now, event);
          if (next.state === 'stopped') expect(next.desired).to.equal('down');
          if (next.state === 'starting' || next.state === 'up') expect(next.desired).to.equal('up');
          // Nobody is left without something that brings it on: a launch, a teardown, a wait.
          if (next.state !== now.state && !['stopped', 'fatal'].includes(next.state)) expect(effect).to.be.a('string');
          if (next.state === 'starting' && next.state !== now.state) expect(effect).to.be.oneOf(['launch', 'recheck']);
          now = next;
        }
      }),
    );
  });
});

const walk: fc.Arbitrary<MachineEvent[]> = fc.array(
  fc.oneof(
    fc.record({ type: fc.constantFrom(...events) }),
    fc.record({ type: fc.constantFrom(...events), reason: fc.constantFrom(...reasons) }),
  ),
  { maxLength: 30 },
);

describe('backoffDelay()', () => {
  const backoff = { minMs: 1000, maxMs: 60_000, stableMs: 30_000 };

  it('is nothing for an attempt that was asked for', () => {
    expect(backoffDelay(0, backoff, () => 1)).to.equal(0);
  });

  it('doubles its bound from the least to the most', () => {
    const bounds = [1, 2, 3, 6, 7, 8, 1000].map((attempt) => backoffDelay(attempt, backoff, () => 1));
    expect(bounds).to.deep.equal([1000, 2000, 4000, 32_000, 60_000, 60_000, 60_000]);
  });

  it('is anything from nothing to its bound', () => {
    const attempts = fc.integer({ min: 1, max: 10_000 });
    fc.assert(
      fc.property(attempts, fc.double({ min: 0, max: 1, noNaN: true }), (attempt, random) => {
        const delay = backoffDelay(attempt, backoff, () => random);
        expect(delay).to.be.within(0, Math.min(60_000, 1000 * 2 ** (attempt - 1)));
        expect(delay).to.satisfy(Number.isInteger);
      }),
    );
    expect(backoffDelay(5, backoff, () => 0)).to.equal(0);
    expect(backoffDelay(5, backoff, () => 0.5)).to.equal(8000);
  });
});
