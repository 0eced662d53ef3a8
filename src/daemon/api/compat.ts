import fs from 'node:fs';
import path from 'node:path';
import * as z from 'zod';
import { errorCodes, isErrno, isTunwardError, TunwardError } from '../../errors.js';
import type { TunnelStatus } from '../../tunnel/runner.js';
import type { TunnelSpec } from '../../tunnel/spec.js';
import type { Supervisor } from '../../tunnel/supervisor.js';
import type { TunnelLogs } from '../log.js';
import { type Action, chooseTunnels, type Operations } from './operations.js';
import { type Route, route } from './route.js';

export interface CompatContext {
  readonly supervisor: Supervisor;
  readonly operations: Operations;
  readonly logs: TunnelLogs;
}

/**
 * The routes of autossh-tunnel-dockerized that people script against, with its JSON. What differs, on purpose: the
 * results are true, a failure has the status of one, and a `status` says more than RUNNING and STOPPED.
 */
export function compatRoutes({ supervisor, operations, logs }: CompatContext): Route[] {
  return [
    compat('GET', '/list', 'The configured tunnels', async () => ({
      body: supervisor.specs().map((spec) => describe(spec, spec.interactive ? 'INTERACTIVE' : 'NORMAL')),
    })),
    compat('GET', '/status', 'The tunnels and how they are', async () => ({
      body: supervisor.specs().map((spec) => describe(spec, wordFor(supervisor.status(spec.id)))),
    })),
    all('start'),
    all('stop'),
    one('start'),
    one('stop'),
    compat('POST', '/restart/{hash}', 'Restarts one; its first generation had this', async ({ hash }) => {
      const spec = find(hash);
      const { tookMs } = await supervisor.restart(spec.id);
      return { body: { success: true, message: `Tunnel ${spec.name} restarted in ${tookMs} ms`, logId: spec.id } };
    }),
    compat('GET', '/logs', 'The log files', async () => ({
      body: supervisor.specs().flatMap((spec) => fileOf(spec.id)),
    })),
    compat('GET', '/logs/{hash}', 'The last 100 lines of one', async ({ hash }) => {
      const lines = logs.tail(find(hash).id, 100);
      return { body: { status: 'success', tunnelHash: hash, log: lines.join('\n') } };
    }),
  ];

  function all(action: Action): Route {
    return compat('POST', `/${action}`, `${title(action)}s all, and answers when that is over`, async () => {
      const one = operations.begin(action, chooseTunnels(supervisor, { action, all: true }), { force: false });
      await operations.wait(one, ALL_MS);
      const isWaiting = one.tunnels.some(({ state }) => state === 'waiting');
      const isDone = one.tunnels.every(({ state }) => state === 'done');
      const output = one.tunnels.map(({ name, id, state, error }) => {
        const failure = error as { readonly detail: string } | undefined;
        return `${name} (${id}): ${failure?.detail ?? (state === 'done' ? done[action] : 'not over yet')}`;
      });
      const body = { status: isDone ? 'success' : 'error', output: output.join('\n') };
      return { status: isDone ? 200 : isWaiting ? 504 : 502, body };
    });
  }

  function one(action: Action): Route {
    return compat('POST', `/${action}/{hash}`, `${title(action)}s one`, async ({ hash }) => {
      const { id, name } = find(hash);
      await supervisor[action](id);
      return { body: { status: 'success', tunnelHash: hash, output: `${name} (${id}): ${done[action]}` } };
    });
  }

  /** By its id or 8 digits of it and more, in the ancestor's own words where there is none. */
  function find(hash: string): TunnelSpec {
    if (hash.length < 8) {
      const message = `Hash prefix too short (minimum 8 characters, got ${hash.length})`;
      throw new TunwardError('ERR_BAD_REQUEST', message, {});
    }
    const found = supervisor.specs().filter(({ id }) => id.startsWith(hash));
    const [only] = found;
    if (!only) throw new TunwardError('ERR_TUNNEL_UNKNOWN', `No tunnel found with hash prefix: ${hash}`, {});
    if (found.length === 1) return only;
    const message = `Ambiguous hash prefix '${hash}' matches ${found.length} tunnels: use more characters`;
    throw new TunwardError('ERR_TUNNEL_AMBIGUOUS', message, { candidates: found.map(({ id }) => id) });
  }

  function fileOf(id: string) {
    const file = logs.fileOf(id);
    try {
      const { size, mtime } = fs.lstatSync(file);
      return [{ hash: id, filename: path.basename(file), size, modified: mtime.toISOString() }];
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENOTDIR', 'EACCES')) return [];
      throw error;
    }
  }
}

type Answer = { readonly status?: number; readonly body: unknown };

function compat(
  method: 'GET' | 'POST',
  path: string,
  about: string,
  act: (params: { hash: string }) => Promise<Answer>,
): Route {
  return route({
    method,
    path,
    scope: method === 'GET' ? 'read' : 'act',
    about: `As autossh-tunnel-dockerized, with api.compat: ${about.charAt(0).toLowerCase()}${about.slice(1)}`,
    ...(path.includes('{hash}') ? { params: z.strictObject({ hash: z.string().max(64) }) } : {}),
    answers: { 200: { about, schema: z.unknown() } },
    toError: (error) => toError(error, path),
    handle: async ({ params }) => act(params as { hash: string }),
  });
}

/** Its own shapes of an error: `{error, message}`, and `{success: false, error}` for a restart. */
function toError(error: unknown, path: string): { status: number; body: unknown } {
  const isOurs = isTunwardError(error);
  const status = isOurs ? errorCodes[error.code].status : 500;
  const message = isOurs ? error.message : String(error);
  if (status === 401) return { status, body: { error: 'Unauthorized', message: 'Valid Bearer token required' } };
  if (status === 405) return { status, body: { error: 'Method not allowed' } };
  if (!path.startsWith('/restart')) return { status, body: { error: message } };
  return { status, body: { success: false, error: status === 404 ? 'Tunnel not found' : message } };
}

function describe(spec: TunnelSpec, status: string) {
  const { name, localPort, remoteHost, remotePort, id: hash } = spec;
  return { name, status, localPort, remoteHost, remotePort, hash };
}

/** Its documents promise these five words; it has ever only said the first two. */
function wordFor({ state, reason }: TunnelStatus): string {
  if (state === 'up') return 'RUNNING';
  if (reason === 'needs_auth') return 'INTERACTIVE';
  if (state === 'stopped') return 'STOPPED';
  return state === 'fatal' ? 'DEAD' : 'STARTING';
}

/** 500 tunnels to one server take a minute; whoever asks is not kept for ever. */
const ALL_MS = 300_000;

const done: Readonly<Record<Action, string>> = { start: 'started', stop: 'stopped', restart: 'restarted' };

function title(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
