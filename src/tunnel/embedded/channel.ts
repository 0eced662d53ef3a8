import { Duplex } from 'node:stream';
import type { Channel } from 'ssh2';

/**
 * A channel of ssh2 as a stream like any other. Its own `destroy` sends what is left and reports nothing, and a connection
 * that breaks off ends it as if all had come through: neither would do for somebody's bytes.
 *
 * `whenRoom` calls back when the connection below can take more: the window of a channel (2 MiB) says nothing of that.
 */
export function joinChannel(channel: Channel, whenRoom: (done: () => void) => void): Duplex {
  const stream = new Duplex({
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
      // What still comes is nobody's: read, so that the server's word of the end is.
      channel.resume();
      channel.close();
      done(error);
    },
  });
  channel.on('data', onData);
  channel.once('end', () => stream.push(null));
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
    if (!stream.push(chunk)) channel.pause();
  }
}
