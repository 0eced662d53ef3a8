import { expect } from 'chai';
import { createSupervisor, waitForPort } from 'tunward';
import { createFakeClock, reservePort, startSshServer } from 'tunward/testing';
import { isTunwardError } from '#lib/errors.js';
import { until } from '#lib/time.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { makeSpec } from '../support/specs.js';

describe('createFakeClock()', () => {
  it('moves both clocks by what it is told, and the wall clock alone when it is told so', async () => {
    const clock = createFakeClock();
    const began = clock.wallTime();
    await clock.advance(1500);
    clock.shiftWall(3_600_000);
    expect([clock.now(), clock.wallTime() - began]).to.deep.equal([1500, 3_601_500]);
    expect(new Date(began).toISOString()).to.equal('2026-01-16T11:00:30.000Z');
  });

  it('wakes who sleeps in the order of their times, each before the next one', async () => {
    const clock = createFakeClock();
    const woken: string[] = [];
    const sleep = async (name: string, ms: number, again = 0) => {
      await clock.sleep(ms);
      woken.push(`${name} ${clock.now()}`);
      if (again > 0) await sleep(name, again);
    };
    const all = [sleep('late', 30), sleep('early', 10, 10), sleep('now', 0)];
    await clock.settle();
    expect([woken, clock.sleepers()]).to.deep.equal([['now 0'], 2]);
    await clock.advance(30);
    await Promise.all(all);
    expect(woken).to.deep.equal(['now 0', 'early 10', 'early 20', 'late 30']);
  });

  it('lets a sleeper go whose signal aborts', async () => {
    const clock = createFakeClock();
    const control = new AbortController();
    const asleep = clock.sleep(1000, control.signal).catch((reason: unknown) => reason);
    control.abort('enough');
    expect([await asleep, clock.sleepers()]).to.deep.equal(['enough', 0]);
  });

  it('takes a wait for a port to its deadline in no time', async () => {
    const clock = createFakeClock();
    await using held = await reservePort();
    const waiting = waitForPort(held.port, { state: 'free', timeoutMs: 4000, clock }).catch((error) => error);
    expect(await until(() => clock.sleepers() > 0, { timeoutMs: 5000 })).to.equal(true);
    let error: unknown;
    void waiting.then((thrown) => {
      error = thrown;
    });
    // The look at the port takes the time that it takes: each advance wakes whoever sleeps by then.
    await until(() => clock.advance(1000).then(() => error), { timeoutMs: 20_000 });
    expect(isTunwardError(error, 'ERR_TIMEOUT')).to.equal(true);
  });

  it("takes a supervisor's tunnel through its waits", async function () {
    need(this, 'ssh');
    const clock = createFakeClock();
    await using server = await startSshServer();
    server.refuse('login');
    const { remoteHost, sshConfig } = server.tunnelOptions;
    const supervisor = createSupervisor({ env: process.env, clock, random: () => 1 });
    const spec = makeSpec({
      side: 'local',
      listen: { host: '127.0.0.1', port: await freeLocalPort() },
      remoteHost,
      sshConfig,
    });
    await supervisor.reconcile([spec]);
    const attempts = () => new Set(server.logins.map(({ connection }) => connection)).size;
    const state = () => supervisor.list()[0]?.state;
    // What starts a program sleeps by this clock too, 5 ms at a time.
    await until(() => clock.advance(5).then(() => state() === 'backoff'), { timeoutMs: 15_000 });
    expect(attempts()).to.equal(1);
    await until(() => clock.advance(60_000).then(() => attempts() > 1), { timeoutMs: 15_000 });
    const closed = supervisor.close().then(() => true);
    expect(
      await until(() => clock.advance(5).then(() => Promise.race([closed, false])), { timeoutMs: 15_000 }),
    ).to.equal(true);
  });
});
