import { Duplex } from 'node:stream';
import type { Channel } from 'ssh2';
import type { Remote } from '../front/carrier.js';
import type { Sink } from '../front/pour.js';

/** What a channel goes through, together with others. */
export interface Below {
  /** Calls back when it can take more: the window of a channel (2 MiB) says nothing of that. */
  whenRoom(done: () => void): void;
  /** What is sent in there leaves as one write: ssh2 writes a packet in three pieces, and a read of 256 KB is eight packets. */
  together(send: () => void): void;
}

/** What is handed on at once, at most; a packet has 32 KB, and one read from the server's socket brings up to eight. */
const BATCH_BYTES = 256 * 1024;

/**
 * A channel of ssh2 as a stream like any other. Its own `destroy` sends what is left and reports nothing, and a connection
 * that breaks off ends it as if all had come through: neither would do for somebody's bytes.
 *
 * It is poured out in batches: the packets that came with one read are one write for whoever takes them.
 */
export function joinChannel(channel: Channel, below: Below): Remote {
  let sink: Sink | undefined;
  let batch: Uint8Array[] = [];
  let batchBytes = 0;
  const stream: Remote = Object.assign(
    new Duplex({
      allowHalfOpen: true,
      writableHighWaterMark: 1,
      read() {
        channel.resume();
      },
      write(chunk: Buffer, _encoding, done) {
        send(chunk, done);
      },
      // Of a connection that goes through this one: each of its packets is one of these, and not three.
      writev(pieces, done) {
        send(Buffer.concat(pieces.map(({ chunk }) => chunk)), done);
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
      pour(to: Sink) {
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

  function send(chunk: Buffer, done: (error?: Error | null) => void): void {
    below.together(() => channel.write(chunk, (error) => (error ? done(error) : below.whenRoom(done))));
  }

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
