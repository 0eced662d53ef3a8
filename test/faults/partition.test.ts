import { expect } from 'chai';
import { fault } from '../support/fault.js';
import { inNamespace } from '../support/namespace.js';

interface Times {
  readonly afterHealMs: number;
  readonly freedAfterCutMs: number;
  readonly afterFreedMs: number;
}

describe('fault: a network that is cut', () => {
  const title = 'says that the server still holds the port of a -R, and is up again when it has let go';
  fault({ id: 'S9', title, times: 2, needs: ['root', 'unshare', 'ip', 'ssh', 'sshd'] }, async (times) => {
    const figures: string[] = [];
    for (let n = 0; n < times; n++) {
      // A server that looks after its clients, and one that never would: its session is ended after 12 s by hand.
      const both = [partition('alive'), partition('stale', '12000')];
      const [alive, stale] = await Promise.all(both);
      figures.push(`ClientAlive 1×3 ${alive}`, `none, helped after 12 s, ${stale}`);
    }
    return figures.join('; ');
  });
});

async function partition(...args: readonly string[]): Promise<string> {
  const run = await inNamespace('test/e2e/programs/partition.js', args, { timeoutMs: 90_000 });
  const { afterHealMs, freedAfterCutMs, afterFreedMs } = run.get<Times>('times');
  const busy = run.get<{ reason: string; remedy: string; waitMs: number }>('busy');
  expect(busy.reason).to.equal('remote_port_busy');
  expect(busy.remedy).to.match(/ClientAliveInterval/);
  expect(busy.waitMs).to.be.within(5000, 5600);
  expect(run.get('after')).to.deep.include({ state: 'up', remedy: null, said: 'from the near side', isNew: true });
  if (args[0] === 'stale') expect(run.get('still held')).to.equal(true);
  // One step of 5 s and a tenth, and a login.
  expect(afterFreedMs).to.be.below(8000);
  expect(run.get('exit')).to.equal(0);
  const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
  return `let go after ${seconds(freedAfterCutMs)}, up ${seconds(afterFreedMs)} later and ${seconds(afterHealMs)} after the heal`;
}
