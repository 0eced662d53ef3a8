import { expect } from 'chai';
import { until } from '#lib/time.js';
import { createHold } from '../support/fakeengine.js';
import { deadline, useSeamless } from '../support/seamless.js';

describe('a seamless tunnel (what breaks)', () => {
  const scene = useSeamless();

  /** Loses its link while nothing can be started, and has one that was replaced, which takes its time to end. */
  async function startInBackoff() {
    const { engine, runner, startReplaced } = scene();
    const first = await startReplaced();
    engine.failure = new Error('no network');
    engine.last().exit();
    expect(await until(() => runner.status().state === 'backoff', deadline)).to.equal(true);
    first.holdStop = aMoment();
  }

  const aMoment = () => new Promise((resolve) => setTimeout(resolve, 300));

  // backoff + stop → stopped without a teardown; nobody ends the links that were replaced.
  it('has ended the links that were replaced when a stop that met it in backoff has resolved', async () => {
    const { engine, runner } = scene();
    await startInBackoff();
    await runner.stop();
    expect(engine.running(), 'links that run after stop()').to.have.length(0);
  });

  // the same for close(), after which the daemon ends.
  it('has ended the links that were replaced when close() in backoff has resolved', async () => {
    const { engine, runner } = scene();
    await startInBackoff();
    await runner.close();
    expect(engine.running(), 'links that run after close()').to.have.length(0);
  });

  // a stop that comes while a teardown of another reason is under way.
  it('has ended the links that were replaced when a stop that met a teardown has resolved', async () => {
    const { engine, runner, startReplaced } = scene();
    const first = await startReplaced();
    const second = engine.last();
    const hold = createHold();
    second.holdStop = hold.held;
    first.holdStop = aMoment();
    engine.first = 'waiting';
    // A link that is lost and does not come back is taken down, with the front kept.
    second.state = 'waiting';
    expect(await until(() => runner.status().state === 'stopping', deadline)).to.equal(true);
    const stopped = runner.stop();
    hold.release();
    await stopped;
    expect(engine.running(), 'links that run after stop()').to.have.length(0);
  });
});
