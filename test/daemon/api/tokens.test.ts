import { expect } from 'chai';
import { createFailures, createSessions, SESSION_MS } from '#lib/daemon/api/tokens.js';
import { createFakeClock } from '../../support/fakeclock.js';

describe('createSessions()', () => {
  it('ends a session after its time, and the oldest when there are too many', async () => {
    const clock = createFakeClock();
    const sessions = createSessions(clock);
    const first = sessions.open('all').secret;
    await clock.advance(SESSION_MS - 1);
    expect(sessions.rightsOf(first)).to.equal('all');
    await clock.advance(1);
    expect(sessions.rightsOf(first)).to.equal(undefined);
    const secrets = Array.from({ length: 65 }, () => sessions.open('read').secret);
    expect(secrets.map((secret) => sessions.rightsOf(secret)).filter(Boolean)).to.have.length(64);
    expect(sessions.rightsOf(secrets[0] ?? '')).to.equal(undefined);
    expect(new Set(secrets).size).to.equal(65);
    // Whoever may look does not log out whoever may act.
    const other = sessions.open('all').secret;
    for (let n = 0; n < 65; n++) sessions.open('read');
    expect(sessions.rightsOf(other)).to.equal('all');
  });
});

describe('createFailures()', () => {
  it('closes for a minute after ten, counted from the first of them', async () => {
    const clock = createFakeClock();
    const failures = createFailures(clock);
    for (let n = 0; n < 9; n++) failures.note('192.0.2.1');
    await clock.advance(59_000);
    expect(failures.waitOf('192.0.2.1')).to.equal(0);
    failures.note('192.0.2.1');
    expect(failures.waitOf('192.0.2.1')).to.equal(1000);
    expect(failures.waitOf('192.0.2.2')).to.equal(0);
    await clock.advance(1000);
    expect(failures.waitOf('192.0.2.1')).to.equal(0);
    failures.note('192.0.2.1');
    expect(failures.waitOf('192.0.2.1')).to.equal(0);
  });

  it('takes all addresses of one IPv6 network for one', () => {
    const failures = createFailures(createFakeClock());
    for (let n = 0; n < 10; n++) failures.note(`2001:db8:0:7::${n}`);
    expect(failures.waitOf('2001:db8:0:7:ffff:1:2:3')).to.be.greaterThan(0);
    expect(failures.waitOf('2001:db8:0:8::1')).to.equal(0);
    for (let n = 0; n < 10; n++) failures.note('::ffff:192.0.2.1');
    expect(failures.waitOf('::ffff:192.0.2.1')).to.be.greaterThan(0);
    expect(failures.waitOf('::ffff:192.0.2.2')).to.equal(0);
  });

  it('remembers no more addresses than it has room for', () => {
    const failures = createFailures(createFakeClock());
    for (let n = 0; n < 10; n++) failures.note('192.0.2.1');
    for (let n = 0; n < 1024; n++) failures.note(`10.0.${n >> 8}.${n & 255}`);
    expect(failures.waitOf('192.0.2.1')).to.equal(0);
  });
});
