/** Somebody at the other end of `/v1/tunnels/{id}/terminal`. */
import type { IncomingMessage } from 'node:http';
import type net from 'node:net';
import { WebSocket } from 'ws';
import { until } from '#lib/time.js';

export interface Visitor {
  readonly socket: WebSocket;
  /** All that has been drawn, as text. */
  screen(): string;
  /** All messages that are text, parsed. */
  // biome-ignore lint/suspicious/noExplicitAny: JSON of the wire; the tests are its assertions
  messages(): any[];
  type(text: string | Buffer): void;
  /** Waits for this on the screen. */
  sees(text: string | RegExp, timeoutMs?: number): Promise<void>;
  /** How the connection was closed. */
  readonly closed: Promise<{ readonly code: number; readonly reason: string }>;
}

/** An HTTP answer instead of a terminal. */
export interface Refusal {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  // biome-ignore lint/suspicious/noExplicitAny: JSON of the wire; the tests are its assertions
  readonly body: any;
}

export interface Visit {
  /** A unix socket, or a port of 127.0.0.1. */
  readonly at: string | number;
  readonly id: string;
  readonly query?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly protocols?: string[];
}

/** Opens it, or is refused. */
export function visit({ at, id, query = '', headers = {}, protocols }: Visit): Promise<Visitor | Refusal> {
  const path = `/v1/tunnels/${id}/terminal${query}`;
  const url = typeof at === 'number' ? `ws://127.0.0.1:${at}${path}` : `ws+unix:${at}:${path}`;
  const socket = new WebSocket(url, protocols ?? ['tunward.terminal.v1'], { headers, perMessageDeflate: false });
  const drawn: Buffer[] = [];
  const messages: unknown[] = [];
  socket.on('message', (data, isBinary) => {
    if (isBinary) drawn.push(data as Buffer);
    else messages.push(JSON.parse(String(data)));
  });
  const screen = () => Buffer.concat(drawn).toString();
  const closed = new Promise<{ code: number; reason: string }>((resolve) => {
    socket.once('close', (code, reason) => resolve({ code, reason: String(reason) }));
  });
  const visitor: Visitor = {
    ...{ socket, screen, closed },
    messages: () => messages,
    type: (text) => socket.send(Buffer.from(text)),
    async sees(text, timeoutMs = 15_000) {
      const isThere = () => (typeof text === 'string' ? screen().includes(text) : text.test(screen()));
      if (await until(isThere, { timeoutMs, everyMs: 10 })) return;
      throw new Error(`Not seen: ${text}; ${JSON.stringify([screen(), messages])}`);
    },
  };
  return new Promise((resolve, reject) => {
    socket.once('open', () => resolve(visitor));
    socket.on('error', reject);
    socket.once('unexpected-response', (_request, answer: IncomingMessage) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk: Buffer) => chunks.push(chunk));
      answer.on('end', () => {
        const body = JSON.parse(Buffer.concat(chunks).toString());
        resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body });
      });
    });
  });
}

/** The same of one who must be let in. */
export async function visitOpen(how: Visit): Promise<Visitor> {
  const answer = await visit(how);
  if ('socket' in answer) return answer;
  throw new Error(`Refused: ${JSON.stringify(answer)}`);
}

/** `409 ERR_TUNNEL_CONFLICT`, or `101`. */
export async function outcomeOf(how: Visit): Promise<string> {
  const answer = await visit(how);
  if ('status' in answer) return `${answer.status} ${answer.body.code}`;
  return '101';
}

/** The connection below it: for what ws itself would not send. */
export function rawOf({ socket }: Pick<Visitor, 'socket'>): net.Socket {
  return (socket as unknown as { readonly _socket: net.Socket })._socket;
}
