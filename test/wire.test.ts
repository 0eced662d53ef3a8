import { expect } from 'chai';
import fc from 'fast-check';
import { fromWire, toJson, toWire, unprintable } from '#lib/wire.js';

describe('toWire() and fromWire()', () => {
  it('rename keys at every depth and leave values alone', () => {
    const report = { tookMs: 3, killed: [{ startTicks: 7, why: 'startTicks tookMs' }], kill: null, nextRetryAt: 'a_b' };
    const wire = {
      took_ms: 3,
      killed: [{ start_ticks: 7, why: 'startTicks tookMs' }],
      kill: null,
      next_retry_at: 'a_b',
    };
    expect(toWire(report)).to.deep.equal(wire);
    expect(fromWire(wire)).to.deep.equal(report);
  });

  it("leave the names of ssh's options as ssh has them", () => {
    const record = { sshOptions: { ServerAliveInterval: '5', IPQoS: 'ef', MACs: 'x' } };
    expect(toWire(record)).to.deep.equal({ ssh_options: record.sshOptions });
    expect(fromWire(toWire(record))).to.deep.equal(record);
  });

  it('leave out what is undefined, and keep null, 0 and the empty string', () => {
    expect(toWire({ signal: undefined, reason: null, count: 0, text: '' })).to.have.all.keys('reason', 'count', 'text');
  });

  it('bring any camelCase record back as it was', () => {
    const key = fc.stringMatching(/^[a-z][a-z0-9]*([A-Z][a-z0-9]*){0,3}$/);
    const leaf = fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.constant(null));
    const { value } = fc.letrec<{ value: unknown }>((tie) => ({
      value: fc.oneof({ maxDepth: 4 }, leaf, fc.array(tie('value')), fc.dictionary(key, tie('value'))),
    }));
    fc.assert(fc.property(value, (record) => void expect(fromWire(toWire(record))).to.deep.equal(record)));
  });

  it('do not let a key from outside change what an object inherits', () => {
    const record = JSON.parse('{"__proto__": {"is_admin": true}}');
    for (const forged of [fromWire(record), toWire(record)] as { is_admin?: boolean; isAdmin?: boolean }[]) {
      expect(forged.isAdmin ?? forged.is_admin).to.equal(undefined);
      expect(Object.getPrototypeOf(forged)).to.equal(Object.prototype);
      expect(Object.keys(forged)).to.have.length(1);
    }
  });

  it('remember names, and not without end', () => {
    const many = Object.fromEntries(Array.from({ length: 3000 }, (_none, at) => [`key_${at}_a`, at]));
    for (let time = 0; time < 2; time++) {
      expect(Object.keys(fromWire(many) as object)).to.deep.equal(
        Object.keys(many).map((key) => key.replace(/_(.)/g, (_all, one: string) => one.toUpperCase())),
      );
    }
  });
});

describe('toJson()', () => {
  it('says the same as JSON does, and has nothing raw in it that a terminal or a reader could fall for', () => {
    const key = fc.stringMatching(/^[a-z]{1,8}$/);
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom('\u009b2J', 'a\u202eb\u2066', '\u2028\u061c\u007f'),
    );
    fc.assert(
      fc.property(fc.dictionary(key, text), (record) => {
        const json = toJson(record);
        expect(JSON.parse(json)).to.deep.equal(record);
        expect(json.replace(unprintable, '')).to.equal(json);
        expect(JSON.parse(toJson(record, 2))).to.deep.equal(record);
      }),
    );
    expect(toJson({ lastError: '\u009b\ud800' })).to.equal('{"last_error":"\\u009b\\ud800"}');
  });
});
