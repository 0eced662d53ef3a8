import { createConfigSchema } from '../daemon/json-schema.js';
import { type DaemonOptions, findDaemon } from './address.js';
import type { Context } from './context.js';
import { styled } from './render.js';
import { changesOf } from './story.js';

/** `config schema`: the JSON Schema of tunward.yaml, for editors. */
export async function schema({ screen }: Context): Promise<number> {
  // The document is the result, with --json and without.
  screen.write(`${JSON.stringify(createConfigSchema(), null, 2)}\n`);
  return 0;
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
