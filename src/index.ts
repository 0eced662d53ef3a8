/// <reference types="node" preserve="true" />

/**
 * tunward as a library: its table of contents. An import loads the errors and killTree(); everything else is loaded by the
 * first call that needs it, and nothing but Node up to the tunnels.
 */
export type { Config } from './daemon/config.js';
export type { Daemon, DaemonOptions } from './daemon/daemon.js';
export type { DaemonEvent, JournalEntry } from './daemon/events.js';
export type { OpenTunnel, OpenTunnelOptions } from './daemon/open.js';
export type { StopReport } from './daemon/shutdown.js';
export {
  createSupervisor,
  createUsageReader,
  findListeners,
  freePort,
  inspectPort,
  isPortFree,
  loadConfig,
  openTunnel,
  readProcessTree,
  readUsage,
  startDaemon,
  waitForPort,
} from './door.js';
export { type ErrorCode, type ErrorInfo, errorCodes, isTunwardError, TunwardError } from './errors.js';
export { type KilledProcess, type KillOptions, type KillReport, killTree, type Survivor } from './kill.js';
export type { PortClient } from './port/clients.js';
export type { FreePortOptions } from './port/free.js';
export type { PortReport } from './port/inspect.js';
export type { FindListenersOptions, Listener, PortOptions } from './port/listeners.js';
export type { Verdict } from './port/verdict.js';
export type { WaitForPortOptions } from './port/wait.js';
export type { BackendName } from './proc/backend.js';
export type { ProcessTree } from './proc/family.js';
export type { ProcessInfo, ProcessRef } from './proc/stat.js';
export type { Usage, UsageReader } from './proc/usage.js';
export type { Keyboard, Patience, Person, Prompt, Question, Terminal } from './tunnel/asking/person.js';
export type { AuthenticateOptions, OperationResult, TunnelEvent, TunnelStatus } from './tunnel/runner.js';
export type { TunnelSpec } from './tunnel/spec.js';
export type { Supervisor, SupervisorEvent, SupervisorOptions } from './tunnel/supervisor.js';
