import path from 'node:path';
import { TunwardError } from '../errors.js';
import { requireLinux } from '../proc/backend.js';
import { systemClock } from '../time.js';
import { createSupervisor, type Supervisor } from '../tunnel/supervisor.js';
import { type Config, loadConfig } from './config.js';
import { processEnvironment } from './environment.js';
import { createJournal, type Journal, type JournalEntry } from './events.js';
import { type Door, openSocketDoor, openTcpDoor } from './http.js';
import { watchInit } from './init.js';
import { isLiving, readInstance, takeLock } from './instance.js';
import { createTunnelLogs } from './log.js';
import { createRoutes } from './routes.js';
import { closeAll, findSurviving, type Opened, rejectAtAbort, type StopReport } from './shutdown.js';

export interface DaemonOptions {
  /** A configuration file; not given: the one that is found. */
  readonly configFile?: string | undefined;
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  readonly cwd?: string | undefined;
  readonly onEvent?: ((entry: JournalEntry) => void) | undefined;
  /** Gives up a start that is under way: rejects with the signal's reason, and nothing is left open. */
  readonly signal?: AbortSignal | undefined;
}

export interface Daemon {
  readonly config: Config;
  readonly address: { readonly socket: string; readonly url: string | null };
  readonly supervisor: Supervisor;
  /** Resolves when it has been closed, by whomever. */
  readonly closed: Promise<StopReport>;
  /** Reads the configuration again and makes the tunnels those. A bad one is said, and changes nothing. */
  reload(): Promise<void>;
  /** Stops everything, in the reverse order of the start, within `stop_timeout_ms`; answers who survived. Idempotent. */
  close(): Promise<StopReport>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * The long-running program: a bad configuration touches nothing; a second daemon on the same state folder is refused;
 * what a former life left is cleared away; then every tunnel is started. Resolves when the API answers and all starts
 * are under way. Sets no signal handlers: that is for whoever owns the process.
 *
 * @throws TunwardError ERR_CONFIG_INVALID, ERR_DAEMON_RUNNING, ERR_ACCESS_DENIED.
 * @example
 * await using daemon = await startDaemon({ configFile: 'tunward.yaml' });
 * await daemon.closed;
 */
export async function startDaemon(options: DaemonOptions = {}): Promise<Daemon> {
  const { onEvent, signal, configFile: file, env = processEnvironment(), cwd = process.cwd() } = options;
  const load = () => loadConfig({ file, env, cwd });
  const config = await load();
  requireLinux('run the daemon', {});
  const journal = createJournal(systemClock);
  if (onEvent) journal.subscribe(onEvent);
  const opened: Opened[] = [];
  try {
    return await assemble({ config, load, journal, opened, env, signal });
  } catch (error) {
    await closeAll(opened, config.stopTimeoutMs);
    throw error;
  }
}

interface Parts {
  readonly config: Config;
  readonly load: () => Promise<Config>;
  readonly journal: Journal;
  /** What has been opened so far, in order: closed in reverse. */
  readonly opened: Opened[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly signal: AbortSignal | undefined;
}

async function assemble({ config, load, journal, opened, env, signal }: Parts): Promise<Daemon> {
  const instance = readInstance(config.stateDir);
  const lock = await takeLock(instance.id);
  opened.push({ what: 'the lock', close: () => lock.release() });
  let current = config;
  // Every spec there ever was: one that has left the configuration still has its last lines to write.
  const specs = new Map(config.tunnels.map((spec) => [spec.id, spec]));
  const logs = createTunnelLogs(config.logDir, (id) => specs.get(id));
  opened.push({ what: 'the logs', close: () => logs.close() });
  journal.subscribe(logs.write);
  if (instance.replaced)
    journal.append({
      type: 'state.replaced',
      file: path.join(config.stateDir, 'instance'),
      message: instance.replaced,
    });
  const supervisor = createSupervisor({
    env,
    instance: instance.id,
    knownHosts: path.join(config.stateDir, 'known_hosts'),
    gate: config.start,
    isLiving,
    publish: journal.append,
    logFileOf: ({ id }) => logs.fileOf(id),
  });
  opened.push({ what: 'the tunnels', close: () => supervisor.close() });
  const [booted, finishBoot] = createLatch<void>();
  const [closed, finishClose] = createLatch<StopReport>();
  let closing: Promise<StopReport> | undefined;
  const routes = createRoutes({ supervisor, logs, shutdown: () => void close(), booted });
  const doors: Door[] = [await openSocketDoor(config.api.socket, routes)];
  opened.push({ what: 'the API', close: () => closeDoors(doors) });
  if (config.api.listen) doors.push(await openTcpDoor(config.api.listen, config.api, routes));
  announceConfig(journal, config);
  watchInit(journal);
  // The one step of a boot that can take seconds; whoever gives it up does not wait for it.
  await Promise.race([supervisor.sweep(config.tunnels), rejectAtAbort(signal)]);
  await supervisor.reconcile(config.tunnels);
  finishBoot();
  const url = doors.find((door) => door.url !== null)?.url ?? null;
  const address = { socket: config.api.socket, url };
  journal.append({ type: 'daemon.ready', pid: process.pid, ...address, tunnels: config.tunnels.length });
  return {
    config,
    address,
    supervisor,
    closed,
    reload,
    close,
    [Symbol.asyncDispose]: async () => void (await close()),
  };

  async function reload(): Promise<void> {
    let next: Config;
    try {
      next = await load();
    } catch (error) {
      if (!(error instanceof TunwardError)) throw error;
      return journal.append({ type: 'config.rejected', file: current.file, message: error.message });
    }
    current = { ...next, logDir: current.logDir, stateDir: current.stateDir, api: current.api, start: current.start };
    for (const spec of next.tunnels) specs.set(spec.id, spec);
    announceConfig(journal, current);
    await supervisor.reconcile(current.tunnels);
  }

  function close(): Promise<StopReport> {
    closing ??= stop();
    return closing;
  }

  async function stop(): Promise<StopReport> {
    journal.append({ type: 'daemon.stopping' });
    const began = systemClock.now();
    const trouble = (await closeAll(opened, current.stopTimeoutMs)) ?? null;
    const tookMs = Math.round(systemClock.now() - began);
    const report = { tookMs, trouble, survivors: findSurviving(supervisor) };
    journal.append({ type: 'daemon.stopped', ...report });
    finishClose(report);
    return report;
  }
}

/** A promise, and what resolves it. */
function createLatch<T>(): [reached: Promise<T>, reach: (value: T) => void] {
  let reach: (value: T) => void = () => undefined;
  const reached = new Promise<T>((resolve) => {
    reach = resolve;
  });
  return [reached, reach];
}

async function closeDoors(doors: readonly Door[]): Promise<void> {
  await Promise.all(doors.map((door) => door.close()));
}

function announceConfig(journal: Journal, { file, warnings }: Config): void {
  const texts = warnings.map(
    ({ line, column, path: where, message }) => `${file}:${line}:${column}: ${where}: ${message}`,
  );
  journal.append({ type: 'config.loaded', file, warnings: texts });
}
