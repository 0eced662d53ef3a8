import { expect } from 'chai';
import { type ErrorCode, errorCodes, isErrno, isTunwardError, TunwardError } from '#lib/errors.js';
import { fromProblem, toProblem } from '#lib/wire.js';

const codes = Object.keys(errorCodes) as ErrorCode[];
const holders = [{ pid: 812, user: 'root', command: 'ssh -N', ageS: 3.2 }];
const info: Readonly<Record<string, object>> = {
  ERR_CONFIG_INVALID: {
    problems: [{ file: 'a.yaml', line: 1, column: 2, path: 'tunnels[0].local_port', message: 'm' }],
  },
  ERR_START_FAILED: { id: 'a1', reason: 'auth_failed', lastError: null, nextRetryAt: '2026-01-16T11:00:30.000Z' },
  ERR_PORT_HELD: { port: 9443, holders, nextRetryAt: null },
  ERR_TIMEOUT: { timeoutMs: 6000, going: 'stopping' },
  ERR_TUNNEL_AMBIGUOUS: { candidates: ['a1', 'a2'] },
};

describe('problem details', () => {
  for (const code of codes) {
    it(`carry ${code} over the wire and back`, () => {
      const error = new TunwardError(code, `It is ${code}`, (info[code] ?? { pid: 812, startTicks: 7 }) as never);
      const { status, body } = toProblem(error);
      expect(body).to.include({ code, status, detail: `It is ${code}`, type: `urn:tunward:error:${code}` });
      expect(status).to.equal(errorCodes[code].status);
      const back = fromProblem(JSON.parse(JSON.stringify(body)), status);
      expect(isTunwardError(back, code)).to.equal(true);
      expect([back.code, back.message, back.info]).to.deep.equal([error.code, error.message, error.info]);
    });
  }

  it('are in snake_case', () => {
    const error = new TunwardError('ERR_TIMEOUT', 'late', { timeoutMs: 5 });
    expect(toProblem(error).body).to.include({ timeout_ms: 5, title: 'Timeout' });
  });

  it('do not let what an error brings along take the place of its code and status', () => {
    const error = new TunwardError('ERR_FORBIDDEN', 'no', { code: 'ERR_X', status: 200, detail: 'yes' });
    expect(toProblem(error).body).to.include({ code: 'ERR_FORBIDDEN', status: 403, detail: 'no' });
  });

  it('of any other error are an internal one', () => {
    for (const thrown of [new TypeError('broken'), 'text', undefined]) {
      expect(toProblem(thrown)).to.have.nested.property('body.title', 'Internal error');
      expect(toProblem(thrown).status).to.equal(500);
    }
  });

  it('that are none, or have a forged code, are still an error', () => {
    for (const body of [null, undefined, 'text', 7, [], {}, { code: 'toString' }, { code: 7 }, { code: 'ERR_NEW' }]) {
      const error = fromProblem(body, 418);
      expect(error.code, JSON.stringify(body)).to.equal('ERR_BAD_REQUEST');
      expect(error.message).to.equal('The daemon answered with status 418');
    }
  });
});

describe('the table of codes', () => {
  it('gives each an HTTP status of an error and an exit code that a shell can tell from success', () => {
    for (const code of codes) {
      expect(code).to.match(/^ERR_[A-Z_]+$/);
      expect(errorCodes[code].status, code).to.be.within(400, 599);
      expect(errorCodes[code].exit, code).to.be.within(1, 125);
    }
  });
});

describe('isTunwardError() and isErrno()', () => {
  it('narrow by class and code', () => {
    const error = new TunwardError('ERR_FORBIDDEN', 'no', {}, { cause: 'why' });
    expect([isTunwardError(error), isTunwardError(error, 'ERR_TIMEOUT'), isTunwardError(new Error('x'))]).to.deep.equal(
      [true, false, false],
    );
    expect(error).to.include({ cause: 'why', name: 'TunwardError' });
    const errno = Object.assign(new Error('x'), { code: 'ESRCH' });
    expect([
      isErrno(errno, 'ENOENT', 'ESRCH'),
      isErrno(errno, 'EPERM'),
      isErrno({ code: 'ESRCH' }, 'ESRCH'),
    ]).to.deep.equal([true, false, false]);
  });
});
