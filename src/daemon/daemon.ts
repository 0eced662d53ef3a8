import { readFileSync } from 'node:fs';
import path from 'node:path';
import { isTunwardError } from '../errors.js';
import { requireLinux } from '../proc/backend.js';
import { openProc } from '../proc/read.js';
import { systemClock } from '../time.js';
import type { TunnelSpec } from '../tunnel/spec.js';
import { createSupervisor, type Supervisor } from '../tunnel/supervisor.js';
import type { Phase } from './api/health.js';
import { type Door, openSocketDoor, openTcpDoor } from './api/http.js';
import { createPanelFiles } from './api/panel.js';
import { createRoutes } from './api/routes.js';
import { createFailures, createSessions, openTokens } from './api/tokens.js';
import { warningsOf } from './changes.js';
import { type Config, parseSource } from './config.js';
import { processEnvironment } from './environment.js';
import { createJournal, type Journal, type JournalEntry } from './events.js';
import { createHook, warningsOfHook } from './hook.js';
import { watchInit } from './init.js';
import { isLiving, readInstance, takeLock } from './instance.js';
import { type LedgerFile, openLedger } from './ledger.js';
import { createTunnelLogs } from './log.js';
import { createReloader, type Reloader } from './reload.js';
import { closeAll, findSurviving, type Opened, rejectAtAbort, type StopReport } from './shutdown.js';
import { type ConfigSource, readSource } from './source.js';
import { watchFile } from './watch.js';

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
  const source = await readSource({ file, env, cwd });
  const config = parseSource(source, { env, cwd });
  requireLinux('run the daemon', {});
  const journal = createJournal(systemClock);
  if (onEvent) journal.subscribe(onEvent);
  const opened: Opened[] = [];
  try {
    return await assemble({ source, config, journal, opened, env, cwd, signal });
  } catch (error) {
    await closeAll(opened, config.stopTimeoutMs);
    throw error;
  }
}

interface Parts {
  readonly source: ConfigSource;
  readonly config: Config;
  readonly journal: Journal;
  /** What has been opened so far, in order: closed in reverse. */
  readonly opened: Opened[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly signal: AbortSignal | undefined;
}

async function assemble({ source, config, journal, opened, env, cwd, signal }: Parts): Promise<Daemon> {
  const publish = journal.append;
  const { instance, ledger } = await openState(config.stateDir, journal, opened);
  const reloader = createReloader({ source, config, env, cwd, clock: systemClock, publish, apply });
  // Every spec there ever was: one that has left the configuration still has its last lines to write.
  const specs = new Map(config.tunnels.map((spec) => [spec.id, spec]));
  const specOf = (id: string) => specs.get(id);
  const limits = () => reloader.config().log;
  const logs = createTunnelLogs(config.logDir, { specOf, limits, clock: systemClock });
  journal.subscribe(logs.write);
  const supervisor = createSupervisor({
    ...{ env, instance, isLiving, ledger, publish },
    knownHosts: path.join(config.stateDir, 'known_hosts'),
    askpassFolder: config.stateDir,
    socketFolder: path.join(config.stateDir, 'links'),
    gate: config.start,
    logFileOf: ({ id }) => logs.fileOf(id),
  });
  opened.push({ what: 'the tunnels', close: () => supervisor.close() });
  const version = readVersion();
  const hook = createHook({ target: () => reloader.config().onNeedsAuth, version, clock: systemClock, publish });
  journal.subscribe(hook.hear);
  opened.push({ what: 'the hook', close: hook.close });
  const [booted, finishBoot] = createLatch<void>();
  const [closed, finishClose] = createLatch<StopReport>();
  let closing: Promise<StopReport> | undefined;
  let phase: Phase = 'starting';
  const access = openAccess(config);
  const shutdown = () => void close();
  const hands = { supervisor, logs, reloader, journal, shutdown, booted, phase: () => phase };
  const routes = createRoutes({ config, clock: systemClock, version, ...access, ...hands });
  const page = createPanelFiles();
  const doors: Door[] = [await openSocketDoor(config.api.socket, routes, page)];
  opened.push({ what: 'the API', close: () => closeDoors(doors) });
  if (config.api.listen)
    doors.push(await openTcpDoor(config.api.listen, { ...access, hosts: config.api.hosts, page }, routes));
  const warnings = [...warningsOf(config), ...access.tokens.warnings, ...warningsOfHook(config.onNeedsAuth)];
  publish({ type: 'config.loaded', file: config.file, warnings, changes: null });
  watchInit(journal);
  // The one step of a boot that can take seconds; whoever gives it up does not wait for it.
  await Promise.race([supervisor.sweep(config.tunnels), rejectAtAbort(signal)]);
  await supervisor.reconcile(config.tunnels);
  phase = 'ready';
  finishBoot();
  if (config.reload === 'auto') opened.push({ what: 'the watch', close: watchConfig(journal, config.file, reloader) });
  const url = doors.find((door) => door.url !== null)?.url ?? null;
  const address = { socket: config.api.socket, url };
  const tokenFile = url === null ? null : config.api.tokenFile;
  publish({ type: 'daemon.ready', pid: process.pid, ...address, tokenFile, tunnels: config.tunnels.length });
  return {
    get config() {
      return reloader.config();
    },
    ...{ address, supervisor, closed, reload, close },
    [Symbol.asyncDispose]: async () => void (await close()),
  };

  function apply(tunnels: readonly TunnelSpec[]): Promise<void> {
    for (const spec of tunnels) specs.set(spec.id, spec);
    return supervisor.reconcile(tunnels);
  }

  async function reload(): Promise<void> {
    try {
      await reloader.reload();
    } catch (error) {
      if (!isTunwardError(error, 'ERR_CONFIG_INVALID')) throw error; // told by an event
    }
  }

  function close(): Promise<StopReport> {
    closing ??= stop();
    return closing;
  }

  async function stop(): Promise<StopReport> {
    phase = 'stopping';
    publish({ type: 'daemon.stopping' });
    const began = systemClock.now();
    const trouble = (await closeAll(opened, reloader.config().stopTimeoutMs)) ?? null;
    const tookMs = Math.round(systemClock.now() - began);
    const report = { tookMs, trouble, survivors: findSurviving(supervisor) };
    publish({ type: 'daemon.stopped', ...report });
    finishClose(report);
    return report;
  }
}

/** The state folder, for this daemon alone: whose it is, and what a former life has written there. */
async function openState(
  stateDir: string,
  { append }: Journal,
  opened: Opened[],
): Promise<{ instance: string; ledger: LedgerFile }> {
  const { id: instance, replaced } = readInstance(stateDir);
  const lock = await takeLock(instance);
  opened.push({ what: 'the lock', close: () => lock.release() });
  const onFailure = (message: string) => append({ type: 'state.failed', message });
  const ledger = openLedger({ stateDir, instance, proc: openProc(), onFailure });
  opened.push({ what: 'the ledger', close: () => ledger.close() });
  const found = { instance: replaced, 'ledger.json': ledger.replaced };
  for (const [name, message] of Object.entries(found)) {
    if (message !== undefined) append({ type: 'state.replaced', file: path.join(stateDir, name), message });
  }
  return { instance, ledger };
}

/** Who may come in by TCP. Without that door no token is made. */
function openAccess({ api }: Config) {
  const more = api.tokens.map(({ file, scope }) => ({ file, rights: scope }));
  const files = api.listen ? [{ file: api.tokenFile, rights: 'all' as const }, ...more] : [];
  const tokens = openTokens(files, api.keyDigests);
  return { tokens, sessions: createSessions(systemClock), failures: createFailures(systemClock) };
}

function readVersion(): string {
  return JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version;
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

/** Has every change of the file looked at; answers how to stop. */
function watchConfig({ append }: Journal, file: string, { look }: Reloader): () => void {
  const onTrouble = (message: string) => append({ type: 'config.unwatched', file, message });
  return watchFile(file, { clock: systemClock, look, onTrouble }).close;
}
