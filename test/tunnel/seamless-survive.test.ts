import { expect } from 'chai';
import { until } from '#lib/time.js';
import { createHold } from '../support/fakeengine.js';
import { deadline, seamless, useSeamless } from '../support/seamless.js';
import { forbidUnhandledRejections, watch } from '../support/tunnel.js';

describe('a seamless tunnel (what is left behind)', () => {
  forbidUnhandledRejections();
  const scene = useSeamless();
  const survivor = { pid: 4711, startTicks: 1, command: 'ssh', why: 'uninterruptible (state D)' };

  /** The first link says nothing for a moment while the second one comes up, and then both are as ready as any. */
  async function beSilentMeanwhile() {
    const { engine, runner } = scene();
    const first = engine.link(0);
    await until(() => engine.links.length === 2, deadline);
    first.state = 'frozen';
    expect(await until(() => runner.status().state !== 'up', deadline)).to.equal(true);
    first.state = 'ready';
    engine.first = 'ready';
    await until(() => engine.links.length > 2, { timeoutMs: 2000 });
    for (const link of engine.links) link.state = 'ready';
  }

  // entrance.retire(): whatever the report says, the link is forgotten, and its root erased from the ledger.
  it('does not say that it is stopped while a link that was replaced survives its end', async () => {
    const { engine, runner, startReplaced } = scene();
    const first = await startReplaced();
    first.survivors = [survivor];
    const outcome = watch(runner.stop());
    await until(() => outcome.result ?? outcome.error, deadline);
    expect(engine.running(), 'what runs').to.have.length(1);
    expect(outcome.result?.state, 'what stop() says').to.equal(undefined);
  });

  it('ends a link that was replaced again when it survived its drain', async () => {
    const { engine, runner, specOf } = scene();
    runner.respec(specOf({ seamless: { ...seamless, drainMs: 1 } }));
    await runner.start();
    const first = engine.link(0);
    first.survivors = [survivor];
    await runner.restart();
    await until(() => first.stops > 0, deadline);
    first.survivors = [];
    await runner.stop();
    expect(engine.running(), 'links that run after stop()').to.have.length(0);
  });

  // entrance.retire(): a stop() that rejects is kept "and ended with the tunnel", but that end swallows it as well.
  it('does not say that it is stopped while a link that was replaced could not be looked at', async () => {
    const { engine, runner, startReplaced } = scene();
    const first = await startReplaced();
    const trouble = Promise.reject(Object.assign(new Error('EMFILE: too many open files'), { code: 'EMFILE' }));
    trouble.catch(() => undefined);
    first.holdStop = trouble;
    const outcome = watch(runner.stop());
    await until(() => outcome.result ?? outcome.error, deadline);
    expect(engine.running(), 'what runs').to.have.length(1);
    expect(outcome.result?.state, 'what stop() says').to.equal(undefined);
  });

  // up + lost → starting (recheck) → ready → up: the exchange was called off, and nobody begins another.
  it('is not left on the link of a former spec when that one was silent for a moment during the exchange', async () => {
    const { engine, runner, specOf } = scene();
    await runner.start();
    engine.first = 'waiting';
    runner.respec(specOf({ remoteHost: 'user@elsewhere' }));
    await beSilentMeanwhile();
    await until(() => runner.status().state === 'up', deadline);
    await until(() => engine.last().spec.remoteHost === 'user@elsewhere' && engine.last().isRunning(), {
      timeoutMs: 3000,
    });
    expect(engine.running().map(({ spec }) => spec.remoteHost)).to.deep.equal(['user@elsewhere']);
  });

  it('does not say that a restart is done when the old link was silent for a moment and came back', async () => {
    const { engine, runner } = scene();
    await runner.start();
    const first = engine.link(0);
    engine.first = 'waiting';
    const outcome = watch(runner.restart());
    await beSilentMeanwhile();
    await until(() => outcome.result ?? outcome.error, deadline);
    if (outcome.result) expect(first.isRunning(), 'the link that was to be replaced runs').to.equal(false);
  });

  // fatal + stop → stopped at once; the start that was called off is still under way.
  it('starts nothing after close(), when the old link met a fatal end during an exchange', async () => {
    const { engine, runner } = scene();
    await runner.start();
    const first = engine.link(0);
    const hold = createHold();
    engine.holdStart = hold.held;
    watch(runner.restart());
    await new Promise((resolve) => setImmediate(resolve));
    first.exit({ reason: 'host_key_changed' });
    expect(await until(() => runner.status().state === 'fatal', deadline)).to.equal(true);
    let isClosed = false;
    const closed = runner.close().then(() => {
      isClosed = true;
    });
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    const early = isClosed;
    hold.release();
    await closed;
    await until(() => engine.links.length === 2, { timeoutMs: 1000 });
    expect(early, 'close() resolved while a link was being started').to.equal(false);
  });
});
