import { expect } from 'chai';
import { createRounds } from '#lib/tunnel/rounds.js';
import { createFakeClock } from '../support/fakeclock.js';

describe('createRounds()', () => {
  /** Rounds on a fake clock; each one that is joined notes when it was looked at. */
  function open() {
    const clock = createFakeClock();
    const rounds = createRounds(clock);
    const join = (answer: (look: number) => boolean | Promise<boolean> = () => false) => {
      const seen: number[] = [];
      const off = new AbortController();
      const look = async () => answer(seen.push(clock.now()));
      const over = rounds.join(look, off.signal).then(
        () => 'over',
        (error: unknown) => error,
      );
      return { seen, off, over };
    };
    return { clock, join };
  }

  it('looks once a second, until it is over', async () => {
    const { clock, join } = open();
    const one = join((look) => look === 3);
    await clock.advance(10_000);
    expect(one.seen).to.deep.equal([1000, 2000, 3000]);
    expect(await one.over).to.equal('over');
    expect(clock.sleepers()).to.equal(0);
  });

  it('looks at all with one timer, and at once at those who are due within a tenth of a second', async () => {
    const { clock, join } = open();
    const all = [];
    for (let number = 0; number < 10; number++) {
      all.push(join());
      await clock.advance(20);
    }
    expect(clock.sleepers()).to.equal(1);
    await clock.advance(3000);
    const moments = new Set(all.flatMap(({ seen }) => seen));
    expect([...moments]).to.deep.equal([1000, 2000, 3000, 1120, 2120, 3120]);
    for (const { off } of all) off.abort();
    expect(clock.sleepers()).to.equal(0);
  });

  it('ends with the reason of an abort, and leaves no timer when it was the last', async () => {
    const { clock, join } = open();
    const [one, other] = [join(), join()];
    await clock.advance(1500);
    one.off.abort(new Error('called off'));
    expect(await one.over).to.have.property('message', 'called off');
    await clock.advance(1000);
    expect([one.seen.length, other.seen.length]).to.deep.equal([1, 2]);
    other.off.abort(new Error('too'));
    expect(await other.over).to.have.property('message', 'too');
    expect(clock.sleepers()).to.equal(0);
    const late = join();
    await clock.advance(1000);
    expect(late.seen).to.have.length(1);
    late.off.abort();
  });

  it('does not begin for who is called off already', async () => {
    const { clock } = open();
    const rounds = createRounds(clock);
    const error = await rounds.join(async () => true, AbortSignal.abort(new Error('before'))).catch((reason) => reason);
    expect(error).to.have.property('message', 'before');
    expect(clock.sleepers()).to.equal(0);
  });

  it('ends with what the look fails with, and goes on with the others', async () => {
    const { clock, join } = open();
    const bad = join(() => {
      throw new Error('no descriptors');
    });
    const good = join();
    await clock.advance(3000);
    expect(await bad.over).to.have.property('message', 'no descriptors');
    expect([bad.seen.length, good.seen.length]).to.deep.equal([1, 3]);
    good.off.abort();
  });

  it('waits for a look that takes its time before the next one, and keeps nobody else waiting', async () => {
    const { clock, join } = open();
    let finish: (isOver: boolean) => void = () => undefined;
    const slow = join(
      () =>
        new Promise((resolve) => {
          finish = resolve;
        }),
    );
    const other = join();
    await clock.advance(3500);
    expect([slow.seen.length, other.seen.length]).to.deep.equal([1, 3]);
    finish(false);
    await clock.advance(1000);
    expect(slow.seen).to.deep.equal([1000, 4000]);
    for (const { off } of [slow, other]) off.abort();
  });
});
