import { createRequire } from 'node:module';
import type { Config, LoadOptions } from './daemon/config.js';
import type { Daemon, DaemonOptions } from './daemon/daemon.js';
import type { OpenTunnel, OpenTunnelOptions } from './daemon/open.js';
import type { FreePortOptions } from './port/free.js';
import type { PortReport } from './port/inspect.js';
import type { FindListenersOptions, Listener, PortOptions } from './port/listeners.js';
import type { WaitForPortOptions } from './port/wait.js';
import type { ProcessTree, ReadTreeOptions } from './proc/family.js';
import type { ProcessRef } from './proc/stat.js';
import type { ReadUsageOptions, Usage, UsageReader, UsageReaderOptions } from './proc/usage.js';
import type { Supervisor, SupervisorOptions } from './tunnel/supervisor.js';

/*
 * The library's way in: what a call needs is loaded by the first one, so that an import costs next to nothing. The
 * contract of each function stands here; the file behind it says how.
 */

/**
 * Frees a port and proves it: whoever LISTENs on it is killed with its chain (an autossh above an ssh, all below), the
 * clients are left alone, and the port counts as free when every address of it could be bound. Resolves with a report
 * whatever the outcome; `report.free` is the answer and `report.explanation` the sentence for a person.
 *
 * @throws RangeError, TypeError for a bad port or host; the signal's reason when it aborts; TunwardError
 * ERR_BACKEND_UNAVAILABLE where there is no Linux /proc.
 * @example
 * const report = await freePort(9443);
 * if (!report.free) throw new Error(report.explanation);
 */
export async function freePort(port: number, options?: FreePortOptions): Promise<PortReport> {
  return (await import('./port/free.js')).freePort(port, options);
}

/**
 * Who holds a port, and who is connected to it: the same report as {@link freePort}'s, and nobody is touched.
 *
 * @throws RangeError, TypeError for a bad port or host; the signal's reason when it aborts.
 * @example
 * const { listeners } = await inspectPort(9443);
 * for (const { pid, command } of listeners.flatMap((listener) => listener.holders)) console.log(pid, command);
 */
export async function inspectPort(port: number, options?: PortOptions): Promise<PortReport> {
  return (await import('./port/inspect.js')).inspectPort(port, options);
}

/**
 * The listening sockets of a port in this network namespace with every process that has them open, also those that
 * inherited them. With a host, those that are in the way of a bind to it.
 *
 * @throws RangeError, TypeError for a bad port or host; the signal's reason when it aborts.
 * @example
 * const [listener] = await findListeners(9443, { host: '127.0.0.1' });
 * listener?.holders; // [{ pid: 812, startTicks: 5551, command: 'ssh -N …', user: 'root', ageS: 3.2 }]
 */
export async function findListeners(port: number, options?: FindListenersOptions): Promise<Listener[]> {
  return (await import('./port/listeners.js')).findListeners(port, options);
}

/**
 * Can the port be bound, on every address of the host (without one: 127.0.0.1, ::1 and whatever is listened on)? An
 * address that this host does not have is not in the way.
 *
 * @throws RangeError, TypeError for a bad port or host; TunwardError ERR_ACCESS_DENIED for a port that this user may not
 * bind at all.
 * @example
 * if (await isPortFree(9443, { host: 'localhost' })) server.listen(9443, 'localhost');
 */
export async function isPortFree(port: number, options?: PortOptions): Promise<boolean> {
  return (await import('./port/wait.js')).isPortFree(port, options);
}

/**
 * Waits until a port is free (proved by binding it) or listened on (a LISTEN row, without connecting).
 *
 * @throws TunwardError ERR_TIMEOUT after `timeoutMs` (default 5000); the signal's reason when it aborts.
 * @example
 * await waitForPort(9443, { state: 'listening', timeoutMs: 10_000 });
 */
export async function waitForPort(port: number, options: WaitForPortOptions): Promise<void> {
  return (await import('./port/wait.js')).waitForPort(port, options);
}

/**
 * A process and everything below it, as one look at the whole table shows it; undefined when there is no such process.
 * Works in slices, so a daemon may ask.
 *
 * @throws the signal's reason when it aborts.
 * @example
 * const tree = await readProcessTree(process.pid);
 * tree?.children.map(({ pid, command }) => `${pid} ${command}`);
 */
export async function readProcessTree(pid: number, options?: ReadTreeOptions): Promise<ProcessTree | undefined> {
  return (await import('./proc/family.js')).readProcessTree(pid, options);
}

/**
 * What a process uses now, in the shape of pidusage's answer; undefined when there is no such process. `cpu` is the
 * average since its start; {@link createUsageReader} tells what it was since the last look. A ProcessRef is that very
 * process, where a pid is whoever bears it.
 *
 * @throws the signal's reason when it aborts.
 * @example
 * const usage = await readUsage(child.pid);
 * usage?.memory; // 48_234_496
 */
export async function readUsage(process: number | ProcessRef, options?: ReadUsageOptions): Promise<Usage | undefined> {
  return (await import('./proc/usage.js')).readUsage(process, options);
}

/**
 * Reads the usage of the same processes again and again: `cpu` is that since the last look.
 *
 * @throws TunwardError ERR_BACKEND_UNAVAILABLE where there is no Linux /proc.
 * @example
 * const reader = createUsageReader();
 * setInterval(() => console.log(reader.read([child.pid]).get(child.pid)?.cpu), 1000);
 */
export function createUsageReader(options?: UsageReaderOptions): UsageReader {
  return requireNow('./proc/usage.js').createUsageReader(options);
}

/** See {@link import('./daemon/config.js').loadConfig}. */
export async function loadConfig(options?: LoadOptions): Promise<Config> {
  return (await import('./daemon/config.js')).loadConfig(options);
}

/** See {@link import('./daemon/daemon.js').startDaemon}. */
export async function startDaemon(options?: DaemonOptions): Promise<Daemon> {
  return (await import('./daemon/daemon.js')).startDaemon(options);
}

/** See {@link import('./daemon/open.js').openTunnel}. */
export async function openTunnel(options: OpenTunnelOptions): Promise<OpenTunnel> {
  return (await import('./daemon/open.js')).openTunnel(options);
}

/** See {@link import('./tunnel/supervisor.js').createSupervisor}. */
export function createSupervisor(options: SupervisorOptions): Supervisor {
  const { isLiving } = requireNow('./daemon/instance.js');
  return requireNow('./tunnel/supervisor.js').createSupervisor({ isLiving, ...options });
}

/** For what answers at once, which import() cannot. The Nodes that we run on require() a module as import() does, and the same. */
const requireNow = createRequire(import.meta.url);
