import { createHash } from 'node:crypto';
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { Worker } from 'node:worker_threads';
import { expect } from 'chai';
import { makeKeys } from '#lib/sshd/keys.js';
import { until } from '#lib/time.js';
import { loadSsh2 } from '#lib/tunnel/embedded/ssh2.js';
import { createStand, localSpec } from '../../support/embedded.js';
import { startServer } from '../../support/servers.js';
import { startSshd } from '../../support/sshd.js';
import { digestOf, noise } from '../front/scene.js';

/** What of ssh2's server is bent here. */
interface Bent {
  readonly _protocol: { channelWindowAdjust(id: number, bytes: number): void; rekey(): void };
  readonly _sock: net.Socket;
}

describe('the engine embedded, and a server that begins a new exchange of keys and does not go on with it', () => {
  const ssh2 = loadSsh2();
  const undo: (() => unknown)[] = [];
  afterEach(async () => {
    for (const act of undo.splice(0).toReversed()) await act();
  });

  /** Takes all that is sent, and answers nothing of it, once a channel is open. */
  async function startMute(): Promise<number> {
    const { private: key } = makeKeys(ssh2, 'test');
    const server = new ssh2.Server({ hostKeys: [key] }, (client) => {
      const { _protocol, _sock } = client as unknown as Bent;
      client.on('error', () => undefined).on('authentication', (login) => login.accept());
      client.on('tcpip', (accept) => {
        const channel = accept().on('error', () => undefined);
        channel.resume();
        _protocol.channelWindowAdjust((channel as unknown as { outgoing: { id: number } }).outgoing.id, 0x7fff0000);
        _protocol.rekey();
        // Whatever the client has to say to that is read by nobody, and answered by nobody.
        setImmediate(() => {
          _sock.removeAllListeners('data');
          _sock.on('data', () => undefined);
        });
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    undo.push(() => new Promise<void>((resolve) => server.close(() => resolve())));
    return (server.address() as AddressInfo).port;
  }

  // ssh2 puts what is sent meanwhile in Protocol._queue, of which nobody is told that it is full.
  it('has its clients wait, and keeps no more than there is room for', async () => {
    const worker = new Worker(new URL('./hostile-worker.js', import.meta.url), {
      workerData: { port: await startMute() },
    });
    undo.push(() => worker.terminate());
    const [{ listen }] = (await once(worker, 'message')) as [{ listen: number }];
    const client = net.connect(listen, '127.0.0.1').on('error', () => undefined);
    undo.push(() => client.destroy());
    let most = 0;
    worker.on('message', ({ mb }: { mb: number }) => {
      most = Math.max(most, mb);
    });
    const chunk = Buffer.alloc(64 * 1024, 120);
    const pump = () => {
      while (!client.destroyed && client.bytesWritten < 300e6 && client.write(chunk));
    };
    client.on('drain', pump);
    pump();
    await until(
      () => {
        worker.postMessage('how are you?');
        return most > 100 || client.destroyed;
      },
      { timeoutMs: 5000, everyMs: 50 },
    );
    expect(most, 'MB that are kept').to.be.below(50);
  });

  // To the keepalive any byte is a sign of life: this one is left by a deadline of the exchange.
  it('is left when the time for a connection is over', async () => {
    const port = await startMute();
    const stand = createStand();
    undo.push(() => stand[Symbol.asyncDispose]());
    const sshOptions = {
      ...{ Port: String(port), User: 'u', StrictHostKeyChecking: 'no', ConnectTimeout: '1' },
      ...{ UserKnownHostsFile: 'none', GlobalKnownHostsFile: 'none' },
    };
    const spec = await localSpec({ host: '127.0.0.1', sshConfigFile: 'none' }, 9, { share: false, sshOptions });
    const link = await stand.start(spec);
    expect(await link.settled(), link.lines.join()).to.equal('ready');
    const client = net.connect(spec.forward.listen.port, '127.0.0.1').on('error', () => undefined);
    undo.push(() => client.destroy());
    const exit = await until(async () => ((await link.check()) === 'ready' ? undefined : link.exited), {
      timeoutMs: 10_000,
    });
    expect(exit).to.include({
      reason: 'timeout',
      lastError: `127.0.0.1 port ${port}: a new key exchange timed out after 1000 ms`,
    });
  });

  it('goes on with what has waited when an exchange is over', async () => {
    await using sshd = await startSshd({ extra: ['RekeyLimit 1M'] });
    const digests: string[] = [];
    await using sink = await startServer((socket) => {
      const hash = createHash('sha256');
      socket.on('data', (chunk) => hash.update(chunk)).on('end', () => digests.push(hash.digest('hex')));
    });
    await using stand = createStand();
    const spec = await localSpec(sshd, sink.port);
    const link = await stand.start(spec);
    expect(await link.settled(), link.lines.join()).to.equal('ready');
    const sent = [1, 2, 3].map((seed) => noise(8_000_000, seed));
    const clients = sent.map((bytes) =>
      net
        .connect(spec.forward.listen.port, '127.0.0.1')
        .on('error', () => undefined)
        .end(bytes),
    );
    await until(() => digests.length === 3, { timeoutMs: 20_000 });
    expect(digests).to.have.members(sent.map(digestOf));
    expect(await link.check()).to.equal('ready');
    for (const client of clients) client.destroy();
  });
});
