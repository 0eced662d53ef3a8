import { mkdtempSync, rmSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Reaper } from '../support/reaper.js';

/** What a route of the fake daemon answers; undefined leaves the caller without an answer. */
export interface Reply {
  readonly status?: number;
  /** An object is sent as JSON, a text as it is. */
  readonly body?: unknown;
  /** In place of a body: server-sent events, which the test writes as it likes. */
  readonly stream?: (response: http.ServerResponse, headers: http.IncomingHttpHeaders) => void;
}

type Route = () => Reply | undefined | Promise<Reply | undefined>;

/** An HTTP server on a unix socket of its own, which answers what the test says and remembers what it was asked. */
export interface FakeDaemon {
  readonly socket: string;
  /** `METHOD /path?query`, in order. */
  readonly asked: string[];
  /** Headers and body of the last request. */
  readonly last: { headers: http.IncomingHttpHeaders; body: string };
  /** Answers from now on; keys are `METHOD /path`, without the query. */
  readonly routes: Map<string, Route>;
  readonly server: http.Server;
  close(): Promise<void>;
}

export async function startFakeDaemon(listen?: { host: string; port: number }): Promise<FakeDaemon> {
  const dir = mkdtempSync(join(tmpdir(), 'tunward-fake-'));
  const socket = join(dir, 'fake.sock');
  const asked: string[] = [];
  const last: FakeDaemon['last'] = { headers: {}, body: '' };
  const routes: FakeDaemon['routes'] = new Map();
  const server = http.createServer((request, response) => {
    const { method = '', url = '' } = request;
    asked.push(`${method} ${url}`);
    last.headers = request.headers;
    last.body = '';
    request.setEncoding('utf8').on('data', (text: string) => {
      last.body += text;
    });
    request.once('end', () => answer(request, response, routes.get(`${method} ${url.split('?')[0]}`)));
  });
  await new Promise<void>((resolve) => server.listen(listen ?? { path: socket }, resolve));
  const close = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    rmSync(dir, { recursive: true, force: true });
  };
  return { socket, asked, last, routes, server, close };
}

/** One for each test of the suite, which is handed to `begin`; the commands of `reaper` are ended before it. */
export function useFakeDaemon(reaper: Reaper, begin: (daemon: FakeDaemon) => void): void {
  let daemon: FakeDaemon;
  beforeEach(async () => {
    daemon = await startFakeDaemon();
    begin(daemon);
  });
  afterEach(async () => {
    await reaper.end();
    await daemon.close();
  });
}

async function answer(
  request: http.IncomingMessage,
  response: http.ServerResponse,
  route: Route | undefined,
): Promise<void> {
  const reply = route ? await route() : { status: 404, body: { detail: 'no such route', code: 'ERR_BAD_REQUEST' } };
  if (!reply) return;
  if (reply.stream) {
    response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' }).flushHeaders();
    reply.stream(response, request.headers);
    return;
  }
  response.writeHead(reply.status ?? 200, { 'content-type': 'application/json' });
  response.end(typeof reply.body === 'string' ? reply.body : JSON.stringify(reply.body));
}

/** T of the API, up and well unless said otherwise. */
export function tunnelRecord(fields: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return {
    id: '76692f8a1adb8d8bee5f3b29e1b42602',
    name: 'web',
    state: 'up',
    desired: 'up',
    reason: null,
    health: 'ok',
    remedy: null,
    health_reason: null,
    direction: 'remote_to_local',
    engine: 'autossh',
    seamless: false,
    listen: [
      { side: 'local', host: '127.0.0.1', port: 8001 },
      { side: 'local', host: '::1', port: 8001 },
    ],
    target: 'localhost:8000',
    remote_host: 'user@remote-host1',
    jump: [],
    groups: [],
    interactive: false,
    enabled: true,
    pid: 812,
    chain: [{ pid: 812, start_ticks: 1, command: '/usr/lib/autossh/autossh -M 0' }],
    usage: {
      cpu: 1.26,
      memory: 18_300_000,
      ppid: 7,
      pid: 812,
      ctime: 820,
      elapsed: 65_000,
      timestamp: 1_750_000_000_000,
    },
    traffic: null,
    since: new Date(Date.now() - 65_000).toISOString(),
    attempt: 0,
    restarts: 0,
    next_retry_at: null,
    last_error: null,
    log_file: null,
    ...fields,
  };
}

/** The answer to a restart of {@link tunnelRecord}. */
export function operationRecord(fields: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  const killed = [
    { pid: 812, start_ticks: 1, command: '/usr/lib/autossh/autossh -M 0 -N', why: 'the chain of this tunnel' },
    { pid: 815, start_ticks: 2, command: 'ssh -N -L 8001:localhost:8000', why: 'child of 812' },
  ];
  return {
    id: '76692f8a1adb8d8bee5f3b29e1b42602',
    name: 'web',
    state: 'up',
    took_ms: 412.3,
    phases: { stop_ms: 6.1, free_ms: 1.2, start_ms: 405 },
    kill: { killed, left: [], survivors: [], took_ms: 6 },
    tunnel: tunnelRecord(),
    ...fields,
  };
}
