import { constants, existsSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { type ConfigProblem, isErrno, TunwardError } from '../errors.js';
import { needsShell } from '../tunnel/jump.js';
import type { DirectionMode, Endpoint, TunnelSpec } from '../tunnel/spec.js';
import { checkAddresses, type HostFacts, readHostFacts } from './addresses.js';
import { applyDefaults, type EnvironmentDefaults, readEnvironmentDefaults } from './defaults.js';
import { type ConfigDocument, readDocument } from './document.js';
import type { LogLimits } from './logfile.js';
import {
  ancestorKeys,
  createSchema,
  type FileShape,
  type Findings,
  isRecord,
  parseShape,
  type Schema,
  show,
} from './schema.js';
import { readTunnels } from './tunnels.js';

/** What a configuration file says, checked and complete. All paths are absolute. Frozen. */
export interface Config {
  /** The file it came from. */
  readonly file: string;
  /** In the order of the file. */
  readonly tunnels: readonly TunnelSpec[];
  readonly logDir: string;
  readonly log: LogLimits;
  readonly stateDir: string;
  readonly api: {
    readonly socket: string;
    readonly listen: Endpoint | null;
    readonly tokenFile: string;
    /** Of keys that open the API beside the token, SHA-256 in hexadecimal. */
    readonly keyDigests: readonly string[];
  };
  readonly start: { readonly concurrency: number; readonly perHost: number; readonly intervalMs: number };
  readonly directionMode: DirectionMode;
  /** The bound on everything that a shutdown does. */
  readonly stopTimeoutMs: number;
  /** What reads the file again: every change of it, or SIGHUP alone. */
  readonly reload: 'auto' | 'signal';
  /** What is no error but will surprise somebody. */
  readonly warnings: readonly ConfigProblem[];
}

export interface LoadOptions extends Partial<HostFacts> {
  /** As given with -c; without it the file is looked for, see {@link findConfigFile}. */
  readonly file?: string | undefined;
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  readonly uid?: number;
  /** In place of /etc/tunward. */
  readonly systemDir?: string | undefined;
}

/**
 * Finds, reads and parses the configuration.
 *
 * @throws TunwardError ERR_CONFIG_INVALID: there is none, it cannot be read, or it is wrong; `info.problems` says where
 * @example
 * const config = await loadConfig({ file: 'tunward.yaml' });
 * console.log(config.tunnels.map((tunnel) => tunnel.name));
 */
export async function loadConfig(options: LoadOptions = {}): Promise<Config> {
  return parseSource(await readSource(options), options);
}

/** A configuration before it is parsed. */
export interface ConfigSource {
  /** Absolute. */
  readonly file: string;
  readonly text: string;
}

/** The first half of {@link loadConfig}: finds the file and reads it. */
export async function readSource(options: LoadOptions = {}): Promise<ConfigSource> {
  const { env = process.env, cwd = process.cwd(), systemDir } = options;
  const file = findConfigFile({ explicit: options.file, env, cwd, systemDir });
  if (file === undefined) throw nothingFound(cwd);
  return { file, text: await readText(file) };
}

/** The second half: what the text says on this host. */
export function parseSource({ file, text }: ConfigSource, options: LoadOptions = {}): Config {
  const { env = process.env, cwd = process.cwd(), uid = process.getuid?.() ?? -1 } = options;
  const host = readHostFacts();
  const { ephemeralRange = host.ephemeralRange, hasIpv6Loopback = host.hasIpv6Loopback } = options;
  const { hasShell = host.hasShell } = options;
  const defaults = readEnvironmentDefaults(env, { file, cwd });
  return parseConfig(text, { file, env, uid, ephemeralRange, hasIpv6Loopback, hasShell, defaults });
}

/**
 * The configuration file to use: `explicit` (-c), `$TUNWARD_CONFIG`, `$AUTOSSH_CONFIG_FILE` (the ancestor's name for it),
 * `./tunward.yaml`, `$XDG_CONFIG_HOME/tunward/tunward.yaml`, `/etc/tunward/tunward.yaml`; absolute, or undefined when
 * there is none.
 *
 * @throws TunwardError ERR_CONFIG_INVALID: the file that the first three name does not exist
 */
export function findConfigFile(options: {
  explicit?: string | undefined;
  env: NodeJS.ProcessEnv;
  cwd: string;
  systemDir?: string | undefined;
}): string | undefined {
  const { explicit, env, cwd, systemDir = '/etc/tunward' } = options;
  const [named, source] = explicit === undefined ? namedIn(env) : [explicit, 'the option -c'];
  if (named !== undefined) {
    const file = resolve(cwd, named);
    if (isMissing(file)) throw invalid([atTop(file, `expected the file that ${source} names, found nothing`)]);
    return file;
  }
  const configDir = xdgDir(env, 'XDG_CONFIG_HOME', '.config');
  const dirs = [cwd, ...(configDir === undefined ? [] : [join(configDir, 'tunward')]), systemDir];
  return dirs.map((dir) => resolve(cwd, dir, 'tunward.yaml')).find((file) => existsSync(file));
}

function namedIn(env: NodeJS.ProcessEnv): [file: string | undefined, source: string] {
  return env.TUNWARD_CONFIG
    ? [env.TUNWARD_CONFIG, '$TUNWARD_CONFIG']
    : [env.AUTOSSH_CONFIG_FILE || undefined, '$AUTOSSH_CONFIG_FILE'];
}

/** Not there, and not merely out of sight: what keeps it from being seen is for the reading to say. */
function isMissing(file: string): boolean {
  try {
    statSync(file);
    return false;
  } catch (error) {
    if (!isErrno(error, ...Object.keys(remedies))) throw error;
    return isErrno(error, 'ENOENT', 'ENOTDIR');
  }
}

/** Where things are by default. */
export interface Defaults {
  readonly logDir: string;
  readonly stateDir: string;
  readonly socket: string;
}

/** Root's are the system's folders, a user's the XDG ones; a user without a home, as in a container, has the system's. */
export function defaultPaths(env: NodeJS.ProcessEnv, uid: number): Defaults {
  const system = { logDir: '/var/log/tunward', stateDir: '/var/lib/tunward', socket: '/run/tunward/tunward.sock' };
  if (uid === 0) return system;
  const stateHome = xdgDir(env, 'XDG_STATE_HOME', '.local/state');
  const runtimeDir = absoluteDir(env, 'XDG_RUNTIME_DIR');
  const stateDir = stateHome === undefined ? system.stateDir : join(stateHome, 'tunward');
  const logDir = stateHome === undefined ? system.logDir : join(stateDir, 'log');
  return { logDir, stateDir, socket: join(runtimeDir ?? stateDir, 'tunward.sock') };
}

export interface ParseOptions extends HostFacts {
  /** Names the file in messages; relative paths in it start from its folder. */
  readonly file: string;
  readonly env: NodeJS.ProcessEnv;
  readonly uid: number;
  /** What the environment says where the file says nothing; default: nothing. */
  readonly defaults?: EnvironmentDefaults;
}

/**
 * Parses a configuration: YAML text to plain data. Reads nothing but its arguments.
 *
 * @throws TunwardError ERR_CONFIG_INVALID with every problem at once, in the order of the file
 */
export function parseConfig(text: string, options: ParseOptions): Config {
  const { env, uid, defaults = { keyDigests: [], complaints: [] } } = options;
  const file = resolve(options.file);
  if (Buffer.byteLength(text) > maxBytes) throw invalid([atTop(file, tooLarge)]);
  const document = readDocument(text, file, keepsText);
  if (!document.readable) throw invalid(document.problems);

  const schema = createSchema({ dir: dirname(file), home: absoluteDir(env, 'HOME') });
  const findings: Findings = { document, errors: [...document.problems], warnings: [] };
  const written = document.value ?? {};
  const own = parseShape(findings, schema.file, written, []) ?? whatIsRight(schema, written);
  const top = applyDefaults(own, written, defaults);
  const { tunnels, places } = readTunnels(findings, schema, written, top);
  const found = checkAddresses(document, places, { ...options, apiListen: top.api.listen ?? null });
  const rest = placesAndLimits(top, { ...defaultPaths(env, uid), keyDigests: defaults.keyDigests });
  const ofEnvironment = defaults.complaints.map(({ variable, message }) => ({
    ...atTop(file, message),
    path: `$${variable}`,
  }));
  const errors = [...ofEnvironment, ...findings.errors, ...found.errors, ...socketProblems(document, rest.api.socket)];
  if (errors.length > 0) throw invalid(errors);
  const warnings = [...findings.warnings, ...found.warnings, ...shellWarnings(document, tunnels, options)];
  return deepFreeze({ file, tunnels, ...rest, warnings: inOrder(warnings) });
}

function shellWarnings(document: ConfigDocument, tunnels: readonly TunnelSpec[], { hasShell = true }: HostFacts) {
  const message = 'expected /bin/sh, by which ssh goes through a jump host, found none: put a shell into the image';
  const lacking = tunnels.map((spec) => !hasShell && needsShell(spec));
  return lacking.flatMap((lacks, at) => (lacks ? [document.problem(['tunnels', at, 'jump'], message)] : []));
}

/** The top level without the keys that are wrong, so that they do not keep the tunnels from being checked. */
function whatIsRight(schema: Schema, written: unknown): FileShape {
  const isRight = ([key, value]: [string, unknown]) => schema.file.safeParse({ [key]: value }).success;
  const entries = isRecord(written) ? Object.entries(written) : [];
  return schema.file.parse(Object.fromEntries(entries.filter(isRight)));
}

/** `file:line:column: path: message`, the path left out where there is none. */
export function formatProblem({ file, line, column, path, message }: ConfigProblem): string {
  return [`${file}:${line}:${column}`, ...(path === '' ? [] : [path]), message].join(': ');
}

const maxBytes = 2 ** 20;
const tooLarge = 'expected a file of at most 1 MiB, found a larger one';

/** sockaddr_un holds 108 bytes with the closing zero. */
const maxSocketBytes = 107;

function socketProblems(document: ConfigDocument, socket: string): ConfigProblem[] {
  const length = Buffer.byteLength(socket);
  if (length <= maxSocketBytes) return [];
  const message = `expected a path of at most ${maxSocketBytes} bytes, found ${length}: ${show(socket)}`;
  return [document.problem(['api', 'socket'], message)];
}

/** `ssh_options` beside the ancestor's keys: `Compression: yes` is the text that ssh gets, and no YAML boolean. */
function keepsText(keys: readonly string[]): boolean {
  const [last = '', parent] = [keys.at(-1), keys.at(-2)];
  return parent === 'ssh_options' || (parent === 'tunnels' && ancestorKeys.includes(last)) || last === 'listen';
}

function placesAndLimits(top: FileShape, defaults: Defaults & Pick<Config['api'], 'keyDigests'>) {
  const stateDir = top.state_dir ?? defaults.stateDir;
  const { socket = defaults.socket, listen = null, token_file: tokenFile = join(stateDir, 'token') } = top.api;
  const { concurrency = 16, per_host: perHost = 8, interval_ms: intervalMs = 0 } = top.start;
  const { max_bytes: maxBytes = 1_048_576, keep = 5 } = top.log;
  return {
    logDir: top.log_dir ?? defaults.logDir,
    log: { maxBytes, keep },
    stateDir,
    api: { socket, listen, tokenFile, keyDigests: defaults.keyDigests },
    start: { concurrency, perHost, intervalMs },
    directionMode: top.direction_mode,
    // Docker kills 10 s after SIGTERM, and wants an exit before that.
    stopTimeoutMs: top.stop_timeout_ms ?? 8000,
    reload: top.reload,
  };
}

function invalid(problems: readonly ConfigProblem[]): TunwardError<'ERR_CONFIG_INVALID'> {
  const sorted = inOrder(problems);
  return new TunwardError('ERR_CONFIG_INVALID', sorted.map(formatProblem).join('\n'), { problems: sorted });
}

function inOrder(problems: readonly ConfigProblem[]): ConfigProblem[] {
  return [...problems].sort((a, b) => a.line - b.line || a.column - b.column);
}

/** A problem with a file as a whole. */
function atTop(file: string, message: string): ConfigProblem {
  return { file, line: 1, column: 1, path: '', message };
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) Object.values(value).forEach(deepFreeze);
  return Object.freeze(value);
}

/** A folder that the environment names; the XDG specification has relative ones ignored. */
function absoluteDir(env: NodeJS.ProcessEnv, name: string): string | undefined {
  const dir = env[name];
  return dir !== undefined && isAbsolute(dir) ? dir : undefined;
}

function xdgDir(env: NodeJS.ProcessEnv, name: string, underHome: string): string | undefined {
  const home = absoluteDir(env, 'HOME');
  return absoluteDir(env, name) ?? (home === undefined ? undefined : join(home, underHome));
}

function nothingFound(cwd: string): TunwardError<'ERR_CONFIG_INVALID'> {
  const places = '$TUNWARD_CONFIG, ./, $XDG_CONFIG_HOME/tunward/ and /etc/tunward/';
  const message = `expected a configuration, found no tunward.yaml in ${places}: create one, or name it with -c`;
  return invalid([atTop(resolve(cwd, 'tunward.yaml'), message)]);
}

/** What each failure to open or read means for the person, with the remedy. */
const remedies: Readonly<Record<string, string>> = {
  ENOENT: 'found nothing: create it, or name another with -c',
  ENOTDIR: 'found a path through something that is no folder: correct the path',
  EACCES: 'found one that may not be read: give this user the right to read it and to enter its folders',
  EPERM: 'found one that may not be read: give this user the right to read it',
  ELOOP: 'found symbolic links that go in a circle: correct the links',
  ENAMETOOLONG: 'found a path that is too long: use a shorter one',
  ENXIO: 'found a socket or a device without a driver: name a regular file',
  EIO: 'found a read error: look at the disk',
  ESTALE: 'found one whose file system is gone: look at the mount',
  EMFILE: 'found no descriptor left to read it with: raise the limit (ulimit -n)',
  ENFILE: 'found no descriptor left on this host to read it with: raise fs.file-max',
};

/** The text of a regular file of at most 1 MiB. Never waits: opened non-blocking, a FIFO without a writer returns at once. */
export async function readText(file: string): Promise<string> {
  const bytes = await readBytes(file).catch((error: unknown) => {
    const codes = Object.keys(remedies);
    if (!isErrno(error, ...codes)) throw error;
    throw invalid([atTop(file, `expected a readable file, ${remedies[error.code ?? '']}`)]);
  });
  if (bytes.length > maxBytes) throw invalid([atTop(file, tooLarge)]);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    if (!isErrno(error, 'ERR_ENCODING_INVALID_ENCODED_DATA')) throw error;
    throw invalid([atTop(file, 'expected UTF-8 text, found other bytes: save the file as UTF-8')]);
  }
}

/** At most one byte more than may be, which is enough to see that it is too much. */
async function readBytes(file: string): Promise<Buffer> {
  const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  try {
    const stats = await handle.stat();
    const kind = stats.isDirectory() ? 'a folder' : 'a pipe or a device';
    if (!stats.isFile()) throw invalid([atTop(file, `expected a regular file, found ${kind}: name a file with -c`)]);
    // Not filled with zeros: the daemon reads its file every 2 s, and mostly touches one page of this.
    const buffer = Buffer.allocUnsafe(maxBytes + 1);
    let length = 0;
    for (let read = -1; read !== 0; length += read) {
      read = (await handle.read(buffer, length, buffer.length - length, null)).bytesRead;
    }
    return buffer.subarray(0, length);
  } finally {
    await handle.close();
  }
}
