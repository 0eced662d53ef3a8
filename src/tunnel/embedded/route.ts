import { TunwardError } from '../../errors.js';
import type { Clock } from '../../time.js';
import type { LinkExit } from '../engine.js';
import type { Hop, TunnelSpec } from '../spec.js';
import { type Connection, connectSocket, openConnection } from './connection.js';
import { type FactsOptions, type HostFacts, readHostFacts } from './facts.js';
import { readKnownHosts } from './known-hosts.js';
import type { Questions } from './questions.js';
import type { Ssh2 } from './ssh2.js';
import { ConnectionError } from './trouble.js';

/** The hosts to go through, the nearest first; the destination is the last one. */
export type Route = readonly HostFacts[];

/** More than anybody has between two hosts, and few enough to be asked for. */
const MAX_HOPS = 10;

/**
 * The way to a spec's destination: its own hops, or those that ssh_config has for it, and before the first of them what
 * ssh_config has for that one. The same as planRoute() of jump.ts makes for chains.
 *
 * @throws TunwardError ERR_SPAWN_FAILED `{reason: 'bad_spec'}`.
 */
export async function planHops(spec: TunnelSpec, options: FactsOptions): Promise<Route> {
  const target = await readHostFacts(spec, null, options);
  const isOurs = spec.jump.length > 0;
  const theirs: TunnelSpec = { ...spec, identityFile: null, sshOptions: {}, jump: [] };
  let route: Route = [target];
  let before: readonly Hop[] = isOurs ? spec.jump : target.jump;
  for (let asSpec = isOurs ? spec : theirs; before.length > 0; asSpec = theirs) {
    const found: HostFacts[] = [];
    for (const hop of before) found.push(await readHostFacts(asSpec, hop, { ...options, isBehind: found.length > 0 }));
    route = [...found, ...route];
    if (route.length > MAX_HOPS + 1) {
      const message = `Cannot find the way to ${spec.remoteHost}: more than ${MAX_HOPS} hosts, as ProxyJump in ssh_config has it`;
      throw new TunwardError('ERR_SPAWN_FAILED', message, { reason: 'bad_spec' });
    }
    before = found[0]?.jump ?? [];
  }
  return route;
}

export interface RouteOptions {
  readonly ssh2: Ssh2;
  readonly questions: Questions | undefined;
  readonly clock: Clock;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}

/**
 * Connects to each host through the one before it; resolves to the connection to the last, which ends with any of them and
 * takes all with it.
 *
 * @throws ConnectionError, and what {@link openConnection} does; the signal's reason.
 */
export async function openRoute(route: Route, options: RouteOptions): Promise<Connection> {
  const opened: Connection[] = [];
  try {
    for (const facts of route) opened.push(await openHop(facts, opened.at(-1), options));
  } catch (error) {
    await closeAll(opened);
    throw error;
  }
  const last = opened.at(-1);
  if (!last) throw new RangeError('Cannot connect by a route without hosts');
  let end: (exit: LinkExit) => void = () => undefined;
  const ended = new Promise<LinkExit>((resolve) => {
    end = resolve;
  });
  // The first that breaks off says why: the others only follow.
  for (const each of opened) {
    void each.ended.then((exit) => {
      end(exit);
      return closeAll(opened);
    });
  }
  return { ...last, ended, close: () => closeAll(opened) };
}

async function openHop(
  facts: HostFacts,
  before: Connection | undefined,
  { ssh2, questions, clock, say, signal }: RouteOptions,
): Promise<Connection> {
  return openConnection({
    ...{ ssh2, facts, questions, clock, say, signal },
    known: readKnownHosts(facts.knownHostsFiles),
    reach: (bounds) => (before ? goThrough(before, facts, bounds.signal) : connectSocket(facts, { ...bounds, clock })),
  });
}

/** Of a way it is said what ssh says of its own: that the host before cannot go there is no target's trouble. */
async function goThrough(before: Connection, { host, port }: HostFacts, signal: AbortSignal) {
  try {
    return await before.open({ address: '127.0.0.1', port: 65535 }, { host, port }, signal);
  } catch (error) {
    if (!(error instanceof ConnectionError) || error.exit.reason !== 'target_refused') throw error;
    const isAway = /resol|not known|unreachable|no route to host/i.test(error.message);
    throw new ConnectionError(
      isAway ? 'unreachable' : 'refused',
      `connect to host ${host} port ${port}: ${error.message}`,
    );
  }
}

async function closeAll(opened: readonly Connection[]): Promise<void> {
  // The last one first: it says goodbye through the others, which do not wait for an answer to that.
  await Promise.all(opened.toReversed().map((each) => each.close()));
}
