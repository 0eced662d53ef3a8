import { createConfigSchema } from '../daemon/json-schema.js';
import { readSettings } from '../daemon/settings.js';
import { readSource } from '../daemon/source.js';
import { toJson } from '../wire.js';
import { type DaemonOptions, findDaemon } from './address.js';
import type { Context } from './context.js';
import { layTable, styled } from './render.js';
import { changesOf } from './story.js';

/** `config schema`: the JSON Schema of tunward.yaml, for editors. */
export async function schema({ screen }: Context): Promise<number> {
  // The document is the result, with --json and without.
  screen.write(`${JSON.stringify(createConfigSchema(), null, 2)}\n`);
  return 0;
}

export interface ShowOptions {
  readonly config?: string;
  /** Beside each value what has said so. */
  readonly origin?: boolean;
}

/** `config show`: every key as it would be in force, and where it comes from: the file, the environment, or nobody. */
export async function show({ config, origin = false }: ShowOptions, context: Context): Promise<number> {
  const { screen, env, cwd } = context;
  const source = await readSource({ file: config, env, cwd });
  const settings = readSettings(source, { env, cwd });
  const chosen = config === undefined ? chosenBy(env) : 'the option -c';
  if (screen.json) {
    screen.data({ file: source.file, chosen, settings });
    return 0;
  }
  screen.say(styled('dim', `${source.file}, by ${chosen}`));
  const rows = settings.map(({ key, value, origin: from, where }) => [
    styled('bold', key),
    typeof value === 'string' ? value : toJson(value),
    ...(origin ? [styled(from === 'default' ? 'dim' : 'cyan', where ?? from)] : []),
  ]);
  screen.rows(...layTable(['KEY', 'VALUE', ...(origin ? ['ORIGIN'] : [])], rows));
  return 0;
}

function chosenBy(env: NodeJS.ProcessEnv): string {
  const variable = ['TUNWARD_CONFIG', 'AUTOSSH_CONFIG_FILE'].find((name) => env[name]);
  return variable === undefined ? 'its place' : `$${variable}`;
}

/** `config get`: the file that the daemon runs on, as it stands there. */
export async function get(options: DaemonOptions, context: Context): Promise<number> {
  const { screen } = context;
  const config = await (await findDaemon(options, context)).config();
  if (screen.json) {
    screen.data(config);
    return 0;
  }
  const { file, etag, text, warnings } = config;
  screen.say(styled('dim', `${file}, ETag ${etag}`), ...warnings.map((text) => styled('yellow', `warning: ${text}`)));
  // Line by line: what somebody wrote into it must not act on a terminal.
  screen.print(...text.replace(/\n$/, '').split('\n'));
  return 0;
}

/** `reload`: has the daemon read its file now, and answers what became of the tunnels. A wrong file changes nothing: 78. */
export async function reload(options: DaemonOptions, context: Context): Promise<number> {
  const { screen } = context;
  const { changes, warnings } = await (await findDaemon(options, context)).reload();
  screen.say(...warnings.map((text) => styled('yellow', `warning: ${text}`)));
  if (screen.json) screen.data({ changes, warnings });
  else screen.print([styled('green', '✔ '), `read again: ${changesOf(changes)}`]);
  return 0;
}
