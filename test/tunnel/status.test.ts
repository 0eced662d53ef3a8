import { expect } from 'chai';
import { openProc, type Proc } from '#lib/proc/read.js';
import { createUsageReader } from '#lib/proc/usage.js';
import { systemClock } from '#lib/time.js';
import { initialCondition } from '#lib/tunnel/machine.js';
import { createChainReader, describeTunnel, type StatusParts } from '#lib/tunnel/status.js';
import { createFakeProc, statLine } from '../support/fakeproc.js';
import { startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { makeSpec } from '../support/specs.js';

describe('describeTunnel()', () => {
  it('tells what the chain uses: all of it together, and the age of its root', async () => {
    await using reaper = createReaper();
    const root = await startTree(reaper, { memoryMb: 32, children: [{ setsid: true, memoryMb: 32 }] }).ready;
    const status = describeTunnel(partsOf(root));
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
    expect(describeTunnel(partsOf(undefined))).to.include({ pid: null, usage: null });
    const other = { pid: root.pid, startTicks: root.startTicks + 1 };
    expect(describeTunnel(partsOf(other))).to.include({ pid: null, usage: null });
  });

  it('reads the command of a process that has had time to begin once, and that of a young one each time', () => {
    using fake = createFakeProc();
    let reads = 0;
    const text: Proc['text'] = (path) => {
      if (path.endsWith('/cmdline')) reads++;
      return fake.proc.text(path);
    };
    const chain = createChainReader({ ...fake.proc, text }, systemClock);
    const root = { pid: 7, startTicks: 1000 };
    fake.add({ ...root, command: ['sh'] });
    fake.write('uptime', '11.99 1.00\n');
    expect(chain.read(root).chain).to.deep.equal([{ ...root, command: 'sh' }]);
    fake.write('7/cmdline', 'ssh\0-N\0web\0');
    fake.write('uptime', '12.00 1.00\n');
    for (let look = 0; look < 3; look++) {
      expect(chain.read(root).chain).to.deep.equal([{ ...root, command: 'ssh -N web' }]);
    }
    // Once for the young one, once when it was old enough.
    expect(reads).to.equal(2);
    const heir = { pid: 7, startTicks: 1100 };
    fake.write('7/stat', statLine(heir));
    fake.write('7/cmdline', 'autossh\0');
    expect(chain.read(heir).chain).to.deep.equal([{ ...heir, command: 'autossh' }]);
    expect(chain.read(root)).to.deep.equal({ pid: null, chain: [], usage: null });
  });

  it('says what keeps it, and what has passed through this process for it', () => {
    const traffic = { connections: 2, open: 1, queued: 0, refused: 0, bytesIn: 9, bytesOut: 4 };
    const spec = makeSpec({ seamless: { drainMs: 1, connectWaitMs: 1 } });
    const status = describeTunnel({ ...partsOf(undefined), spec, engine: 'embedded', traffic });
    expect(status).to.deep.include({ engine: 'embedded', seamless: true, traffic });
    expect(describeTunnel(partsOf(undefined))).to.include({ engine: 'ssh', seamless: false, traffic: null });
  });

  it('shows the port that the server chose, and what is the matter with one that is up', () => {
    const spec = makeSpec({ listen: { host: 'localhost', port: 0 } });
    expect(describeTunnel({ ...partsOf(undefined), spec }).listen).to.deep.equal([
      { side: 'remote', host: '127.0.0.1', port: 0 },
    ]);
    const condition = { ...initialCondition, state: 'up', desired: 'up' } as const;
    const health = { state: 'degraded', reason: 'target_refused', detail: 'Connection refused' } as const;
    const status = describeTunnel({ ...partsOf(undefined), spec, condition, health, allocatedPort: 41963 });
    expect(status.listen).to.deep.equal([{ side: 'remote', host: '127.0.0.1', port: 41963 }]);
    expect(status).to.include({ health: 'degraded', reason: 'target_refused', healthReason: 'Connection refused' });
    expect(status.remedy).to.match(/see why nothing answers at localhost:443$/);
    const prohibited = { ...health, detail: 'channel 1: open failed: administratively prohibited: open failed' };
    const other = describeTunnel({ ...partsOf(undefined), spec, condition, health: prohibited });
    expect(other.remedy, 'nobody was asked').to.contain('PermitOpen');
  });
});

function partsOf(root: StatusParts['root']): StatusParts {
  const health = { state: 'unknown', reason: null, detail: null } as const;
  const rest = {
    since: 0,
    restarts: 0,
    lastRestart: null,
    nextRetryAt: null,
    lastError: null,
    logFile: null,
    allocatedPort: undefined,
  };
  const now = {
    condition: initialCondition,
    health,
    engine: 'ssh',
    traffic: null,
    root,
    chain: createChainReader(openProc(), systemClock),
  };
  return { spec: makeSpec(), ...now, ...rest };
}
