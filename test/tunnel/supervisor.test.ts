import { expect } from 'chai';
import { isTunwardError } from '#lib/errors.js';
import { until } from '#lib/time.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import { createSupervisor, type Supervisor, type SupervisorEvent } from '#lib/tunnel/supervisor.js';
import { createFakeClock, type FakeClock } from '../support/fakeclock.js';
import { createFakeEngine, createHold, type FakeEngine } from '../support/fakeengine.js';
import { createFakeProc, type FakeProc } from '../support/fakeproc.js';
import { freeLocalPort } from '../support/port.js';
import { makeSpec } from '../support/specs.js';
import { forbidUnhandledRejections, watch } from '../support/tunnel.js';

const stuck = { pid: 4711, command: 'ssh -N', why: 'stuck in uninterruptible sleep (D), SIGKILL is pending' };

describe('createSupervisor()', () => {
  forbidUnhandledRejections();
  let fake: FakeProc;
  let clock: FakeClock;
  let engine: FakeEngine;
  let events: SupervisorEvent[];
  let supervisor: Supervisor;
  /** How often the table of processes was read: once for each search for leftovers. */
  let searches: number;
  /** Of which tunnels ssh was asked anew where they go. */
  let refreshed: string[];

  before(() => {
    fake = createFakeProc();
  });
  after(() => fake[Symbol.dispose]());

  beforeEach(() => {
    clock = createFakeClock();
    engine = createFakeEngine();
    events = [];
    searches = 0;
    refreshed = [];
    const { proc } = fake;
    supervisor = createSupervisor({
      env: {},
      clock,
      random: () => 1,
      publish: (event) => events.push(event),
      proc: {
        ...proc,
        text(name) {
          // Read once by each search, for the age of the young.
          if (name === 'uptime') searches++;
          return proc.text(name);
        },
      },
      engines: {
        engineFor: () => engine,
        resolve: async () => undefined,
        resolveSpec: async () => undefined,
        refresh: ({ name }) => refreshed.push(name),
      },
    });
  });

  afterEach(async () => {
    await supervisor.close();
    expect(engine.running().filter(({ survivors }) => survivors.length === 0)).to.deep.equal([]);
    expect(clock.sleepers()).to.equal(0);
  });

  const web = makeSpec({ name: 'web' });
  const db = makeSpec({ name: 'db', listen: { host: 'localhost', port: 5432 } });
  const mail = makeSpec({ name: 'mail', listen: { host: 'localhost', port: 25 } });
  const states = () => supervisor.list().map(({ name, state }) => `${name} ${state}`);
  const linksOf = ({ id }: TunnelSpec) => engine.links.filter(({ spec }) => spec.id === id);

  async function reconcile(...specs: TunnelSpec[]): Promise<void> {
    await supervisor.reconcile(specs);
    await clock.settle();
  }

  async function codeOf(promise: Promise<unknown>): Promise<string> {
    const error = await promise.catch((reason: unknown) => reason);
    if (!isTunwardError(error)) throw error;
    return error.code;
  }

  describe('reconcile()', () => {
    it('starts what is new, in the order of the specs', async () => {
      await reconcile(web, db);
      expect(states()).to.deep.equal(['web up', 'db up']);
    });

    it('stops what is gone, starts what has come, and leaves alone what is equal', async () => {
      await reconcile(web, db);
      await reconcile(mail, { ...db, sshOptions: { ...db.sshOptions } });
      expect(states()).to.deep.equal(['mail up', 'db up']);
      expect(linksOf(web).map((link) => link.isRunning())).to.deep.equal([false]);
      expect(linksOf(db).map((link) => link.stops)).to.deep.equal([0]);
      expect(await codeOf(supervisor.restart('web'))).to.equal('ERR_TUNNEL_UNKNOWN');
    });

    it('restarts what has changed', async () => {
      await reconcile(web, db);
      const changed = { ...web, sshOptions: { Port: '2222' } };
      await reconcile(changed, db);
      expect(linksOf(web).map((link) => link.isRunning())).to.deep.equal([false, true]);
      expect(linksOf(web)[1]?.spec).to.equal(changed);
      expect(linksOf(db)).to.have.length(1);
    });

    it('leaves stopped what somebody stopped', async () => {
      await reconcile(web);
      await supervisor.stop('web');
      await reconcile(web);
      await reconcile({ ...web, sshOptions: { Port: '2222' } });
      expect(states()).to.deep.equal(['web stopped']);
    });

    it('starts what came back', async () => {
      await reconcile(web);
      await reconcile();
      await reconcile(web);
      expect(states()).to.deep.equal(['web up']);
      expect(linksOf(web)).to.have.length(2);
    });

    it('lets nobody start again what is on its way out', async () => {
      await reconcile(web);
      const hold = createHold();
      engine.last().holdStop = hold.held;
      const reconciling = supervisor.reconcile([db]);
      await clock.settle();
      expect(await codeOf(supervisor.start(web.id))).to.equal('ERR_TUNNEL_UNKNOWN');
      hold.release();
      await reconciling;
      await clock.settle();
      expect(states()).to.deep.equal(['db up']);
      expect(engine.running()).to.have.length(1);
    });

    it('is not held up by what survives, and does not go on about it', async () => {
      await reconcile(web);
      engine.last().survivors.push(stuck);
      await reconcile(db);
      expect(states()).to.deep.equal(['db up']);
      await clock.advance(100_000);
      expect(linksOf(web).map((link) => link.stops)).to.deep.equal([1]);
    });

    it('that comes while another is under way knows what that has made', async () => {
      await reconcile(web);
      const hold = createHold();
      engine.last().holdStop = hold.held;
      const first = supervisor.reconcile([db]);
      const second = supervisor.reconcile([mail]);
      await clock.settle();
      hold.release();
      await Promise.all([first, second]);
      await clock.settle();
      expect(states()).to.deep.equal(['mail up']);
      expect(engine.running()).to.have.length(1);
    });

    it('goes on after one that failed', async () => {
      const broken = new Proxy(web, {
        get: (spec, key) => {
          if (key === 'interactive') throw new Error('broken spec');
          return Reflect.get(spec, key);
        },
      });
      expect(await supervisor.reconcile([broken]).catch(String)).to.equal('Error: broken spec');
      await reconcile(db);
      expect(states()).to.deep.equal(['db up']);
    });

    it('lists an interactive tunnel, and does not start it', async () => {
      await reconcile({ ...web, interactive: true });
      expect(supervisor.status('web')).to.include({ state: 'stopped', reason: 'needs_auth' });
      expect(await codeOf(supervisor.start('web'))).to.equal('ERR_TUNNEL_CONFLICT');
    });

    it('has ssh asked anew where a tunnel goes for a start that somebody asks for, and for no other', async () => {
      await reconcile(web, makeSpec({ name: 'person', interactive: true }));
      expect(refreshed).to.deep.equal(['web']);
      await Promise.all([supervisor.restart('web'), clock.advance(20)]);
      expect(refreshed).to.deep.equal(['web', 'web']);
      engine.last().exit();
      await clock.advance(1000);
      expect(linksOf(web)).to.have.length(3);
      await supervisor.stop('web');
      expect(refreshed).to.deep.equal(['web', 'web']);
      await Promise.all([supervisor.start('web'), clock.advance(20)]);
      await reconcile({ ...web, sshOptions: { Port: '2222' } });
      expect(refreshed).to.deep.equal(['web', 'web', 'web', 'web']);
      await reconcile(makeSpec({ name: 'person', interactive: true }));
      refreshed.length = 0;
      await Promise.all([supervisor.authenticate('person', { prompt: () => '' }), clock.advance(20)]);
      expect(refreshed).to.deep.equal(['person']);
    });

    it('touches nobody for a label: a group is no other tunnel', async () => {
      await reconcile(web);
      await reconcile({ ...web, groups: ['eu'] });
      expect(linksOf(web).map((link) => [link.isRunning(), link.stops])).to.deep.equal([[true, 0]]);
      expect(supervisor.status('web').groups).to.deep.equal(['eu']);
    });

    describe('a tunnel that is not enabled', () => {
      const off = { ...web, enabled: false };

      it('is known and not started, until somebody does', async () => {
        await reconcile(off, db);
        expect(states()).to.deep.equal(['web stopped', 'db up']);
        expect(supervisor.status('web')).to.include({ enabled: false, desired: 'down', reason: null });
        await supervisor.start('web');
        expect(states()).to.deep.equal(['web up', 'db up']);
      });

      it('that was started by hand is left alone by a reload, and follows a change', async () => {
        await reconcile(off);
        await supervisor.start('web');
        await reconcile({ ...off });
        expect(linksOf(web)).to.have.length(1);
        await reconcile({ ...off, sshOptions: { Port: '1' } });
        expect(linksOf(web).map((link) => link.isRunning())).to.deep.equal([false, true]);
      });

      it('stops when it becomes one, before anything else is started', async () => {
        await reconcile(web);
        await supervisor.reconcile([off, db]);
        expect(states()).to.deep.equal(['web stopped', 'db starting']);
        expect(linksOf(web).map((link) => link.isRunning())).to.deep.equal([false]);
      });

      it('starts when it is one no more, with what else has changed', async () => {
        await reconcile(off);
        await reconcile({ ...web, sshOptions: { Port: '1' } });
        expect(states()).to.deep.equal(['web up']);
        expect(linksOf(web).map(({ spec }) => spec.sshOptions)).to.deep.equal([{ Port: '1' }]);
      });

      it('that is up goes on as it is when it becomes enabled', async () => {
        await reconcile(off);
        await supervisor.start('web');
        await reconcile(web);
        expect(linksOf(web)).to.have.length(1);
        linksOf(web)[0]?.exit();
        await clock.settle();
        const failed = events.filter(({ type }) => type === 'tunnel.backoff' || type === 'tunnel.starting').at(-1);
        expect(failed).to.include({ type: 'tunnel.backoff', asked: false });
      });

      it('is stopped again by a reload after somebody has enabled it and not by the one after that', async () => {
        await reconcile(web);
        await reconcile(off);
        await supervisor.start('web');
        await reconcile({ ...off });
        expect(states()).to.deep.equal(['web up']);
      });
    });

    it('paces the starts to one server', async () => {
      engine.first = 'waiting';
      const many = Array.from({ length: 40 }, (_none, at) => makeSpec({ name: `t${at}`, remoteHost: `u${at}@web` }));
      await reconcile(...many);
      await clock.advance(1000);
      expect(engine.links).to.have.length(8);
      for (const link of engine.links) link.state = 'ready';
      await clock.advance(20);
      expect(engine.links).to.have.length(16);
    });
  });

  describe('sweep()', () => {
    it('looks for leftovers once for all, and the first starts look for nobody again', async () => {
      await supervisor.sweep([web, db]);
      expect(events.map(({ type }) => type)).to.deep.equal(['boot.swept']);
      const before = searches;
      expect(before).to.be.greaterThan(0);
      await reconcile(web, db);
      expect(searches).to.equal(before);
    });

    it('has nobody in the way of what will not start', async () => {
      await supervisor.sweep([]);
      const own = searches;
      await supervisor.sweep([{ ...web, enabled: false }]);
      expect(searches - own, 'for the marker alone').to.equal(own);
      await supervisor.sweep([web]);
      expect(searches - 2 * own).to.equal(own + 1);
    });

    it('does not speak for a tunnel that comes later, nor for one that comes back', async () => {
      await supervisor.sweep([web]);
      const before = searches;
      await reconcile(web, db);
      expect(searches).to.equal(before + 1);
      await reconcile(db);
      await reconcile(web, db);
      expect(searches).to.equal(before + 2);
    });
  });

  describe('a tunnel', () => {
    beforeEach(() => reconcile(web, db));

    it('is found by its id, its name, and 8 digits of its id', () => {
      for (const which of [web.id, 'web', web.id.slice(0, 8), web.id.slice(0, 31)]) {
        expect(supervisor.status(which).id).to.equal(web.id);
      }
      for (const which of ['we', '', web.id.slice(0, 7), `${web.id}0`]) {
        expect(() => supervisor.status(which))
          .to.throw()
          .with.property('code', 'ERR_TUNNEL_UNKNOWN');
      }
    });

    it('that is not known is a rejection, not a throw', async () => {
      for (const verb of ['start', 'stop', 'restart'] as const) {
        expect(await codeOf(supervisor[verb]('nobody'))).to.equal('ERR_TUNNEL_UNKNOWN');
      }
    });

    it('is ambiguous by a name that two have, and not by its id', async () => {
      const twin = { ...mail, name: 'web' };
      await reconcile(web, twin);
      const error = await supervisor.restart('web').catch((reason: unknown) => reason);
      expect(error).to.deep.include({ code: 'ERR_TUNNEL_AMBIGUOUS', info: { candidates: [web.id, twin.id] } });
      expect(supervisor.status(twin.id).id).to.equal(twin.id);
    });

    it('is found by its name before any id that begins so', async () => {
      const impostor = { ...mail, name: web.id.slice(0, 8) };
      await reconcile(web, impostor);
      expect(supervisor.status(web.id.slice(0, 8)).id).to.equal(impostor.id);
    });
  });

  describe('an operation', () => {
    beforeEach(() => reconcile(web));

    it('is done for twenty at once', async () => {
      const outcomes = Array.from({ length: 20 }, () => watch(supervisor.restart('web')));
      await clock.settle();
      for (const { result } of outcomes) expect(result).to.equal(outcomes[0]?.result);
      expect(outcomes[0]?.result?.state).to.equal('up');
      expect(engine.links).to.have.length(2);
      expect(clock.sleepers()).to.equal(1); // the watch over it, and none of twenty deadlines
    });

    it('is answered in time, and goes on', async () => {
      const hold = createHold();
      engine.holdStart = hold.held;
      const outcome = watch(supervisor.restart('web'));
      await clock.advance(5999);
      expect(outcome).to.deep.equal({});
      await clock.advance(1);
      expect(outcome.error).to.deep.include({ code: 'ERR_TIMEOUT', info: { timeoutMs: 6000, going: 'starting' } });
      const again = watch(supervisor.restart('web'));
      await clock.advance(1000);
      hold.release();
      await clock.settle();
      expect(again.result?.tookMs).to.equal(7000);
      expect(states()).to.deep.equal(['web up']);
      expect(engine.links).to.have.length(2);
    });

    it('that fails after its deadline is nobody’s unhandled rejection', async () => {
      engine.first = 'waiting';
      const outcome = watch(supervisor.restart('web'));
      await clock.advance(6000);
      expect(outcome.error?.code).to.equal('ERR_TIMEOUT');
      engine.last().exit({ lastError: 'gone' });
      await clock.settle();
      expect(states()).to.deep.equal(['web backoff']);
    });

    it('says what it was at when the time was over', async () => {
      engine.last().state = 'frozen';
      const hold = createHold();
      engine.last().holdStop = hold.held;
      await clock.advance(1000);
      const outcome = watch(supervisor.stop('web'));
      await clock.advance(6000);
      expect(outcome.error?.info).to.include({ going: 'stopping (the chain is stopped by a signal (SIGSTOP))' });
      hold.release();
      await clock.settle();
    });

    it('says of a seamless one that the new link is not up yet, and the old one is', async () => {
      const listen = { host: '127.0.0.1', port: await freeLocalPort() };
      const seamless = { drainMs: 0, connectWaitMs: 0 };
      await reconcile(makeSpec({ name: 'calm', side: 'local', listen, seamless }));
      const waited = { timeoutMs: 10_000 };
      expect(await until(() => states().includes('calm up'), waited)).to.equal(true);
      engine.first = 'waiting';
      const links = engine.links.length;
      const outcome = watch(supervisor.restart('calm'));
      expect(await until(() => engine.links.length > links, waited)).to.equal(true);
      await clock.advance(6000);
      expect(outcome.error?.message).to.match(
        / is still being given a new link, and up by the old one after 6000 ms, and goes on$/,
      );
    });
  });

  describe('close()', () => {
    it('stops everything, once, and nothing can be started afterwards', async () => {
      await reconcile(web, db);
      await Promise.all([supervisor.close(), supervisor.close()]);
      expect(states()).to.deep.equal(['web stopped', 'db stopped']);
      expect(engine.links.map(({ stops }) => stops)).to.deep.equal([1, 1]);
      expect(await codeOf(supervisor.start('web'))).to.equal('ERR_TUNNEL_CONFLICT');
      expect(await codeOf(supervisor.restart('web'))).to.equal('ERR_TUNNEL_CONFLICT');
      expect(await codeOf(supervisor.reconcile([mail]))).to.equal('ERR_TUNNEL_CONFLICT');
      expect(engine.links).to.have.length(2);
    });

    it('ends what is starting, however late that comes', async () => {
      const hold = createHold();
      engine.holdStart = hold.held;
      await reconcile(web);
      const outcome = watch(supervisor.start('web'));
      await clock.settle();
      const closing = supervisor.close();
      await clock.settle();
      expect(outcome.error?.code).to.equal('ERR_TUNNEL_CONFLICT');
      hold.release();
      await closing;
      expect(engine.links).to.have.length(1);
      expect(engine.running()).to.deep.equal([]);
    });

    it('ends what a reconciliation was about to start', async () => {
      await reconcile(web);
      const hold = createHold();
      engine.last().holdStop = hold.held;
      const reconciling = codeOf(supervisor.reconcile([db]));
      await clock.settle();
      let isClosed = false;
      const closing = supervisor.close().then(() => {
        isClosed = true;
      });
      await clock.settle();
      // Not while something of it still runs.
      expect([isClosed, engine.running().length]).to.deep.equal([false, 1]);
      hold.release();
      await closing;
      expect(await reconciling).to.equal('ERR_TUNNEL_CONFLICT');
      await clock.settle();
      expect(engine.links).to.have.length(1);
    });

    it('is bounded by what survives', async () => {
      await reconcile(web);
      engine.last().survivors.push(stuck);
      await supervisor.close();
      expect(clock.sleepers()).to.equal(0);
    });

    it('is what `await using` does', async () => {
      await reconcile(web);
      await supervisor[Symbol.asyncDispose]();
      expect(states()).to.deep.equal(['web stopped']);
    });
  });
});
