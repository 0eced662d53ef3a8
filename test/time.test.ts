import { expect } from 'chai';
import { assertMs, createSlice, growing, systemClock, until } from '#lib/time.js';
import { createFakeClock } from './support/fakeclock.js';

describe('until()', () => {
  it('resolves to the first answer that is truthy, without a pause when that is the first', async () => {
    const clock = createFakeClock();
    expect(await until(() => 'yes', { timeoutMs: 0, clock })).to.equal('yes');
    const answers = [0, '', false, null, undefined, 'yes', 'late'];
    const waiting = until(() => answers.shift(), { timeoutMs: 100, everyMs: 10, clock });
    await clock.advance(100);
    expect(await waiting).to.equal('yes');
    expect(answers).to.deep.equal(['late']);
  });

  it('resolves to undefined when the time is over, and has asked once more at that moment', async () => {
    const clock = createFakeClock();
    const asked: number[] = [];
    const waiting = until(() => void asked.push(clock.now()), { timeoutMs: 25, everyMs: 10, clock });
    await clock.advance(1000);
    expect(await waiting).to.equal(undefined);
    expect(asked).to.deep.equal([0, 10, 20, 25]);
  });

  for (const timeoutMs of [0, -5]) {
    it(`asks once when it has ${timeoutMs} ms`, async () => {
      let asked = 0;
      expect(await until(() => void asked++, { timeoutMs, clock: createFakeClock() })).to.equal(undefined);
      expect(asked).to.equal(1);
    });
  }

  it('takes its pauses from a function of the number of the check', async () => {
    const clock = createFakeClock();
    const asked: number[] = [];
    const everyMs = (check: number) => check * 100;
    const waiting = until(() => void asked.push(clock.now()), { timeoutMs: 600, everyMs, clock });
    await clock.advance(600);
    await waiting;
    expect(asked).to.deep.equal([0, 100, 300, 600]);
  });

  it('rejects with the reason of an abort: before the first check, and in the middle of a pause', async () => {
    const clock = createFakeClock();
    const reason = new Error('enough');
    let asked = 0;
    const check = () => void asked++;
    const early = until(check, { timeoutMs: 100, signal: AbortSignal.abort(reason), clock });
    expect(await rejection(early)).to.equal(reason);
    expect(asked).to.equal(0);
    const control = new AbortController();
    const late = rejection(until(check, { timeoutMs: 100, everyMs: 50, signal: control.signal, clock }));
    await clock.advance(60);
    control.abort(reason);
    expect(await late).to.equal(reason);
    expect([asked, clock.sleepers()]).to.deep.equal([2, 0]);
  });

  it('rejects with what the check throws', async () => {
    const reason = new Error('broken');
    const broken = until(() => Promise.reject(reason), { timeoutMs: 100 });
    expect(await rejection(broken)).to.equal(reason);
  });

  it('refuses a bound that is no number: it would wait for ever', async () => {
    expect(await rejection(until(() => false, { timeoutMs: Number.NaN }))).to.be.an.instanceOf(RangeError);
  });

  it('does not mind when the wall clock is set', async () => {
    const clock = createFakeClock();
    const waiting = until(() => false, { timeoutMs: 100, everyMs: 10, clock });
    await clock.advance(50);
    clock.shiftWall(-3_600_000);
    await clock.advance(50);
    expect(await waiting).to.equal(undefined);
  });
});

describe('growing()', () => {
  it('begins with 1 ms and ends at the given pause', () => {
    const pauses = Array.from({ length: 12 }, (_, at) => growing(10)(at + 1));
    expect(pauses).to.deep.equal([1, 1, 1, 2, 3, 5, 7, 10, 10, 10, 10, 10]);
  });
});

describe('createSlice()', () => {
  it('pauses for a turn of the event loop once 4 ms of work have gone by, and begins anew', async () => {
    const clock = createFakeClock();
    const slice = createSlice(undefined, { clock });
    expect(slice()).to.equal(undefined);
    await clock.advance(3);
    expect(slice()).to.equal(undefined);
    await clock.advance(1);
    expect(slice()).to.be.an.instanceOf(Promise);
    await slice();
    expect(slice()).to.equal(undefined);
  });

  it('lets others run in that turn', async () => {
    let ran = false;
    setImmediate(() => {
      ran = true;
    });
    await createSlice(undefined, { sliceMs: 0 })();
    expect(ran).to.equal(true);
  });

  it('throws the reason of an abort', () => {
    const reason = new Error('enough');
    expect(() => createSlice(AbortSignal.abort(reason))()).to.throw(reason);
  });
});

describe('systemClock', () => {
  it('has slept no less than it was told', async () => {
    const began = systemClock.now();
    await systemClock.sleep(20);
    expect(systemClock.now() - began).to.be.at.least(19);
  });

  it('rejects with the reason of an abort, and not with an AbortError of its own', async () => {
    const reason = new Error('enough');
    const control = new AbortController();
    const sleeping = rejection(systemClock.sleep(60_000, control.signal));
    const yielding = rejection(systemClock.sleep(0, control.signal));
    control.abort(reason);
    expect([await sleeping, await yielding]).to.deep.equal([reason, reason]);
    expect(await rejection(systemClock.sleep(1, control.signal))).to.equal(reason);
  });

  it('tells the time of day', () => {
    expect(systemClock.wallTime()).to.be.closeTo(Date.now(), 1000);
  });
});

describe('assertMs()', () => {
  it('takes any duration from 0 on, and none at all', () => {
    for (const ms of [0, 0.5, 1e9, Number.POSITIVE_INFINITY, undefined]) assertMs('timeoutMs', ms);
  });

  it('refuses what is no bound, and names it', () => {
    for (const ms of [Number.NaN, -1]) expect(() => assertMs('timeoutMs', ms)).to.throw(RangeError, /timeoutMs/);
    expect(() => assertMs('graceMs', '5' as never)).to.throw(TypeError, /graceMs/);
  });
});

function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => 'it was fulfilled',
    (error: unknown) => error,
  );
}
