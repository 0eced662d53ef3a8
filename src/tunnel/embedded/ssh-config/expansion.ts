/** What `~`, `%` and `${}` stand for in ssh_config, and who it is that they are asked about. */
import { userInfo } from 'node:os';
import path from 'node:path';
import { printable } from '../../../wire.js';
import { refusal, useSsh } from './keywords.js';

/** Who is here, and whom it goes to. */
export interface Scene {
  /** As it is written, after the `@`. */
  readonly original: string;
  readonly home: string;
  readonly localUser: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** HOME counts before what passwd says, as far as it is a path. */
export function findScene(original: string, env: Scene['env']): Scene {
  const { name, home } = whoAmI(env);
  const { HOME } = env;
  return { original, home: HOME !== undefined && path.isAbsolute(HOME) ? HOME : home, localUser: name, env };
}

/** ssh does not run for a user who is in no passwd; a container may be run by any number, and it is asked for a name. */
function whoAmI(env: Scene['env']): { readonly name: string; readonly home: string } {
  try {
    const { username, homedir } = userInfo();
    return { name: username, home: homedir };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return { name: env.LOGNAME || env.USER || String(process.getuid?.() ?? ''), home: '/' };
  }
}

/** What each letter behind a `%` stands for. */
export type Tokens = Readonly<Record<string, string>>;

/**
 * A path as it is meant, absolute; `place` is where it was written, for what is said of a mistake in it.
 *
 * @throws TunwardError ERR_SPAWN_FAILED `{reason: 'bad_spec'}` as each of the three does that it is expanded by.
 * @example
 * expandPath('~/.ssh/%h', 'ssh_config line 1', { scene, tokens: { h: 'web' } }); // '/home/me/.ssh/web'
 */
export function expandPath(
  text: string,
  place: string,
  { scene, tokens }: { readonly scene: Scene; readonly tokens: Tokens },
): string {
  return path.resolve(expandTokens(expandVariables(expandTilde(text, place, scene), place, scene), tokens, place));
}

/** @throws TunwardError for a token that is none of those. */
export function expandTokens(text: string, tokens: Tokens, place: string): string {
  return text.replace(/%(.?)/gs, (whole, letter: string) => {
    const value = Object.hasOwn(tokens, letter) ? tokens[letter] : undefined;
    if (value !== undefined) return value;
    throw refusal(
      `The engine embedded cannot use '${printable(whole)}', which ${place} has: ${useSsh}, or write it out`,
    );
  });
}

/** @throws TunwardError for a variable that is not set. */
function expandVariables(text: string, place: string, { env }: Scene): string {
  return text.replace(/\$\{([^}]*)\}/g, (_, name: string) => {
    const value = Object.hasOwn(env, name) ? env[name] : undefined;
    if (value !== undefined) return value;
    throw refusal(`${place} has \${${printable(name)}}, and there is no such variable here: set it, or write it out`);
  });
}

/** @throws TunwardError for the home of somebody else. */
export function expandTilde(text: string, place: string, { home, localUser }: Scene): string {
  const [, user] = /^~([^/]*)/.exec(text) ?? [];
  if (user === undefined) return text;
  if (user === '' || user === localUser) return home + text.slice(1 + user.length);
  throw refusal(
    `The engine embedded does not know the home of ${printable(user)}, which ${place} asks for: write it out`,
  );
}

/** A path as people write it: the other way round. */
export function shorten(file: string, { home }: Scene): string {
  return file.startsWith(`${home}/`) ? `~${file.slice(home.length)}` : file;
}
