import { expect } from 'chai';
import type { KillReport } from '#lib/kill.js';
import { inNamespace, type NamespaceResult } from '../support/namespace.js';
import { need } from '../support/need.js';

describe('killing, in a namespace', function () {
  this.timeout(90_000);
  before(function () {
    need(this, 'root', 'unshare', 'perl');
  });

  for (const [what, args] of [
    ['forks every 2 ms and leaves', ['2', '0']],
    ['forks every 0.3 ms and leaves', ['0.3', '0']],
    ['executes itself anew every 0.5 ms', ['0.5', '1']],
  ] as const) {
    it(`ends each of 40 comets, a process that ${what}, by its marker`, async () => {
      const run = await inNamespace('test/kill/comets.js', ['40', ...args]);
      expect([run.get('leaked'), run.get('falseReports')]).to.deep.equal([0, 0]);
      expect(run.get('took')).to.have.length(40);
    });
  }

  for (const [what, args] of [
    ['', ['5']],
    [', on a machine on which each look takes 15 ms', ['1', '15']],
  ] as const) {
    it(`kills storms of forks, sessions, programs and SIGCONT without a marker, nobody left${what}`, async () => {
      const run = await inNamespace('test/kill/storms.js', [...args]);
      const outcomes = run.results.map(({ name, value }) => [name, value]);
      const nobody = { leaked: 0, survived: 0 };
      const names = ['bomb', 'sessions', 'workers', 'programs', 'defiant'];
      expect(outcomes).to.deep.equal(names.map((name) => [name, nobody]));
    });
  }

  it('spares itself and its parents when they carry the marker too, and that is no failure', async () => {
    const env = { TUNNEL_ID: 'nested' };
    const run = await inNamespace('test/kill/carrier.js', [], { env });
    const report = run.get<KillReport>('report');
    const child = run.get<{ pid: number; alive: boolean }>('child');
    expect(report.survivors).to.deep.equal([]);
    expect(pids(report)).to.deep.equal([child.pid]);
    expect(child.alive).to.equal(false);
    expect(report.left.map(({ why }) => why)).to.include.members(['protected: this very process', 'protected: pid 1']);
    expect(run.get('parents')).to.deep.equal([true, true, true]);
  });

  it('does not call gone what /proc hides from it', async () => {
    const run = await inNamespace('test/kill/hidden.js');
    expect([run.get('stat'), run.get('alive')]).to.deep.equal(['undefined', true]);
    const { killed, survivors } = run.get<KillReport>('kill');
    expect(killed).to.deep.equal([]);
    expect(survivors[0]).to.include({ pid: run.get('pid') });
    expect(survivors[0]?.why).to.match(/^not permitted: .*hides it$/);
    // Nor do the commands: 5 is "not permitted".
    expect([run.get('tunward kill'), run.get('tunward tree')]).to.deep.equal([5, 'ERR_ACCESS_DENIED']);
  });

  describe('where a number goes to another process', () => {
    let run: NamespaceResult;
    before(async () => {
      run = await inNamespace('test/kill/reuse.js', ['15']);
    });

    it('never hits the new one, though it was decided on the old', () => {
      expect(run.get('reused'), 'or nothing was tried').to.equal(15);
      expect(run.get('harmed')).to.equal(0);
    });

    it('lets a pin read nothing of the new one', () => expect(run.get('mistaken')).to.equal(0));

    it('spares the children of one who got the number of a member that left during the grace', () => {
      expect(run.get('stranger')).to.deep.equal({ reused: true, spared: 3, killed: 2, survivors: 0 });
    });

    it('spares the session of one who got the number of a leader that left during the grace', () => {
      expect(run.get('session')).to.deep.equal({ reused: true, spared: 3, killed: 2, survivors: 0 });
    });

    it('spares the children of one who got the number of a parent while the table was read', () => {
      expect(run.get('parent')).to.deep.equal({ reused: true, spared: 3 });
    });

    it('leaves it alone when it is asked for by a ref of the old one', () => {
      expect(run.get('formerRef')).to.deep.equal({ reused: true, alive: true, killed: 0 });
    });
  });
});

function pids(report: Pick<KillReport, 'killed'>): number[] {
  return report.killed.map(({ pid }) => pid);
}
