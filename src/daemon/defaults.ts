import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { DirectionMode, Endpoint, Takeover } from '../tunnel/spec.js';
import { type FileShape, isRecord, show } from './schema.js';

/** What the environment says of keys that the file says nothing of. */
export interface EnvironmentDefaults {
  readonly takeover?: Takeover | undefined;
  readonly directionMode?: DirectionMode | undefined;
  readonly sshConfig?: string | undefined;
  readonly listen?: Endpoint | undefined;
  /** SHA-256 in hexadecimal of each key that opens the API. The keys themselves go nowhere. */
  readonly keyDigests: readonly string[];
  /** What is wrong with a variable, under its name. */
  readonly complaints: readonly { readonly variable: string; readonly message: string }[];
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * What an image and a compose file say. `TUNWARD_TAKEOVER` counts for every file; the names of
 * autossh-tunnel-dockerized only for the file that its own `AUTOSSH_CONFIG_FILE` names: elsewhere `API_PORT` and `API_KEY`
 * are anybody's.
 */
export function readEnvironmentDefaults(
  env: Environment,
  { file, cwd }: { readonly file: string; readonly cwd: string },
): EnvironmentDefaults {
  const complaints: { variable: string; message: string }[] = [];
  const read = createReader(env, complaints);
  const takeover = read('TUNWARD_TAKEOVER', 'own, tunnels or any', oneOf('own', 'tunnels', 'any'));
  const isAncestors = env.AUTOSSH_CONFIG_FILE && resolve(cwd, env.AUTOSSH_CONFIG_FILE) === file;
  if (!isAncestors) return { takeover, keyDigests: [], complaints };
  return {
    takeover,
    directionMode: read('TUNNEL_DIRECTION_MODE', 'default or ssh-standard', oneOf('default', 'ssh-standard')),
    sshConfig: env.SSH_CONFIG_DIR ? configIn(resolve(cwd, env.SSH_CONFIG_DIR)) : undefined,
    listen: readListen(read),
    keyDigests: readKeyDigests(env, complaints),
    complaints,
  };
}

/** The top level of a file, completed. */
export function applyDefaults(top: FileShape, written: unknown, defaults: EnvironmentDefaults): FileShape {
  const hasMode = isRecord(written) && written.direction_mode !== undefined;
  const { takeover, directionMode, sshConfig, listen } = defaults;
  return {
    ...top,
    takeover: top.takeover ?? takeover,
    direction_mode: hasMode ? top.direction_mode : (directionMode ?? top.direction_mode),
    ssh_config: top.ssh_config ?? sshConfig,
    // `listen: off` is null, and stays off.
    api: top.api.listen === undefined ? { ...top.api, listen } : top.api,
  };
}

type Reader = <T>(variable: string, expected: string, parse: (text: string) => T | undefined) => T | undefined;

/** Reads a variable; one that is set to nothing, as compose files do, is not set. */
function createReader(env: Environment, complaints: { variable: string; message: string }[]): Reader {
  return (variable, expected, parse) => {
    const text = env[variable];
    if (!text) return undefined;
    const value = parse(text);
    if (value === undefined) complaints.push({ variable, message: `expected ${expected}, found ${show(text)}` });
    return value;
  };
}

function oneOf<const T extends string>(...values: readonly T[]): (text: string) => T | undefined {
  return (text) => values.find((value) => value === text);
}

/** The ancestor gives ssh `-F <dir>/config`; where there is none it would refuse to start. */
function configIn(dir: string): string | undefined {
  const file = join(dir, 'config');
  return existsSync(file) ? file : undefined;
}

/**
 * The ancestor's API is off until API_ENABLE is `true`, and then on port 8080 of every address. Here API_PORT alone is
 * enough, `API_ENABLE: false` keeps it shut, and it is on loopback: whoever reaches it may start and stop tunnels.
 */
function readListen(read: Reader): Endpoint | undefined {
  const enable = read('API_ENABLE', 'true or false', oneOf('true', 'false'));
  const port = read('API_PORT', 'a port from 1 to 65535', parsePort);
  const isWanted = enable === undefined ? port !== undefined : enable === 'true';
  return isWanted ? { host: '127.0.0.1', port: port ?? 8080 } : undefined;
}

function parsePort(text: string): number | undefined {
  const port = Number(text);
  return /^\d+$/.test(text) && port >= 1 && port <= 65_535 ? port : undefined;
}

/** API_KEY is a list with commas. What is wrong with one is said without showing it. */
function readKeyDigests(env: Environment, complaints: { variable: string; message: string }[]): string[] {
  const keys = (env.API_KEY ?? '').split(',').map((key) => key.trim());
  const given = keys.filter((key) => key !== '');
  const wrong = given.find((key) => !/^[\x21-\x7e]{8,}$/.test(key));
  if (wrong !== undefined) {
    const message = `expected keys of 8 or more printable characters, with commas between them, found one of ${wrong.length}`;
    complaints.push({ variable: 'API_KEY', message });
  }
  return given.map((key) => createHash('sha256').update(key).digest('hex'));
}
