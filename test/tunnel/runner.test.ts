import net from 'node:net';
import { expect } from 'chai';
import { isTunwardError, TunwardError } from '#lib/errors.js';
import { until } from '#lib/time.js';
import type { Patience, Terminal } from '#lib/tunnel/asking/person.js';
import type { Reason } from '#lib/tunnel/engine.js';
import { createGate } from '#lib/tunnel/gate.js';
import type { OperationResult, TunnelEvent } from '#lib/tunnel/runner.js';
import { connectionOf, type EngineName, serverOf } from '#lib/tunnel/spec.js';
import { createFakeClock, epoch } from '../support/fakeclock.js';
import { createHold, nobody } from '../support/fakeengine.js';
import { freeLocalPort } from '../support/port.js';
import { makeSpec } from '../support/specs.js';
import { type Bench, createBench, forbidUnhandledRejections, type Outcome, watch } from '../support/tunnel.js';

const stuck = { pid: 4711, command: 'ssh -N', why: 'stuck in uninterruptible sleep (D), SIGKILL is pending' };
const iso = (ms: number) => new Date(epoch + ms).toISOString();

describe('createRunner()', () => {
  forbidUnhandledRejections();
  let bench: Bench;
  beforeEach(() => {
    bench = createBench();
  });

  async function startUp(): Promise<void> {
    const outcome = watch(bench.runner.start());
    await bench.clock.settle();
    expect(outcome.result?.state).to.equal('up');
  }

  const kills = () => bench.events.filter(({ type }) => type === 'process.killed');
  const lastEvent = () => bench.events.findLast(isState);

  describe('a start', () => {
    it('brings it up, and answers with what it took', async () => {
      bench.engine.first = 'waiting';
      const outcome = watch(bench.runner.start());
      await bench.clock.advance(40);
      expect(outcome).to.deep.equal({});
      expect(bench.runner.status().state).to.equal('starting');
      bench.engine.last().state = 'ready';
      await bench.clock.advance(5);
      expect(outcome.result).to.deep.include({
        id: bench.runner.spec().id,
        name: 'web',
        state: 'up',
        tookMs: 45,
        phases: { stopMs: 0, freeMs: 0, startMs: 45 },
        kill: nobody,
        tunnel: bench.runner.status(),
      });
      expect(bench.states()).to.deep.equal(['starting', 'up']);
      expect(bench.runner.status()).to.include({ desired: 'up', reason: null, health: 'ok', since: iso(45) });
    });

    it('of one that is up changes nothing, and took no time', async () => {
      await startUp();
      await bench.clock.advance(60_000);
      const outcome = watch(bench.runner.start());
      await bench.clock.settle();
      expect(outcome.result).to.deep.include({ state: 'up', tookMs: 0, phases: { stopMs: 0, freeMs: 0, startMs: 0 } });
      expect(bench.engine.links).to.have.length(1);
    });

    it('cleans up as far as takeover goes, and with force any who is in the way', async () => {
      await startUp();
      await bench.runner.stop();
      watch(bench.runner.start({ force: true }));
      await bench.clock.settle();
      expect(bench.cleared).to.deep.equal(['tunnels', 'any']);
    });

    it('that fails is answered at once, with the reason and when it is tried again', async () => {
      bench.engine.first = 'waiting';
      const outcome = watch(bench.runner.start());
      await bench.clock.advance(100);
      bench.engine.last().exit({ reason: 'refused', lastError: 'Connection refused' });
      await bench.clock.settle();
      expect(outcome.error).to.deep.include({
        code: 'ERR_START_FAILED',
        info: {
          id: bench.runner.spec().id,
          reason: 'refused',
          lastError: 'Connection refused',
          nextRetryAt: iso(1100),
          remedy: null,
        },
      });
      expect(outcome.error?.message).to.match(/could not be started: refused \(Connection refused\)$/);
      expect(bench.runner.status()).to.include({ state: 'backoff', desired: 'up', attempt: 1, nextRetryAt: iso(1100) });
    });

    it('whose login is refused is tried again by the minute, and says what to do', async () => {
      bench.engine.first = 'waiting';
      const outcome = watch(bench.runner.start());
      await bench.clock.settle();
      bench.engine.last().exit({ reason: 'auth_failed', lastError: 'Permission denied (publickey).' });
      await bench.clock.settle();
      expect(outcome.error?.message).to.match(
        /auth_failed \(Permission denied \(publickey\)\.\); check that .* is the/,
      );
      expect(bench.runner.status().remedy).to.match(/^check that user@web\.example is the right user/);
      const waits: number[] = [];
      for (let failure = 0; failure < 5; failure++) {
        waits.push(Date.parse(bench.runner.status().nextRetryAt ?? '') - bench.clock.wallTime());
        await bench.clock.advance(waits.at(-1) ?? 0);
        bench.engine.last().exit({ reason: 'auth_failed' });
        await bench.clock.settle();
      }
      expect(waits).to.deep.equal([66_000, 330_000, 990_000, 1_980_000, 1_980_000]);
    });

    it('whose login is refused is given up where that is wanted, until somebody asks again', async () => {
      bench = createBench(makeSpec({ authRetry: 'never' }));
      bench.engine.first = 'waiting';
      watch(bench.runner.start());
      await bench.clock.settle();
      bench.engine.last().exit({ reason: 'refused' });
      await bench.clock.advance(1000);
      expect(bench.engine.links).to.have.length(2);
      bench.engine.last().exit({ reason: 'needs_auth' });
      await bench.clock.advance(86_400_000);
      expect(bench.runner.status()).to.include({ state: 'fatal', reason: 'needs_auth', nextRetryAt: null });
      expect(bench.engine.links).to.have.length(2);
      watch(bench.runner.start());
      await bench.clock.settle();
      expect(bench.engine.links).to.have.length(3);
    });

    it('is tried again no earlier than the server has said, and that holds once', async () => {
      bench.random = 0;
      bench.engine.first = 'waiting';
      watch(bench.runner.start());
      await bench.clock.settle();
      bench.engine.last().exit({ reason: 'refused', retryAfterMs: 30_000 });
      await bench.clock.advance(29_999);
      expect(bench.engine.links).to.have.length(1);
      await bench.clock.advance(1);
      expect(bench.engine.links).to.have.length(2);
      bench.engine.last().exit({ reason: 'refused' });
      await bench.clock.settle();
      expect(bench.engine.links).to.have.length(3);
    });

    it('that fails is tried again after the wait, with its own processes cleaned up alone', async () => {
      bench.engine.first = 'waiting';
      watch(bench.runner.start());
      await bench.clock.settle();
      bench.engine.last().exit();
      await bench.clock.advance(999);
      expect(bench.engine.links).to.have.length(1);
      bench.engine.first = 'ready';
      await bench.clock.advance(1);
      expect(bench.runner.status()).to.include({ state: 'up', attempt: 1, nextRetryAt: null, lastError: null });
      expect(bench.cleared).to.deep.equal(['tunnels', 'own']);
      expect(askedOf(bench)).to.deep.equal(['starting asked', 'backoff asked', 'starting', 'up']);
    });

    it('that fails again and again waits longer each time', async () => {
      bench.engine.first = 'waiting';
      watch(bench.runner.start());
      const waits: number[] = [];
      for (let failure = 0; failure < 9; failure++) {
        await bench.clock.settle();
        bench.engine.last().exit();
        await bench.clock.settle();
        waits.push(Date.parse(bench.runner.status().nextRetryAt ?? '') - bench.clock.wallTime());
        await bench.clock.advance(waits.at(-1) ?? 0);
      }
      expect(waits).to.deep.equal([1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
    });

    it('that is not ready in time is taken down before the failure counts', async () => {
      bench.engine.first = 'waiting';
      const outcome = watch(bench.runner.start());
      await bench.clock.settle();
      bench.engine.last().say('debugging nothing');
      await bench.clock.advance(15_000);
      expect(outcome.error?.info).to.include({ reason: 'timeout', lastError: 'debugging nothing' });
      expect(bench.engine.running()).to.deep.equal([]);
      expect(bench.states()).to.deep.equal(['starting', 'stopping', 'backoff']);
      await bench.clock.advance(1000);
      expect(bench.engine.running()).to.have.length(1);
    });

    it('that never says a word is told how long it was waited for', async () => {
      bench.engine.first = 'waiting';
      const outcome = watch(bench.runner.start());
      await bench.clock.advance(15_000);
      expect(outcome.error?.info).to.include({ lastError: 'not ready after 15000 ms' });
    });

    it('that cannot run its program fails with the error’s words, and is tried again', async () => {
      bench.engine.failure = new TunwardError('ERR_SPAWN_FAILED', 'Cannot find ssh on PATH', {});
      const outcome = watch(bench.runner.start());
      await bench.clock.settle();
      expect(outcome.error?.info).to.include({ reason: 'exited', lastError: 'Cannot find ssh on PATH' });
      bench.engine.failure = undefined;
      await bench.clock.advance(1000);
      expect(bench.runner.status().state).to.equal('up');
    });

    it('of a bad spec is given up, until somebody asks again', async () => {
      bench.engine.failure = new TunwardError('ERR_SPAWN_FAILED', 'Bad option', { reason: 'bad_spec' });
      const outcome = watch(bench.runner.start());
      await bench.clock.advance(1_000_000);
      expect(outcome.error?.info).to.include({ reason: 'bad_spec', nextRetryAt: null });
      expect(bench.runner.status().state).to.equal('fatal');
      expect(bench.clock.sleepers()).to.equal(0);
      bench.engine.failure = undefined;
      await startUp();
    });

    it('after a failure is told as what was asked for, and not as the failure', async () => {
      await startUp();
      bench.engine.last().exit({ reason: 'timeout', lastError: null });
      await bench.clock.settle();
      expect(bench.runner.status().state).to.equal('backoff');
      watch(bench.runner.restart());
      await bench.clock.settle();
      expect(bench.runner.status().lastRestart).to.deep.include({ asked: true, reason: null });
    });

    it('of one that waits to be tried again does not wait', async () => {
      bench.engine.first = 'waiting';
      watch(bench.runner.start());
      await bench.clock.settle();
      bench.engine.last().exit();
      await bench.clock.settle();
      bench.engine.first = 'ready';
      await startUp();
      expect(bench.runner.status().attempt).to.equal(0);
      await bench.clock.advance(5000);
      expect(bench.engine.links).to.have.length(2);
    });

    it('is looked at every 5 ms, and less often the longer it takes', async () => {
      bench.engine.first = 'waiting';
      watch(bench.runner.start());
      await bench.clock.settle();
      const looks: number[] = [];
      bench.engine.last().onCheck = () => looks.push(bench.clock.now());
      await bench.clock.advance(2000);
      const pauses = looks.slice(1).map((at, number) => at - (looks[number] ?? 0));
      expect(pauses.slice(0, 15).every((pause) => pause === 5)).to.equal(true);
      expect(Math.max(...pauses)).to.be.closeTo(20, 0.001);
      expect(looks.length).to.be.within(120, 140);
    });

    it('is looked at when it says that it is ready, and as before when it is not', async () => {
      bench.engine.first = 'waiting';
      const outcome = watch(bench.runner.start());
      await bench.clock.advance(1);
      const looks: number[] = [];
      bench.engine.last().onCheck = () => looks.push(bench.clock.now());
      bench.engine.last().announce();
      await bench.clock.settle();
      expect(looks).to.deep.equal([1]);
      bench.engine.last().state = 'ready';
      await bench.clock.advance(5);
      expect(looks).to.deep.equal([1, 6]);
      expect(outcome.result?.tookMs).to.equal(6);
    });

    it('is up in the moment in which it says so', async () => {
      bench.engine.first = 'waiting';
      const outcome = watch(bench.runner.start());
      await bench.clock.advance(1);
      bench.engine.last().state = 'ready';
      bench.engine.last().announce();
      await bench.clock.settle();
      expect(outcome.result?.tookMs).to.equal(1);
    });

    it('joins an automatic attempt, and gets its answer', async () => {
      bench.engine.first = 'waiting';
      bench.runner.boot(true);
      await bench.clock.advance(30);
      const outcome = watch(bench.runner.start());
      await bench.clock.advance(60);
      bench.engine.last().state = 'ready';
      await bench.clock.advance(5);
      expect(bench.engine.links).to.have.length(1);
      expect(outcome.result).to.deep.include({ tookMs: 65, phases: { stopMs: 0, freeMs: 0, startMs: 65 } });
    });
  });

  describe('a boot', () => {
    it('after a sweep looks for nobody again, and is asked for', async () => {
      bench.runner.boot(true);
      await bench.clock.settle();
      expect(bench.cleared).to.deep.equal([]);
      expect(askedOf(bench)).to.deep.equal(['starting asked', 'up asked']);
    });

    it('without one clears its own way', async () => {
      bench.runner.boot(false);
      await bench.clock.settle();
      expect(bench.cleared).to.deep.equal(['tunnels']);
    });

    it('takes its turn at the gate, and whoever asks for it meanwhile does not', async () => {
      const clock = createFakeClock();
      const gate = createGate({ concurrency: 1, perHost: 8, intervalMs: 0 }, clock);
      await gate.enter('elsewhere', { urgent: () => false, signal: new AbortController().signal });
      bench = createBench(makeSpec(), gate);
      bench.runner.boot(true);
      await clock.advance(5000);
      expect(bench.engine.links).to.have.length(0);
      const outcome = watch(bench.runner.start());
      await clock.advance(10);
      expect(outcome.result?.state).to.equal('up');
    });

    it('takes its place among the starts to its server, and tells how that went', async () => {
      const hosts: string[] = [];
      const outcomes: string[] = [];
      const gate = {
        enter: async (host: string) => {
          hosts.push(host);
          return { release: (outcome: string) => outcomes.push(outcome) };
        },
        whenUp: () => new Promise<void>(() => undefined),
      };
      bench = createBench(makeSpec({ remoteHost: 'me@web' }), gate);
      bench.runner.boot(true);
      await bench.clock.settle();
      bench.engine.last().exit({ reason: 'refused' });
      bench.engine.first = 'waiting';
      await bench.clock.advance(1000);
      bench.engine.last().exit({ reason: 'refused' });
      await bench.clock.settle();
      const server = serverOf(bench.runner.spec());
      expect(hosts).to.deep.equal([server, server]);
      expect(outcomes).to.deep.equal(['up', 'refused']);
    });
  });

  describe('one that shares a connection', () => {
    const backoff = { minMs: 60_000, maxMs: 60_000, stableMs: 60_000 };
    const other = makeSpec({ name: 'other' });

    /** It waits for its next attempt, and this tells it that another one has come up meanwhile. */
    async function lose(reason: Reason, engine: EngineName = 'embedded'): Promise<() => Promise<void>> {
      const clock = createFakeClock();
      const gate = createGate({ concurrency: 16, perHost: 8, intervalMs: 0 }, clock);
      bench = createBench(makeSpec({ backoff }), gate);
      Object.assign(bench.engine, { name: engine, first: 'waiting' });
      watch(bench.runner.start());
      await bench.clock.settle();
      await fail(reason);
      const party = connectionOf(other);
      return async () => {
        const place = await gate.enter('rig', { urgent: () => true, party, signal: new AbortController().signal });
        place.release('up');
        await bench.clock.settle();
      };
    }

    async function fail(reason: Reason): Promise<void> {
      bench.engine.last().exit({ reason });
      await bench.clock.settle();
      expect(bench.runner.status()).to.include({ state: 'backoff', reason });
    }

    it('is tried again as soon as another one is up by it, and when that comes to nothing not before its time', async () => {
      const comeUp = await lose('unreachable');
      await comeUp();
      expect(bench.runner.status()).to.include({ state: 'starting', nextRetryAt: null });
      await fail('unreachable');
      await comeUp();
      expect(bench.runner.status().state).to.equal('backoff');
      await bench.clock.advance(60_000);
      expect(bench.runner.status().state).to.equal('starting');
      await fail('auth_failed');
      await comeUp();
      expect(bench.runner.status().state).to.equal('starting');
    });

    it('waits its time when the trouble is its own', async () => {
      const comeUp = await lose('local_port_busy');
      await comeUp();
      expect(bench.runner.status().state).to.equal('backoff');
    });

    it('leaves alone one that goes by an ssh of its own', async () => {
      const comeUp = await lose('unreachable', 'ssh');
      await comeUp();
      expect(bench.runner.status().state).to.equal('backoff');
    });

    it('is stopped while it waits, and hears of nobody then', async () => {
      const comeUp = await lose('unreachable');
      await bench.runner.stop();
      await comeUp();
      expect(bench.runner.status().state).to.equal('stopped');
      expect(bench.engine.links).to.have.length(1);
    });
  });

  describe('a restart', () => {
    it('takes it down, proves it and brings it up again; the phases add up', async () => {
      await startUp();
      const [stop, clear] = [createHold(), createHold()];
      bench.engine.last().holdStop = stop.held;
      bench.holdClear = clear.held;
      bench.engine.first = 'waiting';
      const outcome = watch(bench.runner.restart());
      await bench.clock.advance(6);
      stop.release();
      await bench.clock.advance(3);
      clear.release();
      await bench.clock.settle();
      expect(bench.engine.links).to.have.length(2);
      await bench.clock.advance(89);
      bench.engine.last().state = 'ready';
      await bench.clock.advance(5);
      expect(outcome.result?.phases).to.deep.equal({ stopMs: 6, freeMs: 3, startMs: 90 });
      expect(outcome.result?.tookMs).to.equal(99);
      expect(outcome.result?.kill.killed.map(({ pid }) => pid)).to.deep.equal([1001]);
      expect(bench.states()).to.deep.equal(['starting', 'up', 'stopping', 'starting', 'up']);
      const { restarts, lastRestart } = bench.runner.status();
      expect(restarts).to.equal(1);
      const phases = { stopMs: 6, freeMs: 3, startMs: 90 };
      expect(lastRestart).to.deep.include({ asked: true, reason: null, tookMs: 99, phases });
      expect(bench.engine.running()).to.have.length(1);
    });

    it('is one for twenty who ask for it', async () => {
      await startUp();
      const outcomes = Array.from({ length: 20 }, () => watch(bench.runner.restart()));
      await bench.clock.settle();
      expect(bench.engine.links).to.have.length(2);
      const first = outcomes[0]?.result;
      expect(first?.state).to.equal('up');
      for (const { result } of outcomes) expect(result).to.equal(first);
    });

    it('joins a start, and a start joins it', async () => {
      bench.engine.first = 'waiting';
      const outcomes = [watch(bench.runner.start()), watch(bench.runner.restart()), watch(bench.runner.start())];
      await bench.clock.settle();
      bench.engine.last().state = 'ready';
      await bench.clock.advance(5);
      expect(outcomes.map(({ result }) => result?.state)).to.deep.equal(['up', 'up', 'up']);
      expect(bench.engine.links).to.have.length(1);
    });

    it('cuts short an automatic attempt', async () => {
      bench.engine.first = 'waiting';
      bench.runner.boot(true);
      await bench.clock.advance(300);
      bench.engine.first = 'ready';
      const outcome = watch(bench.runner.restart());
      await bench.clock.settle();
      expect(outcome.result?.state).to.equal('up');
      expect(bench.engine.links).to.have.length(2);
      expect(bench.engine.running()).to.deep.equal([bench.engine.last()]);
    });

    it('of one that is stopped is a start', async () => {
      const outcome = watch(bench.runner.restart());
      await bench.clock.settle();
      expect(outcome.result?.state).to.equal('up');
    });

    it('that comes while it stops takes the stop’s place, whose callers are told', async () => {
      await startUp();
      const hold = createHold();
      bench.engine.last().holdStop = hold.held;
      const stopping = watch(bench.runner.stop());
      await bench.clock.settle();
      const outcome = watch(bench.runner.restart());
      await bench.clock.settle();
      expect(stopping.error).to.include({ code: 'ERR_TUNNEL_CONFLICT' });
      expect(stopping.error?.message).to.match(/is being started instead$/);
      hold.release();
      await bench.clock.settle();
      expect(outcome.result?.state).to.equal('up');
      expect(bench.engine.links[0]?.stops).to.equal(1);
    });

    it('with force that joins one without makes that go further, also when it had been stopped by a holder', async () => {
      const hold = createHold();
      bench.holdClear = hold.held;
      bench.kill = { ...nobody, survivors: [stuck] };
      const outcome = watch(bench.runner.start());
      await bench.clock.settle();
      const forced = watch(bench.runner.restart({ force: true }));
      hold.release();
      await bench.clock.settle();
      expect(bench.cleared).to.deep.equal(['tunnels', 'any']);
      expect([outcome.error?.code, forced.error?.code]).to.deep.equal(['ERR_START_FAILED', 'ERR_START_FAILED']);
    });
  });

  describe('a stop', () => {
    it('takes it down and answers when it is gone; the phases add up', async () => {
      await startUp();
      const hold = createHold();
      bench.engine.last().holdStop = hold.held;
      const outcome = watch(bench.runner.stop());
      await bench.clock.advance(7);
      expect(outcome).to.deep.equal({});
      hold.release();
      await bench.clock.settle();
      expect(outcome.result).to.deep.include({
        state: 'stopped',
        tookMs: 7,
        phases: { stopMs: 7, freeMs: 0, startMs: 0 },
      });
      expect(bench.runner.status()).to.include({ desired: 'down', reason: null, lastError: null, health: 'unknown' });
      expect(bench.clock.sleepers()).to.equal(0);
    });

    it('is one for all who ask for it', async () => {
      await startUp();
      const outcomes = [watch(bench.runner.stop()), watch(bench.runner.stop())];
      await bench.clock.settle();
      expect(outcomes[1]?.result).to.equal(outcomes[0]?.result);
      expect(bench.engine.last().stops).to.equal(1);
    });

    it('of one that is stopped is done', async () => {
      const outcome = watch(bench.runner.stop());
      await bench.clock.settle();
      expect(outcome.result).to.include({ state: 'stopped', tookMs: 0 });
      expect(bench.events).to.deep.equal([]);
    });

    it('cuts short a start, whose callers are told', async () => {
      bench.engine.first = 'waiting';
      const starting = [watch(bench.runner.start()), watch(bench.runner.restart())];
      await bench.clock.settle();
      const outcome = watch(bench.runner.stop());
      await bench.clock.settle();
      for (const { error } of starting) {
        expect(error).to.include({ code: 'ERR_TUNNEL_CONFLICT' });
        expect(error?.message).to.match(/is being stopped instead$/);
      }
      expect(outcome.result?.state).to.equal('stopped');
      expect(bench.engine.running()).to.deep.equal([]);
    });

    it('ends the link of a start that was still on its way, however late that comes', async () => {
      const hold = createHold();
      bench.engine.holdStart = hold.held;
      watch(bench.runner.start());
      await bench.clock.settle();
      const outcome = watch(bench.runner.stop());
      await bench.clock.advance(1000);
      expect(outcome).to.deep.equal({});
      hold.release();
      await bench.clock.settle();
      expect(outcome.result?.state).to.equal('stopped');
      expect(bench.engine.links).to.have.length(1);
      expect(bench.engine.running()).to.deep.equal([]);
      expect(outcome.result?.kill.killed).to.have.length(1);
    });

    it('of one that waits to be tried again is done at once', async () => {
      bench.engine.first = 'waiting';
      watch(bench.runner.start());
      await bench.clock.settle();
      bench.engine.last().exit({ lastError: 'it failed' });
      await bench.clock.settle();
      const outcome = watch(bench.runner.stop());
      await bench.clock.settle();
      expect(outcome.result?.state).to.equal('stopped');
      expect(bench.runner.status()).to.include({ lastError: null, nextRetryAt: null, attempt: 0 });
      await bench.clock.advance(1_000_000);
      expect(bench.engine.links).to.have.length(1);
    });

    it('of one that waits at the gate gives its place to nobody', async () => {
      const clock = createFakeClock();
      const gate = createGate({ concurrency: 1, perHost: 8, intervalMs: 0 }, clock);
      const other = await gate.enter('elsewhere', { urgent: () => false, signal: new AbortController().signal });
      bench = createBench(makeSpec(), gate);
      bench.runner.boot(true);
      await clock.advance(100);
      const outcome = watch(bench.runner.stop());
      await clock.advance(100);
      expect(outcome.result?.state).to.equal('stopped');
      other.release('up');
      await gate.enter('elsewhere', { urgent: () => false, signal: new AbortController().signal });
      expect(bench.engine.links).to.have.length(0);
    });

    it('that comes in the very turn in which a place is given gives it back', async () => {
      let places = 0;
      const stopping: Outcome[] = [];
      const gate = {
        enter: async () => {
          places++;
          stopping.push(watch(bench.runner.stop()));
          return { release: () => places-- };
        },
        whenUp: () => new Promise<void>(() => undefined),
      };
      bench = createBench(makeSpec(), gate);
      bench.runner.boot(true);
      await bench.clock.settle();
      expect(stopping[0]?.result?.state).to.equal('stopped');
      expect(places).to.equal(0);
    });

    it('without a link still clears away what carries its marker', async () => {
      const hold = createHold();
      bench.holdClear = hold.held;
      watch(bench.runner.start());
      await bench.clock.settle();
      const outcome = watch(bench.runner.stop());
      bench.kill = { ...nobody, killed: [{ pid: 5, startTicks: 1, command: 'ssh', why: 'carries the marker' }] };
      hold.release();
      await bench.clock.settle();
      expect(bench.cleared).to.deep.equal(['tunnels', 'own']);
      expect(outcome.result?.kill.killed.map(({ pid }) => pid)).to.deep.equal([5]);
    });
  });

  describe('while it is up', () => {
    it('a frozen link that comes back is up again, and is the same', async () => {
      await startUp();
      bench.engine.last().state = 'frozen';
      await bench.clock.advance(1000);
      expect(bench.runner.status()).to.include({ state: 'starting', reason: 'frozen' });
      expect(bench.runner.status().lastError).to.match(/SIGSTOP/);
      bench.engine.last().state = 'ready';
      await bench.clock.advance(100);
      expect(bench.runner.status()).to.include({ state: 'up', reason: null, lastError: null, restarts: 1 });
      expect(bench.engine.links).to.have.length(1);
      expect(askedOf(bench).slice(2)).to.deep.equal(['starting', 'up']);
      const { lastRestart } = bench.runner.status();
      expect(lastRestart).to.deep.include({ asked: false, reason: 'frozen' });
      expect(lastRestart?.tookMs, 'since it was lost, not since it was up').to.be.within(1, 100);
    });

    it('one that stays frozen is taken down after 3 s, and replaced', async () => {
      await startUp();
      bench.engine.last().state = 'frozen';
      await bench.clock.advance(3999);
      expect(bench.engine.last().isRunning()).to.equal(true);
      await bench.clock.advance(1);
      expect(bench.runner.status()).to.include({ state: 'backoff', reason: 'frozen' });
      expect(bench.engine.running()).to.deep.equal([]);
      await bench.clock.advance(1000);
      expect(bench.runner.status().state).to.equal('up');
      expect(bench.cleared).to.deep.equal(['tunnels', 'own']);
    });

    it('a listener that is gone is noticed', async () => {
      await startUp();
      bench.engine.last().state = 'waiting';
      await bench.clock.advance(1000);
      expect(bench.runner.status()).to.include({
        state: 'starting',
        reason: 'exited',
        lastError: 'the listener is gone',
      });
    });

    describe('a seamless one', () => {
      const deadline = { timeoutMs: 10_000 };
      beforeEach(async () => {
        const listen = { host: '127.0.0.1', port: await freeLocalPort() };
        const backoff = { minMs: 60_000, maxMs: 60_000, stableMs: 60_000 };
        bench = createBench(makeSpec({ side: 'local', listen, seamless: { drainMs: 0, connectWaitMs: 0 }, backoff }));
        watch(bench.runner.start());
        await untilUp(1);
      });
      afterEach(() => bench.runner.close());

      /** Without a moment of the fake clock: what is waited for is the system, of which it has its listener. */
      async function untilUp(links: number): Promise<void> {
        const isUp = () => bench.engine.links.length === links && bench.runner.status().state === 'up';
        expect(await until(isUp, deadline), `up by link ${links}`).to.equal(true);
      }

      function lastOf(type: TunnelEvent['type']): object {
        const event = bench.events.findLast((each) => each.type === type);
        return event && 'status' in event ? event.status : {};
      }

      /** The walk by all that are up comes to it. */
      async function beSeen(state: 'waiting' | 'frozen'): Promise<void> {
        bench.engine.last().state = state;
        await bench.clock.advance(1000);
        expect(bench.runner.status().state).to.equal('starting');
      }

      it('is tried again at once also when a look saw that it was lost before its end was heard, and that once only', async () => {
        await beSeen('waiting');
        bench.engine.last().exit();
        await untilUp(2);
        await beSeen('waiting');
        bench.engine.last().exit();
        expect(await until(() => bench.runner.status().state === 'backoff', deadline)).to.equal(true);
        expect(bench.runner.status().nextRetryAt).to.equal(iso(62_000));
      });

      it('goes by its schedule at a later start, when it was stopped between the look that missed it and its end', async () => {
        await beSeen('waiting');
        await bench.runner.stop();
        bench.engine.failure = new Error('no more processes');
        const outcome = watch(bench.runner.start());
        expect(await until(() => outcome.error !== undefined, deadline)).to.equal(true);
        expect(bench.runner.status()).to.include({ attempt: 1, nextRetryAt: iso(61_000) });
      });

      it('has a quarter of a second for a listener to come back, and the usual time for one that is frozen', async () => {
        await beSeen('waiting');
        await bench.clock.advance(240);
        expect(bench.runner.status()).to.include({ state: 'starting', reason: 'exited' });
        bench.engine.last().say('channel 3: open failed: connect failed: Connection refused');
        await bench.clock.advance(10);
        await untilUp(2);
        const lost = lastOf('tunnel.stopping');
        expect(lost, 'no word of how long was waited').to.include({
          reason: 'exited',
          lastError: 'the listener is gone',
        });
        await beSeen('frozen');
        await bench.clock.advance(2990);
        expect(bench.runner.status()).to.include({ state: 'starting', reason: 'frozen' });
        bench.engine.last().state = 'ready';
        await bench.clock.advance(10);
        await untilUp(2);
      });
    });

    it('an exit by itself has its leftovers ended first, and then is tried again', async () => {
      await startUp();
      const [first] = bench.engine.links;
      const hold = createHold();
      if (first) first.holdStop = hold.held;
      first?.exit({ reason: 'timeout', lastError: 'Timeout, server not responding.' });
      await bench.clock.settle();
      expect(first?.stops).to.equal(1);
      expect(bench.runner.status().state).to.equal('up');
      hold.release();
      await bench.clock.settle();
      expect(bench.runner.status()).to.include({ state: 'backoff', reason: 'timeout', attempt: 1 });
      await bench.clock.advance(1000);
      expect(bench.runner.status().state).to.equal('up');
      expect(askedOf(bench).slice(2)).to.deep.equal(['backoff', 'starting', 'up']);
      expect(bench.runner.status().lastRestart).to.deep.include({ asked: false, reason: 'timeout' });
    });

    it('an exit says how it ended when it said nothing else', async () => {
      await startUp();
      bench.engine.last().exit({ code: 3, lastError: null });
      await bench.clock.settle();
      expect(bench.runner.status().lastError).to.equal('exited with code 3');
      await bench.clock.advance(1000);
      bench.engine.last().exit({ code: null, signal: 'SIGKILL', reason: 'killed' });
      await bench.clock.settle();
      expect(bench.runner.status()).to.include({ lastError: 'killed by SIGKILL', reason: 'killed', attempt: 2 });
    });

    it('a restart that comes while an exit is cleaned up goes on alone', async () => {
      await startUp();
      const [first] = bench.engine.links;
      const hold = createHold();
      if (first) first.holdStop = hold.held;
      first?.exit();
      await bench.clock.settle();
      const outcome = watch(bench.runner.restart());
      await bench.clock.settle();
      hold.release();
      await bench.clock.settle();
      expect(outcome.result?.state).to.equal('up');
      expect(bench.states()).to.deep.equal(['starting', 'up', 'stopping', 'starting', 'up']);
    });

    it('being stable makes the next failure the first', async () => {
      bench.engine.first = 'waiting';
      watch(bench.runner.start());
      for (let failure = 0; failure < 3; failure++) {
        await bench.clock.settle();
        bench.engine.last().exit();
        await bench.clock.advance(10_000);
      }
      bench.engine.last().state = 'ready';
      await bench.clock.advance(29_000);
      expect(bench.runner.status()).to.include({ state: 'up', attempt: 3 });
      await bench.clock.advance(2000);
      expect(bench.runner.status()).to.include({ state: 'up', attempt: 0 });
      bench.engine.last().exit();
      await bench.clock.settle();
      expect(bench.runner.status().attempt).to.equal(1);
    });

    it('one that cannot be looked at for want of a descriptor stays up: that passes, and says nothing of it', async () => {
      await startUp();
      const [link] = bench.engine.links;
      if (link) link.trouble = Object.assign(new Error('too many open files'), { code: 'EMFILE' });
      await bench.clock.advance(10_000);
      expect(bench.states()).to.deep.equal(['starting', 'up']);
      if (link) link.trouble = undefined;
      link?.exit();
      await bench.clock.advance(1000);
      expect(bench.states().slice(2)).to.deep.equal(['backoff', 'starting', 'up']);
    });

    it('one that cannot be looked at for another reason is taken down, and another one follows', async () => {
      await startUp();
      bench.engine.last().trouble = new Error('unlooked for');
      await bench.clock.advance(1000);
      // The link is not left running beside the one that the retry starts.
      expect(bench.runner.status()).to.include({ state: 'backoff', lastError: 'unlooked for' });
      expect(bench.engine.running()).to.deep.equal([]);
      await bench.clock.advance(1000);
      expect(bench.engine.running()).to.have.length(1);
    });

    it('hands on what it says', async () => {
      await startUp();
      bench.engine.last().say('Welcome');
      const id = bench.runner.spec().id;
      expect(bench.events.at(-1)).to.deep.equal({ type: 'tunnel.output', tunnel: id, line: 'Welcome' });
    });

    it('a jump of the wall clock moves nothing but the times that are shown', async () => {
      bench.engine.first = 'waiting';
      const outcome = watch(bench.runner.start());
      await bench.clock.advance(100);
      bench.clock.shiftWall(-3_600_000);
      bench.engine.last().exit();
      await bench.clock.settle();
      expect(outcome.error?.info).to.include({ nextRetryAt: iso(1100 - 3_600_000) });
      bench.clock.shiftWall(7_200_000);
      await bench.clock.advance(1000);
      expect(bench.engine.links).to.have.length(2);
      bench.engine.last().state = 'ready';
      await bench.clock.advance(5);
      expect(bench.runner.status()).to.include({ state: 'up', since: iso(1105 + 3_600_000) });
    });
  });

  describe('a late exit', () => {
    it('of a link that was replaced changes nothing', async () => {
      await startUp();
      const [old] = bench.engine.links;
      const outcome = watch(bench.runner.restart());
      await bench.clock.settle();
      expect(outcome.result?.state).to.equal('up');
      const before = bench.events.length;
      old?.exit({ reason: 'refused', lastError: 'late' });
      await bench.clock.advance(500);
      expect(bench.events).to.have.length(before);
      expect(bench.runner.status()).to.include({ state: 'up', lastError: null });
    });

    it('is not seen by a look at the link that was replaced meanwhile', async () => {
      await startUp();
      const hold = createHold();
      bench.engine.last().holdCheck = hold.held;
      bench.engine.last().state = 'waiting';
      await bench.clock.advance(1000);
      const outcome = watch(bench.runner.restart());
      await bench.clock.settle();
      expect(outcome.result?.state).to.equal('up');
      hold.release();
      await bench.clock.settle();
      expect(bench.states()).to.deep.equal(['starting', 'up', 'stopping', 'starting', 'up']);
    });

    it('ends the wait for a frozen link only once', async () => {
      await startUp();
      bench.engine.last().state = 'frozen';
      await bench.clock.advance(3990);
      const hold = createHold();
      bench.engine.last().holdCheck = hold.held;
      await bench.clock.advance(10);
      bench.engine.last().exit();
      await bench.clock.settle();
      expect(bench.runner.status().state).to.equal('backoff');
      hold.release();
      await bench.clock.settle();
      expect(bench.states()).to.deep.equal(['starting', 'up', 'starting', 'backoff']);
    });

    it('of one that survived its end changes nothing either', async () => {
      await startUp();
      const [old] = bench.engine.links;
      old?.survivors.push(stuck);
      watch(bench.runner.stop());
      await bench.clock.settle();
      expect(bench.runner.status()).to.include({ state: 'backoff', reason: 'stuck' });
      old?.exit({ lastError: 'late' });
      await bench.clock.advance(500);
      expect(bench.runner.status()).to.include({ state: 'backoff', reason: 'stuck' });
    });
  });

  describe('when something survives', () => {
    beforeEach(startUp);

    it('a stop says who, and its retry ends it without ever starting the tunnel', async () => {
      const [old] = bench.engine.links;
      old?.survivors.push(stuck);
      const outcome = watch(bench.runner.stop());
      await bench.clock.settle();
      expect(outcome.error).to.include({ code: 'ERR_START_FAILED' });
      expect(outcome.error?.message).to.match(/could not be stopped: stuck \(pid 4711 \(ssh -N\) survived: stuck in/);
      expect(bench.runner.status()).to.include({ state: 'backoff', desired: 'down', reason: 'stuck', attempt: 1 });
      await bench.clock.advance(1000);
      expect(old?.stops).to.equal(2);
      expect(bench.runner.status()).to.include({ state: 'backoff', desired: 'down', attempt: 2 });
      old?.survivors.pop();
      await bench.clock.advance(2000);
      expect(bench.runner.status()).to.include({ state: 'stopped', desired: 'down', lastError: null });
      await bench.clock.advance(1_000_000);
      expect(bench.engine.links).to.have.length(1);
    });

    it('a stop that is asked for again tries again, and does not say stopped', async () => {
      const [old] = bench.engine.links;
      old?.survivors.push(stuck);
      watch(bench.runner.stop());
      await bench.clock.settle();
      const again = watch(bench.runner.stop());
      await bench.clock.settle();
      expect(again.error?.code).to.equal('ERR_START_FAILED');
      expect(old?.stops).to.equal(2);
    });

    it('a restart fails, and starts nothing beside it until it is gone', async () => {
      const [old] = bench.engine.links;
      old?.survivors.push(stuck);
      const outcome = watch(bench.runner.restart());
      await bench.clock.settle();
      expect(outcome.error?.info).to.include({ reason: 'stuck' });
      expect(outcome.result).to.equal(undefined);
      expect(bench.runner.status()).to.include({ state: 'backoff', desired: 'up' });
      await bench.clock.advance(1000);
      expect(bench.runner.status()).to.include({ state: 'backoff', desired: 'up', reason: 'stuck', attempt: 2 });
      expect(bench.engine.links).to.have.length(1);
      old?.survivors.pop();
      await bench.clock.advance(2000);
      expect(bench.runner.status().state).to.equal('up');
      expect(bench.engine.running()).to.deep.equal([bench.engine.last()]);
    });

    it('a changed spec does not start what was stopped', async () => {
      bench.engine.last().survivors.push(stuck);
      watch(bench.runner.stop());
      await bench.clock.settle();
      bench.runner.respec({ ...bench.runner.spec(), engine: 'autossh' });
      await bench.clock.settle();
      expect(bench.runner.status()).to.include({ state: 'backoff', desired: 'down' });
    });

    it('the clean-up of a start, nothing is started', async () => {
      await bench.runner.stop();
      bench.kill = { ...nobody, survivors: [stuck] };
      const outcome = watch(bench.runner.start());
      await bench.clock.settle();
      expect(outcome.error?.info).to.include({ reason: 'stuck' });
      expect(bench.engine.running()).to.deep.equal([]);
    });

    it('whoever is protected is in nobody’s way', async () => {
      const self = { pid: process.pid, command: 'node', why: 'protected: this very process' };
      bench.engine.last().survivors.push(self);
      bench.kill = { ...nobody, survivors: [self] };
      const outcome = watch(bench.runner.restart());
      await bench.clock.settle();
      expect(outcome.result?.state).to.equal('up');
      expect(outcome.result?.kill.survivors).to.deep.equal([self, self]);
    });

    it('a stop that cannot even look is tried again', async () => {
      bench.engine.last().holdStop = Promise.reject(new Error('EMFILE'));
      const outcome = watch(bench.runner.stop());
      await bench.clock.settle();
      expect(outcome.error?.info).to.include({ reason: 'stuck', lastError: 'EMFILE' });
      bench.engine.last().holdStop = Promise.resolve();
      await bench.clock.advance(1000);
      expect(bench.runner.status().state).to.equal('stopped');
      expect(bench.engine.running()).to.deep.equal([]);
    });
  });

  describe('process.killed', () => {
    it('is told for a link that was ended, a clean-up, and an exit that left somebody', async () => {
      const found = { pid: 7, startTicks: 1, command: 'autossh', why: 'carries the marker' };
      bench.kill = { ...nobody, killed: [found] };
      await startUp();
      const tunnel = bench.runner.spec().id;
      const layers = { marker: 1 };
      expect(kills()).to.deep.equal([{ type: 'process.killed', tunnel, kill: bench.kill, layers }]);
      bench.kill = nobody;
      await bench.runner.stop();
      expect(kills()).to.have.length(2);
      expect(kills()[1]).to.deep.include({ layers: { chain: 1 } });
    });

    it('is not told when nobody was met', async () => {
      await startUp();
      bench.engine.last().exit();
      await bench.clock.settle();
      expect(kills()).to.deep.equal([]);
    });
  });

  describe('a port that is held', () => {
    let port: number;
    let holder: net.Server;
    beforeEach(async () => {
      port = await freeLocalPort();
      holder = net.createServer();
      await new Promise<void>((resolve) => holder.listen({ port, host: '127.0.0.1' }, resolve));
      bench = createBench(makeSpec({ side: 'local', listen: { host: '127.0.0.1', port } }));
    });
    afterEach(() => new Promise<void>((resolve) => holder.close(() => resolve())));

    /** The proof is real: time goes by on the clock while the sockets answer. */
    async function settled(outcome: Outcome): Promise<Outcome> {
      await until(
        async () => {
          await bench.clock.advance(10);
          return outcome.error ?? outcome.result;
        },
        { timeoutMs: 10_000, everyMs: 1 },
      );
      return outcome;
    }

    it('is refused with who holds it, and tried again', async () => {
      const { error } = await settled(watch(bench.runner.start()));
      if (!isTunwardError(error, 'ERR_PORT_HELD')) throw error;
      const { holders, ...info } = error.info;
      expect(info).to.deep.equal({ port, nextRetryAt: bench.runner.status().nextRetryAt });
      expect(holders.map(({ pid }) => pid)).to.deep.equal([process.pid]);
      expect(error?.message).to.match(
        new RegExp(`port ${port} is held by pid ${process.pid} \\(.*--force, or takeover`),
      );
      expect(bench.runner.status()).to.include({ state: 'backoff', reason: 'local_port_busy', attempt: 1 });
      expect(bench.engine.links).to.have.length(0);
      holder.close();
      bench.engine.first = 'ready';
      const up = await settled(watch(bench.runner.start()));
      expect(up.result?.state).to.equal('up');
    });

    it('does not recommend force to who has used it', async () => {
      const { error } = await settled(watch(bench.runner.start({ force: true })));
      expect(error?.code).to.equal('ERR_PORT_HELD');
      expect(error?.message).not.to.include('--force');
    });

    it('is cleared further when somebody asks for more than the automatic attempt does', async () => {
      const hold = createHold();
      bench.holdClear = hold.held;
      bench.runner.boot(true);
      await bench.clock.settle();
      const outcome = watch(bench.runner.start({ force: true }));
      hold.release();
      await settled(outcome);
      expect(bench.cleared).to.deep.equal(['any']);
      expect(outcome.error?.code).to.equal('ERR_PORT_HELD');
    });

    it('is not laid to a former holder when ssh itself meets another one later', async () => {
      await settled(watch(bench.runner.start()));
      holder.close();
      bench.engine.first = 'waiting';
      const outcome = watch(bench.runner.start());
      expect(await until(async () => bench.engine.links.length, { timeoutMs: 5000 })).to.equal(1);
      bench.engine.last().exit({ reason: 'local_port_busy', lastError: 'bind: Address already in use' });
      await settled(outcome);
      expect(outcome.error?.code).to.equal('ERR_START_FAILED');
      expect(outcome.error?.info).to.include({ reason: 'local_port_busy', lastError: 'bind: Address already in use' });
    });

    it('is nothing to a remote forward of the same number', async () => {
      bench = createBench(makeSpec({ side: 'remote', listen: { host: 'localhost', port } }));
      await startUp();
    });
  });

  describe('a changed spec', () => {
    const changed = () => ({ ...bench.runner.spec(), sshOptions: { Port: '2222' } });

    it('restarts one that is up', async () => {
      await startUp();
      bench.runner.respec(changed());
      await bench.clock.settle();
      expect(bench.engine.last().spec.sshOptions).to.deep.equal({ Port: '2222' });
      expect(bench.engine.running()).to.have.length(1);
      expect(askedOf(bench).slice(2)).to.deep.equal(['stopping asked', 'starting asked', 'up asked']);
    });

    it('is tried at once by one that waits, or has been given up', async () => {
      bench.engine.failure = new TunwardError('ERR_SPAWN_FAILED', 'Bad option', { reason: 'bad_spec' });
      watch(bench.runner.start());
      await bench.clock.settle();
      bench.engine.failure = undefined;
      bench.runner.respec(changed());
      await bench.clock.settle();
      expect(bench.runner.status()).to.include({ state: 'up', attempt: 0 });
    });

    it('does not start one that is stopped', async () => {
      bench.runner.respec(changed());
      await bench.clock.settle();
      expect(bench.runner.status().state).to.equal('stopped');
      await startUp();
      expect(bench.engine.last().spec.sshOptions).to.deep.equal({ Port: '2222' });
    });

    it('is what whoever waits for a start gets', async () => {
      bench.engine.first = 'waiting';
      const outcome = watch(bench.runner.start());
      await bench.clock.settle();
      bench.engine.first = 'ready';
      bench.runner.respec(changed());
      await bench.clock.settle();
      expect(outcome.result?.state).to.equal('up');
      expect(bench.engine.last().spec.sshOptions).to.deep.equal({ Port: '2222' });
    });
  });

  describe('an interactive tunnel', () => {
    beforeEach(() => {
      bench = createBench({ ...makeSpec(), interactive: true });
    });

    it('stays stopped at boot, and says what it needs', async () => {
      bench.runner.boot(true);
      await bench.clock.settle();
      expect(bench.runner.status()).to.include({ state: 'stopped', reason: 'needs_auth' });
    });

    it('refuses a start and a restart, and can be stopped', async () => {
      const outcomes = [watch(bench.runner.start()), watch(bench.runner.restart({ force: true }))];
      const stopped = watch(bench.runner.stop());
      await bench.clock.settle();
      for (const { error } of outcomes) {
        expect(error).to.include({ code: 'ERR_TUNNEL_CONFLICT' });
        expect(error?.info).to.include({ reason: 'needs_auth' });
      }
      expect(stopped.result?.state).to.equal('stopped');
      expect(bench.engine.links).to.have.length(0);
    });

    describe('with somebody there', () => {
      const prompt = () => 'an answer';
      let presence: AbortController;
      let outcome: { result?: OperationResult; error?: unknown };

      function authenticate(patience?: Patience): void {
        presence = new AbortController();
        const mine: typeof outcome = {};
        outcome = mine;
        const { signal } = presence;
        bench.runner.authenticate({ terminal }, { signal, patience }).then(
          (result) => {
            mine.result = result;
          },
          (error: unknown) => {
            mine.error = error;
          },
        );
      }

      const terminal: Terminal = { columns: 80, rows: 24, show: async () => undefined, listen: () => undefined };
      const waits = { state: 'stopped', desired: 'down', reason: 'needs_auth', nextRetryAt: null };

      async function logIn(): Promise<void> {
        authenticate();
        await bench.clock.settle();
        expect(outcome.result?.state).to.equal('up');
      }

      it('starts it, lets them go when it is up, and does not need them then', async () => {
        let releases = 0;
        bench.engine.first = 'waiting';
        authenticate();
        await bench.clock.settle();
        expect(bench.engine.last().asking).to.have.property('idleMs', 120_000);
        bench.engine.last().onRelease = () => releases++;
        bench.engine.last().state = 'ready';
        await bench.clock.advance(100);
        expect(outcome.result?.state).to.equal('up');
        expect(releases).to.equal(1);
        presence.abort(new Error('gone'));
        await bench.clock.advance(10_000);
        expect(bench.runner.status().state).to.equal('up');
      });

      it('keeps what has come up in the very turn in which they went', async () => {
        bench.engine.first = 'waiting';
        authenticate();
        await bench.clock.settle();
        bench.engine.last().onRelease = () => presence.abort(new Error('gone'));
        bench.engine.last().state = 'ready';
        await bench.clock.advance(100);
        expect([outcome.result?.state, bench.runner.status().state]).to.deep.equal(['up', 'up']);
        expect(bench.engine.running()).to.have.length(1);
      });

      for (const [when, prepare] of [
        ['while the way is cleared', () => createHold()],
        ['while it is being started', () => createHold()],
        ['while they are asked', () => undefined],
      ] as const) {
        it(`is gone with them ${when}`, async () => {
          const hold = prepare();
          if (hold && when.includes('way')) bench.holdClear = hold.held;
          else if (hold) bench.engine.holdStart = hold.held;
          bench.engine.first = 'waiting';
          authenticate();
          await bench.clock.advance(50);
          const gone = new Error('gone');
          presence.abort(gone);
          hold?.release();
          await bench.clock.advance(500);
          expect(outcome.error).to.equal(gone);
          expect(bench.runner.status()).to.include(waits);
          expect(bench.engine.running()).to.deep.equal([]);
          await bench.clock.advance(3_600_000);
          expect(bench.engine.running()).to.deep.equal([]);
        });
      }

      it('fails once, with the reason, and is tried by nobody again', async () => {
        bench.engine.first = 'waiting';
        authenticate();
        await bench.clock.settle();
        bench.engine.last().exit({ reason: 'auth_failed', lastError: 'Permission denied (password).' });
        await bench.clock.settle();
        expect(outcome.error).to.include({ code: 'ERR_START_FAILED' });
        const { lastError, ...status } = bench.runner.status();
        expect(status).to.include({ ...waits, reason: 'auth_failed' });
        expect(lastError).to.equal('Permission denied (password).');
        await bench.clock.advance(3_600_000);
        expect(bench.engine.links).to.have.length(1);
        expect(bench.states()).to.deep.equal(['starting', 'stopped']);
      });

      it('calls a key whose passphrase they did not know a login that failed, and their Ctrl-C none', async () => {
        for (const [exit, reason] of [
          [{ reason: 'needs_auth' }, 'auth_failed'],
          [{ reason: 'killed', signal: 'SIGINT' }, 'needs_auth'],
        ] as const) {
          bench.engine.first = 'waiting';
          authenticate();
          await bench.clock.settle();
          bench.engine.last().exit(exit);
          await bench.clock.settle();
          expect(bench.runner.status()).to.include({ state: 'stopped', reason });
        }
      });

      it('says that it needs them again when it is lost, once, and waits', async () => {
        await logIn();
        bench.engine.last().exit({ reason: 'timeout', lastError: 'Timeout, server not responding.' });
        await bench.clock.settle();
        expect(bench.runner.status()).to.include({ ...waits, lastError: 'Timeout, server not responding.' });
        expect(bench.states()).to.deep.equal(['starting', 'up', 'stopped', 'needs_auth']);
        await bench.clock.advance(3_600_000);
        expect(bench.engine.links).to.have.length(1);
      });

      it('needs them again as well when it was frozen for too long', async () => {
        await logIn();
        bench.engine.last().state = 'frozen';
        await bench.clock.advance(10_000);
        expect(bench.runner.status()).to.include(waits);
        expect(bench.engine.running()).to.deep.equal([]);
      });

      it('is one person’s at a time, and nobody’s once it is up', async () => {
        bench.engine.first = 'waiting';
        authenticate();
        const first = outcome;
        authenticate();
        await bench.clock.settle();
        expect(outcome.error).to.include({ code: 'ERR_TUNNEL_CONFLICT' });
        expect(String(outcome.error)).to.include('somebody else');
        expect(bench.runner.whyNotAuthenticate()?.message).to.include('somebody else');
        bench.engine.last().state = 'ready';
        await bench.clock.advance(100);
        expect(first.result?.state).to.equal('up');
        expect(bench.runner.whyNotAuthenticate()?.message).to.include('is up');
      });

      it('is over when somebody stops it, changes it, or closes', async () => {
        const ends = [
          () => bench.runner.stop(),
          () => bench.runner.respec({ ...bench.runner.spec(), sshOptions: { Port: '1234' } }),
          () => bench.runner.close(),
        ];
        for (const end of ends) {
          bench.engine.first = 'waiting';
          authenticate();
          await bench.clock.settle();
          void end();
          await bench.clock.advance(500);
          expect(outcome.error).to.include({ code: 'ERR_TUNNEL_CONFLICT' });
          expect(bench.runner.status().state).to.equal('stopped');
          expect(bench.engine.running()).to.deep.equal([]);
        }
        expect(bench.runner.whyNotAuthenticate()?.message).to.include('closed');
      });

      it('has its time: without a key, and in all', async () => {
        for (const [patience, why] of [
          [{ idleMs: 1000, totalMs: 60_000 }, 'nothing was typed for 1 s'],
          [{ idleMs: 60_000, totalMs: 2000 }, '2 s were not enough'],
        ] as const) {
          bench.engine.first = 'waiting';
          authenticate(patience);
          await bench.clock.advance(900);
          expect(outcome.error).to.equal(undefined);
          await bench.clock.advance(1200);
          expect(outcome.error).to.include({ code: 'ERR_TIMEOUT' });
          expect(String(outcome.error)).to.include(why);
          expect(bench.runner.status()).to.include({ state: 'stopped', reason: 'timeout' });
        }
      });

      it('keeps nobody else from starting while they think', async () => {
        const gate = createGate({ concurrency: 1, perHost: 1, intervalMs: 0 }, createFakeClock());
        bench = createBench({ ...makeSpec(), interactive: true }, gate);
        bench.engine.first = 'waiting';
        authenticate();
        await bench.clock.settle();
        expect(bench.runner.status().state).to.equal('starting');
        const others: string[] = [];
        for (const host of ['elsewhere', serverOf(bench.runner.spec())]) {
          const { signal } = new AbortController();
          void gate.enter(host, { urgent: () => false, signal }).then((place) => {
            others.push(host);
            place.release('up');
          });
          await bench.clock.settle();
        }
        expect(others).to.deep.equal(['elsewhere', serverOf(bench.runner.spec())]);
      });

      it('lets nobody in as long as it may still be up, and says then that it was lost', async () => {
        await logIn();
        bench.engine.last().state = 'frozen';
        await bench.clock.advance(1500);
        expect(bench.runner.status()).to.include({ state: 'starting', reason: 'frozen' });
        expect(bench.runner.whyNotAuthenticate()?.message).to.match(/may still be up/);
        authenticate();
        await bench.clock.settle();
        expect(outcome.error).to.include({ code: 'ERR_TUNNEL_CONFLICT' });
        await bench.clock.advance(10_000);
        expect(bench.runner.status()).to.include(waits);
        expect(bench.states().at(-1)).to.equal('needs_auth');
        expect(bench.runner.whyNotAuthenticate()).to.equal(undefined);
      });

      it('does not say of one attempt what went wrong with another', async () => {
        bench.engine.first = 'waiting';
        authenticate();
        await bench.clock.settle();
        bench.engine.last().exit({ reason: 'auth_failed', lastError: 'Permission denied (password).' });
        await bench.clock.settle();
        authenticate();
        await bench.clock.settle();
        presence.abort(new Error('gone'));
        await bench.clock.advance(500);
        expect(bench.runner.status()).to.include({ ...waits, lastError: 'given up' });
      });

      it('gives in to no order of what happens: one link at most, and none that nobody answers for', async () => {
        let seed = 7;
        const next = (below: number) => {
          seed = (seed * 16_807) % 2_147_483_647;
          return seed % below;
        };
        for (let round = 0; round < 100; round++) {
          bench = createBench({ ...makeSpec(), interactive: true });
          const asked: (typeof outcome)[] = [];
          const reasons = ['auth_failed', 'host_key_changed', 'needs_auth', 'refused'] as const;
          const acts = [
            () => {
              authenticate({ idleMs: 1000 + next(5000), totalMs: 1000 + next(9000) });
              asked.push(outcome);
            },
            () => presence?.abort(new Error('gone')),
            () => void bench.runner.stop(),
            () => void bench.runner.start().catch(() => undefined),
            () => bench.runner.boot(true),
            () => bench.runner.respec({ ...bench.runner.spec(), sshOptions: { Port: `${next(5)}` } }),
            () => bench.engine.links.at(-1)?.exit({ reason: reasons[next(4)] ?? 'exited' }),
            () => {
              bench.engine.first = (['ready', 'waiting', 'frozen'] as const)[next(3)] ?? 'ready';
            },
            () => {
              for (const link of bench.engine.links)
                link.state = (['ready', 'waiting', 'frozen'] as const)[next(3)] ?? 'ready';
            },
            () => {
              bench.engine.holdStart = Promise.race([bench.clock.sleep(next(2000)), bench.clock.sleep(1)]);
            },
            () => {
              bench.engine.failure = next(4) === 0 ? new Error('no ssh') : undefined;
            },
            () => bench.clock.advance(next(3000)),
            () => bench.clock.settle(),
          ];
          for (let step = 0; step < 40; step++) {
            await acts[next(acts.length)]?.();
            const where = `round ${round}, step ${step}`;
            expect(bench.engine.running().length, where).to.be.at.most(1);
            const { state, desired, reason } = bench.runner.status();
            expect(state, where).to.be.oneOf(['stopped', 'starting', 'up', 'stopping']);
            if (state === 'stopped') expect(desired, where).to.equal('down');
            if (state === 'up') expect(reason, where).to.equal(null);
          }
          presence?.abort(new Error('gone'));
          await bench.clock.advance(30_000);
          const { state } = bench.runner.status();
          expect(state, `round ${round}`).to.be.oneOf(['stopped', 'up']);
          expect(bench.engine.running().length, `round ${round}`).to.equal(state === 'up' ? 1 : 0);
          for (const one of asked) expect(Object.keys(one), `round ${round}`).to.have.length(1);
          await bench.runner.close();
          expect(bench.clock.sleepers(), `round ${round}`).to.equal(0);
        }
      });

      it('is asked again for what makes another tunnel of it, which it says, and not for what its next start is like', async () => {
        await logIn();
        bench.runner.respec({ ...bench.runner.spec(), restartTimeoutMs: 1, takeover: 'any' });
        await bench.clock.advance(1000);
        expect(bench.runner.status().state).to.equal('up');
        expect(bench.runner.spec().takeover).to.equal('any');
        bench.runner.respec({ ...bench.runner.spec(), sshOptions: { Port: '2222' } });
        await bench.clock.advance(1000);
        expect(bench.runner.status()).to.include({ ...waits, lastError: 'it was configured anew' });
        expect(bench.states().at(-1)).to.equal('needs_auth');
      });

      it('asks nobody of one that asks nobody', async () => {
        bench = createBench();
        const error = await bench.runner.authenticate({ prompt }).catch((cause: unknown) => cause);
        expect(error).to.include({ code: 'ERR_TUNNEL_CONFLICT' });
        expect(String(error)).to.include('asks nobody');
      });
    });
  });

  describe('close()', () => {
    it('ends one that is starting, and whoever waits for it is told', async () => {
      const hold = createHold();
      bench.engine.holdStart = hold.held;
      const outcome = watch(bench.runner.start());
      await bench.clock.settle();
      const closing = bench.runner.close();
      hold.release();
      await closing;
      expect(outcome.error?.code).to.equal('ERR_TUNNEL_CONFLICT');
      expect(bench.engine.running()).to.deep.equal([]);
      expect(bench.clock.sleepers()).to.equal(0);
    });

    it('is the end: nothing starts it again', async () => {
      await startUp();
      await bench.runner.close();
      const outcomes = [watch(bench.runner.start()), watch(bench.runner.restart())];
      await bench.clock.advance(1_000_000);
      for (const { error } of outcomes) expect(error?.message).to.match(/has been closed$/);
      expect(bench.engine.running()).to.deep.equal([]);
    });

    it('does not go on for ever about what survives', async () => {
      await startUp();
      bench.engine.last().survivors.push(stuck);
      await bench.runner.close();
      expect(bench.clock.sleepers()).to.equal(0);
      await bench.runner.close();
      expect(bench.clock.sleepers()).to.equal(0);
    });
  });

  it('publishes each state with the status that it then has', async () => {
    await startUp();
    const last = lastEvent();
    expect(last?.type).to.equal('tunnel.up');
    expect(last?.status).to.deep.equal(bench.runner.status());
    expect(last?.from).to.equal('starting');
  });

  it('gives in to no order of requests: one link at most, and none when it is stopped', async () => {
    // A walk through everything that can happen, by a generator that always says the same.
    let seed = 1;
    const next = (below: number) => {
      seed = (seed * 16_807) % 2_147_483_647;
      return seed % below;
    };
    for (let round = 0; round < 60; round++) {
      bench = createBench();
      const acts = [
        () => watch(bench.runner.start()),
        () => watch(bench.runner.restart()),
        () => watch(bench.runner.stop()),
        () => bench.runner.respec({ ...bench.runner.spec(), startTimeoutMs: 5000 + next(100) }),
        () => bench.engine.links.at(-1)?.exit(),
        () => {
          bench.engine.first = (['ready', 'waiting', 'frozen'] as const)[next(3)] ?? 'ready';
        },
        () => {
          for (const link of bench.engine.links)
            link.state = (['ready', 'waiting', 'frozen'] as const)[next(3)] ?? 'ready';
        },
        () => {
          bench.engine.holdStart = Promise.race([bench.clock.sleep(next(2000)), bench.clock.sleep(1)]);
        },
        () => bench.clock.advance(next(3000)),
        () => bench.clock.settle(),
      ];
      const outcomes: Outcome[] = [];
      for (let step = 0; step < 40; step++) {
        const made = await acts[next(acts.length)]?.();
        if (made && typeof made === 'object') outcomes.push(made);
        expect(bench.engine.running().length, `round ${round}, step ${step}`).to.be.at.most(1);
      }
      watch(bench.runner.stop());
      await bench.clock.advance(30_000);
      expect(bench.runner.status().state, `round ${round}`).to.equal('stopped');
      expect(bench.engine.running(), `round ${round}`).to.deep.equal([]);
      for (const outcome of outcomes) expect(Object.keys(outcome), `round ${round}`).to.have.length(1);
    }
  });
});

type StateEvent = Extract<TunnelEvent, { from: unknown }>;

function isState(event: TunnelEvent): event is StateEvent {
  return 'from' in event;
}

/** Each state that was told, and whether it was on a way that somebody asked for. */
function askedOf({ events }: Bench): string[] {
  return events.filter(isState).map(({ type, asked }) => `${type.slice('tunnel.'.length)}${asked ? ' asked' : ''}`);
}
