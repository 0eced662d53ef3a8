import { expect } from 'chai';
import { openProc } from '#lib/proc/read.js';
import { createUsageReader } from '#lib/proc/usage.js';
import { initialCondition } from '#lib/tunnel/machine.js';
import { describeTunnel, type StatusParts } from '#lib/tunnel/status.js';
import { startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { makeSpec } from '../support/specs.js';

describe('describeTunnel()', () => {
  const proc = openProc();

  it('tells what the chain uses: all of it together, and the age of its root', async () => {
    await using reaper = createReaper();
    const root = await startTree(reaper, { memoryMb: 32, children: [{ setsid: true, memoryMb: 32 }] }).ready;
    const status = describeTunnel(proc, partsOf(root));
    expect(status.chain.map(({ pid }) => pid)).to.deep.equal([root.pid, root.children[0]?.pid]);
    expect(status.usage).to.include({ pid: root.pid, ppid: process.pid });
    const each = createUsageReader().read([root.pid, root.children[0]?.pid ?? 0]);
    const sum = [...each.values()].reduce((total, { memory }) => total + memory, 0);
    expect(status.usage?.memory).to.be.greaterThan(64e6).and.closeTo(sum, 8e6);
    expect(status.usage?.elapsed).to.be.closeTo(each.get(root.pid)?.elapsed ?? 0, 5000);
  });

  it('has nothing to tell where there is no chain, or where another has its number', async () => {
    await using reaper = createReaper();
    const root = await startTree(reaper, {}).ready;
    expect(describeTunnel(proc, partsOf(undefined))).to.include({ pid: null, usage: null });
    const other = { pid: root.pid, startTicks: root.startTicks + 1 };
    expect(describeTunnel(proc, partsOf(other))).to.include({ pid: null, usage: null });
  });

  it('shows the port that the server chose, and what is the matter with one that is up', () => {
    const spec = makeSpec({ listen: { host: 'localhost', port: 0 } });
    expect(describeTunnel(proc, { ...partsOf(undefined), spec }).listen).to.deep.equal([
      { side: 'remote', host: '127.0.0.1', port: 0 },
    ]);
    const condition = { ...initialCondition, state: 'up', desired: 'up' } as const;
    const health = { state: 'degraded', reason: 'target_refused', detail: 'Connection refused' } as const;
    const status = describeTunnel(proc, { ...partsOf(undefined), spec, condition, health, allocatedPort: 41963 });
    expect(status.listen).to.deep.equal([{ side: 'remote', host: '127.0.0.1', port: 41963 }]);
    expect(status).to.include({ health: 'degraded', reason: 'target_refused', healthReason: 'Connection refused' });
    expect(status.remedy).to.match(/see why nothing answers at localhost:443$/);
  });
});

function partsOf(root: StatusParts['root']): StatusParts {
  const health = { state: 'unknown', reason: null, detail: null } as const;
  const rest = { since: 0, restarts: 0, nextRetryAt: null, lastError: null, logFile: null, allocatedPort: undefined };
  const now = { condition: initialCondition, health, engine: 'ssh', root, usage: createUsageReader() };
  return { spec: makeSpec(), ...now, ...rest };
}
