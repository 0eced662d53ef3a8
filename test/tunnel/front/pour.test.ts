import { createHash } from 'node:crypto';
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { Duplex } from 'node:stream';
import { expect } from 'chai';
import { adopt, createLargeBuffers, makePourable, type Pourable } from '#lib/tunnel/front/pour.js';
import { digestOf, eventually, noise } from './scene.js';

type Poured = net.Socket & Pourable;

describe('adopt()', () => {
  const sockets: net.Socket[] = [];
  const large = createLargeBuffers();
  let server: net.Server;
  let accepted: net.Socket;
  let adopted: Poured;
  let client: net.Socket;

  /** A client whose socket at the server is adopted in the turn in which it comes. */
  beforeEach(async () => {
    server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true, highWaterMark: 1 }, (socket) => {
      accepted = socket;
      adopted = adopt(large, socket);
      sockets.push(adopted);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const came = once(server, 'connection');
    client = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    sockets.push(client);
    await Promise.all([came, once(client, 'connect')]);
  });
  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });

  it('takes the place of the socket that was accepted, for which its server waits no longer', async () => {
    expect(adopted).to.not.equal(accepted);
    expect(accepted.destroyed).to.equal(true);
    expect(adopted.remotePort).to.equal(client.localPort);
    expect(adopted).to.include({ allowHalfOpen: true, writableHighWaterMark: 1 });
    await new Promise((resolve) => server.close(resolve));
    adopted.write('still here');
    expect(String((await once(client, 'data'))[0])).to.equal('still here');
  });

  it('gives what had come before it was poured, and then the rest, each byte once', async () => {
    const bytes = noise(3_000_000, 1);
    adopted.read(0);
    client.write(bytes.subarray(0, 1000));
    await eventually('it is kept', () => adopted.readableLength === 1000);
    const pieces: Buffer[] = [];
    let isOver = false;
    adopted.pour((some) => {
      pieces.push(...some.map((piece) => Buffer.from(piece)));
      return true;
    });
    adopted.on('end', () => {
      isOver = true;
    });
    adopted.resume();
    client.end(bytes.subarray(1000));
    await eventually('all came', () => isOver);
    expect(digestOf(Buffer.concat(pieces))).to.equal(digestOf(bytes));
  });

  it('leaves the pieces as they are, and brings no more, until it is resumed', async () => {
    const bytes = noise(3_000_000, 2);
    const kept: Uint8Array[] = [];
    const pieces: Buffer[] = [];
    adopted.pour((some) => {
      kept.push(...some);
      return false;
    });
    adopted.resume();
    client.end(bytes);
    for (let had = 0; had < bytes.length; ) {
      await eventually('a piece came', () => kept.length > 0);
      await new Promise((resolve) => setImmediate(resolve));
      expect(kept).to.have.length(1);
      pieces.push(...kept.splice(0).map((piece) => Buffer.from(piece)));
      had = pieces.reduce((sum, piece) => sum + piece.length, 0);
      adopted.resume();
    }
    expect(digestOf(Buffer.concat(pieces))).to.equal(digestOf(bytes));
  });

  it('reads more at once when there is more, and little again after little', async () => {
    const rooms: number[] = [];
    let had = 0;
    adopted.pour(([piece]) => {
      if (piece) {
        rooms.push(piece.buffer.byteLength);
        had += piece.length;
      }
      return true;
    });
    adopted.resume();
    client.write(Buffer.alloc(20_000_000));
    await eventually('much came', () => had === 20_000_000);
    client.write('x');
    await eventually('little came', () => had === 20_000_001);
    client.write('y');
    await eventually('little came again', () => had === 20_000_002);
    expect(rooms[0]).to.equal(4096);
    expect(Math.max(...rooms)).to.equal(262_144);
    expect(rooms.at(-1)).to.equal(4096);
  });

  it('gives nobody the buffer in which another one has something that is not done with', async () => {
    const [one, other] = [noise(3_000_000, 4), noise(3_000_000, 5)];
    /** Of the first: a piece of which a large buffer is not full. */
    const left: Uint8Array[] = [];
    let had = 0;
    const first = adopted;
    first.pour(([piece = new Uint8Array()]) => {
      had += piece.length;
      const isLeft = piece.buffer.byteLength > 65_536 && piece.length < piece.buffer.byteLength;
      if (isLeft) left.push(piece);
      return !isLeft;
    });
    first.resume();
    for (let sent = 0; left.length === 0 && sent < one.length; sent = had) {
      const next = one.subarray(sent, sent + 200_000);
      client.write(next);
      await eventually('it came', () => left.length > 0 || had === sent + next.length);
    }
    const kept = Buffer.from(left[0] ?? []);
    expect(kept.length).to.be.above(0);
    const came = once(server, 'connection');
    const { port } = server.address() as AddressInfo;
    const second = net.connect({ port, host: '127.0.0.1' });
    sockets.push(second);
    await came;
    const hash = createHash('sha256');
    let count = 0;
    adopted.pour(([piece = new Uint8Array()]) => {
      hash.update(piece);
      count += piece.length;
      return true;
    });
    adopted.resume();
    second.write(other);
    await eventually('all of the other came', () => count === other.length);
    expect(hash.digest('hex')).to.equal(digestOf(other));
    expect(Buffer.compare(kept, left[0] ?? Buffer.of())).to.equal(0);
  });

  it('does not hold what much has needed, once there is less', async () => {
    const rooms: number[] = [];
    let had = 0;
    let isFirst = false;
    adopted.pour(([piece]) => {
      if (piece) {
        if (isFirst) rooms.push(piece.buffer.byteLength);
        isFirst = false;
        had += piece.length;
      }
      return true;
    });
    adopted.resume();
    client.write(Buffer.alloc(20_000_000));
    await eventually('much came', () => had === 20_000_000);
    for (let sent = had; sent < 20_150_000; ) {
      isFirst = true;
      sent += 50_000;
      client.write(Buffer.alloc(50_000));
      await eventually('less came', () => had === sent);
    }
    // The first of them may still have had all the room, when the last of much was just as large.
    expect(rooms).to.have.length(3);
    expect(Math.max(...rooms.slice(1))).to.be.at.most(65_536);
  });

  it('can be reset', async () => {
    const over = once(client, 'error');
    adopted.resetAndDestroy();
    expect((await over)[0]).to.have.property('code', 'ECONNRESET');
  });
});

describe('adopt(), of a socket whose handle it cannot have', () => {
  it("is that socket, and pours what its 'data' brings", async () => {
    const stream = new Duplex({ read: () => undefined, write: (_piece, _encoding, done) => done() });
    const socket = stream as net.Socket;
    const adopted = adopt(createLargeBuffers(), socket);
    expect(adopted).to.equal(socket);
    const heard: string[] = [];
    adopted.pour(([piece = new Uint8Array()]) => {
      heard.push(String(Buffer.from(piece)));
      return heard.length !== 1;
    });
    stream.push('one');
    await eventually('one', () => heard.length === 1);
    expect(stream.isPaused()).to.equal(true);
    stream.push('two');
    await new Promise((resolve) => setImmediate(resolve));
    expect(heard).to.deep.equal(['one']);
    stream.resume();
    await eventually('two', () => heard.length === 2);
    expect(heard).to.deep.equal(['one', 'two']);
  });
});

describe('makePourable()', () => {
  it('makes a socket like any other, as long as it is not poured', async () => {
    const server = net.createServer((socket) => socket.end('hello'));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const socket = makePourable(createLargeBuffers(), (onread) => net.connect({ port, host: '127.0.0.1', onread }));
    let heard = '';
    for await (const piece of socket) heard += String(piece);
    expect(heard).to.equal('hello');
    await new Promise((resolve) => server.close(resolve));
  });
});
