import { expect } from 'chai';
import { createJournal, type JournalEntry } from '#lib/daemon/events.js';
import { readInit, watchInit } from '#lib/daemon/init.js';
import { systemClock } from '#lib/time.js';
import { createFakeProc, type FakeProc } from '../support/fakeproc.js';

describe('readInit()', () => {
  it('has advice for a daemon that is pid 1, whether or not anybody has died yet', () => {
    using fake = createFakeProc();
    fake.add({ pid: 1 }, { pid: 2, ppid: 1 });
    expect(readInit(fake.proc, 1)).to.deep.include({ pid1: true, zombies: 0 });
    addZombies(fake, 1, 3);
    const { zombies, advice } = readInit(fake.proc, 1);
    expect(zombies).to.equal(3);
    expect(advice).to.match(/^tunward is pid 1 and no init: .*docker run --init/);
  });

  it('is content with an init, and says of a pid 1 that is none what it does not do', () => {
    using fake = createFakeProc();
    fake.add({ pid: 1 }, { pid: 7, ppid: 1 });
    addZombies(fake, 1, 9);
    expect(readInit(fake.proc, 7)).to.deep.equal({ pid1: false, zombies: 9 });
    addZombies(fake, 7, 1);
    const { zombies, advice } = readInit(fake.proc, 7);
    expect(zombies, 'those of pid 1 and its own').to.equal(10);
    expect(advice).to.match(/^pid 1 does not take away the dead: /);
  });
});

describe('watchInit()', () => {
  let fake: FakeProc;
  let told: JournalEntry[];
  beforeEach(() => {
    fake = createFakeProc();
    fake.add({ pid: 1 });
    told = [];
  });
  afterEach(() => fake[Symbol.dispose]());

  function begin(pid: number) {
    const journal = createJournal(systemClock);
    journal.subscribe((entry) => entry.type === 'init.missing' && told.push(entry));
    watchInit(journal, { proc: fake.proc, pid });
    return (count: number) => {
      const dead = { pid: 9, startTicks: 1, command: 'ssh', why: 'target' };
      const kill = { killed: Array(count).fill(dead), left: [], survivors: [], tookMs: 1 };
      journal.append({ type: 'process.killed', tunnel: 'a', kill, layers: { chain: count } });
    };
  }
  const counts = () => told.map((entry) => (entry.type === 'init.missing' ? entry.zombies : undefined));

  it('says once that there is no init, then at 10, 100 and 1,000 zombies, and not in between', () => {
    const kill = begin(1);
    expect(counts()).to.deep.equal([0]);
    addZombies(fake, 1, 9);
    kill(10);
    expect(counts()).to.deep.equal([0]);
    addZombies(fake, 1, 3);
    kill(10);
    kill(10);
    expect(counts()).to.deep.equal([0, 12]);
    addZombies(fake, 1, 100);
    kill(10);
    kill(10);
    expect(counts()).to.deep.equal([0, 12, 112]);
  });

  it('looks once for ten that were killed', () => {
    const kill = begin(1);
    addZombies(fake, 1, 50);
    kill(9);
    expect(counts()).to.deep.equal([0]);
    kill(1);
    expect(counts()).to.deep.equal([0, 50]);
  });

  it('has nothing to say where the daemon is not pid 1', () => {
    fake.add({ pid: 7, ppid: 1 });
    const kill = begin(7);
    addZombies(fake, 7, 50);
    kill(50);
    expect(counts()).to.deep.equal([]);
  });
});

let nextPid = 100;

function addZombies(fake: FakeProc, ppid: number, count: number): void {
  for (let at = 0; at < count; at++) fake.add({ pid: nextPid++, ppid, state: 'Z' });
}
