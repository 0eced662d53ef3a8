import { dirname } from 'node:path';
import { formatEndpoint, formatHop } from '../tunnel/spec.js';
import { toWire } from '../wire.js';
import { type Config, parseSource } from './config.js';
import { applyDefaults, type EnvironmentDefaults, readEnvironmentDefaults } from './defaults.js';
import { type ConfigDocument, readDocument } from './document.js';
import { createSchema, isRecord, keepsText } from './schema.js';
import { absoluteDir, type ConfigSource } from './source.js';
import { defaultSettings } from './tunnels.js';

/** A key of the configuration as it is in force. */
export interface Setting {
  /** `api.socket`. */
  readonly key: string;
  readonly value: unknown;
  readonly origin: 'file' | 'environment' | 'default';
  /** `line 12`, `$TUNWARD_TAKEOVER`. */
  readonly where: string | null;
}

/**
 * Every key at the top of a configuration, what it is, and what has said so: the file, else the environment, else
 * nobody. What a tunnel says for itself is not in it.
 *
 * @throws TunwardError ERR_CONFIG_INVALID
 */
export function readSettings(source: ConfigSource, { env, cwd }: { env: NodeJS.ProcessEnv; cwd: string }): Setting[] {
  const config = parseSource(source, { env, cwd });
  const { file, text } = source;
  const document = readDocument(text, file, keepsText);
  const defaults = readEnvironmentDefaults(env, { file, cwd });
  const remote = { 'api.allow_remote': valueAt(document.value, ['api', 'allow_remote']) ?? false };
  const values = { ...valuesForTunnels(document, { env, file, defaults }), ...valuesOf(config), ...remote };
  return Object.entries(values).map(([key, value]) => ({ key, value, ...originOf(key, document, defaults) }));
}

interface Place {
  readonly env: NodeJS.ProcessEnv;
  readonly file: string;
  readonly defaults: EnvironmentDefaults;
}

/** What holds for every tunnel that says nothing else. */
function valuesForTunnels(document: ConfigDocument, { env, file, defaults }: Place): Record<string, unknown> {
  const written = document.value ?? {};
  const schema = createSchema({ dir: dirname(file), home: absoluteDir(env, 'HOME') });
  // It has been checked already.
  const top = applyDefaults(schema.file.parse(written), written, defaults);
  const { sshOptions, ...base } = defaultSettings;
  const inFile = toWire(base) as Record<string, unknown>;
  const own = (key: string) => (top as Record<string, unknown>)[key];
  const merged = Object.entries(inFile).map(([key, value]): [string, unknown] => {
    if (key === 'backoff') return [key, { ...(value as object), ...(own(key) as object | undefined) }];
    return [key, own(key) ?? value];
  });
  return {
    ...Object.fromEntries(merged),
    jump: (top.jump ?? defaultSettings.jump).map(formatHop),
    ssh_options: { ...sshOptions, ...top.ssh_options },
  };
}

function valuesOf(config: Config): Record<string, unknown> {
  const { logDir, log, stateDir, api, start, directionMode, onNeedsAuth, stopTimeoutMs, reload, tunnels } = config;
  return {
    direction_mode: directionMode,
    log_dir: logDir,
    'log.max_bytes': log.maxBytes,
    'log.keep': log.keep,
    state_dir: stateDir,
    'api.socket': api.socket,
    'api.listen': api.listen === null ? 'off' : formatEndpoint(api.listen),
    'api.hosts': api.hosts,
    'api.token_file': api.tokenFile,
    'api.tokens': api.tokens,
    'api.compat': api.compat,
    'start.concurrency': start.concurrency,
    'start.per_host': start.perHost,
    'start.interval_ms': start.intervalMs,
    on_needs_auth: toWire(onNeedsAuth?.headerFile === null ? onNeedsAuth.url : onNeedsAuth),
    stop_timeout_ms: stopTimeoutMs,
    reload,
    tunnels: tunnels.length,
  };
}

function originOf(
  key: string,
  document: ConfigDocument,
  { takeover, directionMode, sshConfig, listen }: EnvironmentDefaults,
): Pick<Setting, 'origin' | 'where'> {
  const path = key.split('.');
  if (valueAt(document.value, path) !== undefined) {
    return { origin: 'file', where: `line ${document.problem(path, '', 'key').line}` };
  }
  const variables: Record<string, [set: unknown, name: string]> = {
    takeover: [takeover, '$TUNWARD_TAKEOVER'],
    direction_mode: [directionMode, '$TUNNEL_DIRECTION_MODE'],
    ssh_config: [sshConfig, '$SSH_CONFIG_DIR'],
    'api.listen': [listen, '$API_PORT'],
  };
  const [set, name = null] = variables[key] ?? [];
  return set === undefined ? { origin: 'default', where: null } : { origin: 'environment', where: name };
}

function valueAt(value: unknown, [key, ...rest]: readonly string[]): unknown {
  if (key === undefined) return value;
  return isRecord(value) ? valueAt(value[key], rest) : undefined;
}
