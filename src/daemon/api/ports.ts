import * as z from 'zod';
import { TunwardError } from '../../errors.js';
import { freePort } from '../../port/free.js';
import { inspectPort, type PortReport } from '../../port/inspect.js';
import { resolveHosts } from '../../port/probe.js';
import { holdersOf } from '../../port/verdict.js';
import { readUserName } from '../../proc/stat.js';
import { readTunnelProcesses } from '../../tunnel/processes.js';
import type { TunnelSpec } from '../../tunnel/spec.js';
import type { Supervisor } from '../../tunnel/supervisor.js';
import type { DaemonEvent } from '../events.js';
import { type Route, route } from './route.js';
import { count, host, portReport, tunnelProcess } from './shapes.js';

const params = z.strictObject({ port: count(1, 65_535) });

/** Ports and processes, whoever's they are. */
export function portRoutes(supervisor: Pick<Supervisor, 'specs'>, publish: (event: DaemonEvent) => void): Route[] {
  return [
    route({
      method: 'GET',
      path: '/v1/ports/{port}',
      scope: 'read',
      about: 'Who holds a port, who is connected to it; or why nobody is to be seen',
      params,
      query: z.strictObject({ host: host.optional().describe('Without it: every local address') }),
      answers: { 200: { about: 'Held or not, that is an answer', schema: portReport } },
      handle: async ({ params: { port }, query: { host } }) => ({ body: await inspectPort(port, { host }) }),
    }),
    route({
      method: 'POST',
      path: '/v1/ports/{port}/free',
      scope: 'act',
      about:
        'Kills whoever listens on a port, with its chain, and proves the port free by binding it. Clients live. Without force only a port of a configured tunnel, and only processes of the daemon’s own user',
      params,
      body: z
        .strictObject({
          host: host.optional().describe('Without it that of the tunnel; with dry_run or force every local address'),
          dry_run: z.boolean().default(false).describe('Say what would be killed; kill nobody'),
          tree: z.boolean().default(false).describe('Everything below a holder goes too, not only its session'),
          respawner: z.boolean().default(false).describe('What starts a holder again goes too'),
          timeout_ms: z.int().min(0).max(60_000).default(5000),
          force: z.boolean().default(false).describe('Any port, and any user'),
        })
        .prefault({}),
      answers: { 200: { about: 'Free or not: what was done, or with dry_run would be', schema: portReport } },
      errors: ['ERR_FORBIDDEN'],
      async handle({ params: { port }, body }) {
        const { tree, respawner, force, dry_run: dryRun, timeout_ms: timeoutMs } = body;
        const host = dryRun || force ? body.host : await requireOurs(supervisor.specs(), port, body.host);
        // Said again where it is done: what has been looked at may have changed hands.
        const user = force || dryRun ? undefined : ownName();
        const report = await freePort(port, { host, dryRun, tree, respawner, timeoutMs, user });
        const { free, explanation, kill } = report;
        const layers = { asked: kill?.killed.length ?? 0 };
        if (!dryRun) publish({ type: 'port.freed', port, free, explanation, kill, layers });
        return { body: report };
      },
    }),
    route({
      method: 'GET',
      path: '/v1/processes',
      scope: 'read',
      about: 'Every ssh and autossh of this host: whose it is, its forwards, its ports, its chain',
      answers: { 200: { about: 'By pid', schema: z.strictObject({ processes: z.array(tunnelProcess) }) } },
      handle: async () => ({ body: { processes: await readTunnelProcesses() } }),
    }),
  ];
}

/**
 * Whoever names a port chooses who dies: a database, the sshd that carries them. Without force that is not for the API.
 * Answers which host is meant: where none is given, that of the tunnel, and not every address of this machine.
 */
async function requireOurs(specs: readonly TunnelSpec[], port: number, host: string | undefined) {
  const hosts = specs.flatMap(({ forward: { side, listen } }) =>
    side === 'local' && listen.port === port ? [listen.host] : [],
  );
  const [only, ...others] = new Set(hosts);
  const own = new Set(hosts.flatMap((each) => resolveHosts(each)));
  const isOurs = own.has('0.0.0.0') || resolveHosts(host ?? only ?? 'localhost').every((address) => own.has(address));
  if (only === undefined || !isOurs) {
    throw forbidden(`No tunnel of this daemon listens on ${host === undefined ? '' : `${host}, `}port ${port}`, port);
  }
  if (host === undefined && others.length > 0) {
    const message = `host: expected one of ${[only, ...others].join(', ')}, where tunnels listen on port ${port}`;
    throw new TunwardError('ERR_BAD_REQUEST', message, { port });
  }
  const wanted = host ?? only;
  const stranger = findStranger(await inspectPort(port, { host: wanted }));
  if (stranger !== undefined) throw forbidden(`Port ${port} is held by ${stranger}`, port);
  return wanted;
}

function ownName(): string {
  return readUserName(process.geteuid?.() ?? 0);
}

/** A holder of another user, in words. */
function findStranger({ listeners }: PortReport): string | undefined {
  const user = ownName();
  const holder = holdersOf(listeners).find((one) => one.user !== user);
  if (holder) return `pid ${holder.pid} (${holder.command}) of ${holder.user}`;
  const hidden = listeners.find(({ holders, uid }) => holders.length === 0 && uid !== process.geteuid?.());
  return hidden && `a process of ${readUserName(hidden.uid)} that is not to be seen`;
}

function forbidden(why: string, port: number): TunwardError {
  return new TunwardError('ERR_FORBIDDEN', `${why}: with force it is freed all the same`, { port });
}
