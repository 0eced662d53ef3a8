import type http from 'node:http';
import { type WebSocket, WebSocketServer } from 'ws';
import { until } from '#lib/time.js';
import type { FakeDaemon } from './fake-daemon.js';

/** The far side of one terminal, as a test plays it: docs/terminal.md. */
export interface FakeTerminal {
  readonly socket: WebSocket;
  readonly request: http.IncomingMessage;
  /** Everything that was typed, as bytes in latin1. */
  typed(): string;
  /** Every window that was told. */
  readonly windows: unknown[];
  /** Draws. */
  show(bytes: string | Uint8Array): void;
  /** The last message, and the end. */
  end(message: Readonly<Record<string, unknown>>): void;
  /** The connection is over, by whomever. */
  isClosed(): boolean;
}

export interface FakeTerminals {
  readonly all: readonly FakeTerminal[];
  /** The one that is opened. */
  opened(): Promise<FakeTerminal>;
}

/** From now on whoever asks for a terminal gets one; without this the routes answer such a request. */
export function serveTerminals(daemon: FakeDaemon): FakeTerminals {
  const all: FakeTerminal[] = [];
  const server = new WebSocketServer({ noServer: true, perMessageDeflate: false });
  daemon.server.on('upgrade', (request, socket, head) => {
    daemon.asked.push(`UPGRADE ${request.url}`);
    server.handleUpgrade(request, socket, head, (ws) => {
      all.push(attend(ws, request));
      ws.send(JSON.stringify({ type: 'open', via: 'pty' }));
    });
  });
  return {
    all,
    async opened() {
      const found = await until(() => all[0], { timeoutMs: 15_000, everyMs: 5 });
      if (!found) throw new Error('nobody has opened a terminal');
      return found;
    },
  };
}

function attend(socket: WebSocket, request: http.IncomingMessage): FakeTerminal {
  const windows: unknown[] = [];
  let typed = '';
  let isClosed = false;
  socket.on('message', (data, isBinary) => {
    if (isBinary) typed += (data as Buffer).toString('latin1');
    else windows.push(JSON.parse(String(data)));
  });
  socket
    .on('error', () => undefined)
    .once('close', () => {
      isClosed = true;
    });
  return {
    socket,
    request,
    typed: () => typed,
    windows,
    show: (bytes) => socket.send(Buffer.from(bytes)),
    end(message) {
      socket.send(JSON.stringify({ type: 'end', ...message }));
      socket.close(1000);
    },
    isClosed: () => isClosed,
  };
}
