import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { expect } from 'chai';
import { openProc } from '#lib/proc/read.js';
import { systemClock, until } from '#lib/time.js';
import { createGate } from '#lib/tunnel/gate.js';
import { createRounds } from '#lib/tunnel/rounds.js';
import { createRunner, type Runner, type TunnelEvent } from '#lib/tunnel/runner.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import { createFakeEngine, createHold, type FakeEngine, nobody } from '../support/fakeengine.js';
import { freeLocalPort } from '../support/port.js';
import { makeSpec } from '../support/specs.js';
import { forbidUnhandledRejections, watch } from '../support/tunnel.js';

const seamless = { drainMs: 20_000, connectWaitMs: 20_000 };
const deadline = { timeoutMs: 10_000 };

describe('a seamless tunnel', () => {
  forbidUnhandledRejections();
  let engine: FakeEngine;
  let runner: Runner;
  let events: TunnelEvent[];
  let random: number;
  let port: number;
  let target: net.Server;
  const clients: Client[] = [];

  beforeEach(async () => {
    target = net.createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => undefined);
      socket.pipe(socket);
    });
    await new Promise<void>((resolve) => target.listen(0, '127.0.0.1', resolve));
    engine = createFakeEngine();
    engine.target = (target.address() as AddressInfo).port;
    port = await freeLocalPort();
    events = [];
    random = 0;
    runner = makeRunner(specOf());
  });

  afterEach(async () => {
    await runner.close();
    for (const { socket } of clients.splice(0)) socket.destroy();
    await until(() => engine.running().length === 0, deadline);
    expect(engine.running()).to.deep.equal([]);
    expect(runner.status().state).to.equal('stopped');
    target.close();
    await expectRefused();
  });

  function specOf(changes: Partial<TunnelSpec> = {}): TunnelSpec {
    return makeSpec({ side: 'local', listen: { host: '127.0.0.1', port }, seamless, ...changes });
  }

  function makeRunner(spec: TunnelSpec): Runner {
    return createRunner(spec, {
      proc: openProc(),
      clock: systemClock,
      random: () => random,
      gate: createGate({ concurrency: 16, perHost: 8, intervalMs: 0 }, systemClock),
      rounds: createRounds(systemClock),
      publish: (event) => events.push(event),
      engineFor: () => engine,
      clearLeftovers: async () => ({ kill: nobody, layers: {} }),
      logFileOf: () => null,
    });
  }

  interface Client {
    readonly socket: net.Socket;
    readonly heard: () => string;
    readonly end: () => string | undefined;
  }

  async function connect(to = port): Promise<Client> {
    const socket = net.connect(to, '127.0.0.1').setEncoding('utf8');
    let text = '';
    let end: string | undefined;
    socket.on('data', (chunk: string) => {
      text += chunk;
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      end = error.code;
    });
    socket.once('end', () => {
      end ??= 'end';
    });
    await once(socket, 'connect');
    const client = { socket, heard: () => text, end: () => end };
    clients.push(client);
    return client;
  }

  async function say({ socket, heard }: Client, words: string): Promise<void> {
    const before = heard();
    socket.write(words);
    expect(await until(() => heard() === before + words, deadline), `echo of ${words}`).to.equal(true);
  }

  async function expectRefused(to = port): Promise<void> {
    const socket = net.connect(to, '127.0.0.1');
    const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException];
    expect(error.code).to.equal('ECONNREFUSED');
  }

  const states = () => events.flatMap(({ type }) => (type === 'tunnel.output' ? [] : [type]));

  it('listens, carries, and is refused once it is stopped', async () => {
    await runner.start();
    const client = await connect();
    await say(client, 'hello');
    await runner.stop();
    await until(client.end, deadline);
    expect(client.end()).to.equal('ECONNRESET');
    await expectRefused();
  });

  it('has another link after a restart, without a moment in between: what goes through goes on', async () => {
    await runner.start();
    const old = await connect();
    await say(old, 'one');
    const { state } = await runner.restart();
    expect(state).to.equal('up');
    expect(engine.running()).to.have.length(2);
    await say(old, 'two');
    const fresh = await connect();
    await say(fresh, 'three');
    expect(states()).to.deep.equal(['tunnel.starting', 'tunnel.up', 'tunnel.up']);
    expect(runner.status()).to.deep.include({ state: 'up', restarts: 1, attempt: 0, lastError: null });
    old.socket.end();
    await until(() => engine.running().length === 1, deadline);
    expect(engine.running()).to.deep.equal([engine.last()]);
    await say(fresh, 'four');
  });

  it('cuts what still goes over the old link when the time for that is over', async () => {
    runner.respec(specOf({ seamless: { ...seamless, drainMs: 50 } }));
    await runner.start();
    const old = await connect();
    await say(old, 'one');
    await runner.restart();
    expect(await until(old.end, deadline)).to.equal('ECONNRESET');
    await until(() => engine.running().length === 1, deadline);
    await say(await connect(), 'two');
  });

  it('refuses nobody who connects during many restarts in a row, and keeps few links for those who stay', async () => {
    await runner.start();
    let isOver = false;
    let connections = 0;
    const knocking = (async () => {
      while (!isOver) {
        await say(await connect(), 'x');
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
    await say(old, 'one');
    await say(await connect(), 'two');
    engine.first = 'ready';
    expect((await runner.restart()).state).to.equal('up');
  });

  it('goes on as it was when the new link cannot be started at all', async () => {
    await runner.start();
    engine.failure = new Error('no more processes');
    const outcome = watch(runner.restart());
    await until(() => outcome.error, deadline);
    expect(outcome.error?.message).to.match(/goes on as it was: exited \(no more processes\)/);
    await say(await connect(), 'one');
  });

  it('has those wait who connect while there is no link, and resets what went over the one that is gone', async () => {
    await runner.start();
    const old = await connect();
    await say(old, 'one');
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
    const patient = { minMs: 60_000, maxMs: 60_000, stableMs: 60_000 };
    random = 1;
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
    await runner.start();
    const [first] = engine.links;
    engine.first = 'waiting';
    const outcome = watch(runner.restart());
    await until(() => engine.links.length === 2, deadline);
    first?.exit({ reason: 'exited' });
    await until(() => engine.links.length === 3, deadline);
    engine.last().state = 'ready';
    engine.first = 'ready';
    await until(() => runner.status().state === 'up' && runner.status().restarts > 0, deadline);
    await until(() => engine.running().length === 1, deadline);
    expect(engine.running()).to.deep.equal([engine.last()]);
    expect(outcome.error?.code ?? outcome.result?.state).to.equal('ERR_START_FAILED');
    await say(await connect(), 'one');
  });

  it('is stopped in the middle of a restart, and leaves neither link', async () => {
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
    await runner.start();
    const old = await connect();
    await say(old, 'one');
    runner.respec(specOf({ sshOptions: { Port: '2222' } }));
    await until(() => engine.links.length === 2 && runner.status().restarts === 1, deadline);
    expect(engine.last().spec.sshOptions).to.deep.equal({ Port: '2222' });
    await say(old, 'two');
    const elsewhere = await freeLocalPort();
    runner.respec(specOf({ forward: { ...specOf().forward, listen: { host: '127.0.0.1', port: elsewhere } } }));
    await until(() => runner.status().restarts === 2, deadline);
    await expectRefused();
    await say(await connect(elsewhere), 'three');
    runner.respec(specOf());
    await until(() => runner.status().restarts === 3, deadline);
  });

  it('has whoever comes wait as long as its spec says now', async () => {
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
    await runner.start();
    const old = await connect();
    await say(old, 'one');
    engine.first = 'waiting';
    runner.respec(specOf({ remoteHost: 'user@elsewhere' }));
    await until(() => engine.links.length === 2, deadline);
    engine.last().exit({ reason: 'unreachable', lastError: 'No route to host' });
    expect(await until(old.end, deadline)).to.equal('ECONNRESET');
    await until(() => engine.links.length === 3, deadline);
    engine.last().state = 'ready';
    await until(() => runner.status().state === 'up', deadline);
    await say(await connect(), 'two');
  });

  it('is seamless no more, and again, as its spec says', async () => {
    await runner.start();
    runner.respec(specOf({ seamless: null }));
    await until(() => runner.status().restarts === 1, deadline);
    await expectRefused(); // the fake engine listens on nothing
    runner.respec(specOf());
    await until(() => runner.status().restarts === 2, deadline);
    await say(await connect(), 'one');
  });

  it('does not start where somebody else listens, and says so', async () => {
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
    await runner.start();
    engine.first = 'waiting';
    engine.last().exit({ reason: 'exited' });
    await until(() => engine.links.length === 2, deadline);
    engine.last().exit({ reason: 'host_key_changed' });
    await until(() => runner.status().state === 'fatal', deadline);
    await expectRefused();
  });

  it('counts who went through, and for how much', async () => {
    await runner.start();
    await say(await connect(), 'hello');
    await runner.restart();
    await say(await connect(), 'hello again');
    const bytes = 'hellohello again'.length;
    expect(runner.status().traffic).to.deep.equal({
      ...{ connections: 2, open: 2, queued: 0, refused: 0, bytesIn: bytes, bytesOut: bytes },
    });
    for (const { socket } of clients) socket.end();
    await until(() => runner.status().traffic?.open === 0, deadline);
    expect(runner.status().traffic).to.deep.include({ connections: 2, open: 0 });
  });
});
