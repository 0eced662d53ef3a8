import type { KillReport } from '../kill.js';
import { requireLinux } from '../proc/backend.js';
import { openProc } from '../proc/read.js';
import { assertMs, systemClock } from '../time.js';
import { describePort, findClients, lookAtPort, type PortReport, since } from './inspect.js';
import type { PortOptions } from './listeners.js';
import { assertPort } from './probe.js';
import { type FreeContext, killUntilReleased, mergeReports, type Outcome, openContext, planKill } from './release.js';
import { remedyFor } from './respawn.js';
import { explainFreed, holdersOf, judgeReturn, judgeSurvivors } from './verdict.js';

export interface FreePortOptions extends PortOptions {
  /** The bound on everything, in milliseconds. Default 5000. */
  readonly timeoutMs?: number | undefined;
  /** Say what would be killed, and kill nobody. */
  readonly dryRun?: boolean | undefined;
  /** Below a holder that is no ssh or autossh kill every descendant, not only those in the holder's session. */
  readonly tree?: boolean | undefined;
  /**
   * Also kill what starts a holder again: a shell loop, a supervisord, and all below it in its session. Without it such a
   * one is named (verdict `respawned`) and lives. Pid 1, systemd, logins, a shell in which somebody types and what is above
   * this process are never killed.
   */
  readonly respawner?: boolean | undefined;
  /** Holders of this user alone, by name; whoever else has the port, or starts a holder again, is left. */
  readonly user?: string | undefined;
}

/** The library's {@link import('../door.js').freePort}. */
export async function freePort(port: number, options: FreePortOptions = {}): Promise<PortReport> {
  assertPort(port);
  requireLinux(`free port ${port}`, options);
  const { host, timeoutMs = 5000, signal, dryRun = false, tree = false, respawner = false, user } = options;
  assertMs('timeoutMs', timeoutMs);
  signal?.throwIfAborted();
  const proc = options.proc ?? openProc();
  const clock = options.clock ?? systemClock;
  const began = clock.now();
  const look = await lookAtPort(proc, port, host);
  const done = (report: PortReport): PortReport => ({ ...report, tookMs: since(clock, began) });
  const isHeld = look.rows.length > 0 || look.probes.some(({ probe }) => probe === 'busy');
  if (!isHeld || dryRun) {
    const report = await describePort(proc, look, signal);
    if (!isHeld) return done(report);
    const kill = await planKill({ proc, clock, look, tree, user, signal });
    // A child of the holder may be connected to it, and dies as that.
    const planned = new Set(kill?.killed.map(({ pid }) => pid));
    const clients = (await findClients(proc, report, signal)).filter(({ pid }) => !planned.has(pid));
    return done({ ...report, clients, kill });
  }
  const deadline = began + timeoutMs;
  const context = openContext({ proc, clock, look, tree, user, signal, deadline, dryRun, respawner });
  const outcome = await killUntilReleased(context);
  const kill = mergeReports(context.kills, since(clock, began));
  if (outcome.released && (kill?.survivors.length ?? 0) === 0) {
    const freed = { free: true, verdict: 'free' as const, explanation: explainFreed(port, kill), kill };
    const rest = { port, host: look.host, listeners: [...context.seen.values()], clients: [], respawner: null };
    return done({ ...freed, ...rest, tookMs: 0 });
  }
  return done(await reportHeld(context, outcome, kill));
}

/** Somebody has it still, or again: looked at anew, every holder. */
async function reportHeld(context: FreeContext, outcome: Outcome, kill: KillReport | null): Promise<PortReport> {
  const { proc, look, signal } = context;
  const after = await describePort(proc, await lookAtPort(proc, look.port, look.host ?? undefined), signal);
  const { respawner } = outcome;
  if (respawner) {
    const [holder] = holdersOf(after.listeners);
    const judgement = judgeReturn(look.port, { respawner, holder, remedy: remedyFor(proc, respawner, holder) });
    return { ...after, ...judgement, free: false, respawner, kill };
  }
  if (!kill || kill.survivors.length === 0) return { ...after, kill };
  return { ...after, ...judgeSurvivors(look.port, kill, after), free: false, kill };
}
