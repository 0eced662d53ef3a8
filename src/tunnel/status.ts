import { hasIpv6Loopback } from '../port/probe.js';
import type { Proc } from '../proc/read.js';
import { isSame, type ProcessRef, type ProcessStat, readCommand, readFamily } from '../proc/stat.js';
import { createUsageMeter, sumUsage, type Usage } from '../proc/usage.js';
import type { Clock } from '../time.js';
import type { Reason } from './engine.js';
import type { Traffic } from './front/meter.js';
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
  /** What keeps its link, or would at this moment: `auto` is one of them by then. */
  readonly engine: string;
  /** This process listens for it, and its clients notice no restart. */
  readonly seamless: boolean;
  readonly listen: readonly Bind[];
  /** Where the forward leads, `host:port` as seen from the other side. */
  readonly target: string;
  readonly remoteHost: string;
  /** The hosts it goes through, `[user@]host[:port]`, as far as the configuration names them. */
  readonly jump: readonly string[];
  readonly groups: readonly string[];
  /** Needs a person at each start. */
  readonly interactive: boolean;
  readonly enabled: boolean;
  /** The root of the chain. */
  readonly pid: number | null;
  readonly chain: readonly ChainProcess[];
  /**
   * What the chain uses: cpu (percent since the last look, 100 is one core), memory and ctime of all its processes
   * together, pid, ppid and elapsed of its root. null: there is no chain.
   */
  readonly usage: Usage | null;
  /** What has passed through this process for it; null: its bytes do not. */
  readonly traffic: Traffic | null;
  readonly since: string;
  readonly attempt: number;
  /** How often it came up again after it had been up. */
  readonly restarts: number;
  readonly lastRestart: LastRestart | null;
  readonly nextRetryAt: string | null;
  readonly lastError: string | null;
  readonly logFile: string | null;
}

/** The last time it came up: the first start counts as well. */
export interface LastRestart {
  /** When it was up. */
  readonly at: string;
  /** Somebody wanted it (a boot, a request, a changed spec). */
  readonly asked: boolean;
  /** Why it was up no longer before that; null when somebody asked, or it had not been up. */
  readonly reason: Reason | null;
  readonly tookMs: number;
  readonly phases: Phases;
}

/** Until the old chain was gone; until every port was proved free; until it was up. */
export interface Phases {
  readonly stopMs: number;
  readonly freeMs: number;
  readonly startMs: number;
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
  readonly traffic: Traffic | null;
  readonly since: number;
  readonly restarts: number;
  readonly lastRestart: LastRestart | null;
  readonly nextRetryAt: number | null;
  readonly lastError: string | null;
  readonly logFile: string | null;
}

/** What a status is made of. */
export interface StatusParts extends KnownParts {
  /** The root of the chain that there is now. */
  readonly root: ProcessRef | undefined;
  readonly chain: ChainReader;
}

/** Reads one chain again and again. */
export interface ChainReader {
  read(root: ProcessRef | undefined): Pick<TunnelStatus, 'pid' | 'chain' | 'usage'>;
}

/** After this time a process has become what it is to be: between fork and exec it shows the command of its parent. */
const SETTLED_MS = 2000;

/** Remembers the last look, for what the chain has used since then, and the command lines, which are mostly long. */
export function createChainReader(proc: Proc, clock: Clock): ChainReader {
  const meter = createUsageMeter(proc, clock);
  let known: readonly ChainProcess[] = [];
  return { read };

  function read(root: ProcessRef | undefined) {
    const family = root ? readFamily(proc, root) : [];
    const usages = meter.measure(family);
    const chain = family.map((stat) => known.find((process) => isSame(process, stat)) ?? describe(stat));
    known = chain.filter(({ pid }) => (usages.get(pid)?.elapsed ?? 0) >= SETTLED_MS);
    // Without its root there is no chain any more.
    const usage = root && usages.has(root.pid) ? sumUsage([...usages.values()]) : null;
    return { pid: family[0]?.pid ?? null, chain, usage };
  }

  function describe(stat: ProcessStat): ChainProcess {
    return { pid: stat.pid, startTicks: stat.startTicks, command: readCommand(proc, stat) };
  }
}

/** Looks at the chain as it is at this moment; a few small reads. */
export function describeTunnel({ root, chain, ...known }: StatusParts): TunnelStatus {
  return { ...describeKnown(known, hasIpv6Loopback()), ...chain.read(root) };
}

/** A status without a look: as if there were no chain. */
export function describeKnown(parts: KnownParts, hasIpv6: boolean): TunnelStatus {
  const { spec, condition, health, allocatedPort, engine, traffic, restarts, lastRestart } = parts;
  const { lastError, logFile, nextRetryAt } = parts;
  const reason = condition.reason ?? health.reason;
  return {
    id: spec.id,
    name: spec.name,
    state: condition.state,
    desired: condition.desired,
    reason,
    health: health.state,
    healthReason: health.detail,
    remedy: remedyOf(reason, { spec, lastError: lastError ?? health.detail }),
    direction: spec.direction,
    engine,
    seamless: spec.seamless !== null,
    listen: bindSet(spec.forward, hasIpv6).map((bind) => ({ ...bind, port: allocatedPort ?? bind.port })),
    target: formatEndpoint(spec.forward.target),
    remoteHost: spec.remoteHost,
    jump: spec.jump.map(formatHop),
    groups: spec.groups,
    interactive: spec.interactive,
    enabled: spec.enabled,
    ...{ pid: null, chain: [], usage: null },
    traffic,
    since: toIso(parts.since),
    attempt: condition.attempt,
    restarts,
    lastRestart,
    nextRetryAt: nextRetryAt === null ? null : toIso(nextRetryAt),
    lastError,
    logFile,
  };
}

/** Is it one that somebody has to start, who has not come yet? One that was stopped has no reason, and waits for nobody. */
export function waitsForPerson({ interactive, enabled, state, reason }: TunnelStatus): boolean {
  return interactive && enabled && state !== 'up' && reason !== null;
}

function toIso(ms: number): string {
  return new Date(ms).toISOString();
}
