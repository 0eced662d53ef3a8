import { randomBytes } from 'node:crypto';
import { TunwardError } from '../errors.js';
import { type KillReport, killChains } from '../kill.js';
import { requireLinux } from '../proc/backend.js';
import { createCensus } from '../proc/census.js';
import type { Marker } from '../proc/marker.js';
import { openProc, type Proc } from '../proc/read.js';
import { type Clock, systemClock } from '../time.js';
import type { Person } from './asking/person.js';
import { createChains, markerNames, markerOf } from './chain.js';
import { createEmbeddedEngine } from './embedded/engine.js';
import { createEngines, type Engines } from './engines.js';
import type { Traffic } from './front/meter.js';
import { createGate, type GateOptions } from './gate.js';
import type { Ledger } from './ledger.js';
import { type Cleared, countLayers, findLeftovers, type LayerCounts, type Leftover } from './leftovers.js';
import { createRounds } from './rounds.js';
import {
  type AuthenticateOptions,
  createRunner,
  type OperationResult,
  type RequestOptions,
  type Runner,
  type RunnerContext,
  type TunnelEvent,
  type TunnelStatus,
} from './runner.js';
import { isSameSpec, type Takeover, type TunnelSpec } from './spec.js';

export interface SupervisorOptions {
  /** The environment ssh is given a part of, and its PATH. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /**
   * What marks everything that this installation starts, so that a later life finds it: 32 hexadecimal digits, the same
   * at every start. Default: a random one, which nobody will find again.
   */
  readonly instance?: string | undefined;
  /** A file for host keys met for the first time; default: the person's own. */
  readonly knownHosts?: string | null | undefined;
  /** A folder of our own for what asks during a login; default: that of temporary files. */
  readonly askpassFolder?: string | undefined;
  /** A folder of our own for the sockets of ssh behind a front; default: one among temporary files. */
  readonly socketFolder?: string | undefined;
  readonly gate?: GateOptions | undefined;
  /** Everything that happens, as data. Must not throw. */
  readonly publish?: ((event: SupervisorEvent) => void) | undefined;
  /**
   * Is there a daemon of another instance now? Its chains are not taken over. Default: as its lock says; here, below
   * whoever knows of locks: none is.
   */
  readonly isLiving?: ((instance: string) => Promise<boolean>) | undefined;
  /** Where is written down what has been started, for a later life; default: nowhere, and the mark must do. */
  readonly ledger?: Ledger | undefined;
  readonly logFileOf?: ((spec: TunnelSpec) => string | null) | undefined;
  readonly proc?: Proc | undefined;
  readonly clock?: Clock | undefined;
  readonly random?: (() => number) | undefined;
  /** What starts links; default: ssh and autossh, as `env` finds them, and the client inside this process. */
  readonly engines?: Engines | undefined;
}

export type SupervisorEvent =
  | TunnelEvent
  | { readonly type: 'boot.swept'; readonly kill: KillReport; readonly layers: LayerCounts };

export interface Supervisor {
  /** Clears away what a former life left in the way of these tunnels, each as far as its takeover goes. Before `reconcile`. */
  sweep(specs: readonly TunnelSpec[]): Promise<KillReport>;
  /**
   * Makes these the tunnels: new ones start, missing ones stop, changed ones restart, equal ones are not touched. One that
   * is not enabled does not start; it stops when it was enabled before, and starts when it is now.
   */
  reconcile(specs: readonly TunnelSpec[]): Promise<void>;
  /** By exact id, exact name, or a prefix of the id of 8 digits or more. Resolves once it is up (for stop: down). */
  start(which: string, options?: RequestOptions): Promise<OperationResult>;
  stop(which: string, options?: Pick<RequestOptions, 'isPatient'>): Promise<OperationResult>;
  restart(which: string, options?: RequestOptions): Promise<OperationResult>;
  /**
   * Starts an interactive tunnel with somebody there who answers; resolves once it is up, and from then on the person is not
   * needed any more. Whatever ends the attempt before that (the signal, the patience) leaves nothing behind.
   *
   * @throws TunwardError ERR_TUNNEL_CONFLICT when it is up, asks nobody, or somebody else answers already;
   * ERR_START_FAILED, ERR_PORT_HELD, ERR_TIMEOUT; the signal's reason.
   * @example
   * const { state } = await supervisor.authenticate('vault', { prompt: ({ text, echo }) => ask(text, echo) });
   */
  authenticate(which: string, person: Person, options?: AuthenticateOptions): Promise<OperationResult>;
  /** The conflict that `authenticate` would throw now, if any. */
  whyNotAuthenticate(which: string): TunwardError | undefined;
  status(which: string): TunnelStatus;
  /** All, in the order of the specs. */
  list(): TunnelStatus[];
  /** What is wanted, in that order: without a look at anything. */
  specs(): TunnelSpec[];
  /** What has passed through this process until this moment, by id, of those whose bytes do: without a look at anything. */
  traffic(): ReadonlyMap<string, Traffic>;
  /** Stops everything. Bounded by the kills' own bounds; afterwards nothing can be started. Idempotent. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Keeps tunnels as they are wanted: one machine for each, and one operation at a time on each.
 *
 * A spec is done as it says: an `sshOptions.ProxyCommand` in one is run. Texts of others go through `loadConfig()` or
 * `openTunnel()`, which let nothing of that kind in.
 *
 * @example
 * await using supervisor = createSupervisor({ env: process.env });
 * await supervisor.reconcile(config.tunnels);
 * const { tookMs, phases } = await supervisor.restart('database');
 */
export function createSupervisor(options: SupervisorOptions): Supervisor {
  requireLinux('keep tunnels up', options);
  const {
    env,
    askpassFolder,
    socketFolder,
    knownHosts = null,
    publish = () => undefined,
    random = Math.random,
  } = options;
  const { logFileOf = () => null, isLiving = async () => false, ledger } = options;
  const clock = options.clock ?? systemClock;
  const instance = options.instance ?? randomBytes(16).toString('hex');
  const census = createCensus(options.proc ?? openProc(), clock, markerNames);
  const { proc } = census;
  const engines =
    options.engines ??
    createEngines(
      createChains({ instance, env, askpassFolder, socketFolder, knownHosts, proc, clock, census }),
      createEmbeddedEngine({ env, knownHosts, clock }),
    );
  const gate = createGate(options.gate ?? { concurrency: 16, perHost: 8, intervalMs: 0 }, clock);
  const search = { proc, census, instance, isLiving, resolve: engines.resolve, resolveSpec: engines.resolveSpec };
  const context: RunnerContext = {
    ...{ proc, clock, random, gate, publish, logFileOf, clearLeftovers, ledger },
    rounds: createRounds(clock),
    engineFor: engines.engineFor,
  };
  const runners = new Map<string, Runner>();
  /** The tunnels whose way a sweep has cleared, and that have not been started since. */
  const swept = new Set<string>();
  /** One reconciliation at a time: a second one must know what the first has made. */
  let reconciling: Promise<void> = Promise.resolve();
  let closing: Promise<void> | undefined;

  return {
    sweep,
    reconcile,
    start: (which, request) => bounded(which, (runner) => asked(runner).start(request), request),
    stop: (which, request) => bounded(which, (runner) => runner.stop(), request),
    restart: (which, request) => bounded(which, (runner) => asked(runner).restart(request), request),
    authenticate,
    whyNotAuthenticate: (which) => find(which).whyNotAuthenticate(),
    status: (which) => find(which).status(),
    list: () => [...runners.values()].map((runner) => runner.status()),
    specs: () => [...runners.values()].map((runner) => runner.spec()),
    traffic,
    close,
    [Symbol.asyncDispose]: close,
  };

  function traffic(): ReadonlyMap<string, Traffic> {
    const counted = new Map<string, Traffic>();
    for (const [id, runner] of runners) {
      const seen = runner.traffic();
      if (seen) counted.set(id, seen);
    }
    return counted;
  }

  async function sweep(specs: readonly TunnelSpec[]): Promise<KillReport> {
    // Whatever this installation started, also for tunnels that have left the configuration.
    const marker = [`TUNWARD_INSTANCE=${instance}`];
    const levels: Takeover[] = ['own', 'tunnels', 'any'];
    const leftovers: Leftover[] = [];
    const records = ledger?.former;
    for (const takeover of levels) {
      // One that will not start has nobody in its way.
      const covered = specs.filter((spec) => spec.takeover === takeover && !spec.interactive && spec.enabled);
      if (takeover !== 'own' && covered.length === 0) continue;
      leftovers.push(...(await findLeftovers(covered, { ...search, takeover, marker, records })));
    }
    const { kill, layers } = await killLeftovers(leftovers, { marker });
    for (const { id } of specs) swept.add(id);
    const isLeft = (pid: number) => kill.survivors.some((survivor) => survivor.pid === pid);
    ledger?.erase(ledger.former.filter(({ pid }) => !isLeft(pid)));
    publish({ type: 'boot.swept', kill, layers });
    return kill;
  }

  function reconcile(specs: readonly TunnelSpec[]): Promise<void> {
    const turn = reconciling.then(() => apply(specs));
    reconciling = turn.catch(() => undefined); // told by `turn`
    return turn;
  }

  async function apply(specs: readonly TunnelSpec[]): Promise<void> {
    refuseClosed();
    const wanted = new Map(specs.map((spec) => [spec.id, spec]));
    const leaving = [...runners].filter(([id]) => !wanted.has(id));
    // Out of reach at once: nobody can start again what is on its way out.
    for (const [id] of leaving) runners.delete(id);
    // Down before anything starts: what is new may want the same port.
    await Promise.all([...leaving.map(([, runner]) => runner.close()), ...specs.map(silence)]);
    refuseClosed();
    const before = new Map(runners);
    runners.clear();
    for (const spec of wanted.values()) {
      const known = before.get(spec.id);
      const runner = known ?? createRunner(spec, context);
      runners.set(spec.id, runner);
      if (!known || !isSameSpec(known.spec(), spec)) refresh(spec);
      const isNew = !known?.spec().enabled;
      runner.respec(spec);
      if (isNew) runner.boot(swept.has(spec.id));
    }
    swept.clear();
  }

  /** Stops what is no longer enabled. What survives that is retried by its runner, and waited for by nobody. */
  async function silence({ id, enabled }: TunnelSpec): Promise<void> {
    const runner = runners.get(id);
    if (runner?.spec().enabled && !enabled) await Promise.allSettled([runner.stop()]);
  }

  function refuseClosed(): void {
    if (closing) throw new TunwardError('ERR_TUNNEL_CONFLICT', 'The supervisor is closed', {});
  }

  async function clearLeftovers(spec: TunnelSpec, takeover: Takeover, signal?: AbortSignal): Promise<Cleared> {
    const marker = markerOf(spec.id, instance);
    const leftovers = await findLeftovers([spec], { ...search, takeover, signal, marker });
    return killLeftovers(leftovers, { marker, signal });
  }

  async function killLeftovers(
    leftovers: readonly Leftover[],
    { marker, signal }: { readonly marker: Marker; readonly signal?: AbortSignal | undefined },
  ): Promise<Cleared> {
    const targets = leftovers.map(({ target }) => target);
    if (targets.length === 0) return { kill: { killed: [], left: [], survivors: [], tookMs: 0 }, layers: {} };
    // To look for what carries the marker until nobody does costs a scan of every environment: only where somebody did.
    const isMarked = leftovers.some(({ layer }) => layer === 'marker');
    const kill = await killChains(targets, { proc, clock, signal, census, marker: isMarked ? marker : undefined });
    return { kill, layers: countLayers(kill, leftovers) };
  }

  function find(which: string): Runner {
    const all = [...runners.values()];
    const exact = runners.get(which);
    if (exact) return exact;
    const named = all.filter((runner) => runner.spec().name === which);
    const prefixed = which.length >= 8 ? all.filter((runner) => runner.spec().id.startsWith(which)) : [];
    const found = named.length > 0 ? named : prefixed;
    const [only] = found;
    if (!only)
      throw new TunwardError(
        'ERR_TUNNEL_UNKNOWN',
        `No tunnel is called '${which}': give an id, a name, or 8 or more digits of an id`,
        { which },
      );
    if (found.length === 1) return only;
    const candidates = found.map((runner) => runner.spec().id);
    throw new TunwardError('ERR_TUNNEL_AMBIGUOUS', `'${which}' could be any of ${candidates.join(', ')}: give the id`, {
      candidates,
    });
  }

  /** Somebody asks for a start: what ssh_config says of it may have been changed just now. */
  function asked(runner: Runner): Runner {
    refresh(runner.spec());
    return runner;
  }

  /** One that is interactive is asked about when somebody is there. */
  function refresh(spec: TunnelSpec): void {
    if (!spec.interactive) engines.refresh(spec);
  }

  async function authenticate(...[which, person, request]: Parameters<Supervisor['authenticate']>) {
    const runner = find(which);
    if (!runner.whyNotAuthenticate()) engines.refresh(runner.spec());
    return runner.authenticate(person, request);
  }

  /** An answer in time, whatever becomes of the operation, which goes on. */
  async function bounded(
    which: string,
    act: (runner: Runner) => Promise<OperationResult>,
    { isPatient = false }: Pick<RequestOptions, 'isPatient'> = {},
  ): Promise<OperationResult> {
    const runner = find(which);
    if (isPatient) return act(runner);
    const timeoutMs = runner.spec().restartTimeoutMs;
    const answered = new AbortController();
    const late = clock.sleep(timeoutMs, answered.signal).then(() => {
      const { state, name, id, lastError } = runner.status();
      // A seamless one is up all the time.
      const at = state === 'up' ? 'being given a new link, and up by the old one' : state;
      const going = `${at}${lastError ? ` (${lastError})` : ''}`;
      const message = `Tunnel ${name} (${id}) is still ${going} after ${timeoutMs} ms, and goes on`;
      throw new TunwardError('ERR_TIMEOUT', message, { timeoutMs, going });
    });
    try {
      return await Promise.race([act(runner), late]);
    } finally {
      late.catch(() => undefined); // called off: the answer came in time
      answered.abort();
    }
  }

  function close(): Promise<void> {
    closing ??= Promise.all([...runners.values()].map((runner) => runner.close())).then(() => reconciling);
    return closing;
  }
}
