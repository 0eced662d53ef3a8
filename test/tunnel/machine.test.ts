import { expect } from 'chai';
import fc from 'fast-check';
import { reasons } from '#lib/tunnel/engine.js';
import {
  attendedTransition,
  type Condition,
  type Desired,
  type EventType,
  initialCondition,
  type MachineEvent,
  type State,
  seamlessTransition,
  transition,
} from '#lib/tunnel/machine.js';

const events: readonly EventType[] = [
  ...(['start', 'stop', 'restart', 'blocked', 'ready', 'lost', 'exited', 'timeout', 'dead', 'respec'] as const),
];

/**
 * The state table of the architecture, a cell for each event in the order above: the next state, what is wanted then,
 * the attempt (`n` as before, `+` one more, `0`), the effect. A dot: nothing happens.
 */
const table: Readonly<Record<State, Readonly<Partial<Record<Desired, string>>>>> = {
  stopped: {
    down: 'starting/up/0/launch | . | starting/up/0/launch | . | . | . | . | . | . | .',
  },
  starting: {
    up: `. | stopping/down/n/teardown | stopping/up/0/teardown | backoff/up/+/wait | up/up/n/settle | .
      | backoff/up/+/wait | stopping/up/+/teardown | . | stopping/up/0/teardown`,
  },
  up: {
    up: `. | stopping/down/n/teardown | stopping/up/0/teardown | . | . | starting/up/n/recheck
      | backoff/up/+/wait | up/up/0/- | stopping/up/+/teardown | stopping/up/0/teardown`,
  },
  backoff: {
    up: `starting/up/0/launch | stopped/down/0/- | starting/up/0/launch | . | . | . | . | starting/up/n/launch
      | . | starting/up/0/launch`,
    // Something survived a stop: the retry cleans up again, and a changed spec does not start it.
    down: `starting/up/0/launch | stopped/down/0/- | starting/up/0/launch | . | . | . | . | stopping/down/n/teardown | . | .`,
  },
  stopping: {
    up: `stopping/up/0/- | stopping/down/n/- | stopping/up/0/- | . | . | . | backoff/up/n/wait | backoff/up/+/wait | . | .`,
    down: `stopping/up/0/- | . | stopping/up/0/- | . | . | . | stopped/down/0/- | backoff/down/+/wait | . | .`,
  },
  fatal: {
    up: `starting/up/0/launch | stopped/down/0/- | starting/up/0/launch | . | . | . | . | . | . | starting/up/0/launch`,
  },
};

const rows = Object.entries(table).flatMap(([state, byDesired]) =>
  Object.entries(byDesired).map(([desired, cells]) => ({ state, desired, cells: cells.split('|') })),
) as { state: State; desired: Desired; cells: string[] }[];

describe('transition()', () => {
  for (const { state, desired, cells } of rows) {
    const now: Condition = Object.freeze({ state, desired, attempt: 3, streak: 3, reason: 'timeout' });
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
    const restarting: Condition = { state: 'stopping', desired: 'up', attempt: 0, streak: 0, reason: null };
    expect(transition(restarting, { type: 'exited' })).to.deep.equal({
      next: { state: 'starting', desired: 'up', attempt: 0, streak: 0, reason: null },
      effect: 'launch',
    });
  });

  it('tries again to stop what survived, when a stop is asked for once more', () => {
    const stuck: Condition = { state: 'backoff', desired: 'down', attempt: 1, streak: 1, reason: 'stuck' };
    expect(transition(stuck, { type: 'stop' })).to.deep.equal({
      next: { state: 'stopping', desired: 'down', attempt: 1, streak: 1, reason: null },
      effect: 'teardown',
    });
  });

  it('is fatal where no retry can mend it, and nowhere else', () => {
    const starting: Condition = { state: 'starting', desired: 'up', attempt: 0, streak: 0, reason: null };
    const fatal = reasons.filter((reason) => transition(starting, { type: 'exited', reason }).next.state === 'fatal');
    expect(fatal).to.deep.equal(['host_key_changed', 'bad_spec']);
    const up: Condition = { ...starting, state: 'up' };
    expect(transition(up, { type: 'exited', reason: 'bad_spec' })).to.deep.equal({
      next: { state: 'fatal', desired: 'up', attempt: 1, streak: 1, reason: 'bad_spec' },
    });
  });

  it('gives up for good when it is told so, whatever the reason', () => {
    const starting: Condition = { state: 'starting', desired: 'up', attempt: 0, streak: 0, reason: null };
    const { next, effect } = transition(starting, { type: 'exited', reason: 'auth_failed', isFinal: true });
    expect([next.state, next.reason, effect]).to.deep.equal(['fatal', 'auth_failed', undefined]);
  });

  it('counts in a row what is tried again by one schedule, and all failures as attempts', () => {
    const reasons = [
      'refused',
      'timeout',
      'auth_failed',
      'auth_failed',
      'needs_auth',
      'remote_port_busy',
      'exited',
    ] as const;
    let now: Condition = { state: 'starting', desired: 'up', attempt: 0, streak: 0, reason: null };
    const counted = reasons.map((reason) => {
      const { next } = transition(now, { type: 'exited', reason });
      now = { ...next, state: 'starting' };
      return [next.attempt, next.streak];
    });
    expect(counted).to.deep.equal([
      [1, 1],
      [2, 2],
      [3, 1],
      [4, 2],
      [5, 3],
      [6, 1],
      [7, 1],
    ]);
  });

  it('goes on counting what befalls a network until it has been up long enough, and nothing else', () => {
    const ready = (reason: 'refused' | 'auth_failed') =>
      transition({ state: 'starting', desired: 'up', attempt: 4, streak: 4, reason }, { type: 'ready' }).next;
    expect(ready('refused')).to.include({ state: 'up', attempt: 4, streak: 4 });
    expect(ready('auth_failed')).to.include({ state: 'up', attempt: 4, streak: 0 });
    expect(transition(ready('refused'), { type: 'timeout' }).next).to.include({ attempt: 0, streak: 0 });
  });

  const defaults: [State, EventType, string][] = [
    ['starting', 'blocked', 'local_port_busy'],
    ['starting', 'exited', 'exited'],
    ['starting', 'timeout', 'timeout'],
    ['up', 'lost', 'frozen'],
    ['up', 'exited', 'exited'],
    ['up', 'dead', 'timeout'],
    ['stopping', 'timeout', 'stuck'],
  ];
  for (const [state, type, reason] of defaults) {
    it(`says ${reason} for ${type} in ${state} when nothing else is known, else what is known`, () => {
      const now: Condition = { state, desired: 'up', attempt: 1, streak: 1, reason: null };
      expect(transition(now, { type }).next.reason).to.equal(reason);
      expect(transition(now, { type, reason: 'killed' }).next.reason).to.equal('killed');
    });
  }

  it('has no reason once it is up, stopped, or asked to start anew', () => {
    const now: Condition = { state: 'starting', desired: 'up', attempt: 2, streak: 2, reason: 'refused' };
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

describe('attendedTransition()', () => {
  const asked: Condition = { state: 'starting', desired: 'up', attempt: 0, streak: 0, reason: null };
  const there = { isThere: true, wasUp: false };

  it('stops with the reason of an attempt that failed, and with needs_auth once it has been up', () => {
    const failed = attendedTransition(asked, { type: 'exited', reason: 'auth_failed' }, there);
    expect(failed).to.deep.equal({ next: { ...initialCondition, reason: 'auth_failed' } });
    const lost = { ...asked, state: 'up' } as const;
    const exit = { type: 'exited', reason: 'timeout' } as const;
    expect(attendedTransition(lost, exit, { isThere: false, wasUp: true })).to.deep.equal({
      next: { ...initialCondition, reason: 'needs_auth' },
    });
  });

  it('stops where no retry could mend it, as where one could', () => {
    const changed = attendedTransition(asked, { type: 'exited', reason: 'host_key_changed' }, there);
    expect(changed.next).to.include({ state: 'stopped', desired: 'down', reason: 'host_key_changed' });
  });

  it('goes on getting rid of what has survived, and does not start it then', () => {
    const stopping: Condition = { ...asked, state: 'stopping' };
    const stuck = attendedTransition(stopping, { type: 'timeout', reason: 'stuck' }, there);
    expect(stuck).to.deep.include({ effect: 'wait' });
    expect(stuck.next).to.include({ state: 'backoff', desired: 'down', reason: 'stuck' });
    const again = attendedTransition(stuck.next, { type: 'timeout' }, there);
    expect([again.next.state, again.effect]).to.deep.equal(['stopping', 'teardown']);
    const gone = attendedTransition(again.next, { type: 'exited' }, there);
    expect(gone).to.deep.equal({ next: { ...initialCondition, reason: 'needs_auth' } });
  });

  it('has no reason where somebody has stopped it', () => {
    const { next } = attendedTransition({ ...asked, state: 'up' }, { type: 'stop' }, { isThere: false, wasUp: true });
    expect(attendedTransition(next, { type: 'exited' }, { isThere: false, wasUp: true }).next).to.deep.equal(
      initialCondition,
    );
  });

  it('starts nothing by itself, whatever happens', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(step, fc.boolean(), fc.boolean()), { maxLength: 30 }), (steps) => {
        let now = initialCondition;
        for (const [event, isThere, wasUp] of steps) {
          const { next, effect } = attendedTransition(now, event, { isThere, wasUp });
          if (effect === 'launch') expect(isThere).to.equal(true);
          if (next.state === 'stopped') expect([next.desired, next.reason === 'stuck']).to.deep.equal(['down', false]);
          if (next.state === 'backoff') expect([next.desired, next.reason]).to.deep.equal(['down', 'stuck']);
          expect(next.state).not.to.equal('fatal');
          now = next;
        }
      }),
    );
  });
});

describe('seamlessTransition()', () => {
  const up: Condition = { state: 'up', desired: 'up', attempt: 2, streak: 1, reason: null };

  it('stays up for a restart and a changed spec, and has another link made, counted from nothing', () => {
    for (const type of ['restart', 'respec'] as const) {
      expect(seamlessTransition(up, { type })).to.deep.equal({
        next: { state: 'up', desired: 'up', attempt: 0, streak: 0, reason: null },
        effect: 'renew',
      });
    }
    expect(seamlessTransition(up, { type: 'ready' })).to.deep.equal({ next: up, effect: 'settle' });
  });

  it('is the same as any other but for that', () => {
    fc.assert(
      fc.property(walk, (steps) => {
        let now = initialCondition;
        for (const event of steps) {
          const { next } = seamlessTransition(now, event);
          const isRenewal = now.state === 'up' && ['restart', 'respec', 'ready'].includes(event.type);
          const isEnd = ['backoff', 'fatal'].includes(now.state) && event.type === 'stop';
          if (isRenewal) expect(next.state).to.equal('up');
          else if (isEnd) expect([next.state, next.desired]).to.deep.equal(['stopping', 'down']);
          else expect(seamlessTransition(now, event)).to.deep.equal(transition(now, event));
          now = next;
        }
      }),
    );
  });
});

const step: fc.Arbitrary<MachineEvent> = fc.oneof(
  fc.record({ type: fc.constantFrom(...events) }),
  fc.record({ type: fc.constantFrom(...events), reason: fc.constantFrom(...reasons) }),
);
const walk: fc.Arbitrary<MachineEvent[]> = fc.array(step, { maxLength: 30 });
