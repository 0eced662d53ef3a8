import { expect } from 'chai';
import { closeAll, findSurviving, type Opened } from '#lib/daemon/shutdown.js';
import type { Supervisor } from '#lib/tunnel/supervisor.js';
import { createFakeClock } from '../support/fakeclock.js';

describe('closeAll()', () => {
  function opened(closed: string[], what: string, close: () => Promise<void> | void = () => undefined): Opened {
    return {
      what,
      close: () => {
        closed.push(what);
        return close();
      },
    };
  }
  const never = () => new Promise<void>(() => undefined);

  it('closes what was opened last first, one after the other', async () => {
    const closed: string[] = [];
    const lasting = (ms: number) => () => clock.sleep(ms);
    const clock = createFakeClock();
    const all = [opened(closed, 'lock'), opened(closed, 'tunnels', lasting(100)), opened(closed, 'API', lasting(50))];
    const over = closeAll(all, 1000, clock);
    await clock.advance(50);
    expect(closed).to.deep.equal(['API', 'tunnels']);
    await clock.advance(100);
    expect(await over).to.equal(undefined);
    expect(closed).to.deep.equal(['API', 'tunnels', 'lock']);
    expect(clock.sleepers(), 'no timer is left that would keep a process').to.equal(0);
  });

  it('has one deadline for all of it, says what was late first, and still closes the rest', async () => {
    const closed: string[] = [];
    const clock = createFakeClock();
    const all = [opened(closed, 'lock'), opened(closed, 'logs', never), opened(closed, 'tunnels', never)];
    const over = closeAll(all, 1000, clock);
    await clock.advance(999);
    expect(closed).to.deep.equal(['tunnels']);
    await clock.advance(1);
    expect(await over).to.equal('tunnels: not over after 1000 ms, and not waited for any more');
    expect(closed).to.deep.equal(['tunnels', 'logs', 'lock']);
  });

  it('goes on after a failure, and says it', async () => {
    const closed: string[] = [];
    const fail = () => {
      throw new Error('disk full');
    };
    const reject = () => Promise.reject(new Error('no matter'));
    const all = [opened(closed, 'lock', reject), opened(closed, 'logs', fail)];
    expect(await closeAll(all, 1000)).to.equal('logs: disk full');
    expect(closed).to.deep.equal(['logs', 'lock']);
  });
});

describe('findSurviving()', () => {
  it('names every process that a tunnel still has, and why', () => {
    const ssh = { pid: 812, startTicks: 1, command: 'ssh -N' };
    const stuck = { name: 'web', state: 'backoff', lastError: 'pid 812 (ssh -N) survived: stuck', chain: [ssh] };
    const late = { name: 'db', state: 'stopping', lastError: null, chain: [{ ...ssh, pid: 813 }] };
    const gone = { name: 'old', state: 'stopped', lastError: null, chain: [] };
    const supervisor = { list: () => [stuck, late, gone] } as unknown as Supervisor;
    expect(findSurviving(supervisor)).to.deep.equal([
      { tunnel: 'web', pid: 812, command: 'ssh -N', why: 'pid 812 (ssh -N) survived: stuck' },
      { tunnel: 'db', pid: 813, command: 'ssh -N', why: 'stopping' },
    ]);
  });
});
