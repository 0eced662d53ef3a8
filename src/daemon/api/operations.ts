import { randomBytes } from 'node:crypto';
import * as z from 'zod';
import { TunwardError } from '../../errors.js';
import type { Clock } from '../../time.js';
import type { OperationResult } from '../../tunnel/runner.js';
import type { TunnelSpec } from '../../tunnel/spec.js';
import type { Supervisor } from '../../tunnel/supervisor.js';
import { toProblem } from '../../wire.js';
import { type Route, route } from './route.js';
import { action, count, operation } from './shapes.js';

export type Action = z.infer<typeof action>;

/** A start, a stop or a restart of many tunnels, and how far it has come. */
export interface ManyOperation {
  readonly id: string;
  readonly action: Action;
  readonly startedAt: string;
  finishedAt: string | null;
  readonly tunnels: readonly Part[];
  /** Resolves when the last of them has its answer. Never rejects. */
  readonly over: Promise<void>;
}

interface Part {
  readonly id: string;
  readonly name: string;
  state: 'waiting' | 'done' | 'failed';
  result?: Pick<OperationResult, 'state' | 'tookMs' | 'phases'>;
  /** As problem details. */
  error?: unknown;
}

export interface Operations {
  begin(action: Action, specs: readonly TunnelSpec[], options: { readonly force: boolean }): ManyOperation;
  /** @throws TunwardError ERR_OPERATION_UNKNOWN */
  find(id: string): ManyOperation;
  /** Until it is over, but no longer than that. */
  wait(one: ManyOperation, timeoutMs: number): Promise<void>;
}

/** So many are remembered, the finished ones go first. */
const MAX_KEPT = 100;
const MAX_RUNNING = 16;

export function createOperations(supervisor: Supervisor, clock: Clock): Operations {
  const operations = new Map<string, ManyOperation>();
  return { begin, find, wait };

  function begin(action: Action, specs: readonly TunnelSpec[], { force }: { readonly force: boolean }): ManyOperation {
    const finished = [...operations.values()].filter(({ finishedAt }) => finishedAt !== null);
    if (operations.size - finished.length >= MAX_RUNNING) {
      const message = `Expected at most ${MAX_RUNNING} operations at once: wait for one of them`;
      throw new TunwardError('ERR_TOO_MANY_REQUESTS', message, { retryAfterS: 1 });
    }
    if (operations.size >= MAX_KEPT && finished[0]) operations.delete(finished[0].id);
    const tunnels = specs.map(({ id, name }): Part => ({ id, name, state: 'waiting' }));
    const over = Promise.all(tunnels.map((part) => perform(part, action, force))).then(() => {
      one.finishedAt = now();
    });
    const head = { id: randomBytes(8).toString('hex'), action, startedAt: now(), finishedAt: null };
    const one: ManyOperation = { ...head, tunnels, over };
    operations.set(one.id, one);
    return one;
  }

  /**
   * Never rejects: what went wrong with one tunnel is its part of the answer. The supervisor paces the starts, so that
   * the last of many waits longer for its turn than one may take.
   */
  async function perform(part: Part, action: Action, force: boolean): Promise<void> {
    try {
      const { state, tookMs, phases } = await supervisor[action](part.id, { force, isPatient: true });
      part.result = { state, tookMs, phases };
      part.state = 'done';
    } catch (error) {
      part.error = toProblem(error).body;
      part.state = 'failed';
    }
  }

  function find(id: string): ManyOperation {
    const found = operations.get(id);
    if (found) return found;
    throw new TunwardError('ERR_OPERATION_UNKNOWN', `There is no operation '${id}': the last ${MAX_KEPT} are kept`, {});
  }

  async function wait({ over }: ManyOperation, timeoutMs: number): Promise<void> {
    const answered = new AbortController();
    const late = clock.sleep(timeoutMs, answered.signal).catch(() => undefined); // called off: it is over
    await Promise.race([over, late]);
    answered.abort();
  }

  function now(): string {
    return new Date(clock.wallTime()).toISOString();
  }
}

interface Chosen {
  readonly action: Action;
  readonly all?: true | undefined;
  readonly groups?: string[] | undefined;
  readonly tunnels?: string[] | undefined;
}

/** Who is meant. @throws TunwardError ERR_TUNNEL_UNKNOWN, ERR_TUNNEL_AMBIGUOUS, ERR_BAD_REQUEST: nothing is begun then */
export function chooseTunnels(supervisor: Supervisor, { action, all, groups, tunnels }: Chosen): TunnelSpec[] {
  if ([all, groups, tunnels].filter((given) => given !== undefined).length !== 1) {
    throw new TunwardError('ERR_BAD_REQUEST', 'body: expected one of all, groups and tunnels', {});
  }
  const specs = supervisor.specs();
  if (tunnels) {
    const ids = new Set(tunnels.map((which) => supervisor.status(which).id));
    return specs.filter(({ id }) => ids.has(id));
  }
  // One that needs a person is started by one, and a restart in passing would only take it down.
  const meant = action === 'stop' ? specs : specs.filter(({ interactive }) => !interactive);
  if (groups) {
    const those = new Set(inGroups(specs, groups));
    return meant.filter((spec) => those.has(spec));
  }
  // What is started by hand alone is not meant by "all", unless somebody did start it.
  return meant.filter((spec) => spec.enabled || supervisor.status(spec.id).desired === 'up');
}

/** @throws TunwardError ERR_TUNNEL_UNKNOWN for a group in which no tunnel is. */
export function inGroups<T extends { readonly groups: readonly string[] }>(
  tunnels: readonly T[],
  wanted: readonly string[],
): T[] {
  const known = [...new Set(tunnels.flatMap(({ groups }) => groups))].sort();
  const stranger = wanted.find((group) => !known.includes(group));
  if (stranger === undefined) return tunnels.filter(({ groups }) => groups.some((group) => wanted.includes(group)));
  const there = known.length > 0 ? `the groups are ${known.join(', ')}` : 'no tunnel is in any group';
  throw new TunwardError('ERR_TUNNEL_UNKNOWN', `No tunnel is in the group '${stranger}': ${there}`, {
    group: stranger,
  });
}

const names = z.array(z.string().min(1).max(300)).min(1).max(10_000);

export function operationRoutes(supervisor: Supervisor, operations: Operations): Route[] {
  return [
    route({
      method: 'POST',
      path: '/v1/operations',
      scope: 'act',
      about: 'Starts, stops or restarts many tunnels; answers at once, with the operation to follow',
      body: z.strictObject({
        action,
        all: z
          .literal(true)
          .optional()
          .describe('Every tunnel that is enabled, or up; a start and a restart leave out those that need a person'),
        groups: names.optional(),
        tunnels: names.optional().describe('Ids, names or prefixes'),
        force: z.boolean().default(false).describe('Whoever holds a port goes, this once'),
      }),
      answers: { 202: { about: 'Begun; the header Location says where to follow it', schema: operation } },
      errors: ['ERR_TUNNEL_UNKNOWN', 'ERR_TUNNEL_AMBIGUOUS', 'ERR_TOO_MANY_REQUESTS'],
      async handle({ body: { action, force, ...which } }) {
        const one = operations.begin(action, chooseTunnels(supervisor, { action, ...which }), { force });
        return { status: 202, headers: { location: `/v1/operations/${one.id}` }, body: describe(one) };
      },
    }),
    route({
      method: 'GET',
      path: '/v1/operations/{id}',
      scope: 'read',
      about: 'How far an operation has come',
      params: z.strictObject({ id: z.string().max(64) }),
      query: z.strictObject({
        wait_ms: count(0, 30_000).optional().describe('Answer when it is over, and at the latest after this time'),
      }),
      answers: { 200: { about: 'As far as it has come', schema: operation } },
      errors: ['ERR_OPERATION_UNKNOWN'],
      async handle({ params: { id }, query: { wait_ms: waitMs = 0 } }) {
        const one = operations.find(id);
        await operations.wait(one, waitMs);
        return { body: describe(one) };
      },
    }),
  ];
}

function describe({ id, action, startedAt, finishedAt, tunnels }: ManyOperation) {
  const failed = tunnels.filter(({ state }) => state === 'failed').length;
  const done = tunnels.filter(({ state }) => state !== 'waiting').length;
  const state = finishedAt === null ? 'running' : 'done';
  return { id, action, state, startedAt, finishedAt, total: tunnels.length, done, failed, tunnels };
}
