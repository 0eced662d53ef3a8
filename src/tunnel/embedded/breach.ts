import type { Channel } from 'ssh2';

/** sshd says 32,768. A server that took less than this at once would have us cut everything into crumbs, or into nothing. */
const LEAST_PACKET = 1024;

interface Limits {
  readonly incoming: { readonly window: number };
  readonly outgoing: { readonly packetSize: number };
  readonly push: (chunk: unknown) => boolean;
}

/**
 * ssh2 believes what a server says of a channel: with packets of no bytes its write never ends, and what comes beyond the
 * window (RFC 4254, section 5.2) it keeps, however much that is. Here the first is looked at before anything is written,
 * and the second before it is kept: `onBreach` hears of it, once for each piece, and the piece is dropped.
 */
export function guardChannel(channel: Channel, onBreach: (what: string) => void): void {
  const limits = channel as unknown as Limits;
  const { packetSize } = limits.outgoing;
  if (packetSize < LEAST_PACKET) onBreach(`offers packets of ${packetSize} bytes`);
  for (const stream of [channel, channel.stderr]) {
    const push = (stream as unknown as Limits).push.bind(stream);
    Object.assign(stream, {
      push: (chunk: unknown) => {
        // It has been counted by now.
        if (limits.incoming.window >= 0) return push(chunk);
        onBreach('sends more than the window that it was given');
        return false;
      },
    });
  }
  // Of a forward nothing comes there; whatever does is nobody's.
  channel.stderr.on('error', () => undefined);
  if ('resume' in channel.stderr) channel.stderr.resume();
}
