import type { Duplex } from 'node:stream';
import { isErrno, isTunwardError, TunwardError } from '../../errors.js';
import type { KillReport } from '../../kill.js';
import { hasIpv6Loopback } from '../../port/probe.js';
import type { Clock } from '../../time.js';
import { answersOf } from '../asking/answers.js';
import type { Engine, Link, LinkExit, LinkOptions, Reason } from '../engine.js';
import { reasons } from '../engine.js';
import type { Carrier, Remote } from '../front/carrier.js';
import { createFront, type Front } from '../front/front.js';
import { createMeter } from '../front/meter.js';
import { bindSet, connectionOf, formatEndpoint, type TunnelSpec } from '../spec.js';
import { type Allowance, createAllowance, createThrottle } from '../throttle.js';
import { createTranscript } from '../transcript.js';
import type { Connection } from './connection.js';
import { createPool, type Pool, stopped } from './pool.js';
import { createQuestions, type Questions } from './questions.js';
import { openRemote } from './remote.js';
import { openRoute, planHops, type Route } from './route.js';
import { loadSsh2 } from './ssh2.js';
import { ConnectionError } from './trouble.js';

export interface EmbeddedOptions {
  /** Where HOME and SSH_AUTH_SOCK are. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** A known_hosts file of our own for keys met for the first time; null: the person's own file takes them. */
  readonly knownHosts: string | null;
  readonly clock: Clock;
}

/** The engine that is a client inside this process: no program, no child. Connections are shared by all links of one engine. */
export function createEmbeddedEngine(options: EmbeddedOptions): Engine {
  const pool = createPool();
  const allowances = new WeakMap<TunnelSpec, Allowance>();
  const planned = new Map<string, { readonly route: Promise<Route>; readonly until: number }>();
  return {
    name: 'embedded',
    async start(spec, linkOptions) {
      linkOptions.signal.throwIfAborted();
      const route = await plan(spec);
      linkOptions.signal.throwIfAborted();
      const allowance = allowances.get(spec) ?? createAllowance(options.clock);
      allowances.set(spec, allowance);
      return createLink({ ...options, spec, route, pool, allowance }, linkOptions);
    },
  };

  /** To read ssh_config takes 2 ms: those that start at the same moment and go the same way read it once. */
  function plan(spec: TunnelSpec): Promise<Route> {
    const now = options.clock.now();
    for (const [key, { until }] of planned) if (until <= now) planned.delete(key);
    const key = connectionOf(spec);
    const known = planned.get(key);
    if (known) return known.route;
    const route = planHops(spec, options);
    planned.set(key, { route, until: now + SAME_MOMENT_MS });
    route.catch(() => planned.delete(key));
    return route;
  }
}

const SAME_MOMENT_MS = 100;

interface Plan extends EmbeddedOptions {
  readonly spec: TunnelSpec;
  readonly route: Route;
  readonly pool: Pool;
  readonly allowance: Allowance;
}

function createLink(plan: Plan, { onOutput, signal, asking, isBehindFront, meter = createMeter() }: LinkOptions): Link {
  const { spec, route, pool, clock } = plan;
  const { forward } = spec;
  // Somebody at a terminal hears no more than the log: a server may say whatever it likes before a login.
  const toAll = (line: string) => {
    onOutput(line);
    questions?.tell(line);
  };
  const output = createThrottle(toAll, { allowance: plan.allowance, clock });
  const said = createTranscript(output.take);
  /** It is over, or about to be. */
  const over = new AbortController();
  const streams = new Set<Duplex>();
  let questions: Questions | undefined;
  let connection: Connection | undefined;
  let isReady = false;
  let allocated: number | undefined;
  let refused: { readonly count: number; readonly last: string | null } = { count: 0, last: null };
  /** What has to be undone at its end. */
  const undo: (() => unknown)[] = [];
  let finishing: Promise<void> | undefined;
  let tellReady: () => void = () => undefined;
  const ready = new Promise<void>((resolve) => {
    tellReady = resolve;
  });
  let end: (exit: LinkExit) => void = () => undefined;
  const exited = new Promise<LinkExit>((resolve) => {
    end = resolve;
  });
  const carrier: Carrier = { open, isConfirming: true, isAlive: () => isReady && connection?.isAlive() === true };
  const callOff = () => void finish(stopped);
  signal.addEventListener('abort', callOff, { once: true });
  undo.push(() => signal.removeEventListener('abort', callOff));
  if (asking) {
    const { person, idleMs, onOpen, onGivenUp } = asking;
    questions = createQuestions(answersOf(person, spec, { clock, idleMs, trouble: null, onGivenUp }));
    onOpen('askpass');
  }
  run().catch((error: unknown) => finish(exitOf(error)));
  return {
    root: undefined,
    exited,
    ready,
    check: async () => (carrier.isAlive() ? 'ready' : 'waiting'),
    lastLine: said.lastLine,
    allocatedPort: () => allocated,
    refusals: () => refused,
    // Also without a front of somebody else: whoever looks whether it is well asks by it.
    ...(forward.side === 'local' ? { carrier } : {}),
    release: () => questions?.close(),
    stop,
  };

  async function run(): Promise<void> {
    const membership = pool.join({
      tunnel: spec.id,
      key: spec.share ? JSON.stringify(route) : null,
      isAttended: questions !== undefined,
      say: hear,
      make: (bounds) => openRoute(route, { ssh2: loadSsh2(), questions, clock, ...bounds }),
    });
    undo.push(membership.leave);
    const made = await membership.connection;
    over.signal.throwIfAborted();
    connection = made;
    void made.ended.then(finish);
    if (forward.side === 'remote') await listenThere(made);
    else if (!isBehindFront) await listenHere();
    over.signal.throwIfAborted();
    isReady = true;
    tellReady();
    // From now on its end is for stop() to ask for.
    signal.removeEventListener('abort', callOff);
  }

  async function listenHere(): Promise<void> {
    const front: Front = createFront({ binds: bindSet(forward, hasIpv6Loopback()), meter, clock, connectWaitMs: 0 });
    undo.push(front.close);
    front.use(carrier);
    await front.listen();
  }

  async function listenThere(made: Connection): Promise<void> {
    for (const bind of bindSet(forward, hasIpv6Loopback())) {
      const remote = await openRemote(made, { bind, target: forward.target, meter, clock, onRefused: refuse });
      // It was stopped while the server thought about it.
      if (over.signal.aborted) return remote.close();
      undo.push(remote.close);
      if (bind.port === 0) {
        allocated = remote.port;
        hear(`Allocated port ${remote.port} for remote forward to ${formatEndpoint(forward.target)}`);
      }
    }
  }

  async function open(client: { address: string; port: number }, asked: AbortSignal): Promise<Remote> {
    if (!connection || over.signal.aborted) throw failure('exited', 'the link is gone');
    try {
      const stream = await connection.open(client, forward.target, asked);
      if (over.signal.aborted) {
        stream.destroy();
        throw failure('exited', 'the link is gone');
      }
      streams.add(stream);
      stream.once('close', () => streams.delete(stream));
      return stream;
    } catch (error) {
      if (!(error instanceof ConnectionError)) throw error;
      if (error.exit.reason === 'target_refused') refuse(error.message);
      throw failure(error.exit.reason, error.message);
    }
  }

  function failure(reason: Reason, lastError: string): TunwardError {
    const message = `Tunnel ${spec.name} (${spec.id}) cannot connect: ${lastError}`;
    return new TunwardError('ERR_START_FAILED', message, { id: spec.id, reason, lastError, nextRetryAt: null });
  }

  /** In ssh's words, which the check of a tunnel hands on. */
  function refuse(why: string): void {
    const count = refused.count + 1;
    refused = { count, last: `channel ${count}: ${why}` };
    hear(`channel ${count}: ${why}`);
  }

  function hear(text: string): void {
    said.take(text.endsWith('\n') ? text : `${text}\n`);
  }

  function finish(exit: LinkExit): Promise<void> {
    finishing ??= takeDown(exit);
    return finishing;
  }

  async function takeDown(exit: LinkExit): Promise<void> {
    isReady = false;
    over.abort(new Error('The link is over'));
    for (const stream of streams) stream.destroy(new Error('The link is over'));
    // Whoever is being asked is told at once, not when all is gone.
    if (exit.lastError !== null) hear(exit.lastError);
    questions?.close();
    try {
      // All of it is begun, the last one first, and then waited for: a server that is frozen answers none of it, and is given
      // half a second each time.
      await Promise.all(undo.toReversed().map((act) => act()));
    } finally {
      output.end();
      end(exit);
    }
  }

  async function stop(): Promise<KillReport> {
    const began = clock.now();
    await finish(stopped);
    return { killed: [], left: [], survivors: [], tookMs: clock.now() - began };
  }

  function exitOf(error: unknown): LinkExit {
    if (error instanceof ConnectionError) return error.exit;
    if (isErrno(error, 'EADDRINUSE')) return busy(error, 'local_port_busy');
    if (error instanceof Error && 'syscall' in error && error.syscall === 'listen') return busy(error, 'exited');
    const { reason } = isTunwardError(error) ? (error.info as { readonly reason?: unknown }) : { reason: undefined };
    const known = reasons.find((each) => each === reason) ?? 'exited';
    return {
      code: null,
      signal: null,
      reason: known,
      lastError: error instanceof Error ? error.message : String(error),
    };
  }

  function busy(error: Error, reason: Reason): LinkExit {
    const lastError = `Cannot listen on ${formatEndpoint(forward.listen)}: ${error.message}`;
    return { code: null, signal: null, reason, lastError };
  }
}
