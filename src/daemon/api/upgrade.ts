import { type IncomingHttpHeaders, type IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { ServerOptions, WebSocket, WebSocketServer } from 'ws';
import { TunwardError } from '../../errors.js';

/** Makes the connection a WebSocket, in this very turn; undefined: whoever asked for one has hung up. */
export type Accept = () => WebSocket | undefined;

/** What a client sends by one message at most, and what is kept for one: in bytes. */
export const MAX_MESSAGE = 65_536;

/** Is it a WebSocket that is asked for? Of other protocols (`h2c`, by curl) nothing is known here, and HTTP goes on. */
export function asksForWebSocket({ method, headers: { upgrade = '' } }: IncomingMessage): boolean {
  return method === 'GET' && /(^|,) *websocket *(,|$)/i.test(upgrade);
}

/** The connections of one server that Node has let go of, since they ask for another protocol. */
export interface Upgrades {
  /** An answer of HTTP to it, as to any request: the last one on its connection. undefined: none can be given. */
  readonly begin: (incoming: IncomingMessage, socket: Duplex, head: Buffer) => ServerResponse | undefined;
  /** Is this one of them, for a WebSocket? */
  readonly isAsking: (incoming: IncomingMessage) => boolean;
  /** @throws TunwardError ERR_BAD_REQUEST, ERR_UPGRADE_REQUIRED: the handshake is not as RFC 6455 and the row have it */
  readonly prepare: (incoming: IncomingMessage, protocol: string) => Promise<Accept>;
  /** Tells those that are open that it is over (1001). */
  readonly close: () => void;
  /** Cuts what is still there. */
  readonly destroy: () => void;
}

interface Waiting {
  readonly socket: Duplex;
  readonly head: Buffer;
  readonly outgoing: ServerResponse;
}

/** `isExpected`: is there a row that a WebSocket is opened at by this request? */
export function createUpgrades(isExpected: (incoming: IncomingMessage) => boolean): Upgrades {
  const sockets = new Set<Duplex>();
  const waiting = new WeakMap<IncomingMessage, Waiting>();
  const open = new Set<WebSocket>();
  return { begin, isAsking: (incoming) => waiting.has(incoming), prepare, close, destroy };

  function begin(incoming: IncomingMessage, socket: Duplex, head: Buffer): ServerResponse | undefined {
    sockets.add(socket);
    // From here on nobody else listens, and an error that nobody hears ends the process.
    socket.on('error', () => socket.destroy()).once('close', () => sockets.delete(socket));
    const outgoing = new ServerResponse(incoming);
    outgoing.shouldKeepAlive = false;
    try {
      outgoing.assignSocket(socket as Socket);
    } catch {
      // The answer to a request before this one is still under way: nobody who waits for that asks for another protocol.
      socket.destroy();
      return undefined;
    }
    outgoing.once('finish', () => end(outgoing, socket));
    if (isExpected(incoming)) waiting.set(incoming, { socket, head, outgoing });
    else socket.once('end', () => socket.destroy()).resume();
    return outgoing;
  }

  async function prepare(incoming: IncomingMessage, protocol: string): Promise<Accept> {
    checkHandshake(incoming, protocol);
    const server = await loadServer(protocol);
    return () => {
      const { socket, head, outgoing } = waiting.get(incoming) ?? {};
      if (!socket || !head || socket.destroyed) return undefined;
      waiting.delete(incoming);
      outgoing?.detachSocket(socket as Socket);
      let opened: WebSocket | undefined;
      server.handleUpgrade(incoming, socket, head, (webSocket) => {
        opened = webSocket;
      });
      if (opened) keep(opened, socket);
      return opened;
    };
  }

  function keep(webSocket: WebSocket, socket: Duplex): void {
    open.add(webSocket);
    webSocket.once('close', () => open.delete(webSocket));
    // Half a connection is none: ws would first say all that is left, to somebody who may never take it.
    socket.once('end', () => webSocket.terminate());
  }

  function close(): void {
    for (const webSocket of open) webSocket.close(1001, 'the daemon stops');
  }

  function destroy(): void {
    for (const socket of sockets) socket.destroy();
  }
}

function end(outgoing: ServerResponse, socket: Duplex): void {
  outgoing.detachSocket(socket as Socket);
  // Whatever it still has to say: unread, that would cut the answer short.
  socket.resume();
  socket.end(() => socket.destroy());
}

/** All that RFC 6455 wants, before anything is said: what ws itself refuses it does without a problem document. */
function checkHandshake(incoming: IncomingMessage, protocol: string): void {
  const { httpVersion, headers } = incoming;
  const { 'sec-websocket-key': key = '', 'sec-websocket-version': version = '' } = headers;
  if (httpVersion !== '1.1') throw bad(`Expected an upgrade of HTTP/1.1, found HTTP/${httpVersion}`);
  if (headers.upgrade?.toLowerCase() !== 'websocket') throw bad('Expected the header Upgrade: websocket, and no more');
  if (!/^[+/0-9A-Za-z]{22}==$/.test(key)) throw bad('Expected a Sec-WebSocket-Key of 16 bytes in base64');
  if (version !== '13') {
    throw new TunwardError('ERR_UPGRADE_REQUIRED', 'Expected the header Sec-WebSocket-Version: 13', {});
  }
  if (!isOffered(headers, protocol)) throw bad(`Expected the header Sec-WebSocket-Protocol: ${protocol}`);
}

/** As a list of different names, one of them this. */
function isOffered({ 'sec-websocket-protocol': text = '' }: IncomingHttpHeaders, protocol: string): boolean {
  const names = text.split(',').map((name) => name.trim());
  const isList = names.every((name) => /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name));
  return isList && new Set(names).size === names.length && names.includes(protocol);
}

/** How long somebody has to answer the last frame, in milliseconds: then the connection is cut. */
const CLOSE_MS = 500;

/** The package is loaded when it is first needed: for most daemons never. */
async function loadServer(protocol: string): Promise<WebSocketServer> {
  const { WebSocketServer } = await import('ws');
  // The last is newer than the types.
  const options: ServerOptions & { readonly closeTimeout: number } = {
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: MAX_MESSAGE,
    // What a message may be in pieces: a slow line brings a packet at a time.
    maxBufferedChunks: 1024,
    maxFragments: 64,
    handleProtocols: () => protocol,
    closeTimeout: CLOSE_MS,
  };
  return new WebSocketServer(options);
}

function bad(message: string): TunwardError {
  return new TunwardError('ERR_BAD_REQUEST', message, {});
}
