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

const seamless = { drainMs: 20_000, connectWaitMs: 20_000 };
const deadline = { timeoutMs: 10_000 };

describe('a seamless tunnel (what breaks)', () => {
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
    await runner.close();
    for (const socket of clients.splice(0)) socket.destroy();
    await until(() => engine.running().length === 0, deadline);
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

  // backoff + stop → stopped without a teardown; nobody ends the links that were replaced.
  it('has ended the links that were replaced when a stop that met it in backoff has resolved', async () => {
    await runner.start();
    await echo(await connect());
    await runner.restart();
    expect(engine.running()).to.have.length(2);
    engine.failure = new Error('no network');
    const [, second] = engine.links;
    second?.exit();
    expect(await until(() => runner.status().state === 'backoff', deadline)).to.equal(true);
    const [first] = engine.links;
    if (first) first.holdStop = new Promise((resolve) => setTimeout(resolve, 300));
    await runner.stop();
    expect(engine.running(), 'links that run after stop()').to.have.length(0);
  });

  // the same for close(), after which the daemon ends.
  it('has ended the links that were replaced when close() in backoff has resolved', async () => {
    await runner.start();
    await echo(await connect());
    await runner.restart();
    engine.failure = new Error('no network');
    const [first, second] = engine.links;
    second?.exit();
    expect(await until(() => runner.status().state === 'backoff', deadline)).to.equal(true);
    if (first) first.holdStop = new Promise((resolve) => setTimeout(resolve, 300));
    await runner.close();
    expect(engine.running(), 'links that run after close()').to.have.length(0);
  });

  // a stop that comes while a teardown of another reason is under way.
  it('has ended the links that were replaced when a stop that met a teardown has resolved', async () => {
    await runner.start();
    await echo(await connect());
    await runner.restart();
    const [first, second] = engine.links;
    const hold = createHold();
    if (second) second.holdStop = hold.held;
    if (first) first.holdStop = new Promise((resolve) => setTimeout(resolve, 300));
    engine.first = 'waiting';
    // A link that is lost and does not come back is taken down, with the front kept.
    if (second) second.state = 'waiting';
    expect(await until(() => runner.status().state === 'stopping', deadline)).to.equal(true);
    const stopped = runner.stop();
    hold.release();
    await stopped;
    expect(engine.running(), 'links that run after stop()').to.have.length(0);
  });
});
