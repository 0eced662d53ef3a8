import { constants, existsSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { isAbsolute, join, resolve } from 'node:path';
import { type ConfigProblem, isErrno, TunwardError } from '../errors.js';

/*
 * Where a configuration is and what stands in it, as text. Needs none of the packages that take it apart: whoever only
 * looks for the daemon's socket is done in a fraction of the time that it takes to load those.
 */

export interface SourceOptions {
  /** As given with -c; without it the file is looked for, see {@link findConfigFile}. */
  readonly file?: string | undefined;
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
  /** In place of /etc/tunward. */
  readonly systemDir?: string | undefined;
}

/** A configuration before it is parsed. */
export interface ConfigSource {
  /** Absolute. */
  readonly file: string;
  readonly text: string;
}

/** Finds the file and reads it. @throws TunwardError ERR_CONFIG_INVALID: there is none, or it cannot be read */
export async function readSource({ file: explicit, env, cwd, systemDir }: SourceOptions): Promise<ConfigSource> {
  const file = findConfigFile({ explicit, env, cwd, systemDir });
  if (file === undefined) throw nothingFound(cwd);
  return { file, text: await readText(file) };
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
    throw invalid([atTop(file, `expected a readable file, ${remedies[error.code ?? '']}`)], error);
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

export const maxBytes = 2 ** 20;
export const tooLarge = 'expected a file of at most 1 MiB, found a larger one';

/** `file:line:column: path: message`, the path left out where there is none. */
export function formatProblem({ file, line, column, path, message }: ConfigProblem): string {
  return [`${file}:${line}:${column}`, ...(path === '' ? [] : [path]), message].join(': ');
}

/** More than this nobody reads, and 1 MiB of wrong keys would be 20 MB of sentences, in an answer and in an event. */
const MOST_PROBLEMS = 100;

export function invalid(problems: readonly ConfigProblem[], cause?: unknown): TunwardError<'ERR_CONFIG_INVALID'> {
  const first = inOrder(problems).slice(0, MOST_PROBLEMS);
  const more = problems.length - first.length;
  const lines = [...first.map(formatProblem), ...(more > 0 ? [`… and ${more} more`] : [])];
  return new TunwardError('ERR_CONFIG_INVALID', lines.join('\n'), { problems: first }, { cause });
}

export function inOrder(problems: readonly ConfigProblem[]): ConfigProblem[] {
  return [...problems].sort((a, b) => a.line - b.line || a.column - b.column);
}

/** A problem with a file as a whole. */
export function atTop(file: string, message: string): ConfigProblem {
  return { file, line: 1, column: 1, path: '', message };
}

/** A folder that the environment names; the XDG specification has relative ones ignored. */
export function absoluteDir(env: NodeJS.ProcessEnv, name: string): string | undefined {
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
