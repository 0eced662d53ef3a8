import { randomBytes } from 'node:crypto';
import net from 'node:net';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { type AskingServer, byKey, startAsking } from '../../support/asking.js';
import { createStand, get, type Known, localSpec, remoteSpec } from '../../support/embedded.js';
import { freeLocalPort } from '../../support/port.js';
import { startServer, startService } from '../../support/servers.js';
import { startSshd } from '../../support/sshd.js';

/** Both kinds of server, since they do not see all things alike. */
const servers: readonly { readonly name: string; readonly start: () => Promise<Known & AsyncDisposable> }[] = [
  { name: 'sshd', start: () => startSshd() },
  { name: "ssh2's server", start: (): Promise<AskingServer> => startAsking({ factors: [byKey] }) },
];

for (const { name, start } of servers) {
  describe(`the embedded engine on ${name}`, () => {
    it('brings a service of the far side here, and lets go of the port at the end', async () => {
      await using server = await start();
      await using service = await startService();
      await using stand = createStand();
      const spec = await localSpec(server, service.port);
      const link = await stand.start(spec);
      expect(await link.settled(), link.lines.join()).to.equal('ready');
      expect(await get(spec.forward.listen.port)).to.equal('served');
      expect(await get(spec.forward.listen.port)).to.equal('served');
      const report = await link.stop();
      expect(report).to.include({ killed: report.killed }).and.to.have.property('tookMs').below(2000);
      expect(await link.exited).to.include({ reason: 'killed' });
      expect(await link.check()).to.equal('waiting');
      expect(await refuses(spec.forward.listen.port)).to.equal(true);
    });

    it('says in the moment in which it is ready that it is, and nothing when it does not come to that', async () => {
      await using server = await start();
      await using stand = createStand();
      for (const spec of [await localSpec(server, 9), await remoteSpec(server, 9)]) {
        const link = await stand.start(spec);
        let told = 0;
        void link.ready?.then(() => {
          told++;
        });
        expect(await link.check(), spec.forward.side).to.equal('waiting');
        expect(await until(() => told, { timeoutMs: 20_000 }), spec.forward.side).to.equal(1);
        expect(await link.check(), spec.forward.side).to.equal('ready');
      }
      const stopped = await stand.start(await localSpec(server, 9));
      let toldOfStopped = false;
      void stopped.ready?.then(() => {
        toldOfStopped = true;
      });
      await stopped.stop();
      await stopped.exited;
      expect(toldOfStopped).to.equal(false);
    });

    it('offers a service of this side there, and takes the port away at the end', async () => {
      await using server = await start();
      await using service = await startService();
      await using stand = createStand();
      const spec = await remoteSpec(server, service.port);
      const link = await stand.start(spec);
      expect(await link.settled(), link.lines.join()).to.equal('ready');
      expect(await get(spec.forward.listen.port)).to.equal('served');
      await link.stop();
      expect(await until(() => refuses(spec.forward.listen.port), { timeoutMs: 10_000 })).to.equal(true);
    });

    it('has the server choose the port', async () => {
      await using server = await start();
      await using service = await startService();
      await using stand = createStand();
      const link = await stand.start(await remoteSpec(server, service.port, { listenPort: 0 }));
      expect(await link.settled(), link.lines.join()).to.equal('ready');
      const port = link.allocatedPort() ?? 0;
      expect(port).to.be.greaterThan(0);
      expect(await get(port)).to.equal('served');
    });

    it('says so when the port is taken there', async () => {
      await using server = await start();
      await using stand = createStand();
      await using taken = await startServer((socket) => socket.end());
      const link = await stand.start(await remoteSpec(server, 9, { listenPort: taken.port }));
      expect(await link.settled()).to.include({
        reason: 'remote_port_busy',
        lastError: `remote port forwarding failed for listen port ${taken.port}`,
      });
    });

    it('counts the connections that the target refuses, both ways, and stays up', async () => {
      await using server = await start();
      await using stand = createStand();
      const nobody = await freeLocalPort();
      for (const spec of [await localSpec(server, nobody), await remoteSpec(server, nobody)]) {
        const link = await stand.start(spec);
        expect(await link.settled(), link.lines.join()).to.equal('ready');
        const failed = await get(spec.forward.listen.port).catch((error: Error) => error);
        expect(failed).to.be.instanceOf(Error);
        expect(await until(() => link.refusals().count, { timeoutMs: 5000 })).to.equal(1);
        expect(link.refusals().last).to.match(/^channel 1: open failed: connect failed: /);
        expect(await link.check()).to.equal('ready');
      }
    });

    it('preserves a half-close, and every byte both ways', async () => {
      await using server = await start();
      await using stand = createStand();
      // Answers with the length of what came, when all has come.
      await using counter = await startServer((socket) => {
        let count = 0;
        socket.on('data', (chunk) => {
          count += chunk.length;
        });
        socket.once('end', () => socket.end(`${count}`));
      });
      // ssh2's server ends a channel in both directions with the one that it writes to.
      const far = name === 'sshd' ? [await remoteSpec(server, counter.port)] : [];
      for (const spec of [await localSpec(server, counter.port), ...far]) {
        const link = await stand.start(spec);
        expect(await link.settled(), link.lines.join()).to.equal('ready');
        expect(await exchange(spec.forward.listen.port, Buffer.alloc(5_000_000, 'x')), spec.forward.side).to.equal(
          '5000000',
        );
      }
    });

    // What is read from the server's socket is read into one buffer again and again, or not, as the cipher allows it.
    for (const cipher of ['aes128-gcm@openssh.com', 'aes256-ctr', 'chacha20-poly1305@openssh.com']) {
      it(`changes no byte and no order, of many connections at once, by ${cipher}`, async () => {
        await using server = await start();
        await using stand = createStand();
        await using echo = await startServer((socket) => {
          socket.pipe(socket);
        });
        const spec = await localSpec(server, echo.port, { sshOptions: { Ciphers: cipher } });
        const link = await stand.start(spec);
        expect(await link.settled(), link.lines.join()).to.equal('ready');
        const sent = Array.from({ length: 4 }, () => randomBytes(4_000_000));
        const returned = await Promise.all(sent.map((bytes) => readSlowly(spec.forward.listen.port, bytes)));
        expect(returned.map((bytes, at) => bytes.equals(sent[at] ?? Buffer.alloc(0)))).to.deep.equal(
          sent.map(() => true),
        );
      });
    }
  });
}

/** Sends it all, and reads up to the end with a rest after each piece, so that what comes has to wait. */
function readSlowly(port: number, bytes: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    const pieces: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => {
      pieces.push(chunk);
      socket.pause();
      setImmediate(() => setImmediate(() => socket.resume()));
    });
    socket.once('error', reject).once('end', () => resolve(Buffer.concat(pieces)));
    socket.write(bytes, () => {
      // ssh2's server ends a channel in both directions with the one that it writes to: not before all is back.
      void until(() => pieces.reduce((sum, { length }) => sum + length, 0) === bytes.length, {
        timeoutMs: 20_000,
      }).then(() => socket.end());
    });
  });
}

function refuses(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(false)).once('error', () => resolve(true));
    socket.once('connect', () => socket.destroy());
  });
}

/** Sends it all, says that this was all, and reads up to the end. */
function exchange(port: number, bytes: Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    let text = '';
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    socket.once('error', reject).once('end', () => resolve(text));
    socket.end(bytes);
  });
}
