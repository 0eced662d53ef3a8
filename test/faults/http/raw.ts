// Bytes to a port and what came back: no client of HTTP would send what H1 sends.
import net from 'node:net';
import { systemClock } from '#lib/time.js';

export interface Reply {
  /** 0: it was closed without a word. */
  readonly status: number;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** All that came, also what followed the first answer. */
  readonly text: string;
  readonly tookMs: number;
  /** The other side has closed it. */
  readonly isClosed: boolean;
}

export interface Sending {
  readonly port?: number;
  readonly path?: string;
  /** The address that it comes from, of 127.0.0.0/8. */
  readonly from?: string;
  /** For how long an answer is waited for, in milliseconds. */
  readonly timeoutMs?: number;
  /** Waits for the end of the connection, not only for that of the first answer. */
  readonly untilClosed?: boolean;
  /** Waits so many milliseconds for what may still come behind the first answer. */
  readonly lingerMs?: number;
  /** Sent one after the other, with so many milliseconds between them. */
  readonly dripMs?: number;
}

/** Sends these bytes and answers what came back, when the first answer is complete, the connection has ended or the time is over. */
export function send(bytes: readonly (string | Buffer)[], how: Sending): Promise<Reply> {
  const { port, path, from, timeoutMs = 5000, untilClosed = false, lingerMs = 0, dripMs } = how;
  const began = systemClock.now();
  return new Promise((resolve, reject) => {
    const socket =
      path === undefined
        ? net.connect({ port: port ?? 0, host: '127.0.0.1', ...(from ? { localAddress: from } : {}) })
        : net.connect({ path });
    const chunks: Buffer[] = [];
    let isClosed = false;
    let isOver = false;
    const finish = () => {
      if (isOver) return;
      isOver = true;
      clearTimeout(timer);
      socket.destroy();
      const text = Buffer.concat(chunks).toString('latin1');
      resolve({ ...(readReply(text) ?? nothing), text, tookMs: systemClock.now() - began, isClosed });
    };
    const timer = setTimeout(finish, timeoutMs);
    socket.on('data', (chunk) => {
      chunks.push(chunk);
      if (untilClosed || !isWhole(Buffer.concat(chunks).toString('latin1'))) return;
      if (lingerMs === 0) finish();
      else setTimeout(finish, lingerMs);
    });
    socket.once('connect', () => {
      void drip(socket, bytes, dripMs);
    });
    // Reset in the middle of what it was sent: the answer may have come before that.
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (!/^(ECONNRESET|EPIPE)$/.test(error.code ?? '')) {
        clearTimeout(timer);
        isOver = true;
        reject(error);
      }
    });
    socket.once('close', () => {
      isClosed = true;
      finish();
    });
  });
}

const nothing = { status: 0, headers: {}, body: '' };

async function drip(socket: net.Socket, bytes: readonly (string | Buffer)[], everyMs = 0): Promise<void> {
  for (const part of bytes) {
    if (!socket.writable) return;
    socket.write(part);
    if (everyMs > 0) await systemClock.sleep(everyMs);
  }
}

/** The first answer in it; undefined as long as its head has not come. */
export function readReply(text: string): Pick<Reply, 'status' | 'headers' | 'body'> | undefined {
  const end = text.indexOf('\r\n\r\n');
  const [, status] = /^HTTP\/1\.[01] (\d{3})/.exec(text) ?? [];
  if (end === -1 || status === undefined) return undefined;
  const headers: Record<string, string> = {};
  for (const line of text.slice(0, end).split('\r\n').slice(1)) {
    const at = line.indexOf(':');
    headers[line.slice(0, at).toLowerCase()] = line.slice(at + 1).trim();
  }
  const rest = text.slice(end + 4);
  const length = headers['content-length'];
  return {
    status: Number(status),
    headers,
    body: length === undefined ? unchunk(rest) : rest.slice(0, Number(length)),
  };
}

/** Not of the answer to a HEAD, which has a length and no bytes: that one ends by its time. */
function isWhole(text: string): boolean {
  const reply = readReply(text);
  if (!reply) return false;
  const length = reply.headers['content-length'];
  if (length !== undefined) return reply.body.length >= Number(length);
  return text.endsWith('0\r\n\r\n');
}

function unchunk(text: string): string {
  let body = '';
  for (let rest = text; ; ) {
    const [line, digits] = /^([0-9a-f]+)\r\n/i.exec(rest) ?? [];
    const length = Number.parseInt(digits ?? '0', 16);
    if (line === undefined || length === 0) return body === '' ? text : body;
    body += rest.slice(line.length, line.length + length);
    rest = rest.slice(line.length + length + 2);
  }
}

/** A request as text: its line, its headers in order, its body as it is. */
export function request(line: string, headers: readonly string[], body: string | Buffer = ''): Buffer {
  return Buffer.concat([Buffer.from(`${[line, ...headers].join('\r\n')}\r\n\r\n`, 'latin1'), Buffer.from(body)]);
}
