import { expect } from 'chai';
import { describeUnseen, isBlindness } from '#lib/tunnel/blind.js';
import { initialCondition } from '#lib/tunnel/machine.js';
import type { TunnelStatus } from '#lib/tunnel/runner.js';
import { makeSpec } from '../support/specs.js';
import { createBench } from '../support/tunnel.js';

describe('isBlindness()', () => {
  it('is the want of a descriptor alone, also where there is only a number for it', () => {
    const failure = (code: string, errno?: number) => Object.assign(new Error(code), { code, errno });
    expect(['EMFILE', 'ENFILE'].map((code) => isBlindness(failure(code)))).to.deep.equal([true, true]);
    expect(isBlindness(failure('ERR_SYSTEM_ERROR', 24))).to.equal(true);
    expect(isBlindness(failure('ERR_SYSTEM_ERROR', 12))).to.equal(false);
    expect(isBlindness(failure('EACCES', -13))).to.equal(false);
    expect(isBlindness(undefined)).to.equal(false);
  });
});

describe('describeUnseen()', () => {
  it('says what is known without looking, and nothing of a chain', () => {
    const spec = makeSpec();
    const before: TunnelStatus = { ...createBench(spec).runner.status(), pid: 812, chain: [], restarts: 1 };
    const now = describeUnseen(before, {
      spec,
      condition: { ...initialCondition, state: 'backoff', desired: 'up', attempt: 2, reason: 'local_port_busy' },
      health: { state: 'unknown', reason: null, detail: null },
      allocatedPort: undefined,
      engine: 'ssh',
      since: 0,
      restarts: 3,
      nextRetryAt: 1000,
      lastError: 'taken',
      logFile: null,
    });
    expect(now).to.include({ name: before.name, state: 'backoff', attempt: 2, reason: 'local_port_busy', restarts: 3 });
    expect(now).to.include({ pid: null, usage: null, lastError: 'taken', nextRetryAt: '1970-01-01T00:00:01.000Z' });
    expect(now.remedy).to.match(/tunward who 9443/);
    expect(now.listen).to.deep.equal(before.listen);
  });
});
