import fs from 'node:fs';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { findQuirks, type Quirk } from '../daemon/ancestor.js';
import { type Config, parseSource } from '../daemon/config.js';
import { readEnvironmentDefaults } from '../daemon/defaults.js';
import { replaceFile } from '../daemon/files.js';
import { show } from '../daemon/schema.js';
import {
  type ConfigSource,
  defaultPaths,
  findConfigFile,
  formatProblem,
  invalid,
  readSource,
} from '../daemon/source.js';
import { isErrno, isTunwardError, TunwardError } from '../errors.js';
import { formatEndpoint } from '../tunnel/spec.js';
import { confirm, offer } from './confirm.js';
import type { Context } from './context.js';
import { styled } from './render.js';
import { renderTakenOver, renderTemplate } from './template.js';

export interface InitOptions {
  readonly config?: string;
  /** A configuration of autossh-tunnel-dockerized. */
  readonly from?: string;
  /** A file that is there is replaced. */
  readonly force?: boolean;
}

/** Where the ancestor's image has its configuration. */
const ANCESTORS_FILE = '/etc/autossh/config/config.yaml';

/** A configuration to go on from. */
interface Draft {
  readonly text: string;
  readonly config: Config;
  /** What the person should know of it. */
  readonly notes: readonly string[];
}

/**
 * Writes a commented configuration, or one with the tunnels of an ancestor's. It is 0600: whoever may write it says
 * where ssh goes, and a list of hosts and users is for the daemon's own user to read.
 */
export async function init(options: InitOptions, context: Context): Promise<number> {
  const { env, cwd, screen } = context;
  const file = path.resolve(cwd, options.config ?? (env.TUNWARD_CONFIG || 'tunward.yaml'));
  const isThere = isAnything(file);
  if (isThere && !options.force) throw thereAlready(file);
  const from = options.from === undefined ? await findAncestors(file, context) : path.resolve(cwd, options.from);
  const draft = from === undefined ? startAnew(file, context) : await takeOver(from, file, context);
  const backup = isThere ? backupName(file) : null;
  if (backup !== null && !(await confirm({ act: `replace ${file} (it is kept as ${backup})` }, context))) return 1;
  write(file, draft.text, backup);
  const tunnels = draft.config.tunnels.map(({ id, name }) => ({ id, name }));
  if (screen.json) {
    screen.data({ file, from: from ?? null, backup, tunnels, notes: draft.notes });
    return 0;
  }
  const what =
    from === undefined ? 'with examples to take the # away from' : `with ${tunnels.length} tunnels of ${from}`;
  screen.print([styled('green', '✔ '), `${file} is written, ${what}`]);
  screen.say(...draft.notes.map((note) => styled('yellow', note)), ...nextSteps(file, context));
  return 0;
}

/** A file that was named by nobody is offered, never taken. */
async function findAncestors(file: string, context: Context): Promise<string | undefined> {
  const { env, cwd, screen } = context;
  const found = path.resolve(cwd, env.AUTOSSH_CONFIG_FILE || ANCESTORS_FILE);
  if (found === file || !fs.existsSync(found)) return undefined;
  const agrees = await offer(`Take over the tunnels of ${found}`, context);
  if (agrees === undefined) screen.say(`${found} is there: tunward init --from ${found} takes its tunnels over`);
  return agrees ? found : undefined;
}

function startAnew(file: string, { env, cwd }: Context): Draft {
  const text = renderTemplate(defaultPaths(env, process.getuid?.() ?? -1));
  return { text, config: parseSource({ file, text }, { env, cwd }), notes: [] };
}

async function takeOver(from: string, file: string, context: Context): Promise<Draft> {
  const { env, cwd } = context;
  const source = await readSource({ file: from, env, cwd });
  const before = parseSource(source, { env, cwd });
  const said = readEnvironmentDefaults(env, { file: from, cwd });
  const settings: (readonly [string, string])[] = [
    ...(said.directionMode === undefined ? [] : [['direction_mode', said.directionMode] as const]),
    ...(said.sshConfig === undefined ? [] : [['ssh_config', JSON.stringify(said.sshConfig)] as const]),
    ...(said.listen === undefined
      ? []
      : [['api', `{listen: ${JSON.stringify(formatEndpoint(said.listen))}}`] as const]),
  ];
  const notes = findQuirks(source.text).map((quirk) => describeQuirk(quirk, from));
  if (said.keyDigests.length > 0) {
    notes.push('API_KEY is not written down: put a key into the file that api.token_file names');
  }
  const text = renderTakenOver({ text: source.text, from, settings }, defaultPaths(env, process.getuid?.() ?? -1));
  const config = parseTaken({ file, text }, before, context);
  return { text, config, notes: [...config.warnings.map(formatProblem), ...notes] };
}

/** The same tunnels under the same ids, or nothing is written. */
function parseTaken(source: ConfigSource, before: Config, { env, cwd }: Context): Config {
  try {
    const config = parseSource(source, { env, cwd });
    const bonesOf = ({ tunnels }: Config) => tunnels.map(({ id, forward }) => ({ id, forward }));
    if (isDeepStrictEqual(bonesOf(config), bonesOf(before))) return config;
    throw new Error(`${before.file} cannot be taken over as it is: its tunnels would become others`);
  } catch (error) {
    // Beside a key of tunward's own the strict rules hold: what the ancestor skips or guesses has to be mended first.
    if (isTunwardError(error, 'ERR_CONFIG_INVALID') && before.warnings.length > 0) throw invalid(before.warnings);
    throw error;
  }
}

function describeQuirk({ line, key, theirs, ours, theirId, ourId }: Quirk, from: string): string {
  const ids = theirId === ourId ? '' : `; its id there was ${theirId.slice(0, 8)}…, here it is ${ourId.slice(0, 8)}…`;
  return `${from}:${line}: ${key}: autossh-tunnel-dockerized takes ${show(theirs)} for the value, and YAML has ${show(ours)}${ids}`;
}

function thereAlready(file: string): TunwardError {
  const message = `${file} is there already: --force replaces it and keeps the old one beside it, -c names another`;
  return new TunwardError('ERR_BAD_REQUEST', message, { path: file });
}

/** Also a link that leads nowhere. What cannot be looked at is for the writing to tell. */
function isAnything(file: string): boolean {
  try {
    return fs.lstatSync(file, { throwIfNoEntry: false }) !== undefined;
  } catch (error) {
    if (isErrno(error, 'ENOTDIR', 'EACCES', 'ELOOP', 'ENAMETOOLONG')) return false;
    throw error;
  }
}

/** The first name that nobody has. */
function backupName(file: string): string {
  for (let count = 1; ; count++) {
    const name = `${file}.bak${count === 1 ? '' : count}`;
    if (!isAnything(name)) return name;
  }
}

/** Nothing that appears there in between is lost: a new file is made, or none. */
function write(file: string, text: string, backup: string | null): void {
  try {
    fs.mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
    if (backup === null) return fs.writeFileSync(file, text, { flag: 'wx', mode: 0o600 });
    fs.copyFileSync(file, backup, fs.constants.COPYFILE_EXCL);
    replaceFile(file, text);
  } catch (error) {
    if (isErrno(error, 'EEXIST') && backup === null && isAnything(file)) throw thereAlready(file);
    if (!isErrno(error, 'EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'EISDIR', 'EEXIST', 'ENOSPC', 'ENAMETOOLONG'))
      throw error;
    const message = `Cannot write ${file}: ${error.code}; name another place with -c`;
    throw new TunwardError('ERR_ACCESS_DENIED', message, { path: file }, { cause: error });
  }
}

/** -c is left out where the file is found without it. */
function nextSteps(file: string, { env, cwd }: Context): string[] {
  const isFound = env.TUNWARD_CONFIG ? path.resolve(cwd, env.TUNWARD_CONFIG) === file : findUnnamed() === file;
  const named = isFound ? '' : ` -c ${/^[\w./@+-]+$/.test(file) ? file : `'${file.replaceAll("'", "'\\''")}'`}`;
  return [`Next: look at it, then tunward validate${named}, and tunward up -d${named} starts its tunnels`];

  function findUnnamed(): string | undefined {
    try {
      return findConfigFile({ env, cwd });
    } catch (error) {
      if (isTunwardError(error, 'ERR_CONFIG_INVALID')) return undefined;
      throw error;
    }
  }
}
