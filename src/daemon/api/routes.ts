import { TunwardError } from '../../errors.js';
import { inspectPort } from '../../port/inspect.js';
import { openProc } from '../../proc/read.js';
import type { Supervisor } from '../../tunnel/supervisor.js';
import { readInit } from '../init.js';
import type { TunnelLogs } from '../log.js';

export interface RouteRequest {
  readonly param: (name: string) => string | undefined;
  readonly query: (name: string) => string | undefined;
}

export interface RouteAnswer {
  readonly status?: 200 | 202;
  /** camelCase; it is put into snake_case on its way out. */
  readonly body: unknown;
}

export interface Route {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  /** Needs no token: says nothing that is worth one. */
  readonly open?: boolean;
  readonly handle: (request: RouteRequest) => Promise<RouteAnswer>;
}

export interface RouteContext {
  readonly supervisor: Supervisor;
  readonly logs: TunnelLogs;
  readonly shutdown: () => void;
  /** The sweep over leftovers is over, and every tunnel is known. What asks for more than the health waits for it. */
  readonly booted: Promise<void>;
}

/** The whole API, version 1. */
export function createRoutes(context: RouteContext): Route[] {
  const afterBoot = (route: Route): Route => ({
    ...route,
    handle: async (request) => {
      await context.booted;
      return route.handle(request);
    },
  });
  return listRoutes(context).map((route) => (route.open ? route : afterBoot(route)));
}

function listRoutes({ supervisor, logs, shutdown }: RouteContext): Route[] {
  return [
    { method: 'GET', path: '/health', open: true, handle: async () => ({ body: readHealth() }) },
    { method: 'GET', path: '/v1/tunnels', handle: async () => ({ body: { tunnels: supervisor.list() } }) },
    { method: 'GET', path: '/v1/tunnels/:id', handle: async (request) => ({ body: supervisor.status(idOf(request)) }) },
    {
      method: 'POST',
      path: '/v1/tunnels/:id/start',
      handle: async (request) => ({ body: await supervisor.start(idOf(request), { force: isForced(request) }) }),
    },
    {
      method: 'POST',
      path: '/v1/tunnels/:id/restart',
      handle: async (request) => ({ body: await supervisor.restart(idOf(request), { force: isForced(request) }) }),
    },
    {
      method: 'POST',
      path: '/v1/tunnels/:id/stop',
      handle: async (request) => ({ body: await supervisor.stop(idOf(request)) }),
    },
    {
      method: 'GET',
      path: '/v1/tunnels/:id/logs',
      handle: async (request) => {
        const { id } = supervisor.status(idOf(request));
        const lines = numberOf('lines', request.query('lines') ?? '100', 10_000);
        return { body: { id, logFile: logs.fileOf(id), lines: logs.tail(id, lines) } };
      },
    },
    {
      method: 'GET',
      path: '/v1/ports/:port',
      handle: async (request) => {
        const port = numberOf('port', request.param('port') ?? '', 65_535);
        return { body: await inspectPort(port, { host: hostOf(request) }) };
      },
    },
    {
      method: 'POST',
      path: '/v1/shutdown',
      handle: async () => {
        shutdown();
        return { status: 202, body: { status: 'stopping', pid: process.pid } };
      },
    },
  ];
}

/** It answers, so it is well: zombies are a matter for whoever made the image, and no reason to start it again. */
function readHealth() {
  return { status: 'ok', pid: process.pid, ...readInit(openProc(), process.pid) };
}

function idOf(request: RouteRequest): string {
  return request.param('id') ?? '';
}

function isForced(request: RouteRequest): boolean {
  const force = request.query('force') ?? 'false';
  if (force === 'true' || force === 'false') return force === 'true';
  throw new TunwardError('ERR_BAD_REQUEST', `force: expected true or false, found '${force}'`, { force });
}

function hostOf(request: RouteRequest): string | undefined {
  const host = request.query('host');
  if (host === undefined || /^(localhost|\*|[0-9a-fA-F.:[\]]+)$/.test(host)) return host;
  throw new TunwardError('ERR_BAD_REQUEST', `host: expected an IP address, localhost or *, found '${host}'`, { host });
}

function numberOf(name: string, text: string, most: number): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= 1 && value <= most) return value;
  throw new TunwardError('ERR_BAD_REQUEST', `${name}: expected a number from 1 to ${most}, found '${text}'`, {
    [name]: text,
  });
}
