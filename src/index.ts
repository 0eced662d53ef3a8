/** tunward as a library: it loads nothing but Node. */
export { type ErrorCode, type ErrorInfo, errorCodes, isTunwardError, TunwardError } from './errors.js';
export { type KilledProcess, type KillOptions, type KillReport, killTree, type Survivor } from './kill.js';
export { type FreePortOptions, freePort } from './port/free.js';
export { inspectPort, type PortClient, type PortReport, type Verdict } from './port/inspect.js';
export { findListeners, type Listener, type PortOptions } from './port/listeners.js';
export { isPortFree, waitForPort } from './port/wait.js';
export { type ProcessTree, readProcessTree } from './proc/family.js';
export type { ProcessInfo, ProcessRef } from './proc/stat.js';
export type { OperationResult } from './tunnel/operation.js';
export type { TunnelEvent } from './tunnel/runner.js';
export type { TunnelSpec } from './tunnel/spec.js';
export type { TunnelStatus } from './tunnel/status.js';
export {
  createSupervisor,
  type Supervisor,
  type SupervisorEvent,
  type SupervisorOptions,
} from './tunnel/supervisor.js';
