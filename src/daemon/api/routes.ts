import * as z from 'zod';
import type { Clock } from '../../time.js';
import type { Supervisor } from '../../tunnel/supervisor.js';
import type { Config } from '../config.js';
import { createEditor } from '../edit/editor.js';
import type { Journal } from '../events.js';
import type { TunnelLogs } from '../log.js';
import type { Reloader } from '../reload.js';
import { compatRoutes } from './compat.js';
import { configRoutes } from './config.js';
import { eventRoutes } from './events.js';
import { healthRoutes, type Phase } from './health.js';
import { metricRoutes } from './metrics.js';
import { describeApi } from './openapi.js';
import { createOperations, operationRoutes } from './operations.js';
import { createOverview } from './overview.js';
import { portRoutes } from './ports.js';
import { type Route, route } from './route.js';
import { sessionRoutes } from './session.js';
import { terminalRoutes } from './terminal.js';
import type { Failures, Sessions, Tokens } from './tokens.js';
import { tunnelRoutes } from './tunnels.js';

export interface RouteContext {
  readonly config: Pick<Config, 'logDir' | 'stateDir'> & { readonly api: Pick<Config['api'], 'compat'> };
  readonly supervisor: Supervisor;
  readonly logs: TunnelLogs;
  readonly reloader: Reloader;
  readonly journal: Journal;
  readonly clock: Clock;
  readonly version: string;
  readonly tokens: Tokens;
  readonly sessions: Sessions;
  readonly failures: Failures;
  readonly phase: () => Phase;
  readonly shutdown: () => void;
  /** The sweep over leftovers is over, and every tunnel is known. What needs more than a right to look waits for it. */
  readonly booted: Promise<void>;
}

/** The whole API, version 1: each row answers, is checked and is described by the same schemas. */
export function createRoutes(context: RouteContext): Route[] {
  const { supervisor, journal, clock, version, config, booted, phase } = context;
  const overview = createOverview({ supervisor, journal, clock });
  const operations = createOperations(supervisor, clock);
  const folders = { state_dir: config.stateDir, log_dir: config.logDir };
  const routes = [
    ...healthRoutes({ phase, supervisor, overview, folders }),
    ...sessionRoutes(context),
    ...tunnelRoutes({ ...context, overview }),
    ...terminalRoutes(context),
    ...configRoutes({ ...context, editor: createEditor(context.reloader) }),
    ...operationRoutes(supervisor, operations),
    ...portRoutes(supervisor, journal.append),
    ...eventRoutes({ journal, supervisor }),
    ...metricRoutes({ overview, traffic: supervisor.traffic, journal, version }),
    shutdownRoute(context),
    ...(config.api.compat ? compatRoutes({ ...context, operations }) : []),
  ];
  return [...routes, openApiRoute(routes, version)].map((row) => (row.scope === 'open' ? row : after(booted, row)));
}

/** Whoever asks during the boot is answered when every tunnel is known. */
function after(booted: Promise<void>, row: Route): Route {
  const { handle, upgrade } = row;
  return {
    ...row,
    handle: async (request) => {
      await booted;
      return handle(request);
    },
    ...(upgrade && {
      upgrade: {
        ...upgrade,
        open: async (request, accept) => {
          await booted;
          return upgrade.open(request, accept);
        },
      },
    }),
  };
}

function shutdownRoute({ shutdown }: RouteContext): Route {
  const schema = z.strictObject({ status: z.literal('stopping'), pid: z.int() });
  return route({
    method: 'POST',
    path: '/v1/shutdown',
    scope: 'act',
    about: 'Stops all tunnels and ends the daemon; answers before it has',
    answers: { 202: { about: 'It ends', schema } },
    async handle() {
      shutdown();
      return { status: 202, body: { status: 'stopping', pid: process.pid } };
    },
  });
}

function openApiRoute(routes: readonly Route[], version: string): Route {
  let text: string | undefined;
  const self: Route = route({
    method: 'GET',
    path: '/openapi.json',
    scope: 'open',
    about: 'This description',
    answers: { 200: { about: 'OpenAPI 3.1', schema: z.looseObject({ openapi: z.string() }) } },
    async handle() {
      text ??= JSON.stringify(describeApi([...routes, self], version));
      return { bytes: text, type: 'application/json' };
    },
  });
  return self;
}
