import { inspectPort } from '../../port/inspect.js';
import { known, type Proc } from '../../proc/read.js';
import { CAP_NET_BIND_SERVICE, hasCapability } from '../../proc/rights.js';
import type { Endpoint, TunnelSpec } from '../../tunnel/spec.js';
import { type Check, count, failed, ok, type RunningDaemon, type Surroundings, warning } from './check.js';

/** May the local addresses of the tunnels be listened on, and are they free? Ephemeral ports are the configuration's check. */
export async function checkPorts(surroundings: Surroundings): Promise<Check[]> {
  const { proc, config, daemon } = surroundings;
  const specs = config?.tunnels.filter(({ forward, interactive }) => forward.side === 'local' && !interactive) ?? [];
  const ends = specs.map(({ forward }) => forward.listen);
  const low = checkLowPorts(surroundings, ends);
  if (low) return [low];
  if (ends.length === 0) return [ok('ports', 'no tunnel listens on this host')];
  if (daemon) return describeDaemons(specs, daemon);
  const held: Check[] = [];
  for (const { host, port } of ends) {
    const { free, explanation, verdict } = await inspectPort(port, { proc, host });
    const isTakeable = verdict !== 'protected' && verdict !== 'pid1';
    const remedy = `tunward who ${port} says more${isTakeable ? '; takeover: any lets the tunnel take it' : ''}`;
    if (!free) held.push(warning('ports', explanation, remedy));
  }
  return held.length > 0 ? held : [ok('ports', `${count(ends.length, 'port')}, free`)];
}

/** Whoever listens for a tunnel that is up is looked for by nobody: the daemon knows who has not got its port, and why. */
function describeDaemons(specs: readonly TunnelSpec[], { blocked }: RunningDaemon): Check[] {
  const without = new Set(blocked.map(({ id }) => id));
  const rest = specs.filter(({ id }) => !without.has(id)).length;
  const held = blocked.map(({ name, lastError, remedy }) =>
    warning('ports', `tunnel ${name}: ${lastError ?? 'somebody else has its port'}`, remedy ?? 'tunward ls says more'),
  );
  return rest > 0 ? [...held, ok('ports', `${count(rest, 'port')} of the daemon that runs: tunward ls`)] : held;
}

/** What ssh binds as an ordinary user it binds with no more than the capabilities that are handed on. */
function checkLowPorts({ proc, uid }: Surroundings, ends: readonly Endpoint[]): Check | undefined {
  const first = readFirstPort(proc);
  const low = ends.map(({ port }) => port).filter((port) => port < first);
  const mayBind = hasCapability(proc, CAP_NET_BIND_SERVICE, uid === 0 ? 'CapEff' : 'CapAmb') ?? uid === 0;
  if (low.length === 0 || mayBind) return undefined;
  const finding = `${low.join(', ')}: below ${first} only root may listen, and who has CAP_NET_BIND_SERVICE`;
  const remedy = `take others, or sysctl net.ipv4.ip_unprivileged_port_start=${Math.min(...low)}`;
  return failed('ports', finding, remedy);
}

function readFirstPort(proc: Proc): number {
  return Number.parseInt(known(proc.text('sys/net/ipv4/ip_unprivileged_port_start')) ?? '1024', 10);
}
