import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { isErrno, isTunwardError, TunwardError } from '../errors.js';
import { type Client, createClient } from './client.js';
import type { Context } from './context.js';
import type { Address } from './exchange.js';

export interface DaemonOptions {
  /** `--socket`: the path of a unix socket, or `http://host:port`. */
  readonly socket?: string | undefined;
  /** `-c`: the configuration that the daemon runs on. */
  readonly config?: string | undefined;
}

/** A client of the daemon that is meant, see {@link findAddress}. */
export async function findDaemon(options: DaemonOptions, context: Context): Promise<Client> {
  return createClient(await findAddress(options, context), { signal: context.signal });
}

/**
 * Finds the daemon by `--socket`, `$TUNWARD_SOCKET`, the configuration that is found, the default. Of the configuration,
 * which is read only when neither of the first two is given, no more is looked at than it takes to tell.
 *
 * @throws TunwardError ERR_CONFIG_INVALID for a file that was named with -c, when it is not there or its `api` is wrong
 */
export async function findAddress(options: DaemonOptions, context: Context): Promise<Address> {
  const given = options.socket ?? (options.config === undefined ? context.env.TUNWARD_SOCKET : undefined);
  if (given?.startsWith('http://')) return { url: given, token: await findToken(options, context) };
  if (given) return { socket: resolve(context.cwd, given) };
  const { defaultPaths } = await import('../daemon/source.js');
  const named = await unlessWrong(options, context, findSocket);
  return { socket: named ?? defaultPaths(context.env, process.getuid?.() ?? -1).socket };
}

/** The socket that the configuration names; null: none. */
async function findSocket({ config: file }: DaemonOptions, { env, cwd }: Context): Promise<string | null> {
  const { glanceAtSocket } = await import('../daemon/glance.js');
  const { readSource } = await import('../daemon/source.js');
  const source = await readSource({ file, env, cwd });
  const seen = glanceAtSocket(source.text);
  if (seen !== undefined) return seen;
  const { parseSource } = await import('../daemon/config.js');
  return parseSource(source, { env, cwd }).api.socket;
}

async function findTokenFile({ config: file }: DaemonOptions, { env, cwd }: Context): Promise<string> {
  const { loadConfig } = await import('../daemon/config.js');
  return (await loadConfig({ file, env, cwd })).api.tokenFile;
}

/**
 * What is found in the configuration, if there is one. A broken one that nobody named must not keep anyone from a daemon
 * that runs.
 */
async function unlessWrong<T>(
  options: DaemonOptions,
  context: Context,
  find: (options: DaemonOptions, context: Context) => Promise<T>,
): Promise<T | undefined> {
  const { config: file } = options;
  const { findConfigFile } = await import('../daemon/source.js');
  try {
    if (file === undefined && findConfigFile(context) === undefined) return undefined;
    return await find(options, context);
  } catch (error) {
    if (file !== undefined || !isTunwardError(error, 'ERR_CONFIG_INVALID')) throw error;
    const where = error.info.problems[0]?.file ?? 'The configuration';
    context.screen.say(`${where} is wrong (tunward validate says why): looking for the daemon at the default socket`);
    return undefined;
  }
}

/** The first printable line of the file that `$TUNWARD_TOKEN_FILE` or the configuration names. */
async function findToken(options: DaemonOptions, context: Context): Promise<string> {
  const file = context.env.TUNWARD_TOKEN_FILE ?? (await unlessWrong(options, context, findTokenFile));
  if (file === undefined) {
    const message = 'A daemon on TCP wants a token: name the file with it in $TUNWARD_TOKEN_FILE';
    throw new TunwardError('ERR_UNAUTHORIZED', message, {});
  }
  const text = await readFile(resolve(context.cwd, file), 'utf8').catch((cause: unknown) => {
    if (!isErrno(cause, 'ENOENT', 'EACCES', 'EISDIR', 'ENOTDIR')) throw cause;
    throw new TunwardError('ERR_UNAUTHORIZED', `Cannot read a token from ${file}: ${cause.code}`, {}, { cause });
  });
  const line = text.split('\n').find((candidate) => /^[\x21-\x7e]{8,}$/.test(candidate.trim()));
  if (line !== undefined) return line.trim();
  throw new TunwardError('ERR_UNAUTHORIZED', `${file} holds no token: a line of 8 or more printable characters`, {});
}
