import { once } from 'node:events';
import net from 'node:net';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { createHold } from '../support/fakeengine.js';
import { freeLocalPort } from '../support/port.js';
import { deadline, seamless, useSeamless } from '../support/seamless.js';
import { forbidUnhandledRejections, watch } from '../support/tunnel.js';

describe('a seamless tunnel', () => {
  forbidUnhandledRejections();
  const scene = useSeamless();
  const states = () => scene().events.flatMap(({ type }) => (type === 'tunnel.output' ? [] : [type]));

  it('listens, carries, and is refused once it is stopped', async () => {
    const { runner, connect, expectRefused } = scene();
    await runner.start();
    const client = await connect();
    await client.say('hello');
    await runner.stop();
    await until(client.end, deadline);
    expect(client.end()).to.equal('ECONNRESET');
    await expectRefused();
  });

  it('has another link after a restart, without a moment in between: what goes through goes on', async () => {
    const { engine, runner, connect } = scene();
    await runner.start();
    const old = await connect();
    await old.say('one');
    const { state } = await runner.restart();
    expect(state).to.equal('up');
    expect(engine.running()).to.have.length(2);
    await old.say('two');
    const fresh = await connect();
    await fresh.say('three');
    expect(states()).to.deep.equal(['tunnel.starting', 'tunnel.up', 'tunnel.up']);
    expect(runner.status()).to.deep.include({ state: 'up', restarts: 1, attempt: 0, lastError: null });
    old.socket.end();
    await until(() => engine.running().length === 1, deadline);
    expect(engine.running()).to.deep.equal([engine.last()]);
    await fresh.say('four');
  });

  it('cuts what still goes over the old link when the time for that is over', async () => {
    const { engine, runner, specOf, connect } = scene();
    runner.respec(specOf({ seamless: { ...seamless, drainMs: 50 } }));
    await runner.start();
    const old = await connect();
    await old.say('one');
    await runner.restart();
    expect(await until(old.end, deadline)).to.equal('ECONNRESET');
    await until(() => engine.running().length === 1, deadline);
    await (await connect()).say('two');
  });

  it('refuses nobody who connects during many restarts in a row, and keeps few links for those who stay', async () => {
    const { engine, runner, connect } = scene();
    await runner.start();
    let isOver = false;
    let connections = 0;
    const knocking = (async () => {
      while (!isOver) {
        await (await connect()).say('x');
        connections++;
      }
    })();
    for (let restart = 0; restart < 40; restart++) {
      await runner.restart();
      expect(engine.running().length).to.be.at.most(18);
    }
    isOver = true;
    await knocking;
    expect(connections).to.be.greaterThan(0);
    await until(() => engine.running().length <= 17, deadline);
    expect(engine.running().length).to.be.at.most(17);
  });

  it('goes on as it was when the new link does not come up, and says why', async () => {
    const { engine, runner, connect } = scene();
    await runner.start();
    const old = await connect();
    engine.first = 'waiting';
    const outcome = watch(runner.restart());
    await until(() => engine.links.length === 2, deadline);
    engine.last().exit({ reason: 'auth_failed', lastError: 'Permission denied (publickey).' });
    await until(() => outcome.error, deadline);
    expect(outcome.error).to.deep.include({ code: 'ERR_START_FAILED' });
    expect(outcome.error?.info).to.deep.include({ reason: 'auth_failed', lastError: 'Permission denied (publickey).' });
    expect(outcome.error?.message).to.match(/could not be restarted, and goes on as it was: auth_failed \(Permission/);
    expect(runner.status()).to.include({ state: 'up', desired: 'up' });
    await old.say('one');
    await (await connect()).say('two');
    engine.first = 'ready';
    expect((await runner.restart()).state).to.equal('up');
  });

  it('goes on as it was when the new link cannot be started at all', async () => {
    const { engine, runner, connect } = scene();
    await runner.start();
    engine.failure = new Error('no more processes');
    const outcome = watch(runner.restart());
    await until(() => outcome.error, deadline);
    expect(outcome.error?.message).to.match(/goes on as it was: exited \(no more processes\)/);
    await (await connect()).say('one');
  });

  it('has those wait who connect while there is no link, and resets what went over the one that is gone', async () => {
    const { engine, runner, connect } = scene();
    await runner.start();
    const old = await connect();
    await old.say('one');
    engine.first = 'waiting';
    engine.last().exit({ reason: 'exited' });
    expect(await until(old.end, deadline)).to.equal('ECONNRESET');
    const waiting = await connect();
    waiting.socket.write('two');
    expect(await until(() => engine.links.length === 2, deadline)).to.equal(true);
    expect(waiting.heard()).to.equal('');
    engine.last().state = 'ready';
    expect(await until(() => waiting.heard() === 'two', deadline)).to.equal(true);
  });

  it('is tried again at once when it is lost, and by its schedule when it is lost again before it has proved stable', async () => {
    const { engine, runner, specOf } = scene();
    const patient = { minMs: 60_000, maxMs: 60_000, stableMs: 60_000 };
    scene().random = 1;
    runner.respec(specOf({ backoff: patient }));
    await runner.start();
    engine.last().exit({ reason: 'exited' });
    expect(await until(() => runner.status().restarts === 1, deadline)).to.equal(true);
    engine.last().exit({ reason: 'exited' });
    await until(() => runner.status().state === 'backoff', deadline);
    const waitMs = Date.parse(runner.status().nextRetryAt ?? '') - Date.now();
    expect(waitMs).to.be.within(50_000, 61_000);
  });

  it('gives up a link that dies while another one is made beside it, and comes up by itself', async () => {
    const { engine, runner, connect } = scene();
    await runner.start();
    const first = engine.link(0);
    engine.first = 'waiting';
    const outcome = watch(runner.restart());
    await until(() => engine.links.length === 2, deadline);
    first.exit({ reason: 'exited' });
    await until(() => engine.links.length === 3, deadline);
    engine.last().state = 'ready';
    engine.first = 'ready';
    await until(() => runner.status().state === 'up' && runner.status().restarts > 0, deadline);
    await until(() => engine.running().length === 1, deadline);
    expect(engine.running()).to.deep.equal([engine.last()]);
    expect(outcome.error?.code ?? outcome.result?.state).to.equal('ERR_START_FAILED');
    await (await connect()).say('one');
  });

  it('is stopped in the middle of a restart, and leaves neither link', async () => {
    const { engine, runner, expectRefused } = scene();
    await runner.start();
    engine.first = 'waiting';
    const outcome = watch(runner.restart());
    await until(() => engine.links.length === 2, deadline);
    await runner.stop();
    expect(outcome.error?.code).to.equal('ERR_TUNNEL_CONFLICT');
    await until(() => engine.running().length === 0, deadline);
    expect(engine.running()).to.deep.equal([]);
    await expectRefused();
  });

  it('is stopped while a new link is being started that does not heed its signal', async () => {
    const { engine, runner, expectRefused } = scene();
    await runner.start();
    const hold = createHold();
    engine.holdStart = hold.held;
    watch(runner.restart());
    const stopped = runner.stop();
    hold.release();
    await stopped;
    expect(engine.running()).to.deep.equal([]);
    await expectRefused();
  });

  it('takes over a changed spec like a restart, and a new address by listening there instead', async () => {
    const { engine, runner, specOf, connect, expectRefused } = scene();
    await runner.start();
    const old = await connect();
    await old.say('one');
    runner.respec(specOf({ sshOptions: { Port: '2222' } }));
    await until(() => engine.links.length === 2 && runner.status().restarts === 1, deadline);
    expect(engine.last().spec.sshOptions).to.deep.equal({ Port: '2222' });
    await old.say('two');
    const elsewhere = await freeLocalPort();
    runner.respec(specOf({ forward: { ...specOf().forward, listen: { host: '127.0.0.1', port: elsewhere } } }));
    await until(() => runner.status().restarts === 2, deadline);
    await expectRefused();
    await (await connect(elsewhere)).say('three');
    runner.respec(specOf());
    await until(() => runner.status().restarts === 3, deadline);
  });

  it('has whoever comes wait as long as its spec says now', async () => {
    const { engine, runner, specOf, connect } = scene();
    await runner.start();
    runner.respec(specOf({ seamless: { ...seamless, connectWaitMs: 0 } }));
    await until(() => runner.status().restarts === 1, deadline);
    engine.first = 'waiting';
    engine.last().exit({ reason: 'exited' });
    await until(() => engine.links.length === 3, deadline);
    const client = await connect().catch(() => undefined);
    if (client) expect(await until(client.end, deadline)).to.equal('ECONNRESET');
    expect(runner.status().traffic?.refused).to.equal(1);
  });

  it('gives up the old link when a changed spec does not come up: it would lead to the wrong place', async () => {
    const { engine, runner, specOf, connect } = scene();
    await runner.start();
    const old = await connect();
    await old.say('one');
    engine.first = 'waiting';
    runner.respec(specOf({ remoteHost: 'user@elsewhere' }));
    await until(() => engine.links.length === 2, deadline);
    engine.last().exit({ reason: 'unreachable', lastError: 'No route to host' });
    expect(await until(old.end, deadline)).to.equal('ECONNRESET');
    await until(() => engine.links.length === 3, deadline);
    engine.last().state = 'ready';
    await until(() => runner.status().state === 'up', deadline);
    await (await connect()).say('two');
  });

  it('is seamless no more, and again, as its spec says', async () => {
    const { runner, specOf, connect, expectRefused } = scene();
    await runner.start();
    runner.respec(specOf({ seamless: null }));
    await until(() => runner.status().restarts === 1, deadline);
    await expectRefused(); // the fake engine listens on nothing
    runner.respec(specOf());
    await until(() => runner.status().restarts === 2, deadline);
    await (await connect()).say('one');
  });

  it('does not start where somebody else listens, and says so', async () => {
    const { engine, runner, port } = scene();
    const other = net.createServer().listen(port, '127.0.0.1');
    await once(other, 'listening');
    const outcome = watch(runner.start());
    await until(() => outcome.error, deadline);
    expect(outcome.error?.code).to.equal('ERR_PORT_HELD');
    expect(engine.links).to.deep.equal([]);
    await runner.stop();
    await new Promise((resolve) => other.close(resolve));
  });

  it('refuses once nothing will mend it', async () => {
    const { engine, runner, expectRefused } = scene();
    await runner.start();
    engine.first = 'waiting';
    engine.last().exit({ reason: 'exited' });
    await until(() => engine.links.length === 2, deadline);
    engine.last().exit({ reason: 'host_key_changed' });
    await until(() => runner.status().state === 'fatal', deadline);
    await expectRefused();
  });

  it('counts who went through, and for how much', async () => {
    const { runner, connect } = scene();
    await runner.start();
    const first = await connect();
    await first.say('hello');
    await runner.restart();
    const second = await connect();
    await second.say('hello again');
    const bytes = 'hellohello again'.length;
    expect(runner.status().traffic).to.deep.equal({
      ...{ connections: 2, open: 2, queued: 0, refused: 0, bytesIn: bytes, bytesOut: bytes },
    });
    for (const { socket } of [first, second]) socket.end();
    await until(() => runner.status().traffic?.open === 0, deadline);
    expect(runner.status().traffic).to.deep.include({ connections: 2, open: 0 });
  });
});
