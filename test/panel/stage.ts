/**
 * A daemon that is not there: it speaks the API as far as the panel uses it, serves the panel's real files, and does what
 * a test asks of it, also what a real one does not do on demand: it goes away, is slow, loses events, refuses.
 */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { WebSocketServer } from 'ws';
import { createPanelFiles } from '#lib/daemon/api/panel.js';
import { type Sitting, sitAt } from './sitting.js';

// biome-ignore lint/suspicious/noExplicitAny: JSON of the wire; the tests are its assertions
export type Json = any;

export interface Reply {
  readonly status?: number;
  readonly body: unknown;
}

export interface Asked {
  readonly method: string;
  readonly url: URL;
  readonly body: Json;
  readonly headers: http.IncomingHttpHeaders;
}

type Answer = (asked: Asked) => Reply | Promise<Reply>;

export interface Stage {
  readonly url: string;
  readonly token: string;
  readonly readToken: string;
  /** `METHOD /path?query`, in order; the panel's files are not among them. */
  readonly asked: string[];
  /** Bodies of those that had one, by the same text. */
  readonly bodies: Map<string, Json>;
  /** What is answered instead, by `METHOD /path` without the query. */
  readonly answers: Map<string, Answer>;
  /** By id. What is put in here by `set()` alone is told by events as well. */
  readonly tunnels: Map<string, Json>;
  readonly processes: Map<string, Json>;
  readonly ports: Map<number, Json>;
  /** Whoever wants a terminal waits for it. */
  delay: () => Promise<void> | undefined;
  /** Everybody who was let to a terminal, in order. */
  readonly sittings: Sitting[];
  /** false: everybody is signed in, as behind a proxy that sends a token. */
  isLocked: boolean;
  /** Changes a tunnel, and says so by an event, unless it is to be found out. */
  set(id: string, part: Json, options?: { silent?: boolean }): void;
  emit(type: string, data?: Json): void;
  /** One line more in a tunnel's log. */
  say(id: string, line: string): void;
  /** Ends every stream of events, as a proxy or a sleeping laptop does. */
  cutStreams(): void;
  streams(): number;
  /** The daemon ends; and there it is again, at the same address. */
  vanish(): Promise<void>;
  comeBack(): Promise<void>;
  close(): Promise<void>;
}

export async function startStage(tunnels: readonly Json[] = []): Promise<Stage> {
  const files = createPanelFiles();
  const sessions = new Map<string, 'all' | 'read'>();
  const events = new Set<http.ServerResponse>();
  const followers = new Map<http.ServerResponse, string>();
  const logs = new Map<string, string[]>();
  let count = 0;
  const server = http.createServer((request, response) => void serve(request, response));
  server.keepAliveTimeout = 200;
  const terminals = new WebSocketServer({ noServer: true, maxPayload: 65_536, clientTracking: true });
  server.on('upgrade', (request, socket, head) => void upgrade(request, socket, head));
  let port = 0;
  await listen();
  const stage: Stage = {
    url: `http://127.0.0.1:${port}/`,
    token: 'the-token-of-the-stage',
    readToken: 'the-token-that-reads',
    asked: [],
    bodies: new Map(),
    answers: new Map(),
    tunnels: new Map(tunnels.map((tunnel) => [tunnel.id, tunnel])),
    processes: new Map(),
    ports: new Map(),
    delay: () => undefined,
    sittings: [],
    isLocked: true,
    set,
    emit,
    say,
    cutStreams: () => {
      for (const stream of [...events, ...followers.keys()]) stream.destroy();
    },
    streams: () => events.size,
    vanish,
    comeBack: listen,
    close: vanish,
  };
  return stage;

  async function listen(): Promise<void> {
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
    port = (server.address() as AddressInfo).port;
  }

  async function vanish(): Promise<void> {
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    for (const client of terminals.clients) client.terminate();
    await closed;
  }

  function set(id: string, part: Json, { silent = false } = {}): void {
    const before = stage.tunnels.get(id);
    const status = { ...before, ...part };
    stage.tunnels.set(id, status);
    if (!silent) emit(`tunnel.${status.state}`, { tunnel: id, from: before.state, asked: true, status });
  }

  function emit(type: string, data: Json = {}): void {
    const record = JSON.stringify({ id: ++count, at: new Date().toISOString(), type, ...data });
    for (const stream of events) stream.write(`id: stage-${count}\nevent: ${type}\ndata: ${record}\n\n`);
  }

  function say(id: string, line: string): void {
    logs.set(id, [...(logs.get(id) ?? []), line]);
    for (const [stream, of] of followers) if (of === id) stream.write(lineEvent(line));
  }

  async function serve(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', stage.url);
    const file = request.method === 'GET' ? files(url.pathname) : undefined;
    if (file) return void response.writeHead(200, file.headers).end(file.body);
    const asked = { method: request.method ?? '', url, body: await readBody(request), headers: request.headers };
    const what = `${asked.method} ${url.pathname}${url.search}`;
    stage.asked.push(what);
    if (asked.body !== undefined) stage.bodies.set(what, asked.body);
    if (response.destroyed) return;
    const special = stage.answers.get(`${asked.method} ${url.pathname}`);
    if (special) return send(response, await special(asked));
    if (asked.method === 'POST' && url.pathname === '/v1/session') return openSession(asked, response);
    const scope = scopeOf(asked);
    if (!scope) return send(response, problem(401, 'ERR_UNAUTHORIZED', 'A bearer token is needed'));
    if (asked.method === 'POST' && scope === 'read')
      return send(response, problem(403, 'ERR_FORBIDDEN', 'This token reads'));
    answer(asked, response, scope);
  }

  /** A terminal is for whoever may act, and for the stage's own page. */
  async function upgrade(request: http.IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const asked = {
      method: 'GET',
      url: new URL(request.url ?? '/', stage.url),
      body: undefined,
      headers: request.headers,
    };
    stage.asked.push(`UPGRADE ${asked.url.pathname}`);
    const special = await stage.answers.get(`GET ${asked.url.pathname}`)?.(asked);
    const isOurs = `${asked.headers.origin}/` === stage.url && scopeOf(asked) === 'all';
    const refusal = special ?? (isOurs ? undefined : problem(403, 'ERR_FORBIDDEN', 'Not from there'));
    if (refusal)
      return void socket.end(`HTTP/1.1 ${refusal.status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
    await stage.delay();
    terminals.handleUpgrade(request, socket, head, (client) => stage.sittings.push(sitAt(client, asked.url)));
  }

  function answer(asked: Asked, response: http.ServerResponse, scope: 'all' | 'read'): void {
    const { method, url } = asked;
    const [, , kind = '', id = '', rest] = url.pathname.split('/').map(decodeURIComponent);
    const route = `${method} ${kind}${id ? '/*' : ''}${rest ? `/${rest}` : ''}`;
    switch (route) {
      case 'GET session':
        return send(response, { body: { scope, via: 'cookie', version: '0.1.0', token_needed: stage.isLocked } });
      case 'DELETE session':
        sessions.clear();
        return send(response, { body: { status: 'ended' } });
      case 'GET events':
        return stream(response, events);
      case 'GET tunnels':
        return send(response, { body: { tunnels: [...stage.tunnels.values()] } });
      case 'GET traffic': {
        const counted = [...stage.tunnels.values()].filter(({ traffic }) => traffic);
        const tunnels = Object.fromEntries(counted.map(({ id, traffic }) => [id, traffic]));
        return send(response, { body: { at: new Date().toISOString(), tunnels } });
      }
      case 'GET tunnels/*/logs':
        return follow(response, id);
      case 'GET tunnels/*/processes':
        return send(response, { body: { processes: stage.processes.get(id) ?? null } });
      case 'GET tunnels/*/terminal':
        return send(response, problem(426, 'ERR_UPGRADE_REQUIRED', 'This is for WebSocket'));
      case 'POST tunnels/*/start':
      case 'POST tunnels/*/stop':
      case 'POST tunnels/*/restart':
        return send(response, { body: act(id, rest ?? '') });
      case 'GET ports/*':
      case 'POST ports/*/free':
        return send(response, {
          body: stage.ports.get(Number(id)) ?? freePort(Number(id), url.searchParams.get('host')),
        });
      default:
        return send(response, problem(404, 'ERR_ROUTE_UNKNOWN', `There is no ${method} ${url.pathname}`));
    }
  }

  function act(id: string, verb: string): Json {
    const at = new Date().toISOString();
    const phases = { stop_ms: verb === 'start' ? 0 : 11.6, free_ms: 2.4, start_ms: verb === 'stop' ? 0 : 402 };
    const took_ms = phases.stop_ms + phases.free_ms + phases.start_ms;
    if (verb === 'stop') set(id, { state: 'stopped', desired: 'down', since: at, usage: null, pid: null });
    else {
      set(id, { state: 'starting', desired: 'up', since: at, reason: null, last_error: null, next_retry_at: null });
      set(id, { state: 'up', since: at, last_restart: { at, asked: true, reason: null, took_ms, phases } });
    }
    const tunnel = stage.tunnels.get(id);
    const killed = verb === 'start' ? [] : [{ pid: 812, start_ticks: 1, command: 'ssh -N', why: 'target' }];
    const kill = { killed, left: [], survivors: [], took_ms: 3 };
    return { id, name: tunnel.name, state: tunnel.state, took_ms, phases, kill, tunnel };
  }

  function openSession({ body }: Asked, response: http.ServerResponse): void {
    const scope = body?.token === stage.token ? 'all' : body?.token === stage.readToken ? 'read' : undefined;
    if (!scope) return send(response, problem(401, 'ERR_UNAUTHORIZED', 'This is no token of this daemon'));
    const name = `s${sessions.size}-${Date.now()}`;
    sessions.set(name, scope);
    response.setHeader('set-cookie', `tunward=${name}; HttpOnly; SameSite=Strict; Path=/`);
    send(response, { body: { scope, expires_at: new Date(Date.now() + 3.6e6).toISOString() } });
  }

  function scopeOf({ headers }: Asked): 'all' | 'read' | undefined {
    if (!stage.isLocked) return 'all';
    return sessions.get(/tunward=([^;]+)/.exec(headers.cookie ?? '')?.[1] ?? '');
  }

  function follow(response: http.ServerResponse, id: string): void {
    followers.set(response, id);
    response.on('close', () => followers.delete(response));
    stream(response, new Set());
    for (const line of logs.get(id) ?? []) response.write(lineEvent(line));
  }
}

function stream(response: http.ServerResponse, among: Set<http.ServerResponse>): void {
  among.add(response);
  response.on('close', () => among.delete(response));
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  response.write(': hello\n\n');
}

function lineEvent(line: string): string {
  return `event: line\ndata: ${JSON.stringify({ line })}\n\n`;
}

function freePort(port: number, host: string | null): Json {
  const explanation = `Port ${port} is free`;
  return {
    port,
    host,
    free: true,
    verdict: 'free',
    explanation,
    listeners: [],
    clients: [],
    respawner: null,
    kill: null,
    took_ms: 0.4,
  };
}

export function problem(status: number, code: string, detail: string, info: Json = {}): Reply {
  return { status, body: { ...info, type: `urn:tunward:error:${code}`, title: code, status, detail, code } };
}

function send(response: http.ServerResponse, { status = 200, body }: Reply): void {
  const type = status < 400 ? 'application/json' : 'application/problem+json';
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
  response.end(JSON.stringify(body));
}

async function readBody(request: http.IncomingMessage): Promise<Json> {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) text += chunk;
  return text === '' ? undefined : JSON.parse(text);
}
