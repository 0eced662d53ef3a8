import { isTunwardError } from '../errors.js';
import { freePort } from '../port/free.js';
import { inspectPort, type PortReport } from '../port/inspect.js';
import { DAEMON_REMEDY } from '../port/verdict.js';
import { waitForPort } from '../port/wait.js';
import type { BackendName } from '../proc/backend.js';
import { isSame } from '../proc/stat.js';
import { systemClock } from '../time.js';
import type { TunnelStatus } from '../tunnel/status.js';
import { readChain } from './chain-view.js';
import { confirm } from './confirm.js';
import { backendOf, type Context } from './context.js';
import type { PortTarget } from './options.js';
import { renderFreed, renderHeld } from './port-view.js';
import { withProgress } from './progress.js';
import { styled } from './render.js';
import { formatMs } from './units.js';
import { mayKillOthers, nameVictims, renderVictims, strangersOf, type Victim } from './victims.js';

/** Who holds a port, and who is connected to it. Held or not, that is an answer: 0. */
export async function who({ port, host }: PortTarget, context: Context): Promise<number> {
  const { screen, signal } = context;
  const report = await nameTunnels(await inspectPort(port, { host, signal, backend: backendOf(context) }), context);
  const chain = await readChain(report, signal);
  if (screen.json) {
    screen.data({ ...report, chain: chain.processes });
    return 0;
  }
  screen.print(styled(report.free ? 'green' : 'bold', report.explanation));
  screen.rows(...renderHeld(report, chain));
  return 0;
}

/** How long a daemon may take to say which of its tunnels it is: without that the sentence is as true, and less of use. */
const ANSWER_MS = 1000;

/**
 * Where a daemon listens for its tunnel, the command that stops it is said with that tunnel's id: a name may be that of
 * several, and no word of a shell. As it is where that daemon is not the one that the command would go to.
 */
async function nameTunnels(report: PortReport, context: Context): Promise<PortReport> {
  const { explanation, listeners, port } = report;
  if (!explanation.includes(DAEMON_REMEDY)) return report;
  try {
    const { findAddress } = await import('./address.js');
    const { createClient } = await import('./client.js');
    const address = await findAddress({}, context);
    const client = createClient(address, { signal: context.signal, timeoutMs: ANSWER_MS });
    const { pid } = await client.health();
    const own = listeners.filter(({ holders }) => holders.some((holder) => holder.pid === pid));
    const addresses = new Set(own.map(({ address }) => address));
    const isMeant = (bind: TunnelStatus['listen'][number]) =>
      bind.side === 'local' && bind.port === port && (bind.host === '*' || addresses.has(bind.host));
    const tunnels = own.length === 0 ? [] : (await client.tunnels()).filter(({ listen }) => listen.some(isMeant));
    if (tunnels.length === 0) return report;
    const ids = tunnels.map(({ id }) => id.slice(0, 8)).join(' ');
    return { ...report, explanation: explanation.replace(DAEMON_REMEDY, DAEMON_REMEDY.replace('NAME', ids)) };
  } catch (error) {
    if (!isTunwardError(error)) throw error;
    return report;
  }
}

export interface FreeOptions {
  readonly dryRun?: boolean;
  readonly tree?: boolean;
  readonly respawner?: boolean;
  readonly timeout?: number;
}

/** Frees ports, one after the other. 0 when all of them are free now, 3 when one is still held, 5 when it may not be bound. */
export async function free(targets: readonly PortTarget[], options: FreeOptions, context: Context): Promise<number> {
  const { screen, signal } = context;
  const { dryRun = false, tree = false, respawner = false, timeout: timeoutMs } = options;
  const ports: PortReport[] = [];
  for (const { port, host } of targets) {
    const backend = backendOf(context);
    if (!dryRun && !(await mayFree({ port, host }, { tree, backend }, context))) return 1;
    const how = { host, timeoutMs, dryRun, tree, respawner, signal, backend };
    const freed = await withProgress(
      () => `freeing port ${port}`,
      context,
      () => freePort(port, how),
    );
    const report = await nameTunnels(freed, context);
    ports.push(report);
    if (screen.json) continue;
    const chain = dryRun ? await readChain(report, signal) : undefined;
    const { head, details } = renderFreed(report, { dryRun, chain });
    screen.print(head);
    screen.rows(...details);
  }
  if (screen.json) screen.data({ ports });
  const held = ports.filter((report) => !report.free);
  if (held.length === 0) return 0;
  return held.every(({ verdict }) => verdict === 'forbidden') ? 5 : 3;
}

/**
 * Another user's process is killed when somebody has agreed to that; whoever has agreed already spares us the look. A
 * person takes their time, and the port may be another's by then: the yes is to those who were named, and no others.
 */
async function mayFree(
  { port, host }: PortTarget,
  { tree, backend }: { readonly tree: boolean; readonly backend: BackendName | undefined },
  context: Context,
): Promise<boolean> {
  if (context.consent.isGiven || !mayKillOthers()) return true;
  let agreed: readonly Victim[] = [];
  for (;;) {
    const { kill, listeners } = await freePort(port, { host, tree, backend, dryRun: true, signal: context.signal });
    const strangers = kill ? strangersOf(kill, listeners) : [];
    if (strangers.every((one) => agreed.some((other) => isSame(one, other)))) return true;
    const act = `free port ${port} by killing ${nameVictims(strangers)}`;
    if (!(await confirm({ act, facts: renderVictims(strangers) }, context))) return false;
    agreed = strangers;
  }
}

/** Waits until a port is as wanted. A timeout is the library's ERR_TIMEOUT: 124. */
export async function wait(
  { port, host }: PortTarget,
  { state, timeout: timeoutMs }: { readonly state: 'free' | 'listening'; readonly timeout?: number },
  context: Context,
): Promise<number> {
  const { screen, signal } = context;
  const began = systemClock.now();
  const how = { state, host, timeoutMs, signal, backend: backendOf(context) };
  await withProgress(
    () => `waiting until port ${port} is ${state}`,
    context,
    () => waitForPort(port, how),
  );
  const tookMs = Math.round((systemClock.now() - began) * 100) / 100;
  if (screen.json) screen.data({ port, state, tookMs });
  else screen.print(`Port ${port} is ${state} after ${formatMs(tookMs)}`);
  return 0;
}
