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

export interface DaemonOptions {
  /** A configuration file; not given: the one that is found. */
  readonly configFile?: string | undefined;
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  readonly cwd?: string | undefined;
  readonly onEvent?: ((entry: JournalEntry) => void) | undefined;
}

export interface Daemon {
  readonly config: Config;
  readonly address: { readonly socket: string; readonly url: string | null };
  readonly supervisor: Supervisor;
  /** Resolves when it has been closed, by whomever. */
  readonly closed: Promise<void>;
  /** Reads the configuration again and makes the tunnels those. A bad one is said, and changes nothing. */
  reload(): Promise<void>;
  /** Stops everything, in the reverse order of the start. Idempotent. */
  close(): Promise<void>;
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
  const { onEvent, configFile: file, env = processEnvironment(), cwd = process.cwd() } = options;
  const load = () => loadConfig({ file, env, cwd });
  const config = await load();
  requireLinux('run the daemon', {});
  const journal = createJournal(systemClock);
  if (onEvent) journal.subscribe(onEvent);
  const cleanups: (() => Promise<void> | void)[] = [];
  try {
    return await assemble({ config, load, journal, cleanups, env });
  } catch (error) {
    for (const cleanup of cleanups.reverse()) await cleanup();
    throw error;
  }
}

interface Parts {
  readonly config: Config;
  readonly load: () => Promise<Config>;
  readonly journal: Journal;
  /** What has been opened so far, in order: closed in reverse. */
  readonly cleanups: (() => Promise<void> | void)[];
  readonly env: Readonly<Record<string, string | undefined>>;
}

async function assemble({ config, load, journal, cleanups, env }: Parts): Promise<Daemon> {
  const instance = readInstance(config.stateDir);
  const lock = await takeLock(instance.id);
  cleanups.push(() => lock.release());
  let current = config;
  // Every spec there ever was: one that has left the configuration still has its last lines to write.
  const specs = new Map(config.tunnels.map((spec) => [spec.id, spec]));
  const logs = createTunnelLogs(config.logDir, (id) => specs.get(id));
  cleanups.push(() => logs.close());
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
  cleanups.push(() => supervisor.close());
  const [booted, finishBoot] = createLatch();
  const [closed, finishClose] = createLatch();
  let closing: Promise<void> | undefined;
  const routes = createRoutes({ supervisor, logs, shutdown: () => void close(), booted });
  const doors: Door[] = [await openSocketDoor(config.api.socket, routes)];
  cleanups.push(() => closeAll(doors));
  if (config.api.listen) doors.push(await openTcpDoor(config.api.listen, config.api.tokenFile, routes));
  announceConfig(journal, config);
  watchInit(journal);
  await supervisor.sweep(config.tunnels);
  await supervisor.reconcile(config.tunnels);
  finishBoot();
  const url = doors.find((door) => door.url !== null)?.url ?? null;
  const address = { socket: config.api.socket, url };
  journal.append({ type: 'daemon.ready', pid: process.pid, ...address, tunnels: config.tunnels.length });
  return { config, address, supervisor, closed, reload, close, [Symbol.asyncDispose]: close };

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

  function close(): Promise<void> {
    closing ??= (async () => {
      journal.append({ type: 'daemon.stopping' });
      for (const cleanup of cleanups.reverse()) await cleanup();
      finishClose();
    })();
    return closing;
  }
}

/** A promise, and what resolves it. */
function createLatch(): [reached: Promise<void>, reach: () => void] {
  let reach: () => void = () => undefined;
  const reached = new Promise<void>((resolve) => {
    reach = resolve;
  });
  return [reached, reach];
}

async function closeAll(doors: readonly Door[]): Promise<void> {
  await Promise.all(doors.map((door) => door.close()));
}

function announceConfig(journal: Journal, { file, warnings }: Config): void {
  const texts = warnings.map(
    ({ line, column, path: where, message }) => `${file}:${line}:${column}: ${where}: ${message}`,
  );
  journal.append({ type: 'config.loaded', file, warnings: texts });
}
