import { Duplex } from 'node:stream';
import type { Channel } from 'ssh2';
import type { Remote } from '../front/carrier.js';

/** What is handed on at once, at most; a packet has 32 KB, and one read from the server's socket brings up to eight. */
const BATCH_BYTES = 256 * 1024;

/**
 * A channel of ssh2 as a stream like any other. Its own `destroy` sends what is left and reports nothing, and a connection
 * that breaks off ends it as if all had come through: neither would do for somebody's bytes.
 *
 * `whenRoom` calls back when the connection below can take more: the window of a channel (2 MiB) says nothing of that.
 *
 * It is poured out in batches: the packets that came with one read are one write for whoever takes them.
 */
export function joinChannel(channel: Channel, whenRoom: (done: () => void) => void): Remote {
  let sink: ((chunks: readonly Uint8Array[]) => boolean) | undefined;
  let batch: Uint8Array[] = [];
  let batchBytes = 0;
  const stream: Remote = Object.assign(
    new Duplex({
      allowHalfOpen: true,
      read() {
        channel.resume();
      },
      write(chunk: Buffer, _encoding, done) {
        channel.write(chunk, (error) => (error ? done(error) : whenRoom(done)));
      },
      final(done) {
        channel.end(() => done());
      },
      destroy(error, done) {
        channel.off('data', onData);
        batch = [];
        // What still comes is nobody's: read, so that the server's word of the end is.
        channel.resume();
        channel.close();
        done(error);
      },
    }),
    {
      pour(to: (chunks: readonly Uint8Array[]) => boolean) {
        sink = to;
        // Nothing is pushed any more, so that nobody asks for more by read().
        stream.on('resume', () => channel.resume());
      },
    },
  );
  channel.on('data', onData);
  channel.once('end', () => {
    flush();
    stream.push(null);
  });
  channel.once('close', () => {
    // Nothing can be sent any more. What has come is still to be read.
    if (stream.readableEnded) stream.destroy();
    else stream.once('end', () => stream.destroy());
  });
  // Whoever has it listens for that; in the turn before, in which nobody has it, it must not end this process.
  stream.on('error', () => undefined);
  channel.on('error', (error: Error) => stream.destroy(error));
  // Until somebody asks for it.
  channel.pause();
  return stream;

  function onData(chunk: Buffer): void {
    if (!sink) {
      if (!stream.push(chunk)) channel.pause();
      return;
    }
    // Before anything else happens, and after the last packet of this read.
    if (batch.length === 0) process.nextTick(flush);
    batchBytes = batch.push(chunk) === 1 ? chunk.length : batchBytes + chunk.length;
    if (batchBytes >= BATCH_BYTES) flush();
  }

  function flush(): void {
    if (batch.length === 0 || !sink) return;
    const chunks = batch;
    batch = [];
    if (sink(chunks)) return;
    stream.pause();
    channel.pause();
  }
}
