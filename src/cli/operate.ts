import { isTunwardError } from '../errors.js';
import type { OperationResult } from '../tunnel/runner.js';
import { fromProblem, toProblem } from '../wire.js';
import { findDaemon } from './address.js';
import type { Client, ManyOperation, Verb } from './client.js';
import { type Context, Interruption } from './context.js';
import { mayForce } from './force.js';
import { withProgress } from './progress.js';
import { exitOf } from './report.js';
import { renderFailure, renderOperation } from './tunnel-view.js';
import { type GroupOptions, inGroups } from './tunnels.js';

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

/** More than these are one operation of the daemon, which is followed: a connection for each would be too many. */
const SINGLE = 64;

/** Starts, stops or restarts tunnels, all at once; the daemon paces them. One that fails does not stop the others. */
export async function operate({ verb, which }: Operation, options: OperateOptions, context: Context): Promise<number> {
  const { screen } = context;
  const client = await findDaemon(options, context);
  const wanted: readonly Wanted[] =
    which.length > 0 ? which.map((name) => ({ name })) : await chosen(client, verb, options, context);
  const force = options.force ?? false;
  if (force && !(await mayForce(client, wanted, context))) return 1;
  /** In the order in which they were asked for, whoever is ready first. */
  const outcomes = new Map<number, Outcome>();
  const show = (outcome: Outcome, at: number) => {
    outcomes.set(at, outcome);
    if ('error' in outcome) screen.say(renderFailure(outcome.name, outcome.error));
    else if (!screen.json) screen.print(renderOperation(verb, outcome));
  };
  const act = { verb, force, wanted, show };
  const waiting = () => wanted.filter((_one, at) => !outcomes.has(at));
  const going = () => `${doing[verb]} ${describeWaiting(waiting(), wanted.length)}`;
  await withProgress(going, context, () => (wanted.length > SINGLE ? asOne(client, act) : each(client, act)));
  const ordered = wanted.flatMap((_one, at) => outcomes.get(at) ?? []);
  if (screen.json) screen.data({ tunnels: ordered.map(toRecord) });
  const failed = ordered.find((outcome) => 'error' in outcome);
  return failed && 'error' in failed ? exitOf(failed.error) : 0;
}

const doing: Readonly<Record<Verb, string>> = { start: 'starting', stop: 'stopping', restart: 'restarting' };

/** `web and db`, `49 of 100`. */
function describeWaiting(waiting: readonly Wanted[], total: number): string {
  if (waiting.length > 3) return `${waiting.length} of ${total}`;
  return waiting.map(({ name }) => name).join(' and ');
}

/** All that are to be up, or all of some groups: there also those that are started by hand alone. */
async function chosen(
  client: Client,
  verb: Verb,
  { group = [] }: OperateOptions,
  { screen }: Context,
): Promise<readonly Wanted[]> {
  const tunnels = await client.tunnels();
  const meant =
    group.length > 0 ? inGroups(tunnels, group) : tunnels.filter(({ enabled, desired }) => enabled || desired === 'up');
  if (verb === 'stop') return meant;
  const left = meant.filter(({ interactive, state }) => interactive && state !== 'up');
  if (left.length > 0)
    screen.say(`left out, since they need a person (tunward auth): ${left.map(({ name }) => name).join(', ')}`);
  return meant.filter(({ interactive }) => !interactive);
}

interface Wanted {
  readonly id?: string;
  readonly name: string;
}

/** Of many at once the daemon says less. */
type Result = Omit<OperationResult, 'kill' | 'tunnel'> & Partial<Pick<OperationResult, 'kill' | 'tunnel'>>;
type Outcome = Result | (Wanted & { readonly error: Error });

interface Act {
  readonly verb: Verb;
  readonly force: boolean;
  readonly wanted: readonly Wanted[];
  /** `at`: which of the wanted it is of. */
  readonly show: (outcome: Outcome, at: number) => void;
}

/** A question for each, so many at once. */
async function each(client: Client, { wanted, show, ...how }: Act): Promise<void> {
  const left = [...wanted.entries()];
  const work = async () => {
    for (let next = left.shift(); next; next = left.shift()) show(await attempt(client, how, next[1]), next[0]);
  };
  await Promise.all(Array.from({ length: SINGLE }, work));
}

/** One tunnel's result or refusal. What would meet every other tunnel too (no daemon, no right, Ctrl-C) is thrown. */
async function attempt(
  client: Client,
  { verb, force }: Pick<Act, 'verb' | 'force'>,
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

/** How long the daemon waits for the end before it says how far it is, in milliseconds. */
const LOOK_EVERY_MS = 500;

/** One operation of many tunnels; each is shown when it has its answer. */
async function asOne(client: Client, act: Act): Promise<void> {
  const { verb, force, wanted, show } = act;
  const tunnels = wanted.map(({ id, name }) => id ?? name);
  let operation = await client.begin({ action: verb, tunnels, force }).catch(unlessUnknown);
  if (!operation) return each(client, act);
  const shown = new Set<string>();
  for (;;) {
    for (const part of operation.tunnels) {
      if (part.state === 'waiting' || shown.has(part.id)) continue;
      shown.add(part.id);
      show(outcomeOf(part), placeOf(part, wanted));
    }
    if (operation.state === 'done') return;
    operation = await client.follow(operation.id, LOOK_EVERY_MS);
  }
}

function outcomeOf({ id, name, result, error }: ManyOperation['tunnels'][number]): Outcome {
  if (result) return { id, name, ...result };
  return { id, name, error: fromProblem(error, 500) };
}

/** A daemon of an older version has no operations. */
function unlessUnknown(error: unknown): undefined {
  if (!isTunwardError(error, 'ERR_ROUTE_UNKNOWN') && !isTunwardError(error, 'ERR_BAD_REQUEST')) throw error;
}

/** By its id where that is known, else by what it was called by. */
function placeOf({ id, name }: Required<Wanted>, wanted: readonly Wanted[]): number {
  const isMeant = (one: Wanted) => (one.id ? one.id === id : one.name === name || id.startsWith(one.name));
  return wanted.findIndex(isMeant);
}

function toRecord(outcome: Outcome): unknown {
  return 'error' in outcome ? { ...outcome, error: toProblem(outcome.error).body } : outcome;
}
