import { type Check, failed, ok, type RunningDaemon, unknown, warning } from '../daemon/doctor/check.js';
import { examine } from '../daemon/doctor/doctor.js';
import { isTunwardError } from '../errors.js';
import { type DaemonOptions, findAddress } from './address.js';
import { createClient } from './client.js';
import type { Context } from './context.js';
import { formatAddress } from './exchange.js';
import { type Line, type Span, styled } from './render.js';
import { isMeant } from './report.js';

/** Everything a person would look at, each with what was found and what to do. 1 when something failed. */
export async function doctor(options: DaemonOptions, context: Context): Promise<number> {
  const { screen, env, cwd } = context;
  const checks = await examine({
    file: options.config,
    env,
    cwd,
    findDaemon: (config) => findDaemon({ ...options, config: config?.file ?? options.config }, context),
  });
  const failures = checks.filter(({ status }) => status === 'failed').length;
  if (screen.json) screen.data({ ok: failures === 0, checks });
  else screen.print(...checks.flatMap(toLines(checks)), summarize(checks));
  return failures === 0 ? 0 : 1;
}

/** How long a daemon that is well takes to say so, with room for a busy machine. */
const ANSWER_MS = 3000;

/** Is there a daemon? None is no fault: it may be asked before the first start. */
async function findDaemon(
  options: DaemonOptions,
  context: Context,
): Promise<{ check: Check; daemon: RunningDaemon | null }> {
  let where = 'the configured socket';
  try {
    const address = await findAddress(options, context);
    where = formatAddress(address);
    const client = createClient(address, { signal: context.signal, timeoutMs: ANSWER_MS });
    const { pid, zombies = 0 } = await client.health();
    const name = pid === undefined ? 'one runs' : `pid ${pid}`;
    const blocked = (await client.tunnels()).filter(({ reason }) => reason === 'local_port_busy');
    return { check: ok('daemon', `${name}, API at ${where}`), daemon: { pid: pid ?? null, zombies, blocked } };
  } catch (error) {
    return { check: explainSilence(error, where), daemon: null };
  }
}

function explainSilence(error: unknown, where: string): Check {
  if (isTunwardError(error, 'ERR_DAEMON_UNREACHABLE')) {
    if (error.info.hangsUp === true) return failed('daemon', error.message, 'raise the limit, and start it again');
    return ok('daemon', `none answers at ${where}`);
  }
  if (isTunwardError(error, 'ERR_ACCESS_DENIED')) {
    return warning('daemon', error.message, 'ask as the user that it runs as');
  }
  if (isTunwardError(error, 'ERR_TIMEOUT')) {
    return failed('daemon', error.message, 'look at its log, or end it (tunward down) and start it again');
  }
  // What is wrong with the configuration is said by a check of its own.
  if (isTunwardError(error, 'ERR_CONFIG_INVALID'))
    return unknown('daemon', 'without a configuration nobody knows where');
  if (isTunwardError(error)) return unknown('daemon', error.message);
  // It is there, and could not do what it was asked for.
  if (error instanceof Error && isMeant(error)) return failed('daemon', error.message, 'look at its log');
  throw error;
}

const marks: Readonly<Record<Check['status'], Span>> = {
  ok: styled('green', '✔'),
  warning: styled('yellow', '!'),
  failed: styled('red', '✖'),
  unknown: styled('dim', '?'),
};

/** A line for each finding, names in a column, and what to do below. */
function toLines(all: readonly Check[]): (check: Check) => Line[] {
  const width = Math.max(...all.map(({ check }) => check.length));
  const margin = ' '.repeat(width + 4);
  return ({ check, status, finding, remedy }) => {
    const [first = '', ...more] = finding.split('\n');
    return [
      [marks[status], ` ${check.padEnd(width)}  `, first],
      ...more.map((line) => [margin, line]),
      ...(remedy === null ? [] : [[margin, styled('dim', `→ ${remedy}`)]]),
    ];
  };
}

function summarize(checks: readonly Check[]): Line {
  const number = (status: Check['status']) => checks.filter((check) => check.status === status).length;
  const counts = [`${number('ok')} ok`, `${number('warning')} to look at`, `${number('failed')} failed`];
  const unsure = number('unknown');
  return [...counts, ...(unsure > 0 ? [`${unsure} not known`] : [])].join(', ');
}
