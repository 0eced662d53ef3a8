import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { expect } from 'chai';
import { openProc } from '#lib/proc/read.js';
import { systemClock, until } from '#lib/time.js';
import { createGate } from '#lib/tunnel/gate.js';
import { createRounds } from '#lib/tunnel/rounds.js';
import { createRunner, type Runner } from '#lib/tunnel/runner.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import { createFakeEngine, createHold, type FakeEngine, nobody } from '../support/fakeengine.js';
import { freeLocalPort } from '../support/port.js';
import { makeSpec } from '../support/specs.js';
import { forbidUnhandledRejections, watch } from '../support/tunnel.js';

const seamless = { drainMs: 20_000, connectWaitMs: 20_000 };
const deadline = { timeoutMs: 10_000 };

describe('a seamless tunnel (what is left behind)', () => {
  forbidUnhandledRejections();
  let engine: FakeEngine;
  let runner: Runner;
  let port: number;
  let target: net.Server;
  const clients: net.Socket[] = [];

  beforeEach(async () => {
    target = net.createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => undefined);
      socket.pipe(socket);
    });
    await new Promise<void>((resolve) => target.listen(0, '127.0.0.1', resolve));
    engine = createFakeEngine();
    engine.target = (target.address() as AddressInfo).port;
    port = await freeLocalPort();
    runner = createRunner(specOf(), {
      proc: openProc(),
      clock: systemClock,
      random: () => 0,
      gate: createGate({ concurrency: 16, perHost: 8, intervalMs: 0 }, systemClock),
      rounds: createRounds(systemClock),
      publish: () => undefined,
      engineFor: () => engine,
      clearLeftovers: async () => ({ kill: nobody, layers: {} }),
      logFileOf: () => null,
    });
  });

  afterEach(async () => {
    for (const link of engine.links) link.survivors = [];
    await runner.close();
    for (const socket of clients.splice(0)) socket.destroy();
    for (const link of engine.running()) link.exit();
    target.close();
  });

  function specOf(changes: Partial<TunnelSpec> = {}): TunnelSpec {
    return makeSpec({ side: 'local', listen: { host: '127.0.0.1', port }, seamless, ...changes });
  }

  async function connect(): Promise<net.Socket> {
    const socket = net.connect(port, '127.0.0.1').on('error', () => undefined);
    await once(socket, 'connect');
    clients.push(socket);
    return socket;
  }

  async function echo(socket: net.Socket): Promise<void> {
    const heard = once(socket, 'data');
    socket.write('x');
    await heard;
  }

  const survivor = { pid: 4711, startTicks: 1, command: 'ssh', why: 'uninterruptible (state D)' };

  // entrance.retire(): whatever the report says, the link is forgotten, and its root erased from the ledger.
  it('does not say that it is stopped while a link that was replaced survives its end', async () => {
    await runner.start();
    await echo(await connect());
    await runner.restart();
    const [first] = engine.links;
    if (first) first.survivors = [survivor];
    const outcome = watch(runner.stop());
    await until(() => outcome.result ?? outcome.error, deadline);
    expect(engine.running(), 'what runs').to.have.length(1);
    expect(outcome.result?.state, 'what stop() says').to.equal(undefined);
  });

  it('ends a link that was replaced again when it survived its drain', async () => {
    runner.respec(specOf({ seamless: { ...seamless, drainMs: 1 } }));
    await runner.start();
    const [first] = engine.links;
    if (first) first.survivors = [survivor];
    await runner.restart();
    await until(() => (first?.stops ?? 0) > 0, deadline);
    if (first) first.survivors = [];
    await runner.stop();
    expect(engine.running(), 'links that run after stop()').to.have.length(0);
  });

  // entrance.retire(): a stop() that rejects is kept "and ended with the tunnel", but that end swallows it as well.
  it('does not say that it is stopped while a link that was replaced could not be looked at', async () => {
    await runner.start();
    await echo(await connect());
    await runner.restart();
    const [first] = engine.links;
    const trouble = Promise.reject(Object.assign(new Error('EMFILE: too many open files'), { code: 'EMFILE' }));
    trouble.catch(() => undefined);
    if (first) first.holdStop = trouble;
    const outcome = watch(runner.stop());
    await until(() => outcome.result ?? outcome.error, deadline);
    expect(engine.running(), 'what runs').to.have.length(1);
    expect(outcome.result?.state, 'what stop() says').to.equal(undefined);
  });

  // up + lost → starting (recheck) → ready → up: the exchange was called off, and nobody begins another.
  it('is not left on the link of a former spec when that one was silent for a moment during the exchange', async () => {
    await runner.start();
    const [first] = engine.links;
    engine.first = 'waiting';
    runner.respec(specOf({ remoteHost: 'user@elsewhere' }));
    await until(() => engine.links.length === 2, deadline);
    if (first) first.state = 'frozen';
    expect(await until(() => runner.status().state !== 'up', deadline)).to.equal(true);
    if (first) first.state = 'ready';
    engine.first = 'ready';
    await until(() => engine.links.length > 2, { timeoutMs: 2000 });
    for (const link of engine.links) link.state = 'ready';
    await until(() => runner.status().state === 'up', deadline);
    await until(() => engine.last().spec.remoteHost === 'user@elsewhere' && engine.last().isRunning(), {
      timeoutMs: 3000,
    });
    expect(engine.running().map(({ spec }) => spec.remoteHost)).to.deep.equal(['user@elsewhere']);
  });

  it('does not say that a restart is done when the old link was silent for a moment and came back', async () => {
    await runner.start();
    const [first] = engine.links;
    engine.first = 'waiting';
    const outcome = watch(runner.restart());
    await until(() => engine.links.length === 2, deadline);
    if (first) first.state = 'frozen';
    expect(await until(() => runner.status().state !== 'up', deadline)).to.equal(true);
    if (first) first.state = 'ready';
    engine.first = 'ready';
    await until(() => engine.links.length > 2, { timeoutMs: 2000 });
    for (const link of engine.links) link.state = 'ready';
    await until(() => outcome.result ?? outcome.error, deadline);
    if (outcome.result) expect(first?.isRunning(), 'the link that was to be replaced runs').to.equal(false);
  });

  // fatal + stop → stopped at once; the start that was called off is still under way.
  it('starts nothing after close(), when the old link met a fatal end during an exchange', async () => {
    await runner.start();
    const [first] = engine.links;
    const hold = createHold();
    engine.holdStart = hold.held;
    watch(runner.restart());
    await new Promise((resolve) => setImmediate(resolve));
    first?.exit({ reason: 'host_key_changed' });
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
