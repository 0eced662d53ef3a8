import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { Worker } from 'node:worker_threads';
import { expect } from 'chai';
import { makeKeys } from '#lib/sshd/keys.js';
import { until } from '#lib/time.js';
import { loadSsh2 } from '#lib/tunnel/embedded/ssh2.js';

/** What of ssh2's server is bent here. */
interface Bent {
  readonly _protocol: {
    channelOpenConfirm(remote: number, local: number, window: number, packetSize: number): void;
    channelData(id: number, data: Buffer): void;
    channelExtData(id: number, data: Buffer, type: number): void;
  };
  readonly _sock: net.Socket;
}

describe('the engine embedded, and a server that means harm', () => {
  const ssh2 = loadSsh2();
  const undo: (() => unknown)[] = [];
  afterEach(async () => {
    for (const act of undo.splice(0).toReversed()) await act();
  });

  async function meet({ packetSize, flood }: { packetSize?: number; flood?: 'data' | 'stderr' }) {
    const sent = { bytes: 0 };
    const { private: key } = makeKeys(ssh2, 'test');
    const server = new ssh2.Server({ hostKeys: [key] }, (client) => {
      const bent = client as unknown as Bent;
      client.on('error', () => undefined).on('authentication', (login) => login.accept());
      if (packetSize !== undefined) {
        const confirm = bent._protocol.channelOpenConfirm.bind(bent._protocol);
        bent._protocol.channelOpenConfirm = (remote, local, window) => confirm(remote, local, window, packetSize);
      }
      client.on('tcpip', (accept) => {
        const channel = accept().on('error', () => undefined);
        channel.resume();
        const { id } = (channel as unknown as { outgoing: { id: number } }).outgoing;
        const chunk = Buffer.alloc(32_000, 120);
        const pump = () => {
          for (let count = 0; count < 20; count++) {
            if (flood === 'data') bent._protocol.channelData(id, chunk);
            else bent._protocol.channelExtData(id, chunk, 1);
            sent.bytes += chunk.length;
          }
          if (sent.bytes > 100e6 || bent._sock.destroyed) return;
          if (bent._sock.writableLength > 1e6) bent._sock.once('drain', pump);
          else setImmediate(pump);
        };
        if (flood !== undefined) pump();
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    undo.push(() => new Promise<void>((resolve) => server.close(() => resolve())));
    const worker = new Worker(new URL('./hostile-worker.js', import.meta.url), {
      workerData: { port: (server.address() as AddressInfo).port },
    });
    undo.push(() => worker.terminate());
    const [{ listen }] = (await once(worker, 'message')) as [{ listen: number }];
    const client = net.connect(listen, '127.0.0.1').on('error', () => undefined);
    undo.push(() => client.destroy());
    client.pause().write('hello');
    const answers: { mb: number; hasEnded: boolean }[] = [];
    worker.on('message', (answer) => answers.push(answer));
    const ask = async () => {
      const count = answers.length;
      worker.postMessage('how are you?');
      await until(() => answers.length > count, { timeoutMs: 5000 });
      return answers[count];
    };
    return { ask, sent };
  }

  // ssh2's Channel._write never ends with a packet size of 0: the whole process hangs.
  it('does not hang when a server takes packets of no bytes', async () => {
    const { ask } = await meet({ packetSize: 0 });
    await until(() => false, { timeoutMs: 300 });
    expect(await ask(), 'an answer of the thread that the client is in').not.to.equal(undefined);
  });

  // ssh2 counts the window below zero and keeps all that comes.
  for (const flood of ['data', 'stderr'] as const) {
    it(`does not keep what a server sends beyond the window: ${flood}`, async () => {
      const { ask, sent } = await meet({ flood });
      let most = 0;
      const isOver = async () => {
        const answer = await ask();
        most = Math.max(most, answer?.mb ?? 0);
        return most > 50 || answer?.hasEnded === true || sent.bytes > 100e6;
      };
      await until(isOver, { timeoutMs: 20_000 });
      expect(most, 'MB that are kept for a client that reads nothing').to.be.below(50);
    });
  }
});
