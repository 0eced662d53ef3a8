import path from 'node:path';
import { requireLinux } from '../proc/backend.js';
import { systemClock } from '../time.js';
import type { TunnelSpec } from '../tunnel/spec.js';
import { createSupervisor, type Supervisor } from '../tunnel/supervisor.js';
import { type Config, type ConfigSource, parseSource, readSource } from './config.js';
import { processEnvironment } from './environment.js';
import { createJournal, type Journal, type JournalEntry } from './events.js';
import { type Door, openSocketDoor, openTcpDoor } from './http.js';
import { isLiving, readInstance, takeLock } from './instance.js';
import { createTunnelLogs } from './log.js';
import { createReloader, type Reloader, warningsOf } from './reload.js';
import { createRoutes } from './routes.js';
import { watchFile } from './watch.js';

export interface DaemonOptions {
  /** A configuration file; not given: the one that is found. */
  readonly configFile?: string | undefined;
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  readonly cwd?: string | undefined;
  readonly onEvent?: ((entry: JournalEntry) => void) | undefined;
}

export interface Daemon {
  /** What holds now: after a reload the one that was read last. */
  readonly config: Config;
  readonly address: { readonly socket: string; readonly url: string | null };
  readonly supervisor: Supervisor;
  /** Resolves when it has been closed, by whomever. */
  readonly closed: Promise<void>;
  /** Reads the configuration again, asked by somebody, and makes the tunnels those. A bad one is said, and changes nothing. */
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
  const source = await readSource({ file, env, cwd });
  const config = parseSource(source, { env });
  requireLinux('run the daemon', {});
  const journal = createJournal(systemClock);
  if (onEvent) journal.subscribe(onEvent);
  const cleanups: (() => Promise<void> | void)[] = [];
  try {
    return await assemble({ source, config, journal, cleanups, env });
  } catch (error) {
    for (const cleanup of cleanups.reverse()) await cleanup();
    throw error;
  }
}

interface Parts {
  readonly source: ConfigSource;
  readonly config: Config;
  readonly journal: Journal;
  /** What has been opened so far, in order: closed in reverse. */
  readonly cleanups: (() => Promise<void> | void)[];
  readonly env: Readonly<Record<string, string | undefined>>;
}

async function assemble({ source, config, journal, cleanups, env }: Parts): Promise<Daemon> {
  const instance = readInstance(config.stateDir);
  const lock = await takeLock(instance.id);
  cleanups.push(() => lock.release());
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
  journal.append({ type: 'config.loaded', file: config.file, warnings: warningsOf(config), changes: null });
  await supervisor.sweep(config.tunnels);
  await supervisor.reconcile(config.tunnels);
  finishBoot();
  const reloader = createReloader({ source, config, env, clock: systemClock, publish: journal.append, apply });
  if (config.reload === 'auto') cleanups.push(watchConfig(journal, config.file, reloader.look));
  const url = doors.find((door) => door.url !== null)?.url ?? null;
  const address = { socket: config.api.socket, url };
  journal.append({ type: 'daemon.ready', pid: process.pid, ...address, tunnels: config.tunnels.length });
  return {
    get config() {
      return reloader.config();
    },
    ...{ address, supervisor, closed, reload: reloader.reload, close, [Symbol.asyncDispose]: close },
  };

  function apply(tunnels: readonly TunnelSpec[]): Promise<void> {
    for (const spec of tunnels) specs.set(spec.id, spec);
    return supervisor.reconcile(tunnels);
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

/** Has every change of the file looked at; answers how to stop. */
function watchConfig(journal: Journal, file: string, look: Reloader['look']): () => void {
  const onTrouble = (message: string) => journal.append({ type: 'config.unwatched', file, message });
  return watchFile(file, { clock: systemClock, look, onTrouble }).close;
}
