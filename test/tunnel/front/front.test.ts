import { rejects } from 'node:assert/strict';
import type net from 'node:net';
import { expect } from 'chai';
import fc from 'fast-check';
import { systemClock as clock } from '#lib/time.js';
import type { Carrier } from '#lib/tunnel/front/carrier.js';
import { createFront } from '#lib/tunnel/front/front.js';
import { createMeter } from '#lib/tunnel/front/meter.js';
import { createFakeClock } from '../../support/fakeclock.js';
import { freeLocalPort } from '../../support/port.js';
import { createStage, digestOf, echo, eventually, noise } from './scene.js';

const none = { open: 0, queued: 0, refused: 0 };

/** A carrier that makes no connection until it is let: `fail()` lets the oldest one down. */
function createSlowCarrier(): Carrier & { isThere: boolean; readonly asked: string[]; fail(): void } {
  const pending: ((error: Error) => void)[] = [];
  const carrier = {
    isThere: true,
    asked: [] as string[],
    isConfirming: true,
    isAlive: () => carrier.isThere,
    open: ({ port }: { port: number }, signal: AbortSignal) =>
      new Promise<net.Socket>((_resolve, reject) => {
        carrier.asked.push(String(port));
        pending.push(reject);
        signal.addEventListener('abort', () => reject(signal.reason));
      }),
    fail: () => pending.shift()?.(new Error('no')),
  };
  return carrier;
}

describe('createFront()', () => {
  const stage = createStage();
  afterEach(() => stage.end());

  it('hands a connection to the carrier, and counts what goes through', async () => {
    const { front, meter, port } = await stage.open();
    front.use(stage.carrierTo(await stage.serve(echo)));
    const client = stage.connect(port);
    client.socket.end('hello');
    expect(await client.over).to.equal('end');
    expect(client.text()).to.equal('hello');
    await eventually('closed', () => meter.read().open === 0);
    expect(meter.read()).to.deep.equal({ connections: 1, ...none, bytesIn: 5, bytesOut: 5 });
  });

  it('resets whoever comes when no descriptor is left for them, and counts them as turned away', async () => {
    let left = 1;
    const { front, meter, port } = await stage.open({ hasRoom: () => left-- > 0 });
    front.use(stage.carrierTo(await stage.serve(echo)));
    const first = stage.connect(port);
    await eventually('through', () => meter.read().open === 1);
    expect(await stage.connect(port).over).to.equal('reset');
    expect(meter.read()).to.include({ connections: 2, open: 1, queued: 0, refused: 1 });
    first.socket.end('hello');
    expect(await first.over).to.equal('end');
  });

  it('lets those who come without a carrier wait, and hands them on in the order in which they came', async () => {
    const { front, meter, port } = await stage.open();
    const clients: string[] = [];
    for (let number = 0; number < 20; number++) {
      const { socket } = stage.connect(port);
      await eventually('queued', () => meter.read().queued === number + 1);
      clients.push(String(socket.localPort));
    }
    const carrier = createSlowCarrier();
    front.use(carrier);
    expect(carrier.asked).to.deep.equal(clients);
  });

  it('keeps what a client says and how it ends while it waits', async () => {
    const { front, meter, port } = await stage.open();
    const bytes = noise(300_000, 1);
    const client = stage.connect(port);
    client.socket.end(bytes);
    await eventually('queued', () => meter.read().queued === 1);
    front.use(stage.carrierTo(await stage.serve(echo)));
    expect(await client.over).to.equal('end');
    expect(digestOf(Buffer.from(client.text(), 'latin1'))).to.equal(digestOf(bytes));
  });

  it('keeps the end of a client that has said nothing while it waits', async () => {
    const { front, meter, port } = await stage.open();
    const client = stage.connect(port);
    client.socket.end();
    await eventually(
      'it waits, and its end has come',
      () => meter.read().queued === 1 && client.socket.writableFinished,
    );
    // Whoever comes after it is accepted after that end has been read.
    stage.connect(port);
    await eventually('the next one waits', () => meter.read().queued === 2);
    const target = await stage.serve((socket) => socket.on('end', () => socket.end('you have ended')).resume());
    front.use(stage.carrierTo(target));
    expect(await client.over).to.equal('end');
    expect(client.text()).to.equal('you have ended');
  });

  it('resets whoever comes when too many wait', async () => {
    const { meter, port } = await stage.open({ queueLimit: 2 });
    stage.connect(port);
    stage.connect(port);
    await eventually('queued', () => meter.read().queued === 2);
    expect(await stage.connect(port).over).to.equal('reset');
    expect(meter.read()).to.include({ connections: 3, queued: 2, refused: 1 });
  });

  it('resets whoever has waited for too long, each at its own time', async () => {
    const fake = createFakeClock();
    const { meter, port } = await stage.open({ clock: fake, connectWaitMs: 1000 });
    const first = stage.connect(port);
    await eventually('queued', () => meter.read().queued === 1);
    await fake.advance(600);
    const second = stage.connect(port);
    await eventually('queued', () => meter.read().queued === 2);
    await fake.advance(399);
    expect(meter.read()).to.include({ queued: 2, refused: 0 });
    await fake.advance(1);
    expect(await first.over).to.equal('reset');
    expect(meter.read()).to.include({ queued: 1, refused: 1 });
    await fake.advance(600);
    expect(await second.over).to.equal('reset');
    expect(meter.read()).to.include({ ...none, refused: 2 });
    expect(fake.sleepers()).to.equal(0);
  });

  it('turns everybody away at once who may not wait', async () => {
    const { meter, port } = await stage.open({ connectWaitMs: 0 });
    expect(await stage.connect(port).over).to.equal('reset');
    expect(meter.read()).to.include({ queued: 0, refused: 1 });
  });

  it('counts a client that left while it waited as neither refused nor open', async () => {
    const { front, meter, port } = await stage.open();
    const left = stage.connect(port);
    await eventually('queued', () => meter.read().queued === 1);
    left.socket.resetAndDestroy();
    await eventually('left', () => meter.read().queued === 0);
    const carrier = createSlowCarrier();
    front.use(carrier);
    expect(carrier.asked).to.deep.equal([]);
    const opening = stage.connect(port);
    await eventually('asked', () => carrier.asked.length === 1);
    opening.socket.resetAndDestroy();
    await eventually('left', () => meter.read().queued === 0);
    expect(meter.read()).to.include({ connections: 2, ...none });
  });

  it('resets the client of a target that cannot be reached', async () => {
    const { front, meter, port } = await stage.open();
    front.use(stage.carrierTo(await freeLocalPort()));
    expect(await stage.connect(port).over).to.equal('reset');
    expect(meter.read()).to.include({ connections: 1, ...none, refused: 1 });
  });

  it('counts a carrier that throws at once as one that has failed', async () => {
    const { front, meter, port } = await stage.open();
    front.use({
      isConfirming: true,
      isAlive: () => true,
      open: () => {
        throw new Error('no');
      },
    });
    expect(await stage.connect(port).over).to.equal('reset');
    expect(meter.read()).to.include({ ...none, refused: 1 });
  });

  it('takes a connection back from a carrier that is gone before it was made, and gives it to the next one', async () => {
    const { front, meter, port } = await stage.open();
    const carrier = createSlowCarrier();
    front.use(carrier);
    const client = stage.connect(port);
    await eventually('asked', () => carrier.asked.length === 1);
    carrier.isThere = false;
    carrier.fail();
    // Also one that comes now does not go to a carrier that is known to be gone.
    const other = stage.connect(port);
    await eventually('waiting', () => meter.read().queued === 2);
    front.use(stage.carrierTo(await stage.serve(echo)));
    client.socket.end('one');
    other.socket.end('two');
    expect(await Promise.all([client.over, other.over])).to.deep.equal(['end', 'end']);
    expect(client.text() + other.text()).to.equal('onetwo');
    expect(carrier.asked).to.have.length(1);
  });

  it('gives a connection that a replaced carrier could not make to the new one at once', async () => {
    const { front, port } = await stage.open({ connectWaitMs: 0 });
    const carrier = createSlowCarrier();
    front.use(carrier);
    const client = stage.connect(port);
    await eventually('asked', () => carrier.asked.length === 1);
    front.use(stage.carrierTo(await stage.serve(echo)));
    carrier.fail();
    client.socket.end('x');
    expect(await client.over).to.equal('end');
  });

  it('lets one that came back wait for no longer than what it had left', async () => {
    const fake = createFakeClock();
    const { front, meter, port } = await stage.open({ clock: fake, connectWaitMs: 1000 });
    const carrier = createSlowCarrier();
    front.use(carrier);
    const client = stage.connect(port);
    await eventually('asked', () => carrier.asked.length === 1);
    await fake.advance(900);
    carrier.isThere = false;
    carrier.fail();
    await fake.advance(99);
    expect(meter.read()).to.include({ queued: 1, refused: 0 });
    await fake.advance(1);
    expect(await client.over).to.equal('reset');
    expect(meter.read()).to.include({ ...none, refused: 1 });
  });

  it('gives up on a carrier that never answers', async () => {
    const fake = createFakeClock();
    const { front, meter, port } = await stage.open({ clock: fake });
    const carrier = createSlowCarrier();
    front.use(carrier);
    const client = stage.connect(port);
    await eventually('asked', () => carrier.asked.length === 1);
    await fake.advance(150_000);
    expect(await client.over).to.equal('reset');
    expect(meter.read()).to.include({ ...none, refused: 1 });
  });

  it('drains: those that go through the former carrier end there, and are cut when that takes too long', async () => {
    const { front, meter, port } = await stage.open();
    const target = await stage.serve(echo);
    const [former, next] = [stage.carrierTo(target), stage.carrierTo(target)];
    front.use(former);
    const [brief, long] = [stage.connect(port), stage.connect(port)];
    await eventually('open', () => meter.read().open === 2);
    front.use(next);
    const kept = stage.connect(port);
    await eventually('open', () => meter.read().open === 3);
    expect(await front.drain(stage.carrierTo(target), 10_000)).to.equal(0);
    const drained = front.drain(former, 300);
    brief.socket.end('x');
    expect(await brief.over).to.equal('end');
    expect(await drained).to.equal(1);
    expect(await long.over).to.equal('reset');
    kept.socket.end('still');
    expect(await kept.over).to.equal('end');
    expect(kept.text()).to.equal('still');
  });

  it('drains at once, and cuts nobody, when the last one ends', async () => {
    const { front, meter, port } = await stage.open();
    const carrier = stage.carrierTo(await stage.serve(echo));
    front.use(carrier);
    const client = stage.connect(port);
    await eventually('open', () => meter.read().open === 1);
    front.use(null);
    const drained = front.drain(carrier, 1_000_000);
    client.socket.end();
    expect(await drained).to.equal(0);
  });

  it('has those that a former carrier is still opening in its drain, and takes them back at the end of it', async () => {
    const { front, meter, port } = await stage.open();
    const former = createSlowCarrier();
    front.use(former);
    const client = stage.connect(port);
    await eventually('asked', () => former.asked.length === 1);
    front.use(stage.carrierTo(await stage.serve(echo)));
    expect(meter.read()).to.include({ queued: 1, open: 0 });
    expect(await front.drain(former, 50)).to.equal(0);
    client.socket.end('x');
    expect(await client.over).to.equal('end');
    expect(meter.read().refused).to.equal(0);
  });

  it('cuts what goes through one carrier, and nothing else', async () => {
    const { front, meter, port } = await stage.open();
    const target = await stage.serve(echo);
    const former = stage.carrierTo(target);
    front.use(former);
    const cut = stage.connect(port);
    await eventually('open', () => meter.read().open === 1);
    front.use(stage.carrierTo(target));
    const kept = stage.connect(port);
    await eventually('open', () => meter.read().open === 2);
    front.cut(former);
    expect(await cut.over).to.equal('reset');
    await eventually('closed', () => meter.read().open === 1);
    kept.socket.end();
    expect(await kept.over).to.equal('end');
  });

  it('resets all that is there when it closes, and can be closed twice', async () => {
    const { front, meter, port } = await stage.open();
    const carrier = stage.carrierTo(await stage.serve(echo));
    front.use(carrier);
    const through = stage.connect(port);
    await eventually('open', () => meter.read().open === 1);
    front.use(createSlowCarrier());
    const opening = stage.connect(port);
    await eventually('opening', () => meter.read().queued === 1);
    front.use(null);
    const waits = stage.connect(port);
    await eventually('waiting', () => meter.read().queued === 2);
    await Promise.all([front.close(), front.close()]);
    expect(await Promise.all([through, opening, waits].map(({ over }) => over))).to.deep.equal(Array(3).fill('reset'));
    expect(meter.read()).to.include({ connections: 3, ...none, refused: 2 });
    expect(await stage.connect(port).over).to.equal('ECONNREFUSED');
    front.use(carrier);
    await front.close();
  });

  it('listens on every address or on none', async () => {
    const [port, taken] = [await freeLocalPort(), await stage.serve(echo)];
    const binds = [port, taken].map((each) => ({ side: 'local', host: '127.0.0.1', port: each }) as const);
    const front = createFront({ binds, meter: createMeter(), clock, connectWaitMs: 0 });
    await rejects(front.listen(), { code: 'EADDRINUSE' });
    expect(await stage.connect(port).over).to.equal('ECONNREFUSED');
    const absent = { side: 'local', host: '192.0.2.1', port } as const;
    const other = createFront({ binds: [absent], meter: createMeter(), clock, connectWaitMs: 0 });
    await rejects(other.listen(), { code: 'EADDRNOTAVAIL' });
  });

  it('carries 1,000 connections at once', async () => {
    const { front, meter, port } = await stage.open();
    const clients = Array.from({ length: 1000 }, () => stage.connect(port));
    await eventually('waiting', () => meter.read().queued === 1000);
    front.use(stage.carrierTo(await stage.serve(echo)));
    for (const [index, { socket }] of clients.entries()) socket.end(`number ${index}`);
    expect(new Set(await Promise.all(clients.map(({ over }) => over)))).to.deep.equal(new Set(['end']));
    expect(clients.map(({ text }) => text())).to.deep.equal(clients.map((_, index) => `number ${index}`));
    await eventually('closed', () => meter.read().open === 0);
    expect(meter.read()).to.include({ connections: 1000, ...none });
  });

  it('replaces carriers under load, without a byte lost or reordered', async () => {
    const { front, meter, port } = await stage.open();
    const target = await stage.serve(echo);
    let carrier = stage.carrierTo(target);
    front.use(carrier);
    const drains: Promise<number>[] = [];
    const transfer = async (seed: number) => {
      const bytes = noise(200_000, seed);
      const client = stage.connect(port);
      client.socket.end(bytes);
      expect(await client.over).to.equal('end');
      expect(digestOf(Buffer.from(client.text(), 'latin1'))).to.equal(digestOf(bytes));
    };
    let isOver = false;
    const replace = async () => {
      while (!isOver) {
        await clock.sleep(2);
        const former = carrier;
        carrier = stage.carrierTo(target);
        front.use(drains.length % 3 === 0 ? null : carrier);
        front.use(carrier);
        drains.push(front.drain(former, 20_000));
      }
    };
    const worker = async (number: number) => {
      for (let round = 0; round < 8; round++) await transfer(number * 100 + round);
    };
    const replacing = replace();
    await Promise.all(Array.from({ length: 20 }, (_, number) => worker(number)));
    isOver = true;
    await replacing;
    expect(new Set(await Promise.all(drains))).to.deep.equal(new Set([0]));
    expect(drains.length).to.be.greaterThan(5);
    await eventually('closed', () => meter.read().open === 0);
    expect(meter.read()).to.include({ connections: 160, ...none });
  });

  it('is at nought when all is over, whatever happens in which order', async function () {
    this.timeout(60_000);
    const target = await stage.serve(echo);
    const step = fc.constantFrom('come', 'come', 'come', 'end', 'reset', 'use', 'null', 'die', 'slow', 'fail', 'cut');
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 30 }), async (steps) => {
        const { front, meter, port } = await stage.open({ queueLimit: 3 });
        let carrier = stage.carrierTo(target);
        const slow = createSlowCarrier();
        const clients: ReturnType<typeof stage.connect>[] = [];
        for (const each of steps) {
          if (each === 'come') {
            const before = meter.read().connections;
            clients.push(stage.connect(port));
            await eventually('accepted', () => meter.read().connections > before);
          }
          if (each === 'end') clients.shift()?.socket.end('x');
          if (each === 'reset') clients.shift()?.socket.resetAndDestroy();
          if (each === 'use') front.use(carrier);
          if (each === 'null') front.use(null);
          if (each === 'die') {
            carrier.isThere = false;
            front.cut(carrier);
            carrier = stage.carrierTo(target);
          }
          if (each === 'slow') front.use(slow);
          if (each === 'fail') slow.fail();
          if (each === 'cut') front.cut(slow);
          const { connections, open, queued, refused } = meter.read();
          expect(Math.min(open, queued, refused)).to.be.at.least(0);
          expect(open + queued + refused).to.be.at.most(connections);
        }
        await front.close();
        expect(meter.read()).to.include({ open: 0, queued: 0 });
        for (const { socket } of clients) socket.destroy();
      }),
      { numRuns: 40 },
    );
  });
});
