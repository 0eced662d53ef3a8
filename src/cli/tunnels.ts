import { nearest } from '../daemon/nearest.js';
import { isTunwardError, TunwardError } from '../errors.js';
import { systemClock } from '../time.js';
import type { OperationResult, TunnelStatus } from '../tunnel/runner.js';
import { toProblem } from '../wire.js';
import { type DaemonOptions, findDaemon } from './address.js';
import type { Client, Verb } from './client.js';
import { type Context, Interruption } from './context.js';
import { mayForce } from './force.js';
import { styled } from './render.js';
import { exitOf } from './report.js';
import { renderFailure, renderOperation, renderTunnels } from './tunnel-view.js';

export interface GroupOptions extends DaemonOptions {
  /** Tunnels of any of these alone. */
  readonly group?: readonly string[];
}

/** The tunnels and how they are. */
export async function list({ group = [], ...options }: GroupOptions, context: Context): Promise<number> {
  const { screen } = context;
  const all = await (await findDaemon(options, context)).tunnels();
  const tunnels = group.length > 0 ? inGroups(all, group) : all;
  if (screen.json) screen.data({ tunnels });
  else if (tunnels.length === 0) screen.say('The configuration has no tunnels');
  else screen.rows(...renderTunnels(tunnels, systemClock.wallTime()));
  return 0;
}

export interface OperateOptions extends GroupOptions {
  readonly all?: boolean;
  readonly force?: boolean;
}

/** What a start, a stop or a restart is to be done to. */
export interface Operation {
  readonly verb: Verb;
  /** Ids, names or prefixes; none with `--all` or `--group`. */
  readonly which: readonly string[];
}

/** Starts, stops or restarts tunnels, all at once; the daemon paces them. One that fails does not stop the others. */
export async function operate({ verb, which }: Operation, options: OperateOptions, context: Context): Promise<number> {
  const { screen } = context;
  const client = await findDaemon(options, context);
  const wanted: readonly Wanted[] = which.length > 0 ? which.map((name) => ({ name })) : await chosen(client, options);
  const force = options.force ?? false;
  const names = wanted.map(({ name }) => name);
  if (force && verb !== 'stop' && !(await mayForce(client, names, context))) return 1;
  const outcomes = await Promise.all(
    wanted.map(async (one) => {
      const outcome = await attempt(client, { verb, force }, one);
      show(outcome);
      return outcome;
    }),
  );
  if (screen.json) screen.data({ tunnels: outcomes.map(toRecord) });
  const failed = outcomes.find((outcome) => 'error' in outcome);
  return failed && 'error' in failed ? exitOf(failed.error) : 0;

  function show(outcome: Outcome): void {
    if ('error' in outcome) screen.say(renderFailure(outcome.name, outcome.error));
    else if (!screen.json) screen.print(renderOperation(verb, outcome));
  }
}

/** All that are to be up, or all of some groups: there also those that are started by hand alone. */
async function chosen(client: Client, { group = [] }: OperateOptions): Promise<readonly Wanted[]> {
  const tunnels = await client.tunnels();
  if (group.length > 0) return inGroups(tunnels, group);
  return tunnels.filter(({ enabled, desired }) => enabled || desired === 'up');
}

/** @throws TunwardError ERR_TUNNEL_UNKNOWN for a group in which no tunnel is. */
function inGroups(tunnels: readonly TunnelStatus[], wanted: readonly string[]): TunnelStatus[] {
  const known = [...new Set(tunnels.flatMap(({ groups }) => groups))].sort();
  const stranger = wanted.find((group) => !known.includes(group));
  if (stranger === undefined) return tunnels.filter(({ groups }) => groups.some((group) => wanted.includes(group)));
  const hint = nearest(stranger, known);
  if (hint !== undefined) throw unknownGroup(stranger, `did you mean '${hint}'?`);
  const list = known.length > 0 ? `the groups are ${known.join(', ')}` : 'no tunnel is in any group';
  throw unknownGroup(stranger, list);
}

function unknownGroup(group: string, remedy: string): TunwardError {
  return new TunwardError('ERR_TUNNEL_UNKNOWN', `No tunnel is in the group '${group}': ${remedy}`, { group });
}

/** Is the daemon there? Its own answer, for people, scripts and the HEALTHCHECK of an image. */
export async function health(options: DaemonOptions, context: Context): Promise<number> {
  const { screen } = context;
  const answer = await (await findDaemon(options, context)).health();
  if (screen.json) screen.data(answer);
  else screen.print(answer.status);
  if (answer.advice !== undefined) screen.say(styled('yellow', `${answer.zombies} zombies: ${answer.advice}`));
  return answer.status === 'ok' ? 0 : 1;
}

interface Wanted {
  readonly id?: string;
  readonly name: string;
}

type Outcome = OperationResult | (Wanted & { readonly error: Error });

/** One tunnel's result or refusal. What would meet every other tunnel too (no daemon, no right, Ctrl-C) is thrown. */
async function attempt(
  client: Client,
  { verb, force }: { verb: Verb; force: boolean },
  { id, name }: Wanted,
): Promise<Outcome> {
  try {
    return await client.operate(verb, id ?? name, { force });
  } catch (error) {
    const isCommon = error instanceof Interruption || (isTunwardError(error) && common.has(error.code));
    if (isCommon || !(error instanceof Error)) throw error;
    return { ...(id === undefined ? {} : { id }), name, error };
  }
}

const common: ReadonlySet<string> = new Set(['ERR_DAEMON_UNREACHABLE', 'ERR_UNAUTHORIZED', 'ERR_ACCESS_DENIED']);

function toRecord(outcome: Outcome): unknown {
  return 'error' in outcome ? { ...outcome, error: toProblem(outcome.error).body } : outcome;
}
