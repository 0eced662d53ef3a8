import { expect } from 'chai';
import { createOperations } from '#lib/daemon/api/operations.js';
import { createSupervisor } from '#lib/tunnel/supervisor.js';
import { createFakeClock } from '../../support/fakeclock.js';
import { createFakeEngine, createHold } from '../../support/fakeengine.js';
import { createFakeProc } from '../../support/fakeproc.js';
import { makeSpec } from '../../support/specs.js';

describe('createOperations()', () => {
  it('waits for a tunnel until its turn has come, also when that takes longer than the answer for one may', async () => {
    using fake = createFakeProc();
    const clock = createFakeClock();
    const engine = createFakeEngine();
    const chains = {
      engineFor: () => engine,
      resolve: async () => undefined,
      resolveSpec: async () => undefined,
      refresh: () => undefined,
    };
    const supervisor = createSupervisor({ env: {}, clock, random: () => 1, proc: fake.proc, chains });
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
