import net, { type Socket } from 'node:net';

type OnRead = NonNullable<net.TcpNetConnectOpts['onread']>;

interface Handled {
  _handle?: object | null;
}

/**
 * Takes what one read has brought, at once. It answers false when it has not done with the pieces: nothing more comes then,
 * and they stay as they are, until `resume()`.
 */
export type Sink = (pieces: readonly Uint8Array[]) => boolean;

/** A stream that hands on what each read has brought, instead of emitting 'data'. */
export interface Pourable {
  /** From now on `sink` gets what comes; what had come before, and was kept, it gets first. */
  pour(sink: Sink): void;
}

/**
 * What is read at once: little, until there has been more, and after a read that was small again: so that a connection that
 * says little holds little.
 */
const FIRST_READ = 4096;
const OWN_READ = 65_536;
/**
 * What is read at once where that is not enough, into a buffer that is given back after a read that did not fill it: it may be
 * the last one for long, and 200 connections that were busy once held 100 MB. An upload took 1.5 s of CPU for a GB by these
 * (embedded; a front of ssh 0.55), and 1.75 (0.75) by 65,536; with a new buffer each time it was 2.4 (2.2).
 */
const LARGE_READ = 262_144;
/** So many of them are kept for the next one who needs one. */
const MOST_SPARE = 8;

/** Large buffers, in which those who have much to read take turns. */
export interface LargeBuffers {
  take(): Buffer;
  /** Nobody needs what is in it any more. */
  giveBack(buffer: Buffer): void;
}

export function createLargeBuffers(): LargeBuffers {
  const spare: Buffer[] = [];
  return {
    take: () => spare.pop() ?? Buffer.allocUnsafeSlow(LARGE_READ),
    giveBack: (buffer) => {
      if (spare.length < MOST_SPARE) spare.push(buffer);
    },
  };
}

/**
 * A socket that reads into one buffer again and again, by Node's `onread`, which `make` gives to it. 'data' and pipe() take a
 * new buffer for every read, and thereby half as much CPU again.
 *
 * Until it is poured it is a socket like any other.
 *
 * @example
 * const socket = makePourable(createLargeBuffers(), (onread) => net.connect({ path, onread }));
 * socket.pour((pieces) => write(pieces));
 */
export function makePourable(large: LargeBuffers, make: (onread: OnRead) => Socket): Socket & Pourable {
  let own: Buffer = Buffer.allocUnsafeSlow(FIRST_READ);
  let buffer = own;
  let lastRead = 0;
  let isDone = true;
  let sink: Sink = ([piece = new Uint8Array()]) => socket.push(Buffer.from(piece));
  const onread: OnRead = {
    // Asked after each read, for the next one.
    buffer: () => {
      if (buffer === own) growOrShrink();
      // What has not been taken yet stays where it is.
      else if (isDone && lastRead < buffer.length) {
        large.giveBack(buffer);
        buffer = own;
      }
      return buffer;
    },
    callback: (length, read) => {
      lastRead = length;
      isDone = sink([length === read.length ? read : read.subarray(0, length)]);
      return isDone;
    },
  };
  const socket: Socket & Pourable = Object.assign(make(onread), {
    pour(to: Sink) {
      sink = to;
      const kept: Buffer | null = socket.read();
      if (kept) to([kept]);
    },
  });
  return socket;

  /** Into another buffer: the last read may be in use still. */
  function growOrShrink(): void {
    if (lastRead === OWN_READ) {
      buffer = large.take();
      return;
    }
    const size =
      lastRead === own.length ? Math.min(OWN_READ, lastRead * 8) : lastRead <= FIRST_READ ? FIRST_READ : own.length;
    if (size !== own.length) own = Buffer.allocUnsafeSlow(size);
    buffer = own;
  }
}

/**
 * The same of a socket that a server has accepted, in whose place it comes. Node has `onread` for who connects only: this one
 * takes the handle over, as Node's own server gives it to the socket that it makes (`new net.Socket({ handle })`, which is in no
 * documentation). Where that is not so any more, it is the accepted socket, and pours what 'data' brings.
 *
 * Nothing may have been read of it yet: so in the listener of 'connection'.
 */
export function adopt(large: LargeBuffers, accepted: Socket): Socket & Pourable {
  const { _handle: handle } = accepted as Handled;
  if (handle) {
    const options = { handle, allowHalfOpen: accepted.allowHalfOpen, highWaterMark: accepted.writableHighWaterMark };
    const adopted = makePourable(large, (onread) => {
      const all: net.SocketConstructorOpts & { readonly onread: OnRead } = { ...options, onread };
      return new net.Socket(all);
    });
    if ((adopted as Handled)._handle === handle) {
      // It goes without closing anything, and its server counts it no more.
      (accepted as Handled)._handle = null;
      accepted.destroy();
      return adopted;
    }
    adopted.destroy();
  }
  return Object.assign(accepted, {
    pour(sink: Sink) {
      accepted.on('data', (piece: Buffer) => sink([piece]) || accepted.pause());
    },
  });
}
