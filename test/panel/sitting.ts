/** Somebody at a terminal of the stage, from the daemon's side: docs/terminal.md, as far as a test plays it. */
import type { WebSocket } from 'ws';
import type { Json } from './stage.js';

export interface Sitting {
  /** As it was asked for. */
  readonly url: URL;
  readonly protocol: string;
  /** What has been typed so far. */
  readonly typed: () => string;
  /** The messages of text, as they came. */
  readonly told: Json[];
  readonly isOver: () => boolean;
  open(via?: 'pty' | 'askpass'): void;
  show(text: string | Buffer): void;
  /** The last message, and the close after it. */
  end(message: Json): void;
  /** The connection is no more, and nobody has said a word. */
  cut(): void;
}

export function sitAt(socket: WebSocket, url: URL): Sitting {
  const typed: Buffer[] = [];
  const told: Json[] = [];
  let isOver = false;
  socket.on('close', () => {
    isOver = true;
  });
  socket.on('error', () => undefined);
  socket.on('message', (data: Buffer, isBinary) => {
    if (isBinary) typed.push(data);
    else told.push(JSON.parse(String(data)));
  });
  return {
    url,
    protocol: socket.protocol,
    typed: () => Buffer.concat(typed).toString('utf8'),
    told,
    isOver: () => isOver,
    open: (via = 'pty') => socket.send(JSON.stringify({ type: 'open', via })),
    show: (text) => socket.send(Buffer.from(text)),
    end(message) {
      socket.send(JSON.stringify({ type: 'end', ...message }));
      socket.close(1000);
    },
    cut: () => socket.terminate(),
  };
}
