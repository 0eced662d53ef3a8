import { expect } from 'chai';
import { openProc } from '#lib/proc/read.js';
import { readZombies } from '#lib/proc/zombies.js';
import { until } from '#lib/time.js';
import { createFakeProc } from '../support/fakeproc.js';
import { need } from '../support/need.js';
import { isAlive } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';
import { startScript } from '../support/sockets.js';

describe('readZombies()', () => {
  it('finds the dead of one parent: no living ones, no dead of others, none that lives on in a thread', () => {
    using fake = createFakeProc();
    fake.add(
      { pid: 5, ppid: 1 },
      { pid: 6, ppid: 5, state: 'Z' },
      { pid: 7, ppid: 5 },
      { pid: 8, ppid: 5, state: 'Z', threads: 2 },
      { pid: 9, ppid: 1, state: 'Z' },
    );
    // Without lists of children every process is looked at; with them, those on the list.
    expect(readZombies(fake.proc, 5).map(({ pid }) => pid)).to.deep.equal([6]);
    fake.write('5/task/5/children', '6 7 8 ');
    expect(readZombies(fake.proc, 5).map(({ pid }) => pid)).to.deep.equal([6]);
    fake.write('5/task/5/children', '7 ');
    expect(readZombies(fake.proc, 5)).to.deep.equal([]);
  });

  it('says "none" of who is not there', () => {
    using fake = createFakeProc();
    expect(readZombies(fake.proc, 5)).to.deep.equal([]);
  });

  describe('of a process that waits for nobody', () => {
    const reaper = createReaper();
    before(function () {
      need(this, 'perl');
    });
    afterEach(() => reaper.end());

    it('finds them all, and none of its living children', async () => {
      const program = `$| = 1; for (1 .. 3) { fork or exit } my $living = fork; sleep 60 unless $living;
        print "$living\\n"; sleep 60`;
      const { pid, firstLine } = await startScript(reaper, 'perl', ['-e', program]);
      const zombies = () => readZombies(openProc(), pid);
      expect(await until(() => zombies().length === 3, { timeoutMs: 5000 })).to.equal(true);
      expect(zombies().map((dead) => isAlive(dead.pid))).to.deep.equal([false, false, false]);
      expect(isAlive(Number(firstLine))).to.equal(true);
    });
  });
});
