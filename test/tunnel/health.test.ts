import { expect } from 'chai';
import type { CheckOutcome } from '#lib/tunnel/check.js';
import { makeSpec } from '../support/specs.js';
import { type Bench, createBench, forbidUnhandledRejections, watch } from '../support/tunnel.js';

const ok: CheckOutcome = { verdict: 'ok', reason: null, detail: null };
const refused: CheckOutcome = { verdict: 'target', reason: 'target_refused', detail: 'Connection refused' };
const silent: CheckOutcome = { verdict: 'silent', reason: 'timeout', detail: 'nothing came back within 5000 ms' };

describe('the check-ups of a tunnel', () => {
  forbidUnhandledRejections();
  let bench: Bench;

  async function startUp(first: CheckOutcome): Promise<void> {
    bench = createBench(makeSpec({ check: { http: null, everyMs: 10_000, timeoutMs: 5000 } }));
    bench.outcome = first;
    watch(bench.runner.start());
    await bench.clock.settle();
    expect(bench.runner.status().state).to.equal('up');
  }

  const facts = () => bench.events.map(({ type }) => type).filter((type) => /degraded|recovered/.test(type));

  it('begin when it is up, and are repeated', async () => {
    await startUp(ok);
    expect(bench.checks).to.equal(1);
    expect(bench.runner.status()).to.include({ health: 'ok', healthReason: null, reason: null });
    await bench.clock.advance(30_000);
    expect(bench.checks).to.equal(4);
    expect(facts()).to.deep.equal([]);
  });

  it('leave it up, degraded, while its target is not well, and say so once', async () => {
    await startUp(refused);
    await bench.clock.advance(600_000);
    expect(bench.runner.status()).to.include({
      state: 'up',
      health: 'degraded',
      reason: 'target_refused',
      healthReason: 'Connection refused',
    });
    expect(bench.engine.links).to.have.length(1);
    expect(facts()).to.deep.equal(['tunnel.degraded']);
    bench.outcome = ok;
    await bench.clock.advance(10_000);
    expect(bench.runner.status()).to.include({ health: 'ok', reason: null, remedy: null });
    expect(facts()).to.deep.equal(['tunnel.degraded', 'tunnel.recovered']);
  });

  it('replace it when nothing comes through three times in a row', async () => {
    await startUp(silent);
    expect(bench.runner.status()).to.include({ state: 'up', health: 'degraded', reason: 'timeout' });
    await bench.clock.advance(20_000);
    expect(bench.states()).to.deep.equal(['starting', 'up', 'degraded', 'stopping', 'backoff']);
    expect(bench.runner.status()).to.include({
      reason: 'timeout',
      lastError: 'nothing came back within 5000 ms, 3 times in a row',
    });
    bench.outcome = ok;
    await bench.clock.advance(1000);
    expect(bench.runner.status()).to.include({ state: 'up', health: 'ok' });
    expect(bench.engine.links).to.have.length(2);
    expect(bench.engine.running()).to.have.length(1);
  });

  it('replace it once: a silence that outlives the chain is the target\u2019s', async () => {
    await startUp(silent);
    await bench.clock.advance(3_600_000);
    expect(bench.engine.links).to.have.length(2);
    expect(bench.runner.status()).to.include({ state: 'up', health: 'degraded', reason: 'timeout' });
    bench.outcome = ok;
    await bench.clock.advance(10_000);
    bench.outcome = silent;
    await bench.clock.advance(40_000);
    expect(bench.engine.links).to.have.length(3);
  });

  it('replace it again for whoever asked for a restart', async () => {
    await startUp(silent);
    await bench.clock.advance(60_000);
    expect(bench.engine.links).to.have.length(2);
    watch(bench.runner.restart());
    await bench.clock.advance(60_000);
    expect(bench.engine.links).to.have.length(4);
  });

  it('do not count a silence that was broken', async () => {
    await startUp(silent);
    await bench.clock.advance(10_000);
    bench.outcome = refused;
    await bench.clock.advance(10_000);
    bench.outcome = silent;
    await bench.clock.advance(10_000);
    expect(bench.engine.links).to.have.length(1);
  });

  it('draw no conclusion from what could not be asked, and forget nothing for it', async () => {
    await startUp(silent);
    await bench.clock.advance(10_000);
    bench.outcome = { verdict: 'unasked', reason: null, detail: 'connect EMFILE' };
    await bench.clock.advance(60_000);
    expect(bench.runner.status()).to.include({ state: 'up', health: 'unknown', healthReason: 'connect EMFILE' });
    expect(bench.engine.links).to.have.length(1);
    bench.outcome = silent;
    await bench.clock.advance(10_000);
    expect(bench.states()).to.include('stopping');
  });

  it('end with its life', async () => {
    await startUp(ok);
    await bench.runner.stop();
    const { checks } = bench;
    await bench.clock.advance(60_000);
    expect(bench.checks).to.equal(checks);
    expect(bench.runner.status()).to.include({ health: 'unknown', healthReason: null });
  });

  it('are not made of a tunnel that did not ask for them', async () => {
    bench = createBench();
    watch(bench.runner.start());
    await bench.clock.advance(60_000);
    expect(bench.checks).to.equal(0);
    expect(bench.runner.status()).to.include({ state: 'up', health: 'ok' });
  });
});
