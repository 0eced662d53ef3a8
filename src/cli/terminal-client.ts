import net from 'node:net';
import type { ClientOptions, RawData, WebSocket } from 'ws';
import type { TunwardError } from '../errors.js';
import type { TunnelStatus } from '../tunnel/runner.js';
import { fromWire } from '../wire.js';
import type { Size } from './area.js';
import {
  type Address,
  bounded,
  formatAddress,
  notOurs,
  parseJson,
  type Question,
  readAll,
  refusalOf,
  unreachable,
} from './exchange.js';
import { watchSilence } from './stream.js';

/** The terminal of a tunnel that asks: docs/terminal.md, from the person's side. */
export interface FarTerminal {
  /** Passes on what was typed, and wipes it. */
  type(bytes: Buffer): void;
  resize(size: Size): void;
  /**
   * The tunnel that is up.
   *
   * @throws TunwardError why it is not; ERR_DAEMON_UNREACHABLE when the daemon goes away in the middle
   */
  readonly ended: Promise<TunnelStatus>;
  /** Ends the connection, and with it an attempt that still goes on. Idempotent. */
  close(): void;
}

/** Draws bytes. Where there is no room for more, it answers what resolves when there is. */
export type Draw = (bytes: Uint8Array) => Promise<void> | undefined;

const PROTOCOL = 'tunward.terminal.v1';
/** The largest message that is taken, in bytes. */
const MOST_MESSAGE = 2 ** 20;
/** More than this does not wait for a daemon that takes nothing, in bytes: nobody types that. */
const MOST_TYPED = 2 ** 18;
/** Four pings of the daemon, in milliseconds. */
const SILENT_MS = 20_000;

/**
 * @throws TunwardError what the daemon answered instead: ERR_TUNNEL_CONFLICT when the tunnel is up, asks nobody, or
 *   somebody else is at it; otherwise as {@link ask}
 */
export async function openTerminal(question: Question, draw: Draw): Promise<FarTerminal> {
  const { WebSocket } = await import('ws');
  const { address, path } = question;
  const socket = new WebSocket(urlOf(address, path), [PROTOCOL], optionsOf(address));
  // Messages may come in the moment in which it opens.
  const far = attend(socket, question, draw);
  try {
    await bounded(question, (signal) => opened(socket, question, signal));
    return far;
  } catch (error) {
    far.close();
    throw error;
  }
}

function urlOf(address: Address, path: string): URL {
  return new URL(path, 'url' in address ? address.url : 'http://localhost');
}

function optionsOf(address: Address): ClientOptions {
  const common = { perMessageDeflate: false, maxPayload: MOST_MESSAGE };
  if ('token' in address) return { ...common, headers: { authorization: `Bearer ${address.token}` } };
  return { ...common, createConnection: () => net.connect(address.socket) };
}

/** Resolves when it is open; whatever the daemon answers instead is thrown, as it is after any other question. */
function opened(socket: WebSocket, question: Question, signal: AbortSignal): Promise<void> {
  const where = formatAddress(question.address);
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    socket.once('open', resolve);
    // What has no code is ws's own: an answer that is none of a WebSocket of ours.
    socket.once('error', (error) => reject('code' in error ? error : notOurs(where, error)));
    socket.once('unexpected-response', (_request, response) => {
      const { statusCode: status = 0 } = response;
      readAll(response)
        .then((text) => reject(refusalOf({ status, body: parseJson(text, question) }, question.address)))
        .catch(reject);
    });
  });
}

function attend(socket: WebSocket, question: Question, draw: Draw): FarTerminal {
  const where = formatAddress(question.address);
  const over = new AbortController();
  let trouble: Error | undefined;
  const ended = new Promise<TunnelStatus>((resolve, reject) => {
    const heard = watchSilence(SILENT_MS, over.signal, () => {
      // What is not taken here says nothing of the other side.
      if (!socket.isPaused) reject(unreachable(`The daemon at ${where} says nothing any more: the login is given up`));
    });
    socket.on('ping', heard).on('message', (data, isBinary) => {
      heard();
      if (isBinary) show(bytesOf(data));
      else settle(String(data));
    });
    socket.on('error', (error) => {
      trouble = error;
    });
    socket.once('close', (code) => {
      over.abort();
      reject(endOf(code, where, trouble));
    });

    function show(bytes: Uint8Array): void {
      const room = draw(bytes);
      if (!room) return;
      socket.pause();
      room.then(() => {
        heard();
        socket.resume();
      }, reject);
    }

    function settle(text: string): void {
      try {
        const message = parseJson(text, question) as End | { readonly type: 'open' };
        if (message.type !== 'end') return;
        const { outcome, tunnel, problem } = message;
        if (outcome === 'up') resolve(fromWire(tunnel) as TunnelStatus);
        else reject(refusalOf({ status: problem?.status ?? 500, body: problem }, question.address));
      } catch (error) {
        reject(error);
      }
    }
  });
  // It may be given up before anybody waits for its end.
  ended.catch(() => undefined);
  return { type, resize, ended, close };

  function type(bytes: Buffer): void {
    const wipe = () => bytes.fill(0);
    if (socket.readyState !== socket.OPEN || socket.bufferedAmount > MOST_TYPED) wipe();
    else socket.send(bytes, { binary: true }, wipe);
  }

  function resize({ columns, rows }: Size): void {
    if (socket.readyState === socket.OPEN) socket.send(JSON.stringify({ type: 'resize', columns, rows }));
  }

  function close(): void {
    over.abort();
    socket.terminate();
  }
}

interface End {
  readonly type: 'end';
  readonly outcome: 'up' | 'failed';
  readonly tunnel?: unknown;
  readonly problem?: { readonly status: number };
}

/** Why a connection ended of which the daemon has not said the end. */
function endOf(code: number, where: string, cause: Error | undefined): TunwardError | Error {
  const lost = 'what had begun of the login is ended with it';
  if (code === 1001) return unreachable(`The daemon at ${where} is stopping: ${lost}`, cause);
  if (code === 1005 || code === 1006) return unreachable(`The daemon at ${where} went away: ${lost}`, cause);
  return new Error(`The daemon at ${where} ended the terminal (${code}): ${lost}`, { cause });
}

function bytesOf(data: RawData): Uint8Array {
  if (Array.isArray(data)) return Buffer.concat(data);
  return data instanceof ArrayBuffer ? new Uint8Array(data) : data;
}
