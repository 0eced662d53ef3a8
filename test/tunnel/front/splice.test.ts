import { mkdtempSync, rmSync } from 'node:fs';
import type net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import { expect } from 'chai';
import { systemClock as clock } from '#lib/time.js';
import type { Carrier } from '#lib/tunnel/front/carrier.js';
import { createSocketCarrier } from '#lib/tunnel/front/unix.js';
import { createFakeClock } from '../../support/fakeclock.js';
import { createStage, digestOf, eventually, noise, standsStill } from './scene.js';

const MB = 1_000_000;

/** What the kernel holds for two sockets on either side, and a piece or two of ours: far below what is sent. */
const HELD = 40 * MB;

describe('splice()', () => {
  const stage = createStage();
  let dir: string;
  let number = 0;

  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-front-'));
  });
  afterEach(() => stage.end());
  after(() => rmSync(dir, { recursive: true }));

  /** The two kinds of carriers, to a target that does this. */
  const kinds: readonly [
    string,
    (serve: (socket: net.Socket) => void) => Promise<{ carrier: Carrier; die(): void }>,
  ][] = [
    [
      'a stream',
      async (serve) => {
        const carrier = stage.carrierTo(await stage.serve(serve));
        const die = () => {
          carrier.isThere = false;
        };
        return { carrier, die };
      },
    ],
    [
      'a unix socket',
      async (serve) => {
        const path = join(dir, `${number++}.sock`);
        await stage.serve(serve, { path });
        let isThere = true;
        const die = () => {
          isThere = false;
        };
        return { carrier: createSocketCarrier({ path, isAlive: () => isThere, clock }), die };
      },
    ],
  ];

  for (const [kind, start] of kinds) {
    describe(`over ${kind}`, () => {
      /** A client that goes through, and the socket that it has met. */
      async function meet() {
        let met: net.Socket | undefined;
        const { carrier, die } = await start((socket) => {
          met = socket;
        });
        const { front, meter, port } = await stage.open();
        front.use(carrier);
        const client = stage.connect(port);
        await eventually('met', () => met !== undefined && meter.read().open === 1);
        if (!met) throw new Error('nobody was met');
        return { front, meter, client, target: met, die };
      }

      it('lets the target end first, and the client go on', async () => {
        const { client, target, meter } = await meet();
        let heard = '';
        target.on('data', (chunk) => {
          heard += chunk;
        });
        target.end('bye');
        expect(await client.over).to.equal('end');
        expect(client.text()).to.equal('bye');
        client.socket.end('but listen');
        await eventually('heard', () => heard === 'but listen' && target.readableEnded);
        await eventually('closed', () => meter.read().open === 0);
      });

      it('lets the client end first, and the target go on', async () => {
        const { client, target, meter } = await meet();
        client.socket.end();
        target.resume();
        await eventually('ended', () => target.readableEnded);
        target.write('late ');
        await eventually('late', () => client.text() === 'late ');
        target.end('answer');
        expect(await client.over).to.equal('end');
        expect(client.text()).to.equal('late answer');
        await eventually('closed', () => meter.read().open === 0);
      });

      it('closes the target when the client resets', async () => {
        const { client, target, meter } = await meet();
        target.resume();
        client.socket.resetAndDestroy();
        await eventually('gone', () => target.readableEnded || target.destroyed);
        await eventually('closed', () => meter.read().open === 0);
      });

      it('hands over what came before the link broke, and resets the client then', async () => {
        const { client, target, meter, die } = await meet();
        const bytes = noise(100_000, 3);
        die();
        target.end(bytes);
        expect(await client.over).to.equal('reset');
        expect(digestOf(Buffer.from(client.text(), 'latin1'))).to.equal(digestOf(bytes));
        await eventually('closed', () => meter.read().open === 0);
      });

      it('tells a client in no time that it is cut off, when it has been given nothing', async () => {
        const { carrier } = await start(() => undefined);
        const { front, meter, port } = await stage.open({ clock: createFakeClock() });
        front.use(carrier);
        const client = stage.connect(port);
        client.socket.write('a question');
        await eventually('open', () => meter.read().open === 1);
        front.cut(carrier);
        expect(await client.over).to.equal('reset');
        await eventually('closed', () => meter.read().open === 0);
      });

      it('tells a client that goes on sending that the target has answered and gone', async () => {
        const { client, target, meter } = await meet();
        const bytes = noise(3 * MB, 4);
        target.end(bytes, () => target.destroy());
        expect(await client.over).to.equal('end');
        expect(digestOf(Buffer.from(client.text(), 'latin1'))).to.equal(digestOf(bytes));
        await eventually('told', () => {
          client.socket.write('more');
          return client.socket.destroyed;
        });
        await eventually('closed', () => meter.read().open === 0);
      });

      it('holds a bounded part of what a client does not read, and loses nothing of it', async () => {
        const { client, target, meter } = await meet();
        client.socket.pause();
        const bytes = noise(64 * MB, 5);
        target.end(bytes);
        await standsStill(() => meter.read().bytesIn);
        expect(meter.read().bytesIn).to.be.below(HELD);
        client.socket.resume();
        expect(await client.over).to.equal('end');
        expect(meter.read().bytesIn).to.equal(bytes.length);
        expect(digestOf(Buffer.from(client.text(), 'latin1'))).to.equal(digestOf(bytes));
      });

      it('holds a bounded part of what a target does not read, and loses nothing of it', async () => {
        const { client, target, meter } = await meet();
        target.pause();
        const bytes = noise(64 * MB, 6);
        client.socket.end(bytes);
        await standsStill(() => meter.read().bytesOut);
        expect(meter.read().bytesOut).to.be.below(HELD);
        const chunks: Buffer[] = [];
        target.on('data', (chunk: Buffer) => chunks.push(chunk)).resume();
        await eventually('all came', () => target.readableEnded);
        expect(digestOf(Buffer.concat(chunks))).to.equal(digestOf(bytes));
        target.end();
        await eventually('closed', () => meter.read().open === 0);
      });

      it('hands over what came before the front closes, and resets the client then', async () => {
        const { front, client, target, meter } = await meet();
        const bytes = noise(100_000, 8);
        client.socket.pause();
        target.write(bytes);
        await eventually('all is under way', () => meter.read().bytesIn === bytes.length);
        const closed = front.close();
        client.socket.resume();
        expect(await client.over).to.equal('reset');
        expect(digestOf(Buffer.from(client.text(), 'latin1'))).to.equal(digestOf(bytes));
        await closed;
        expect(meter.read().open).to.equal(0);
      });

      it('is over when the front closes, though the client does not read', async () => {
        const { front, client, target, meter } = await meet();
        client.socket.pause();
        target.end(noise(64 * MB, 7));
        await eventually('it begins', () => meter.read().bytesIn > 0);
        await front.close();
        expect(meter.read().open).to.equal(0);
        // Node takes a reset that it meets behind unread data for an end.
        client.socket.resume();
        expect(await client.over).to.be.oneOf(['reset', 'end']);
        expect(client.text().length).to.be.below(HELD);
      });
    });
  }

  /** A client on a stream that the test has in its hands. */
  async function hold() {
    const stream = new Duplex({
      read: () => undefined,
      write: (_chunk, _encoding, done) => done(),
      allowHalfOpen: true,
    });
    const { front, meter, port } = await stage.open();
    front.use({ isConfirming: true, isAlive: () => true, open: async () => stream });
    const client = stage.connect(port);
    await eventually('open', () => meter.read().open === 1);
    return { stream, client, meter };
  }

  for (const [what, destroy] of [
    ['is destroyed', (stream: Duplex) => stream.destroy()],
    ['fails', (stream: Duplex) => stream.destroy(new Error('no'))],
    ['emits an error and nothing else', (stream: Duplex) => stream.emit('error', new Error('no'))],
  ] as const) {
    it(`resets the client of a stream that ${what} without an end`, async () => {
      const { stream, client, meter } = await hold();
      stream.push('some');
      await eventually('some', () => client.text() === 'some');
      destroy(stream);
      expect(await client.over).to.equal('reset');
      await eventually('closed', () => meter.read().open === 0);
    });
  }

  it('resets the client of a stream that is closed before it is given', async () => {
    const stream = new Duplex({ read: () => undefined });
    stream.destroy();
    await eventually('closed', () => stream.closed);
    const { front, meter, port } = await stage.open();
    front.use({ isConfirming: true, isAlive: () => true, open: async () => stream });
    expect(await stage.connect(port).over).to.equal('reset');
    await eventually('closed', () => meter.read().open === 0);
    expect(meter.read()).to.include({ connections: 1, queued: 0 });
  });
});
