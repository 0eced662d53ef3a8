import { expect } from 'chai';
import { openProc } from '#lib/proc/read.js';
import { createDescriber, isBlindness } from '#lib/tunnel/blind.js';
import { initialCondition } from '#lib/tunnel/machine.js';
import { describeTunnel } from '#lib/tunnel/status.js';
import { createFakeClock } from '../support/fakeclock.js';
import { makeSpec } from '../support/specs.js';

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

describe('createDescriber()', () => {
  const spec = makeSpec();
  const parts: Parameters<ReturnType<typeof createDescriber>>[0] = {
    spec,
    condition: { ...initialCondition, state: 'backoff', desired: 'up', attempt: 2, reason: 'local_port_busy' },
    health: { state: 'unknown', reason: null, detail: null },
    allocatedPort: undefined,
    engine: 'ssh',
    traffic: null,
    root: undefined,
    since: 0,
    restarts: 3,
    lastRestart: null,
    nextRetryAt: 1000,
    lastError: 'taken',
    logFile: null,
  };
  const failure = (code: string) => Object.assign(new Error(code), { code });

  it('says what is known without looking where nothing can be looked at, also the first time', () => {
    const describe = createDescriber(openProc(), {
      clock: createFakeClock(),
      look: () => {
        throw failure('EMFILE');
      },
    });
    const now = describe(parts);
    expect(now).to.include({ name: spec.name, state: 'backoff', attempt: 2, reason: 'local_port_busy', restarts: 3 });
    expect(now).to.include({ pid: null, usage: null, lastError: 'taken', nextRetryAt: '1970-01-01T00:00:01.000Z' });
    expect(now.remedy).to.match(/tunward who 9443/);
    expect(now.listen).to.deep.equal([{ side: 'remote', host: '127.0.0.1', port: 9443 }]);
  });

  it('says where it listens as it was seen last', () => {
    let isBlind = false;
    const listen = [{ side: 'local', host: '10.0.0.1', port: 1 }] as const;
    const describe = createDescriber(openProc(), {
      clock: createFakeClock(),
      look: (all) => {
        if (isBlind) throw failure('ENFILE');
        return { ...describeTunnel(all), listen };
      },
    });
    describe(parts);
    isBlind = true;
    expect(describe(parts).listen).to.deep.equal(listen);
  });

  it('hides no other failure', () => {
    const look = () => {
      throw failure('EACCES');
    };
    const describe = createDescriber(openProc(), { clock: createFakeClock(), look });
    expect(() => describe(parts)).to.throw('EACCES');
  });
});
