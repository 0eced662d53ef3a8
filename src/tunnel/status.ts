import { hasIpv6Loopback } from '../port/probe.js';
import type { Proc } from '../proc/read.js';
import { type ProcessRef, readCommand, readFamily } from '../proc/stat.js';
import { sumUsage, type Usage, type UsageReader } from '../proc/usage.js';
import type { Reason } from './engine.js';
import type { Condition, Desired, State } from './machine.js';
import { remedyOf } from './remedy.js';
import { type Bind, bindSet, formatEndpoint, formatHop, type TunnelSpec } from './spec.js';

/** One process of a tunnel's chain. */
export interface ChainProcess extends ProcessRef {
  readonly command: string;
}

/** What one tunnel is now. Times are ISO 8601 in UTC. */
export interface TunnelStatus {
  readonly id: string;
  readonly name: string;
  readonly state: State;
  readonly desired: Desired;
  /** Why it is not up; of one that is up, why its health is degraded. */
  readonly reason: Reason | null;
  /** ok: up, and the last check (where there is one) went through. degraded: up, and the target is not well. */
  readonly health: Health['state'];
  /** What the last check found, in words. */
  readonly healthReason: string | null;
  /** What somebody can do about it; null where that is to wait, or nothing. */
  readonly remedy: string | null;
  readonly direction: TunnelSpec['direction'];
  readonly engine: string;
  readonly listen: readonly Bind[];
  /** Where the forward leads, `host:port` as seen from the other side. */
  readonly target: string;
  readonly remoteHost: string;
  /** The hosts it goes through, `[user@]host[:port]`, as far as the configuration names them. */
  readonly jump: readonly string[];
  readonly groups: readonly string[];
  readonly enabled: boolean;
  /** The root of the chain. */
  readonly pid: number | null;
  readonly chain: readonly ChainProcess[];
  /**
   * What the chain uses: cpu (percent since the last look, 100 is one core), memory and ctime of all its processes
   * together, pid, ppid and elapsed of its root. null: there is no chain.
   */
  readonly usage: Usage | null;
  readonly since: string;
  readonly attempt: number;
  /** How often it came up again after it had been up. */
  readonly restarts: number;
  readonly nextRetryAt: string | null;
  readonly lastError: string | null;
  readonly logFile: string | null;
}

/** What the checks of a tunnel that is up have found. */
export interface Health {
  readonly state: 'ok' | 'degraded' | 'unknown';
  readonly reason: Reason | null;
  readonly detail: string | null;
}

/** What is known of a tunnel without a look. Times are milliseconds since the epoch. */
export interface KnownParts {
  readonly spec: TunnelSpec;
  readonly condition: Condition;
  readonly health: Health;
  /** The port that the server chose for a remote forward of port 0. */
  readonly allocatedPort: number | undefined;
  readonly engine: string;
  readonly since: number;
  readonly restarts: number;
  readonly nextRetryAt: number | null;
  readonly lastError: string | null;
  readonly logFile: string | null;
}

/** What a status is made of. */
export interface StatusParts extends KnownParts {
  /** The root of the chain that there is now. */
  readonly root: ProcessRef | undefined;
  /** Remembers the last look at the chain. */
  readonly usage: UsageReader;
}

/** Looks at the chain as it is at this moment; a few small reads (0.1 ms for an ssh). */
export function describeTunnel(proc: Proc, { root, usage, ...parts }: StatusParts): TunnelStatus {
  const family = root ? readFamily(proc, root) : [];
  const usages = usage.read(family);
  return {
    ...describeKnown(parts, hasIpv6Loopback()),
    pid: family[0]?.pid ?? null,
    chain: family.map((stat) => ({ pid: stat.pid, startTicks: stat.startTicks, command: readCommand(proc, stat) })),
    // Without its root there is no chain any more.
    usage: root && usages.has(root.pid) ? sumUsage([...usages.values()]) : null,
  };
}

/** A status without a look: as if there were no chain. */
export function describeKnown(parts: KnownParts, hasIpv6: boolean): TunnelStatus {
  const { spec, condition, health, allocatedPort, engine, restarts, lastError, logFile, nextRetryAt } = parts;
  const reason = condition.reason ?? health.reason;
  return {
    id: spec.id,
    name: spec.name,
    state: condition.state,
    desired: condition.desired,
    reason,
    health: health.state,
    healthReason: health.detail,
    remedy: remedyOf(reason, { spec, lastError }),
    direction: spec.direction,
    engine,
    listen: bindSet(spec.forward, hasIpv6).map((bind) => ({ ...bind, port: allocatedPort ?? bind.port })),
    target: formatEndpoint(spec.forward.target),
    remoteHost: spec.remoteHost,
    jump: spec.jump.map(formatHop),
    groups: spec.groups,
    enabled: spec.enabled,
    ...{ pid: null, chain: [], usage: null },
    since: toIso(parts.since),
    attempt: condition.attempt,
    restarts,
    nextRetryAt: nextRetryAt === null ? null : toIso(nextRetryAt),
    lastError,
    logFile,
  };
}

function toIso(ms: number): string {
  return new Date(ms).toISOString();
}
