import { randomBytes } from 'node:crypto';
import net from 'node:net';
import { expect } from 'chai';
import { createStand, localSpec } from '../../support/embedded.js';
import { startServer } from '../../support/servers.js';
import { startSshd } from '../../support/sshd.js';

/** Half of a MAC (RFC 8439, section 2.8: 16 bytes). */
const HELD_BACK = 8;

describe('the engine embedded, and packets of which the end comes later', () => {
  // With chacha20-poly1305 ssh2 waits for the end of a MAC with a view of the packet, which the next read must not overwrite.
  for (const cipher of ['chacha20-poly1305@openssh.com', 'aes128-gcm@openssh.com', 'aes256-ctr']) {
    it(`has every byte right by ${cipher}`, async () => {
      await using sshd = await startSshd();
      await using echo = await startServer((socket) => {
        socket.pipe(socket);
      });
      let pieces = 0;
      await using line = await startServer((client) => {
        const server = net.connect(sshd.port, '127.0.0.1').on('error', () => client.destroy());
        client.setNoDelay(true).once('close', () => server.destroy());
        client.pipe(server);
        server.on('data', (chunk: Buffer) => {
          server.pause();
          pieces++;
          client.write(chunk.subarray(0, -HELD_BACK));
          // The first part has been read by then: the client is in this process.
          setImmediate(() =>
            setImmediate(() => {
              client.write(chunk.subarray(-HELD_BACK));
              setImmediate(() => setImmediate(() => server.resume()));
            }),
          );
        });
        server.once('close', () => client.destroy());
      });
      await using stand = createStand();
      const sshOptions = {
        ...{ Port: String(line.port), Ciphers: cipher, StrictHostKeyChecking: 'no' },
        ...{ UserKnownHostsFile: 'none', GlobalKnownHostsFile: 'none' },
      };
      const spec = await localSpec(sshd, echo.port, { share: false, sshOptions });
      const link = await stand.start(spec);
      expect(await link.settled(), link.lines.join()).to.equal('ready');
      const client = net.connect(spec.forward.listen.port, '127.0.0.1').on('error', () => undefined);
      const answers = client[Symbol.asyncIterator]();
      for (let time = 0; time < 30; time++) {
        const sent = randomBytes(1 + time * 100);
        client.write(sent);
        let back = Buffer.alloc(0);
        while (back.length < sent.length) {
          const { done, value } = await answers.next();
          if (done) throw new Error(`cut after ${time} answers: ${link.lastLine()}`);
          back = Buffer.concat([back, value]);
        }
        expect(back.equals(sent), `answer ${time}`).to.equal(true);
      }
      client.destroy();
      expect(pieces).to.be.greaterThan(30);
    });
  }
});
