import { expect } from 'chai';
import { createGate, type EnterOptions, type GateOptions, type Place } from '#lib/tunnel/gate.js';
import { createFakeClock } from '../support/fakeclock.js';

describe('createGate()', () => {
  /** A gate, and everyone who is let in, in order. */
  function open(options: Partial<GateOptions> = {}) {
    const clock = createFakeClock();
    const gate = createGate({ concurrency: 100, perHost: 100, intervalMs: 0, ...options }, clock);
    const inside: { host: string; place: Place; at: number }[] = [];
    const enter = (
      host: string,
      { urgent = () => false, signal = new AbortController().signal }: Partial<EnterOptions> = {},
    ) => gate.enter(host, { urgent, signal }).then((place) => inside.push({ host, place, at: clock.now() }));
    const many = (count: number, host: string) => {
      for (let number = 0; number < count; number++) enter(host).catch(() => undefined);
    };
    const leave = (at: number, outcome: Parameters<Place['release']>[0] = 'up') => inside[at]?.place.release(outcome);
    return { clock, gate, inside, enter, many, leave };
  }

  it('lets in as many at once as it may, also when all of them come in one turn', async () => {
    const { clock, inside, many, leave } = open({ concurrency: 3 });
    many(10, 'a');
    await clock.advance(1000);
    expect(inside).to.have.length(3);
    leave(0);
    await clock.advance(10);
    expect(inside).to.have.length(4);
  });

  it('gives a place that has become free to the next in the same moment, with one timer for all who wait', async () => {
    const { clock, inside, many, leave } = open({ perHost: 1 });
    many(1, 'a');
    many(1, 'b');
    many(100, 'a');
    await clock.settle();
    expect(clock.sleepers()).to.equal(1);
    leave(1);
    leave(0);
    await clock.settle();
    expect(inside.map(({ host, at }) => [host, at])).to.deep.equal([
      ['a', 0],
      ['b', 0],
      ['a', 0],
    ]);
  });

  it('counts each destination by itself', async () => {
    const { clock, inside, many, leave } = open({ perHost: 2 });
    many(3, 'a');
    many(3, 'b');
    await clock.advance(100);
    expect(inside.map(({ host }) => host)).to.deep.equal(['a', 'a', 'b', 'b']);
    leave(3);
    await clock.advance(10);
    expect(inside.map(({ host }) => host)).to.deep.equal(['a', 'a', 'b', 'b', 'b']);
  });

  it('keeps the interval between two starts', async () => {
    const { clock, inside, many } = open({ intervalMs: 500 });
    many(3, 'a');
    await clock.advance(2000);
    expect(inside.map(({ at }) => at)).to.deep.equal([0, 500, 1000]);
  });

  it('halves what a destination may have while it refuses, down to one, and doubles it again', async () => {
    const { clock, inside, many, leave } = open({ perHost: 8 });
    const limits: number[] = [];
    many(100, 'a');
    const next = async (outcome: 'refused' | 'up') => {
      const before = inside.length;
      // Everyone leaves; the first tells how it went, the others nothing.
      inside.forEach((_one, at) => {
        leave(at, at === before - 1 ? outcome : 'other');
      });
      await clock.advance(10);
      limits.push(inside.length - before);
    };
    await clock.settle();
    expect(inside).to.have.length(8);
    for (const outcome of ['refused', 'refused', 'refused', 'refused', 'up', 'up', 'up', 'up'] as const) {
      await next(outcome);
    }
    expect(limits).to.deep.equal([4, 2, 1, 1, 2, 4, 8, 8]);
  });

  it('lets in at once whom somebody waits for, and counts them', async () => {
    const { clock, inside, enter, many } = open({ concurrency: 2 });
    many(2, 'a');
    await enter('a', { urgent: () => true });
    expect(inside).to.have.length(3);
    inside[0]?.place.release('up');
    many(1, 'a');
    await clock.advance(100);
    expect(inside).to.have.length(3);
    inside[1]?.place.release('up');
    await clock.advance(10);
    expect(inside).to.have.length(4);
  });

  it('lets in a waiting one as soon as somebody waits for it', async () => {
    const { clock, inside, enter, many } = open({ concurrency: 1 });
    let isUrgent = false;
    many(2, 'a');
    enter('b', { urgent: () => isUrgent }).catch(() => undefined);
    await clock.advance(100);
    expect(inside).to.have.length(1);
    isUrgent = true;
    await clock.advance(10);
    expect(inside.map(({ host }) => host)).to.deep.equal(['a', 'b']);
  });

  it('gives nothing away to one that no longer wants it', async () => {
    const { clock, inside, enter, many, leave } = open({ concurrency: 1 });
    const waiting = new AbortController();
    many(1, 'a');
    const gone = enter('a', { signal: waiting.signal }).catch((error: unknown) => error);
    await clock.advance(50);
    waiting.abort(new Error('called off'));
    expect(await gone)
      .to.be.an('error')
      .with.property('message', 'called off');
    leave(0);
    many(2, 'a');
    await clock.advance(50);
    expect(inside).to.have.length(2);
    expect(clock.sleepers()).to.equal(1);
  });

  it('takes a place back once, however often it is given', async () => {
    const { clock, inside, many, leave } = open({ concurrency: 1 });
    many(3, 'a');
    await clock.settle();
    leave(0);
    leave(0);
    leave(0, 'refused');
    await clock.advance(50);
    expect(inside).to.have.length(2);
  });

  it('lets those of one party in beside the one that has a place, 64 at once, and counts them nowhere', async () => {
    const clock = createFakeClock();
    const gate = createGate({ concurrency: 2, perHost: 1, intervalMs: 0 }, clock);
    const { signal } = new AbortController();
    const inside: [who: string, place: Place][] = [];
    const enter = (host: string, party?: string) =>
      void gate.enter(host, { urgent: () => false, party, signal }).then((place) => {
        inside.push([party ?? host, place]);
      });
    for (let guest = 0; guest < 100; guest++) enter('web', 'shared');
    enter('elsewhere');
    enter('third');
    await clock.settle();
    // 64 have one of two places together; somebody else has the other.
    expect(inside.map(([who]) => who)).to.deep.equal([...Array(64).fill('shared'), 'elsewhere']);
    inside.at(-2)?.[1].release('up');
    await clock.settle();
    expect(inside.at(-1)?.[0]).to.equal('shared');
    expect(inside).to.have.length(66);
    for (const [, place] of inside.splice(0)) place.release('up');
    await clock.settle();
    expect(inside.map(([who]) => who)).to.deep.equal([...Array(35).fill('shared'), 'third']);
    for (const [, place] of inside.splice(0)) place.release('up');
  });

  it('tells those who wait for one of their party that it is up, once, and nobody else', async () => {
    const clock = createFakeClock();
    const gate = createGate({ concurrency: 2, perHost: 1, intervalMs: 0 }, clock);
    const calledOff = new AbortController();
    const heard: string[] = [];
    const wait = (who: string, party: string, signal: AbortSignal) =>
      void gate.whenUp(party, signal).then(
        () => heard.push(who),
        () => heard.push(`${who} gave up`),
      );
    const { signal } = new AbortController();
    const release = async (party: string, outcome: 'up' | 'refused') => {
      const place = await gate.enter('web', { urgent: () => true, party, signal });
      place.release(outcome);
      place.release(outcome);
      await clock.settle();
      return heard.splice(0);
    };
    wait('one', 'shared', signal);
    wait('another', 'shared', signal);
    wait('impatient', 'shared', calledOff.signal);
    wait('third', 'third', signal);
    calledOff.abort();
    await clock.settle();
    expect(heard.splice(0)).to.deep.equal(['impatient gave up']);
    expect(await release('shared', 'refused')).to.deep.equal([]);
    expect(await release('shared', 'up')).to.deep.equal(['one', 'another']);
    expect(await release('shared', 'up')).to.deep.equal([]);
    expect(await release('third', 'up')).to.deep.equal(['third']);
  });
});
