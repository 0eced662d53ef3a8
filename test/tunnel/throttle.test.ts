import { expect } from 'chai';
import { createAllowance, createThrottle } from '#lib/tunnel/throttle.js';
import { createFakeClock } from '../support/fakeclock.js';

describe('createThrottle()', () => {
  function open(clock = createFakeClock(), allowance = createAllowance(clock)) {
    const output: string[] = [];
    const throttle = createThrottle((line) => output.push(line), { allowance, clock });
    const say = (count: number) => {
      for (let n = 1; n <= count; n++) throttle.take(`line ${n}`);
    };
    return { clock, allowance, output, throttle, say };
  }

  it('lets fifty lines go on at once, and says how many more there were when it is calm again', async () => {
    const { clock, output, say } = open();
    say(12_395);
    expect(output).to.deep.equal(Array.from({ length: 50 }, (_none, at) => `line ${at + 1}`));
    await clock.advance(1000);
    expect(output.slice(50)).to.deep.equal(['… 12,345 lines not shown']);
    expect(clock.sleepers()).to.equal(0);
  });

  it('lets ten lines a second go on for as long as it takes, the count among them', async () => {
    const { clock, output, throttle, say } = open();
    for (let ms = 0; ms < 60_000; ms += 10) {
      say(10);
      await clock.advance(10);
    }
    throttle.end();
    expect(output.length).to.be.within(600, 660);
    const counts = output.filter((line) => line.startsWith('…'));
    expect(counts).to.have.length.within(55, 61);
    const hidden = counts.reduce((sum, line) => sum + Number(/[\d,]+/.exec(line)?.[0].replace(',', '')), 0);
    expect(hidden + output.length - counts.length, 'shown and counted').to.equal(60_000);
  });

  it('leaves alone whoever talks little, however long', async () => {
    const { clock, output, say } = open();
    for (let second = 0; second < 100; second++) {
      say(10);
      await clock.advance(1000);
    }
    expect(output).to.have.length(1000);
    expect(output.filter((line) => line.startsWith('…'))).to.deep.equal([]);
  });

  it('has its fifty again after five seconds of silence', async () => {
    const { clock, output, say } = open();
    say(51);
    await clock.advance(6100);
    expect(output.at(-1)).to.equal('… 1 line not shown');
    say(60);
    expect(output).to.have.length(50 + 1 + 50);
  });

  it('tells at the end what is left to tell, and waits for nothing any more', async () => {
    const { clock, output, throttle, say } = open();
    say(53);
    throttle.end();
    throttle.end();
    await clock.settle();
    expect(output.slice(50)).to.deep.equal(['… 3 lines not shown']);
    expect(clock.sleepers()).to.equal(0);
  });

  it('has no more for a tunnel that begins again and again', async () => {
    const { clock, allowance, say, output } = open();
    say(50);
    const next = open(clock, allowance);
    next.say(20);
    next.throttle.end();
    expect([output.length, next.output]).to.deep.equal([50, ['… 20 lines not shown']]);
    expect(clock.sleepers()).to.equal(0);
  });
});
