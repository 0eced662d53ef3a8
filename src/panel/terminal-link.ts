import type { Problem, Tunnel } from './types.js';

/** Between ssh and the person it asks, as docs/terminal.md has it. */
export interface TerminalLink {
  /** Passes on what was typed, and wipes it. */
  type(bytes: Uint8Array): void;
  resize(columns: number, rows: number): void;
  /** Ends the attempt, unless that has come to an end already. Nothing is told any more. */
  close(): void;
}

export interface TerminalHands {
  readonly onOpen: (via: Via) => void;
  readonly onShow: (bytes: Uint8Array) => void;
  /** Once, and the last. */
  readonly onEnd: (end: LinkEnd) => void;
}

/** askpass: ssh is on no terminal, and the daemon draws its questions. */
export type Via = 'pty' | 'askpass';

export type LinkEnd =
  | { readonly kind: 'up'; readonly tunnel: Tunnel }
  | { readonly kind: 'failed'; readonly problem: Problem }
  /** It was not let in. Why, a browser does not say. */
  | { readonly kind: 'refused' }
  | { readonly kind: 'lost' };

type Message =
  | { readonly type: 'open'; readonly via: Via }
  | { readonly type: 'end'; readonly outcome: 'up'; readonly tunnel: Tunnel }
  | { readonly type: 'end'; readonly outcome: 'failed'; readonly problem: Problem };

/** As much as the daemon takes in one message. */
const MOST_BYTES = 65_536;

export function terminalPath(id: string): string {
  return `/v1/tunnels/${encodeURIComponent(id)}/terminal`;
}

export function openTerminal(
  id: string,
  size: { readonly columns: number; readonly rows: number },
  { onOpen, onShow, onEnd }: TerminalHands,
): TerminalLink {
  const url = new URL(`${terminalPath(id)}?columns=${size.columns}&rows=${size.rows}`, location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  url.hash = '';
  const socket = new WebSocket(url, 'tunward.terminal.v1');
  socket.binaryType = 'arraybuffer';
  let isIn = false;
  /** What the daemon knows of the window, and how that is. */
  let [told, present] = [size, size];
  let isOver = false;
  socket.addEventListener('open', () => {
    isIn = true;
    tell();
  });
  socket.addEventListener('message', ({ data }: MessageEvent<ArrayBuffer | string>) => {
    if (isOver) return;
    if (typeof data === 'string') hear(JSON.parse(data));
    else onShow(new Uint8Array(data));
  });
  socket.addEventListener('close', () => end({ kind: isIn ? 'lost' : 'refused' }));
  return { type, resize, close };

  function hear(message: Message): void {
    if (message.type === 'open') onOpen(message.via);
    else if (message.type === 'end') {
      const { outcome } = message;
      end(outcome === 'up' ? { kind: outcome, tunnel: message.tunnel } : { kind: outcome, problem: message.problem });
    }
  }

  function end(how: LinkEnd): void {
    if (isOver) return;
    isOver = true;
    onEnd(how);
  }

  function type(bytes: Uint8Array): void {
    if (!isOver && socket.readyState === WebSocket.OPEN) {
      for (let at = 0; at < bytes.length; at += MOST_BYTES) socket.send(bytes.slice(at, at + MOST_BYTES));
    }
    bytes.fill(0);
  }

  function resize(columns: number, rows: number): void {
    present = { columns, rows };
    if (isIn) tell();
  }

  /** A window may become another one while the connection is being made. */
  function tell(): void {
    if (isOver || present === told || socket.readyState !== WebSocket.OPEN) return;
    told = present;
    socket.send(JSON.stringify({ type: 'resize', ...told }));
  }

  function close(): void {
    isOver = true;
    socket.close();
  }
}
