/**
 * tunward as a library. Reading, killing and proving load nothing but Node; tunnels, and what works on a configuration
 * file, are loaded when they are called for.
 */
export type { Config } from './daemon/config.js';
export type { Daemon, DaemonOptions } from './daemon/daemon.js';
export { createSupervisor, loadConfig, openTunnel, startDaemon } from './daemon/door.js';
export type { DaemonEvent, JournalEntry } from './daemon/events.js';
export type { OpenTunnel, OpenTunnelOptions } from './daemon/open.js';
export { type ErrorCode, type ErrorInfo, errorCodes, isTunwardError, TunwardError } from './errors.js';
export { type KilledProcess, type KillOptions, type KillReport, killTree, type Survivor } from './kill.js';
export type { PortClient } from './port/clients.js';
export { type FreePortOptions, freePort } from './port/free.js';
export { inspectPort, type PortReport } from './port/inspect.js';
export { findListeners, type Listener, type PortOptions } from './port/listeners.js';
export type { Verdict } from './port/verdict.js';
export { isPortFree, waitForPort } from './port/wait.js';
export type { BackendName } from './proc/backend.js';
export { type ProcessTree, readProcessTree } from './proc/family.js';
export type { ProcessInfo, ProcessRef } from './proc/stat.js';
export { createUsageReader, readUsage, type Usage, type UsageReader } from './proc/usage.js';
export type { OperationResult, TunnelEvent, TunnelStatus } from './tunnel/runner.js';
export type { TunnelSpec } from './tunnel/spec.js';
export type { Supervisor, SupervisorEvent, SupervisorOptions } from './tunnel/supervisor.js';
