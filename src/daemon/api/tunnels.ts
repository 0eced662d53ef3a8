import * as z from 'zod';
import { readProcessTree } from '../../proc/family.js';
import type { Clock } from '../../time.js';
import type { Supervisor } from '../../tunnel/supervisor.js';
import type { TunnelLogs } from '../log.js';
import { type Action, inGroups } from './operations.js';
import type { Overview } from './overview.js';
import { type Route, type RouteRequest, route } from './route.js';
import { count, flag, idParams, list, operationResult, processTree, time, traffic, tunnel } from './shapes.js';

export interface TunnelRouteContext {
  readonly supervisor: Supervisor;
  readonly overview: Overview;
  readonly logs: TunnelLogs;
  readonly clock: Clock;
}

/** How tunnels are, and what is done with them as they are configured. */
export function tunnelRoutes({ supervisor, overview, logs, clock }: TunnelRouteContext): Route[] {
  return [
    route({
      method: 'GET',
      path: '/v1/tunnels',
      scope: 'read',
      about:
        'All tunnels, in the order of the configuration; states of this moment, processes and traffic of the last two seconds',
      query: z.strictObject({ group: list.optional().describe('Those of these groups alone') }),
      answers: {
        200: {
          about: 'With an ETag, and compressed where that is accepted',
          schema: z.strictObject({ tunnels: z.array(tunnel) }),
        },
        304: { about: 'As If-None-Match has it' },
      },
      errors: ['ERR_TUNNEL_UNKNOWN'],
      handle: async ({ query: { group }, incoming }) => {
        if (group === undefined) return answerList(overview, incoming);
        return { body: { tunnels: inGroups(await overview.statuses(), group) } };
      },
    }),
    route({
      method: 'GET',
      path: '/v1/traffic',
      scope: 'read',
      about:
        'What has passed through the daemon until this moment, for a page that draws it: counters, of which it makes rates',
      answers: {
        200: {
          about: 'By id, those tunnels alone whose bytes pass through it',
          schema: z.strictObject({ at: time(), tunnels: z.record(z.string(), traffic) }),
        },
      },
      handle: async () => {
        const at = new Date(clock.wallTime()).toISOString();
        return { body: { at, tunnels: Object.fromEntries(supervisor.traffic()) } };
      },
    }),
    route({
      method: 'GET',
      path: '/v1/tunnels/{id}',
      scope: 'read',
      about: 'One tunnel as it is at this moment',
      params: idParams,
      answers: { 200: { about: 'The tunnel', schema: tunnel } },
      errors: unknown,
      handle: async ({ params: { id } }) => ({ body: supervisor.status(id) }),
    }),
    ...(['start', 'stop', 'restart'] as const).map((action) => operate(supervisor, action)),
    route({
      method: 'GET',
      path: '/v1/tunnels/{id}/processes',
      scope: 'read',
      about: 'The processes of its chain as a tree, with what each listens on',
      params: idParams,
      answers: {
        200: { about: 'null: there is no chain', schema: z.strictObject({ processes: processTree.nullable() }) },
      },
      errors: unknown,
      async handle({ params: { id } }) {
        const { pid, chain } = supervisor.status(id);
        const tree = pid === null ? undefined : await readProcessTree(pid);
        // The number may have been given to somebody else since.
        const isSame = tree !== undefined && chain[0]?.startTicks === tree.startTicks;
        return { body: { processes: isSame ? tree : null } };
      },
    }),
    route({
      method: 'GET',
      path: '/v1/tunnels/{id}/logs',
      scope: 'read',
      about:
        'The last lines of its log, through the files before the present one; with follow=true those to come as well',
      params: idParams,
      query: z.strictObject({
        lines: count(1, 10_000).optional().describe('How many; default 100, and 1 MiB at most'),
        follow: flag.optional().describe('As server-sent events `line` with `{line}`'),
      }),
      answers: {
        200: {
          about: 'The lines, the oldest first',
          schema: z.strictObject({ id: z.string(), log_file: z.string(), lines: z.array(z.string()) }),
        },
      },
      errors: unknown,
      async handle({ params, query: { lines = 100, follow = false } }) {
        const { id } = supervisor.status(params.id);
        if (!follow) return { body: { id, logFile: logs.fileOf(id), lines: logs.tail(id, lines) } };
        return {
          stream: (stream) => {
            const tell = (line: string) => stream.send('line', { line });
            // In one turn with what follows: no line is written in between.
            logs.tail(id, lines).forEach(tell);
            return logs.follow(id, tell);
          },
        };
      },
    }),
  ];
}

const unknown = ['ERR_TUNNEL_UNKNOWN', 'ERR_TUNNEL_AMBIGUOUS'];

function operate(supervisor: Supervisor, action: Action): Route {
  const goal = action === 'stop' ? 'down' : 'up';
  return route({
    method: 'POST',
    path: `/v1/tunnels/{id}/${action}`,
    scope: 'act',
    about: `${action === 'start' ? 'Starts' : action === 'stop' ? 'Stops' : 'Restarts'} it, and answers when it is ${goal}: within its restart_timeout_ms in any case. Calls at the same time share one answer`,
    params: idParams,
    query: z.strictObject(
      action === 'stop' ? {} : { force: flag.optional().describe('Whoever holds the port goes, this once') },
    ),
    answers: { 200: { about: `It is ${goal}; what that took`, schema: operationResult } },
    errors: [...unknown, 'ERR_TUNNEL_CONFLICT', 'ERR_PORT_HELD', 'ERR_START_FAILED', 'ERR_TIMEOUT'],
    handle: async ({ params: { id }, query }) => {
      const force = 'force' in query && query.force === true;
      return { body: await supervisor[action](id, { force }) };
    },
  });
}

async function answerList(overview: Overview, { headers }: RouteRequest['incoming']) {
  const answer = await overview.list();
  const { etag, json } = answer;
  const common = { etag, 'cache-control': 'no-cache', vary: 'accept-encoding' };
  if (headers['if-none-match'] === etag) return { status: 304, headers: common, bytes: '', type: 'application/json' };
  if (!/\bgzip\b/.test(headers['accept-encoding'] ?? ''))
    return { headers: common, bytes: json, type: 'application/json' };
  const zipped = { ...common, 'content-encoding': 'gzip' };
  return { headers: zipped, bytes: await answer.gzip(), type: 'application/json' };
}
