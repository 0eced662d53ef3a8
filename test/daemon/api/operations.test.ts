import { expect } from 'chai';
import { chooseTunnels, createOperations } from '#lib/daemon/api/operations.js';
import { createSupervisor, type Supervisor } from '#lib/tunnel/supervisor.js';
import { createFakeClock } from '../../support/fakeclock.js';
import { createFakeEngine, createHold } from '../../support/fakeengine.js';
import { createFakeProc } from '../../support/fakeproc.js';
import { makeSpec } from '../../support/specs.js';

describe('createOperations()', () => {
  it('waits for a tunnel until its turn has come, also when that takes longer than the answer for one may', async () => {
    using fake = createFakeProc();
    const clock = createFakeClock();
    const engine = createFakeEngine();
    const engines = {
      engineFor: () => engine,
      resolve: async () => undefined,
      resolveSpec: async () => undefined,
      refresh: () => undefined,
    };
    const supervisor = createSupervisor({ env: {}, clock, random: () => 1, proc: fake.proc, engines });
    await supervisor.reconcile([makeSpec({ name: 'web', restartTimeoutMs: 6000 })]);
    await clock.settle();
    const hold = createHold();
    engine.holdStart = hold.held;
    const operations = createOperations(supervisor, clock);
    const one = operations.begin('restart', supervisor.specs(), { force: false });
    await clock.advance(20_000);
    expect([one.finishedAt, one.tunnels[0]?.state]).to.deep.equal([null, 'waiting']);
    hold.release();
    await clock.settle();
    expect(one.tunnels[0]).to.deep.include({ name: 'web', state: 'done' });
    expect(one.tunnels[0]?.result).to.include({ state: 'up', tookMs: 20_000 });
    expect(one.finishedAt).not.to.equal(null);
    await supervisor.close();
  });
});

describe('chooseTunnels()', () => {
  it('means those that need a person when they are named, and with all and a group when they are to stop', () => {
    const specs = [
      makeSpec({ name: 'web', groups: ['here'] }),
      makeSpec({ name: 'vault', groups: ['here'], interactive: true, id: 'f'.repeat(32) }),
    ];
    const status = (which: string) => ({ id: specs.find(({ name }) => name === which)?.id ?? which, desired: 'up' });
    const supervisor = { specs: () => specs, status } as unknown as Supervisor;
    const names = (chosen: Parameters<typeof chooseTunnels>[1]) =>
      chooseTunnels(supervisor, chosen).map(({ name }) => name);
    for (const action of ['start', 'restart'] as const) {
      expect(names({ action, all: true })).to.deep.equal(['web']);
      expect(names({ action, groups: ['here'] })).to.deep.equal(['web']);
      expect(names({ action, tunnels: ['vault'] })).to.deep.equal(['vault']);
    }
    expect(names({ action: 'stop', all: true })).to.deep.equal(['web', 'vault']);
    expect(names({ action: 'stop', groups: ['here'] })).to.deep.equal(['web', 'vault']);
  });
});
