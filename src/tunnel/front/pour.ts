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
 * says little holds little. Read 262,144 at once an upload took 1.5 s of CPU for a GB (embedded) and 0.55 (a front of ssh),
 * by 65,536 it was 1.75 and 0.75.
 */
const FIRST_READ = 4096;
const FULL_READ = 262_144;
/**
 * At most, after a read that was not full: it may be the last one for long, and 200 connections that were busy once held 100 MB.
 * While there is more than can be taken, 99 of 100 reads are full.
 */
const KEPT_READ = 65_536;

/**
 * A socket that reads into one buffer again and again, by Node's `onread`, which `make` gives to it. 'data' and pipe() take a
 * new buffer for every read, and thereby half as much CPU again.
 *
 * Until it is poured it is a socket like any other.
 *
 * @example
 * const socket = makePourable((onread) => net.connect({ path, onread }));
 * socket.pour((pieces) => write(pieces));
 */
export function makePourable(make: (onread: OnRead) => Socket): Socket & Pourable {
  let buffer = Buffer.allocUnsafeSlow(FIRST_READ);
  let lastRead = 0;
  let sink: Sink = ([piece = new Uint8Array()]) => socket.push(Buffer.from(piece));
  const onread: OnRead = {
    // Asked after each read, for the next one: the last one may still be in use.
    buffer: () => {
      const size = nextSize();
      if (size !== buffer.length) buffer = Buffer.allocUnsafeSlow(size);
      return buffer;
    },
    callback: (length, read) => {
      lastRead = length;
      return sink([length === read.length ? read : read.subarray(0, length)]);
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

  function nextSize(): number {
    if (lastRead === buffer.length) return Math.min(FULL_READ, lastRead * 8);
    return lastRead <= FIRST_READ ? FIRST_READ : Math.min(KEPT_READ, buffer.length);
  }
}

/**
 * The same of a socket that a server has accepted, in whose place it comes. Node has `onread` for who connects only: this one
 * takes the handle over, as Node's own server gives it to the socket that it makes (`new net.Socket({ handle })`, which is in no
 * documentation). Where that is not so any more, it is the accepted socket, and pours what 'data' brings.
 *
 * Nothing may have been read of it yet: so in the listener of 'connection'.
 */
export function adopt(accepted: Socket): Socket & Pourable {
  const { _handle: handle } = accepted as Handled;
  if (handle) {
    const options = { handle, allowHalfOpen: accepted.allowHalfOpen, highWaterMark: accepted.writableHighWaterMark };
    const adopted = makePourable((onread) => {
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
