import { isIP } from 'node:net';
import * as z from 'zod';
import { errorCodes } from '../../errors.js';
import { reasons } from '../../tunnel/engine.js';

/*
 * What crosses the wire, in its spelling. The one source of the checks of requests, of openapi.json and of docs/api.md;
 * a test holds the answers of a real daemon against it.
 */

export const time = () => z.iso.datetime().describe('ISO 8601, UTC');
const ms = (about: string) => z.number().describe(`${about}, in milliseconds`);

export const idParams = z.strictObject({
  id: z.string().min(1).max(300).describe('An id, a name, or a prefix of an id with 8 or more digits'),
});

export const phases = z
  .strictObject({
    stop_ms: ms('Until the old chain was gone'),
    free_ms: ms('Until every port was proved free'),
    start_ms: ms('Until it was up'),
  })
  .meta({ id: 'Phases' });

const bind = z.strictObject({
  side: z.enum(['local', 'remote']),
  host: z.string(),
  port: z.int().min(0).max(65_535).describe('0: the server has not chosen yet'),
});

const usage = z
  .strictObject({
    cpu: z.number().describe('Percent of one core since somebody last asked; at first since the start'),
    memory: z.number().describe('Resident bytes; what two processes share counts twice'),
    ppid: z.int(),
    pid: z.int(),
    ctime: ms('CPU time of all its processes'),
    elapsed: ms('Age of its root'),
    timestamp: z.number().describe('When that was seen, milliseconds since the epoch'),
  })
  .describe('What the chain uses, in the shape of pidusage');

const lastRestart = z
  .strictObject({
    at: time().describe('When it was up'),
    asked: z.boolean().describe('Somebody wanted it: a boot, a request, a changed configuration'),
    reason: z.enum(reasons).nullable().describe('Why it was up no longer before that'),
    took_ms: ms('All of it'),
    phases,
  })
  .describe('The last time it came up');

export const traffic = z
  .strictObject({
    connections: z.int().describe('That were accepted'),
    open: z.int().describe('Those of them that go through now'),
    queued: z.int().describe('Those that wait for a link now'),
    refused: z
      .int()
      .describe(
        'Those that were turned away: too many waited, it took too long, no descriptor was left, or the target could not be reached',
      ),
    bytes_in: z.int().describe('From the target to its clients'),
    bytes_out: z.int().describe('From clients to the target'),
  })
  .meta({ id: 'Traffic' });

export const tunnel = z
  .strictObject({
    id: z.string().describe('32 hexadecimal digits, made of what it forwards'),
    name: z.string(),
    state: z
      .enum(['stopped', 'starting', 'up', 'backoff', 'stopping', 'fatal'])
      .describe('backoff waits for its next try; fatal is what no retry can mend'),
    desired: z.enum(['up', 'down']),
    reason: z.enum(reasons).nullable().describe('Why it is not up; of one that is up, why it is degraded'),
    health: z.enum(['ok', 'degraded', 'unknown']).describe('degraded: up, and its check found the target unwell'),
    health_reason: z.string().nullable(),
    remedy: z.string().nullable().describe('What somebody can do about it'),
    direction: z.enum(['remote_to_local', 'local_to_remote']),
    engine: z.string().describe('What keeps it: ssh, autossh or embedded'),
    seamless: z.boolean().describe('The daemon listens for it, and its clients notice no restart'),
    listen: z.array(bind),
    target: z.string().describe('Where the forward leads, host:port'),
    remote_host: z.string(),
    jump: z.array(z.string()),
    groups: z.array(z.string()),
    interactive: z.boolean().describe('Needs a person at each start'),
    enabled: z.boolean(),
    pid: z.int().nullable().describe('The root of the chain'),
    chain: z.array(z.strictObject({ pid: z.int(), start_ticks: z.number(), command: z.string() })),
    usage: usage.nullable(),
    traffic: traffic
      .nullable()
      .describe(
        'What has passed through the daemon since it began; null: its bytes do not, unless it is embedded or seamless',
      ),
    since: time().describe('Since when it is in this state'),
    attempt: z.int(),
    restarts: z.int().describe('How often it came up again'),
    last_restart: lastRestart.nullable(),
    next_retry_at: time().nullable(),
    last_error: z.string().nullable(),
    log_file: z.string().nullable(),
  })
  .meta({ id: 'Tunnel' });

const killed = z.strictObject({ pid: z.int(), start_ticks: z.number(), command: z.string(), why: z.string() });

export const killReport = z
  .strictObject({
    killed: z.array(killed),
    left: z.array(killed).describe('Below the target, and spared'),
    survivors: z.array(z.strictObject({ pid: z.int(), command: z.string(), why: z.string() })),
    took_ms: ms('All of it'),
  })
  .meta({ id: 'KillReport' });

export const operationResult = z
  .strictObject({
    id: z.string(),
    name: z.string(),
    state: tunnel.shape.state,
    took_ms: ms('All of it'),
    phases,
    kill: killReport,
    tunnel,
  })
  .meta({ id: 'OperationResult' });

const processInfo = z.strictObject({
  pid: z.int(),
  start_ticks: z.number(),
  command: z.string(),
  user: z.string(),
  age_s: z.number().nullable(),
});

const listener = z.strictObject({
  protocol: z.string(),
  address: z.string(),
  port: z.int(),
  inode: z.number(),
  uid: z.number(),
  holders: z.array(processInfo),
  hidden: z.string().optional().describe('Why nobody is to be seen who has it'),
  hidden_reason: z.string().optional(),
});

export const portReport = z
  .strictObject({
    port: z.int(),
    host: z.string().nullable().describe('null: every local address'),
    free: z.boolean(),
    verdict: z.string(),
    explanation: z.string().describe('What is known and what to do, in one sentence'),
    listeners: z.array(listener),
    clients: z.array(z.strictObject({ pid: z.int(), command: z.string(), state: z.string() })),
    respawner: processInfo.nullable(),
    kill: killReport.nullable().describe('null: nobody was to be killed. With dry_run the plan'),
    took_ms: ms('All of it'),
  })
  .meta({ id: 'PortReport' });

export interface TreeShape {
  pid: number;
  start_ticks: number;
  state: string;
  command: string;
  age_s: number | null;
  rss_bytes: number;
  ports: number[];
  children: TreeShape[];
}

export const processTree: z.ZodType<TreeShape> = z
  .strictObject({
    pid: z.int(),
    start_ticks: z.number(),
    state: z.string(),
    command: z.string(),
    age_s: z.number().nullable(),
    rss_bytes: z.number(),
    ports: z.array(z.int()).describe('The TCP ports that it listens on'),
    get children() {
      return z.array(processTree);
    },
  })
  .meta({ id: 'ProcessTree' });

const forward = z.strictObject({
  side: z.enum(['local', 'remote']),
  listen: z.strictObject({ host: z.string(), port: z.int() }),
  target: z.strictObject({ host: z.string(), port: z.int() }),
});

export const tunnelProcess = processInfo
  .extend({
    ppid: z.int(),
    program: z.enum(['ssh', 'autossh']),
    tunnel_id: z.string().nullable(),
    instance: z.string().nullable(),
    destination: z.string().nullable(),
    forwards: z.array(forward),
    ports: z.array(z.int()),
    chain: z.array(z.int()),
  })
  .meta({ id: 'TunnelProcess' });

export const problem = z
  .looseObject({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    code: z.enum(Object.keys(errorCodes) as [string, ...string[]]).optional(),
  })
  .meta({ id: 'Problem', description: 'RFC 9457, with a code that is for ever and, by the code, more fields' });

export const action = z.enum(['start', 'stop', 'restart']);

export const operation = z
  .strictObject({
    id: z.string(),
    action,
    state: z.enum(['running', 'done']),
    started_at: time(),
    finished_at: time().nullable(),
    total: z.int(),
    done: z.int(),
    failed: z.int(),
    tunnels: z.array(
      z.strictObject({
        id: z.string(),
        name: z.string(),
        state: z.enum(['waiting', 'done', 'failed']),
        result: z.strictObject({ state: tunnel.shape.state, took_ms: z.number(), phases }).optional(),
        error: problem.optional(),
      }),
    ),
  })
  .meta({ id: 'Operation' });

const named = z.strictObject({ id: z.string(), name: z.string() });

export const changes = z
  .strictObject({ added: z.array(named), removed: z.array(named), changed: z.array(named) })
  .meta({ id: 'Changes' });

export const configProblem = z
  .strictObject({
    file: z.string(),
    line: z.int(),
    column: z.int(),
    path: z.string(),
    message: z.string(),
  })
  .meta({ id: 'ConfigProblem' });

export const health = z
  .strictObject({
    status: z.string(),
    pid: z.int(),
    pid1: z.boolean().describe('The daemon is pid 1'),
    zombies: z.int().describe('Dead processes that wait for it or for pid 1'),
    advice: z.string().optional(),
  })
  .meta({ id: 'Health' });

export const readiness = z
  .strictObject({
    status: z.enum(['ok', 'starting', 'stopping']),
    checks: z
      .array(z.strictObject({ name: z.string(), status: z.enum(['ok', 'failed']), detail: z.string() }))
      .optional(),
  })
  .meta({ id: 'Readiness' });

export const session = z
  .strictObject({
    scope: z.enum(['read', 'all']),
    via: z.enum(['socket', 'token', 'cookie']),
    version: z.string(),
    token_needed: z.boolean(),
  })
  .meta({ id: 'Session' });

/** `true` and `false` as a query has them. */
export const flag = z.enum(['true', 'false']).transform((text) => text === 'true');

/** A whole number as a query has it. */
export function count(least: number, most: number) {
  const message = `expected a number from ${least} to ${most}`;
  return z
    .string(message)
    .regex(/^\d{1,9}$/, message)
    .transform(Number)
    .refine((value) => value >= least && value <= most, message);
}

/** What may be given once, several times, or as a list with commas. */
export const list = z
  .union([z.string(), z.array(z.string())])
  .transform((given) => [given].flat().flatMap((text) => text.split(',').filter(Boolean)));

export const host = z
  .string()
  .transform((text) => text.replace(/^\[(.*)\]$/, '$1'))
  .refine((text) => text === 'localhost' || text === '*' || isIP(text) !== 0, 'expected an IP address, localhost or *');
