import { createRequire } from 'node:module';
import type { Supervisor, SupervisorOptions } from '../tunnel/supervisor.js';
import type { Config, LoadOptions } from './config.js';
import type { Daemon, DaemonOptions } from './daemon.js';
import type { OpenTunnel, OpenTunnelOptions } from './open.js';

/**
 * The library's way in: the parser, the schema, the HTTP server and the tunnels are loaded by the first call that needs
 * them, so that who imports the library to free a port pays for that alone.
 */

/** See {@link import('./config.js').loadConfig}. */
export async function loadConfig(options?: LoadOptions): Promise<Config> {
  return (await import('./config.js')).loadConfig(options);
}

/** See {@link import('./daemon.js').startDaemon}. */
export async function startDaemon(options?: DaemonOptions): Promise<Daemon> {
  return (await import('./daemon.js')).startDaemon(options);
}

/** See {@link import('./open.js').openTunnel}. */
export async function openTunnel(options: OpenTunnelOptions): Promise<OpenTunnel> {
  return (await import('./open.js')).openTunnel(options);
}

/** See {@link import('../tunnel/supervisor.js').createSupervisor}. */
export function createSupervisor(options: SupervisorOptions): Supervisor {
  // It answers at once, which import() cannot. The Nodes that we run on require() a module as import() does, and the same.
  const tunnels = createRequire(import.meta.url)('../tunnel/supervisor.js');
  return tunnels.createSupervisor(options);
}
