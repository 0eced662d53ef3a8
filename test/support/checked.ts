/** Connections whose every byte is checked, there and back. */
import { once } from 'node:events';
import net from 'node:net';
import { systemClock } from '#lib/time.js';
import { type LocalServer, startServer } from './servers.js';

/** What became of one: all came back; it was cut, after so many right bytes; or something that must never be. */
export interface Checked {
  readonly end: 'complete' | 'cut' | 'refused' | 'truncated' | 'garbled' | 'hung';
  readonly bytes: number;
  readonly tookMs: number;
  readonly why?: string | undefined;
}

/** Sends everything back, and ends when the other side has. */
export function startEcho(): Promise<LocalServer> {
  return startServer((socket) => socket.pipe(socket), { allowHalfOpen: true });
}

/** The byte at that place of a stream: different in each stream, and nowhere the same as a few bytes on. */
function patternOf(seed: number, from: number, length: number): Buffer {
  const piece = Buffer.allocUnsafe(length);
  for (let at = 0; at < length; at++) piece[at] = (seed + (from + at) * 131 + ((from + at) >>> 7)) & 0xff;
  return piece;
}

/**
 * Sends `size` bytes in `pieces` with `pauseMs` between them, ends its side, and waits for all of it to come back; at most
 * `timeoutMs` in all.
 */
export async function talkChecked(
  port: number,
  { size, pieces = 1, pauseMs = 0, timeoutMs }: { size: number; pieces?: number; pauseMs?: number; timeoutMs: number },
): Promise<Checked> {
  const began = performance.now();
  const seed = Math.floor(Math.random() * 256);
  const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  let bytes = 0;
  let end: Checked['end'] | undefined;
  let why: string | undefined;
  const over = new AbortController();
  const settle = (how: Checked['end'], reason?: string) => {
    end ??= how;
    why ??= reason;
    over.abort();
  };
  socket.on('data', (chunk: Buffer) => {
    if (!chunk.equals(patternOf(seed, bytes, chunk.length))) settle('garbled', `after ${bytes} bytes`);
    bytes += chunk.length;
  });
  socket.once('end', () => settle(bytes === size ? 'complete' : 'truncated', `${bytes} of ${size}`));
  // Whoever is reset in the turn in which he was accepted hears of that alone.
  socket.on('error', ({ code }: NodeJS.ErrnoException) => settle(code === 'ECONNREFUSED' ? 'refused' : 'cut', code));
  socket.once('close', () => settle('cut', 'closed'));
  const send = async () => {
    for (let from = 0; from < size && end === undefined; ) {
      const length = Math.min(Math.ceil(size / pieces), size - from);
      if (!socket.write(patternOf(seed, from, length))) await once(socket, 'drain', { signal: over.signal });
      from += length;
      if (pauseMs > 0) await systemClock.sleep(pauseMs, over.signal);
    }
    if (end === undefined) socket.end();
  };
  send().catch(() => undefined); // over before all was sent
  await systemClock.sleep(timeoutMs, over.signal).catch(() => undefined);
  settle('hung');
  socket.destroy();
  return { end: end ?? 'hung', bytes, tookMs: performance.now() - began, why };
}
