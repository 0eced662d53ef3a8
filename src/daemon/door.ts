import type { Config, LoadOptions } from './config.js';
import type { Daemon, DaemonOptions } from './daemon.js';
import type { OpenTunnel, OpenTunnelOptions } from './open.js';

/** The library's way in: the parser, the schema and the HTTP server are loaded by the first call that needs them. */

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
