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
});

function partsOf(root: StatusParts['root']): StatusParts {
  const rest = { since: 0, restarts: 0, nextRetryAt: null, lastError: null, logFile: null };
  return { spec: makeSpec(), condition: initialCondition, engine: 'ssh', root, usage: createUsageReader(), ...rest };
}
