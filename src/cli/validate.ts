import { type Config, loadConfig } from '../daemon/config.js';
import { formatProblem } from '../daemon/source.js';
import { errorCodes, isTunwardError, type TunwardError } from '../errors.js';
import { hasIpv6Loopback } from '../port/probe.js';
import { bindSet, formatEndpoint } from '../tunnel/spec.js';
import type { Context } from './context.js';
import { indent, layTable, styled } from './render.js';
import { listenOf } from './tunnel-view.js';

/** Is the configuration right? 78 when it is not, with every problem at once. Nothing is started. */
export async function validate({ config }: { readonly config?: string }, context: Context): Promise<number> {
  const { env, cwd } = context;
  try {
    approve(await loadConfig({ file: config, env, cwd }), context);
    return 0;
  } catch (error) {
    if (!isTunwardError(error, 'ERR_CONFIG_INVALID')) throw error;
    reject(error, context);
    return errorCodes.ERR_CONFIG_INVALID.exit;
  }
}

function approve({ file, tunnels, warnings }: Config, { screen }: Context): void {
  const shown = tunnels.map(({ id, name, forward }) => {
    return { id, name, listen: bindSet(forward, hasIpv6Loopback()), target: formatEndpoint(forward.target) };
  });
  screen.say(...warnings.map((warning) => styled('yellow', `warning: ${formatProblem(warning)}`)));
  if (screen.json) {
    screen.data({ file, ok: true, tunnels: shown, warnings, problems: [] });
    return;
  }
  const rows = shown.map(({ id, name, target, ...tunnel }) => [name, listenOf(tunnel), target, id.slice(0, 8)]);
  screen.print([styled('green', '✔ '), `${file} is right`, rows.length > 0 ? '' : ', and has no tunnels yet']);
  if (rows.length > 0) screen.rows(...indent(layTable(['NAME', 'LISTEN', 'TARGET', 'ID'], rows)));
}

function reject({ info: { problems } }: TunwardError<'ERR_CONFIG_INVALID'>, { screen }: Context): void {
  const file = problems[0]?.file ?? null;
  screen.say(...problems.map((problem) => styled('red', formatProblem(problem))));
  if (screen.json) screen.data({ file, ok: false, tunnels: [], warnings: [], problems });
}
