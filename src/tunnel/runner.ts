import { isErrno, isTunwardError, TunwardError } from '../errors.js';
import type { KillReport, Survivor } from '../kill.js';
import type { Proc } from '../proc/read.js';
import type { Clock } from '../time.js';
import { type Attendance, createAttendance } from './asking/attendance.js';
import { type Patience, type Person, usualPatience } from './asking/person.js';
import { createDescriber, isBlindness } from './blind.js';
import type { Engine, Link, LinkExit, LinkState, Reason } from './engine.js';
import { createEntrance } from './entrance.js';
import { describeExit, refuseExchange, type Trouble, troubleOf, untilReady, waitUntilOfUse } from './exchange.js';
import { createMeter, type Traffic } from './front/meter.js';
import type { Gate, Place } from './gate.js';
import { type CheckUps, createCheckUps } from './health.js';
import { createHistory } from './history.js';
import type { Ledger } from './ledger.js';
import type { Cleared, LayerCounts } from './leftovers.js';
import {
  attendedTransition,
  type Condition,
  type Effect,
  initialCondition,
  type MachineEvent,
  type State,
  seamlessTransition,
  type Transition,
  transition,
} from './machine.js';
import {
  beginRoad,
  byItself,
  type CleanUp,
  createFailure,
  createOperation,
  type Held,
  type Operation,
  type OperationResult,
  type Road,
} from './operation.js';
import { describeHolders, findHolders, hasDaemon, waitUntilFree } from './proof.js';
import { whichOf } from './remedy.js';
import { isOfConnection, retryDelay, scheduleOf } from './retry.js';
import type { Rounds } from './rounds.js';
import { connectionOf, type EngineName, entryOf, isSameSpec, type Takeover, type TunnelSpec } from './spec.js';
import type { Health, TunnelStatus } from './status.js';

export type { OperationResult } from './operation.js';
export type { ChainProcess, TunnelStatus } from './status.js';

/** What happens to tunnels, as data. */
export type TunnelEvent =
  | {
      readonly type: `tunnel.${State}`;
      readonly tunnel: string;
      readonly from: State;
      /** On the way that somebody asked for (a boot, a request, a changed spec), not by itself. */
      readonly asked: boolean;
      readonly status: TunnelStatus;
    }
  | { readonly type: 'tunnel.degraded' | 'tunnel.recovered'; readonly tunnel: string; readonly status: TunnelStatus }
  /** An interactive one that is enabled waits for a person: since the boot, or because it was up and was lost. */
  | {
      readonly type: 'tunnel.needs_auth';
      readonly tunnel: string;
      readonly why: 'boot' | 'lost';
      readonly status: TunnelStatus;
    }
  | { readonly type: 'tunnel.output'; readonly tunnel: string; readonly line: string }
  | {
      readonly type: 'process.killed';
      readonly tunnel: string;
      readonly kill: KillReport;
      readonly layers: LayerCounts;
    };

/** What a runner needs of its surroundings. */
export interface RunnerContext {
  readonly proc: Proc;
  readonly clock: Clock;
  readonly random: () => number;
  readonly gate: Gate;
  /** Looks at what is up. */
  readonly rounds: Rounds;
  /** Must not throw. */
  readonly publish: (event: TunnelEvent) => void;
  readonly engineFor: (spec: TunnelSpec) => Engine;
  /** Finds and kills what is in a tunnel's way, as far as that level goes. */
  readonly clearLeftovers: (spec: TunnelSpec, takeover: Takeover, signal?: AbortSignal) => Promise<Cleared>;
  readonly logFileOf: (spec: TunnelSpec) => string | null;
  readonly ledger?: Pick<Ledger, 'record' | 'erase'> | undefined;
  /** Looks whether bytes go through. */
  readonly checkUps?: CheckUps | undefined;
}

export interface RequestOptions {
  /** Whoever is in the way goes, this once. */
  readonly force?: boolean | undefined;
  /** Somebody waits for many: until this one has come to its turn and has its answer, also beyond its `restartTimeoutMs`. */
  readonly isPatient?: boolean | undefined;
}

export interface AuthenticateOptions {
  readonly signal?: AbortSignal | undefined;
  readonly patience?: Patience | undefined;
  /** ssh has been put on a terminal (`pty`), or asks through SSH_ASKPASS and is answered at it. */
  readonly onOpen?: ((via: 'pty' | 'askpass') => void) | undefined;
}

/** One tunnel: its machine, and the hands that do what the machine decides. */
export interface Runner {
  readonly spec: () => TunnelSpec;
  readonly status: () => TunnelStatus;
  /** What has passed through this process for it, without a look at anything else; null: its bytes do not. */
  readonly traffic: () => Traffic | null;
  /** The first start, in nobody's name, of one that is enabled. `isSwept`: the way was cleared a moment ago, for all tunnels at once. */
  readonly boot: (isSwept: boolean) => void;
  readonly start: (options?: RequestOptions) => Promise<OperationResult>;
  readonly restart: (options?: RequestOptions) => Promise<OperationResult>;
  readonly stop: () => Promise<OperationResult>;
  readonly authenticate: (person: Person, options?: AuthenticateOptions) => Promise<OperationResult>;
  readonly whyNotAuthenticate: () => TunwardError | undefined;
  /** What is wanted from now on. Whatever asks for another tunnel restarts it, if it is not stopped. */
  readonly respec: (spec: TunnelSpec) => void;
  /** Stops it for good, in bounded time: what survives even that is left to the next life's sweep. Never rejects. */
  readonly close: () => Promise<void>;
}

/** How long a lost one may take to come back, in milliseconds. */
const LOST_MS = 3000;
/**
 * The same of one whose listener is gone (a folder that somebody has cleaned up, say) while clients wait. A frozen one may be
 * continued; a listener that is gone stays so, and a look that went wrong is right at the next one.
 */
const GONE_MS = 250;

/**
 * Everything that changes goes through `dispatch`: the machine says what is next, and the task of the state before is
 * called off. What a task finds out counts only while its state lasts: it dispatches through `tell`.
 */
export function createRunner(first: TunnelSpec, context: RunnerContext): Runner {
  const { proc, clock, publish } = context;
  const describe = createDescriber(proc, { clock });
  const history = createHistory();
  const { checkUps = createCheckUps({ proc, clock }) } = context;
  let spec = first;
  let condition: Condition = first.interactive ? { ...initialCondition, reason: 'needs_auth' } : initialCondition;
  let since = clock.wallTime();
  let lastError: string | null = null;
  let nextRetryAt: number | null = null;
  /** The least wait before the next attempt, as the server has said. */
  let retryAfterMs = 0;
  let isClosed = false;
  /** A seamless one was lost that had been up: it is tried again at once. */
  let isWaitedFor = false;
  /** The last wait was cut short, because the connection that it shares was there again. */
  let isCalled = false;
  /** Another link is to take the place of the one that there is. */
  let isOwed = false;
  /** What carries it was made for another spec than it has now. */
  let isStale = false;
  /** Somebody is there, for the start of an interactive one. */
  let attendance: Attendance | undefined;
  let wasUp = false;
  let link: Link | undefined;
  /** What has made it. */
  let engineName: EngineName | undefined;
  const meter = createMeter();
  /** Of a seamless tunnel. */
  const entrance = createEntrance({ meter, clock, onEnded: forgetRetired });
  let place: Place | undefined;
  let held: Held | undefined;
  let operation: Operation | undefined;
  let road = beginRoad(clock, byItself);
  /** Calls off what the present state has set going; every change of state makes a new one. */
  let stage = new AbortController();
  /** A launch or a teardown begins when the one before it has ended. */
  let tail: Promise<void> = Promise.resolve();

  return {
    spec: () => spec,
    status,
    traffic,
    boot,
    start,
    restart,
    stop,
    authenticate,
    whyNotAuthenticate,
    respec,
    close,
  };

  // What people ask for.

  function boot(isSwept: boolean): void {
    if (!spec.enabled || condition.desired === 'up') return;
    if (spec.interactive) {
      // One that was not enabled before has been stopped.
      condition = { ...condition, reason: 'needs_auth' };
      return announceNeed('boot');
    }
    road = beginRoad(clock, { asked: true, cleanUp: isSwept ? 'swept' : spec.takeover });
    dispatch({ type: 'start' });
  }

  async function start(options: RequestOptions = {}): Promise<OperationResult> {
    refuse();
    if (operation?.kind === 'start') return join(operation, options);
    if (condition.state === 'up') return resultOf(beginRoad(clock, byItself));
    return request('start', { type: 'start' }, options);
  }

  async function restart(options: RequestOptions = {}): Promise<OperationResult> {
    refuse();
    if (operation?.kind === 'start') return join(operation, options);
    return request('start', { type: 'restart' }, options);
  }

  async function stop(): Promise<OperationResult> {
    if (operation?.kind === 'stop') return operation.answer;
    if (condition.state === 'stopped') return resultOf(beginRoad(clock, byItself));
    return request('stop', { type: 'stop' });
  }

  async function authenticate(person: Person, options: AuthenticateOptions = {}): Promise<OperationResult> {
    const { signal, patience = usualPatience, onOpen = () => undefined } = options;
    const why = whyNotAuthenticate();
    if (why) throw why;
    signal?.throwIfAborted();
    const onGivenUp = (reason: unknown) => giveUpOn(mine, reason);
    const mine = createAttendance({ person, patience, onOpen, onGivenUp, clock });
    attendance = mine;
    wasUp = false;
    const giveUp = () => giveUpOn(mine, signal?.reason);
    signal?.addEventListener('abort', giveUp, { once: true });
    try {
      return await request('start', { type: 'start' });
    } finally {
      signal?.removeEventListener('abort', giveUp);
      if (attendance === mine) attendance = undefined;
    }
  }

  /** Nobody is there any more. One that has come up in the same instant stays: it needs nobody. */
  function giveUpOn(one: Attendance, why: unknown): void {
    if (attendance !== one || condition.state === 'up') return;
    attendance = undefined;
    lastError = describeGivenUp(why);
    operation?.reject(why instanceof Error ? why : conflict('was given up'));
    operation = undefined;
    dispatch({ type: 'stop', reason: 'needs_auth' });
  }

  function whyNotAuthenticate(): TunwardError | undefined {
    if (isClosed) return conflict('has been closed');
    if (!spec.interactive) return conflict("asks nobody: it starts by itself; 'interactive: true' makes it ask");
    if (attendance) return conflict('is being authenticated by somebody else');
    if (condition.state === 'up') return conflict('is up: there is nothing to authenticate');
    if (condition.state === 'starting') return conflict('may still be up, and is looked at: try again in some seconds');
    return condition.state === 'stopping' ? conflict('is being stopped') : undefined;
  }

  function respec(next: TunnelSpec): void {
    const isSame = isSameSpec(spec, next);
    spec = next;
    if (isSame) return;
    entrance.heed(next);
    if (attendance) giveUpOn(attendance, conflict('has been changed meanwhile'));
    // It waits for a person then, who is to know why.
    if (spec.interactive && condition.state === 'up') lastError = 'it was configured anew';
    road = beginRoad(clock, { asked: true, cleanUp: spec.takeover });
    checkUps.forget();
    isStale = true;
    dispatch({ type: 'respec' });
  }

  async function close(): Promise<void> {
    isClosed = true;
    if (attendance) giveUpOn(attendance, conflict('has been closed'));
    await Promise.allSettled([stop()]);
    stage.abort(new Error(`tunnel ${spec.id} is closed`));
    // A start that was called off may still be on its way to what it makes.
    await tail;
    await Promise.allSettled([closeEntrance()]);
  }

  function refuse(): void {
    if (isClosed) throw conflict('has been closed');
    if (!spec.interactive) return;
    const why = `is interactive: it needs a person at its start ('tunward auth ${whichOf(spec)}', or the panel)`;
    throw conflict(why, { reason: 'needs_auth' });
  }

  function join(running: Operation, { force = false }: RequestOptions): Promise<OperationResult> {
    running.force ||= force;
    return running.answer;
  }

  function request(kind: Operation['kind'], event: MachineEvent, { force = false }: RequestOptions = {}) {
    operation?.reject(conflict(`is being ${kind === 'start' ? 'started' : 'stopped'} instead`));
    operation = createOperation(kind, force);
    road = beginRoad(clock, { asked: true, cleanUp: spec.takeover });
    checkUps.forget();
    const { answer } = operation;
    dispatch(event);
    return answer;
  }

  function conflict(why: string, info: Readonly<Record<string, unknown>> = {}): TunwardError {
    return new TunwardError('ERR_TUNNEL_CONFLICT', `Tunnel ${spec.name} (${spec.id}) ${why}`, { id: spec.id, ...info });
  }

  // From one state to the next.

  function dispatch(event: MachineEvent): void {
    const from = condition.state;
    const { next, effect } = decide(event);
    condition = next;
    // Up by another link than before is a way from up to up.
    const isMoved = next.state !== from || effect === 'settle';
    if (isMoved && from === 'up') leaveUp(next.reason);
    if (isMoved || effect) {
      stage.abort(new Error(`tunnel ${spec.id} went from ${from} to ${next.state}`));
      stage = new AbortController();
    }
    if (isMoved) enter(from);
    if (effect) perform(effect, stage.signal);
    if (isMoved) announce(from);
  }

  function decide(event: MachineEvent): Transition {
    if (spec.interactive) {
      return attendedTransition(condition, event, { isThere: attendance !== undefined, wasUp });
    }
    const isSeamless = spec.seamless && entrance.isOpen(spec);
    // An exchange that is called off by this is still asked for: then the old link goes at once.
    if (isSeamless && isOwed && event.type === 'lost') return transition(condition, { type: 'restart' });
    const isOwn = isSeamless || (event.type === 'stop' && (isOwed || entrance.hasRetired()));
    return (isOwn ? seamlessTransition : transition)(condition, event);
  }

  /** What a task of the present state found out. A stage that was called off has nothing more to say. */
  function tell(signal: AbortSignal, event: MachineEvent): void {
    signal.throwIfAborted();
    dispatch(event);
  }

  /** The road that was begun when it came up is not the one to its next rest. */
  function leaveUp(reason: Condition['reason']): void {
    history.noteLost(reason);
    // Those who connect meanwhile wait. Once only: the next time it is lost before it has proved stable counts as the second.
    // An ssh whose sockets are gone and whose end has not been heard yet (20 ms on a busy machine) is looked at again first,
    // and not counted before that.
    const first = condition.state === 'starting' ? 0 : 1;
    isWaitedFor = spec.seamless !== null && condition.attempt === first && scheduleOf(reason) === 'network';
    if (!road.asked) road = beginRoad(clock, byItself);
  }

  function enter(from: State): void {
    const { state, reason } = condition;
    since = clock.wallTime();
    nextRetryAt = null;
    entrance.lead(state === 'up' && link ? link : null);
    // Nothing will come of it by itself: whoever connects is to know that.
    if (state === 'stopped' || state === 'fatal') void entrance.close();
    if (state === 'stopped') isWaitedFor = false;
    if (state === 'up') {
      history.noteUp(since, road);
      wasUp = true;
      // Whoever has answered may go.
      link?.release?.();
    }
    // Why one is down that nobody has stopped stays known.
    if (state === 'up' || (state === 'stopped' && reason === null)) lastError = null;
    if (from === 'starting') leavePlace(state === 'up' ? 'up' : reason === 'refused' ? 'refused' : 'other');
  }

  function announce(from: State): void {
    const { state } = condition;
    const walked = road;
    const isEnd = state === 'up' || state === 'backoff' || state === 'fatal' || waitsForPerson();
    if (isEnd) road = beginRoad(clock, byItself);
    publish({ type: `tunnel.${state}`, tunnel: spec.id, from, asked: walked.asked, status: status() });
    answer(walked);
    if (!waitsForPerson() || !wasUp) return;
    wasUp = false;
    announceNeed('lost');
  }

  function waitsForPerson(): boolean {
    return spec.interactive && condition.state === 'stopped' && condition.reason !== null;
  }

  function announceNeed(why: 'boot' | 'lost'): void {
    if (spec.enabled) publish({ type: 'tunnel.needs_auth', tunnel: spec.id, why, status: status() });
  }

  /** Answers whoever waits, when the state says how it went: at the first failure, not when all is well at last. */
  function answer(walked: Road): void {
    const { state } = condition;
    if (!operation) return;
    const { kind, resolve, reject } = operation;
    if (state === (kind === 'start' ? 'up' : 'stopped')) resolve(resultOf(walked));
    else if (state === 'backoff' || state === 'fatal' || waitsForPerson()) {
      reject(attendance?.failure() ?? createFailure({ kind, spec, status: status(), held }));
    } else return;
    operation = undefined;
  }

  function perform(effect: Effect, signal: AbortSignal): void {
    const acts: Record<Effect, () => Promise<void>> = {
      launch: () => queue(() => launch(signal)),
      teardown: () => queue(() => teardown(signal)),
      wait: () => waitToRetry(signal),
      recheck: () => recheck(signal),
      settle: () => lookAfter(signal),
      renew: () => {
        isOwed = true;
        return Promise.all([lookAfter(signal), queue(() => renew(signal))]).then(() => undefined);
      },
    };
    acts[effect]().catch((error: unknown) => {
      // The state that called a stage off goes on from there.
      if (!signal.aborted) fail(error);
    });
  }

  function queue(task: () => Promise<void>): Promise<void> {
    const run = tail.then(task);
    tail = run.catch(() => undefined); // told by perform()
    return run;
  }

  // What the machine decides.

  /** Clean up, prove, start: the one way up. */
  async function launch(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    // Whoever thinks for minutes is nobody's reason to wait.
    if (!attendance) await takePlace(signal);
    const obstacle = await clear(signal);
    if (obstacle) return tell(signal, obstacle);
    const engine = context.engineFor(spec);
    const started = await startLink(engine, signal);
    // Also one whose start was called off on the way: the teardown that is next in the queue finds it here.
    serveBy(started, engine);
    // On disk before it is trusted. Its handshake goes on meanwhile.
    if (started.root) await context.ledger?.record(spec.id, started.root);
    await awaitReady(signal, attendance?.leftMs() ?? spec.startTimeoutMs);
  }

  async function startLink(engine: Engine, signal: AbortSignal): Promise<Link> {
    const { asking } = attendance ?? {};
    const isBehindFront = spec.seamless !== null;
    return engine.start(spec, { onOutput, signal, asking, isBehindFront, meter });
  }

  function serveBy(started: Link, { name }: Engine): void {
    link = started;
    engineName = name;
    isStale = false;
    isOwed = false;
    started.exited
      .then((exit) => onExit(started, exit))
      .catch((error: unknown) => {
        if (isServing(started)) fail(error);
      });
  }

  /**
   * Another link beside the one that carries the tunnel, and in its place once it is ready and checked. When it does not get
   * that far the old one stays, unless the tunnel is to be another one now.
   */
  async function renew(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const trouble = await exchange(signal).catch(troubleOf);
    leavePlace(trouble === undefined ? 'up' : trouble.reason === 'refused' ? 'refused' : 'other');
    if (trouble && !signal.aborted) keepOld(trouble);
  }

  async function exchange(signal: AbortSignal): Promise<Trouble | undefined> {
    // Nothing is stopped for it, and nothing has to be free.
    road.noteStopped();
    road.noteFree();
    await takePlace(signal);
    const engine = context.engineFor(spec);
    const fresh = await startLink(engine, signal);
    const trouble = await tryOut(fresh, signal).catch(troubleOf);
    if (trouble || signal.aborted) {
      entrance.retire(fresh, 0);
      return trouble;
    }
    const old = link;
    serveBy(fresh, engine);
    dispatch({ type: 'ready' });
    // From now on nothing new goes there.
    if (old) entrance.retire(old, spec.seamless?.drainMs ?? 0);
    return undefined;
  }

  async function tryOut(fresh: Link, signal: AbortSignal): Promise<Trouble | undefined> {
    if (fresh.root) await context.ledger?.record(spec.id, fresh.root);
    return waitUntilOfUse(fresh, spec, { proc, clock, signal });
  }

  /** The exchange did not come about. Where the old link is what is wanted it goes on with that one. */
  function keepOld(trouble: Trouble): void {
    if (isStale) {
      lastError = trouble.why;
      return dispatch({ type: 'dead', reason: trouble.reason });
    }
    road = beginRoad(clock, byItself);
    isOwed = false;
    operation?.reject(refuseExchange(spec, trouble));
    operation = undefined;
  }

  function leavePlace(outcome: Parameters<Place['release']>[0]): void {
    place?.release(outcome);
    place = undefined;
  }

  async function takePlace(signal: AbortSignal): Promise<void> {
    const party = partyOf(spec);
    const taken = await context.gate.enter(entryOf(spec), { urgent: () => operation !== undefined, party, signal });
    // Called off in the very turn in which the place was given: nobody would give it back.
    if (signal.aborted) taken.release('other');
    signal.throwIfAborted();
    place = taken;
  }

  /** Those that share one connection with it; undefined: it has one of its own. */
  function partyOf(one: TunnelSpec): string | undefined {
    return one.share && context.engineFor(one).name === 'embedded' ? connectionOf(one) : undefined;
  }

  /** Clears the way and proves it; answers what is still in it. Again, when somebody has asked for more meanwhile. */
  async function clear(signal: AbortSignal): Promise<MachineEvent | undefined> {
    if (spec.seamless && entrance.isOpen(spec)) return clearBehindFront(signal);
    await entrance.close();
    for (;;) {
      const cleanUp = wantedCleanUp();
      const survivor = (await endLink()) ?? (await clearLeftovers(cleanUp, signal));
      signal.throwIfAborted();
      road.noteStopped();
      const holders = await findHolders(spec, { proc, clock, signal });
      signal.throwIfAborted();
      held = holders && { holders, isDaemons: hasDaemon(proc, holders), cleanUp };
      if (!holders && !survivor) {
        road.noteFree();
        return spec.seamless ? openEntrance() : undefined;
      }
      if (wantedCleanUp() !== cleanUp) continue;
      if (survivor) lastError = describeSurvivor(survivor);
      if (held) lastError = describeHolders(spec.forward.listen.port, held);
      return { type: 'blocked', reason: holders ? 'local_port_busy' : 'stuck' };
    }
  }

  /** The port is ours all the time, and nobody can be in the way but the link before. */
  async function clearBehindFront(signal: AbortSignal): Promise<MachineEvent | undefined> {
    const survivor = await endLink();
    signal.throwIfAborted();
    road.noteStopped();
    road.noteFree();
    if (!survivor) return undefined;
    lastError = describeSurvivor(survivor);
    return { type: 'blocked', reason: 'stuck' };
  }

  /** Somebody may have been faster, since it was proved free. */
  async function openEntrance(): Promise<MachineEvent | undefined> {
    try {
      await entrance.open(spec);
      return undefined;
    } catch (error) {
      if (!isErrno(error, 'EADDRINUSE')) throw error;
      lastError = error.message;
      return { type: 'blocked', reason: 'local_port_busy' };
    }
  }

  function wantedCleanUp(): CleanUp {
    return operation?.force ? 'any' : road.cleanUp;
  }

  async function clearLeftovers(cleanUp: CleanUp, signal?: AbortSignal): Promise<Survivor | undefined> {
    if (cleanUp === 'swept') return undefined;
    const { kill, layers } = await context.clearLeftovers(spec, cleanUp, signal);
    return noteKill(kill, layers);
  }

  async function awaitReady(signal: AbortSignal, timeoutMs: number): Promise<void> {
    const current = link;
    if (!current) return;
    const late = await waitForLink(current, timeoutMs, signal);
    if (!late) return tell(signal, { type: 'ready' });
    const said = attendance?.failure()?.message ?? current.lastLine();
    lastError = late === 'frozen' ? FROZEN : (said ?? `not ready after ${timeoutMs} ms`);
    dispatch({ type: 'timeout', reason: late === 'frozen' ? 'frozen' : 'timeout' });
  }

  /** One that was lost may come back. What it is lost by is what was seen of it, and no line of its ssh from long ago. */
  async function recheck(signal: AbortSignal): Promise<void> {
    const current = link;
    if (!current) return;
    const timeoutMs = spec.seamless && condition.reason !== 'frozen' ? GONE_MS : LOST_MS;
    const late = await waitForLink(current, timeoutMs, signal);
    if (!late) return tell(signal, { type: 'ready' });
    lastError = late === 'frozen' ? FROZEN : GONE;
    dispatch({ type: 'timeout', reason: late === 'frozen' ? 'frozen' : 'exited' });
  }

  /** Undefined once it is ready; else how it was when the time was over. */
  async function waitForLink(current: Link, timeoutMs: number, signal: AbortSignal): Promise<LinkState | undefined> {
    const look = async () => ((await stateOf(current)) === 'ready' ? 'ready' : attendance?.isIdle() && 'idle');
    if ((await untilReady(look, current, { timeoutMs, signal, clock })) === 'ready') return undefined;
    const state = await stateOf(current);
    signal.throwIfAborted();
    return state === 'ready' ? undefined : state;
  }

  /** How the link is; what could not be looked at is as it was. */
  async function stateOf(current: Link): Promise<LinkState> {
    try {
      return await current.check();
    } catch (error) {
      if (isBlindness(error)) return condition.state === 'up' ? 'ready' : 'waiting';
      throw error;
    }
  }

  async function lookAfter(signal: AbortSignal): Promise<void> {
    await Promise.all([watchOver(signal), attend(signal)]);
  }

  /** While it is up: is it still what it says? And is it stable, so that its next failure counts as the first? */
  async function watchOver(signal: AbortSignal): Promise<void> {
    const current = link;
    if (!current) return;
    const stableAt = clock.now() + spec.backoff.stableMs;
    const look = async () => {
      const state = await stateOf(current);
      signal.throwIfAborted();
      if (state !== 'ready') {
        lastError = state === 'frozen' ? FROZEN : GONE;
        dispatch({ type: 'lost', reason: state === 'frozen' ? 'frozen' : 'exited' });
        return true;
      }
      if (condition.attempt > 0 && clock.now() >= stableAt) dispatch({ type: 'timeout' });
      return false;
    };
    await context.rounds.join(look, signal);
  }

  /** While it is up: do bytes go through it? */
  async function attend(signal: AbortSignal): Promise<void> {
    const { check } = spec;
    if (!link || !check) return;
    const onChange = ({ state }: Health) =>
      publish({ type: state === 'ok' ? 'tunnel.recovered' : 'tunnel.degraded', tunnel: spec.id, status: status() });
    const why = await checkUps.attend({ spec, check, link, onChange }, signal);
    signal.throwIfAborted();
    lastError = why;
    dispatch({ type: 'dead', reason: 'timeout' });
  }

  /** Take the chain down, and whatever carries our marker where there is none; proved, or said who survived. */
  async function teardown(signal: AbortSignal): Promise<void> {
    // What it listens with stays, and what goes on over links that were replaced: it is only to have another link.
    const isWanted = () => condition.desired === 'up' && spec.seamless !== null && entrance.isOpen(spec);
    const isKept = isWanted();
    const closing = isKept ? undefined : closeEntrance();
    closing?.catch(() => undefined); // whatever that says, the present link goes first
    const present = link ? await endLink() : isKept ? undefined : await clearLeftovers('own');
    // Somebody may have stopped it meanwhile.
    const isLeft = isKept && !isWanted();
    const survivor = (await closing) ?? present ?? (isLeft ? await closeEntrance() : undefined);
    road.noteStopped();
    if (survivor) {
      lastError = describeSurvivor(survivor);
      return tell(signal, { type: 'timeout', reason: 'stuck' });
    }
    if (!isKept || isLeft) await waitUntilFree(spec, clock);
    road.noteFree();
    tell(signal, { type: 'exited' });
  }

  async function closeEntrance(): Promise<Survivor | undefined> {
    const [survivor] = await Promise.all([entrance.endRetired(), entrance.close()]);
    return survivor;
  }

  async function waitToRetry(signal: AbortSignal): Promise<void> {
    const plannedMs = isWaitedFor ? 0 : retryDelay(condition, spec.backoff, context.random);
    const delayMs = Math.max(plannedMs, retryAfterMs);
    retryAfterMs = 0;
    isWaitedFor = false;
    nextRetryAt = clock.wallTime() + delayMs;
    await sitOut(delayMs, signal);
    signal.throwIfAborted();
    road = beginRoad(clock, byItself);
    dispatch({ type: 'timeout' });
  }

  /**
   * The wait before the next attempt. Of 300 that share a connection one finds out that the server is back; the others need
   * not wait their minute for what is there. When that came to nothing the next wait is sat out: where each connection is
   * lost at once, 300 who call each other would never rest.
   */
  async function sitOut(delayMs: number, signal: AbortSignal): Promise<void> {
    const party = isOfConnection(condition.reason) ? partyOf(spec) : undefined;
    if (isCalled || party === undefined) {
      isCalled = false;
      return clock.sleep(delayMs, signal);
    }
    const over = new AbortController();
    const bounds = AbortSignal.any([signal, over.signal]);
    try {
      const called = context.gate.whenUp(party, bounds).then(() => true);
      isCalled = await Promise.race([clock.sleep(delayMs, bounds).then(() => false), called]);
    } finally {
      over.abort();
    }
  }

  // The link, and its end.

  /** It ended by itself. What it leaves (an ssh whose autossh died) is taken down before anything else happens. */
  async function onExit(ended: Link, exit: LinkExit): Promise<void> {
    if (!isServing(ended)) return;
    const report = await ended.stop();
    if (!isServing(ended)) return;
    if (!noteKill(report)) forgetLink(ended);
    const isGivenUp = attendance && exit.signal === 'SIGINT';
    lastError = isGivenUp ? 'given up at the prompt' : (exit.lastError ?? describeExit(exit));
    retryAfterMs = exit.retryAfterMs ?? 0;
    const reason = attendance ? reasonForPerson(exit) : exit.reason;
    const isFinal = spec.authRetry === 'never' && scheduleOf(reason) === 'login';
    dispatch({ type: 'exited', reason, ...(isFinal ? { isFinal } : {}) });
  }

  /** The present link, and nobody has begun to take it down. */
  function isServing(one: Link): boolean {
    return link === one && (condition.state === 'starting' || condition.state === 'up');
  }

  /** Ends the link that there is. One that something survived is kept: the next attempt begins with ending it again. */
  async function endLink(): Promise<Survivor | undefined> {
    const ended = link;
    if (!ended) return undefined;
    const survivor = noteKill(await ended.stop());
    if (!survivor) forgetLink(ended);
    return survivor;
  }

  function forgetLink(ended: Link): void {
    if (ended.root) context.ledger?.erase([ended.root]);
    link = undefined;
  }

  /** One that was replaced has been ended: that is no part of anybody's way. Who survived it goes on being looked for. */
  function forgetRetired({ root }: Link, kill: KillReport): Survivor | undefined {
    const layers = { chain: kill.killed.length };
    if (kill.killed.length + kill.survivors.length > 0) {
      publish({ type: 'process.killed', tunnel: spec.id, kill, layers });
    }
    const survivor = findSurvivor(kill);
    if (root && !survivor) context.ledger?.erase([root]);
    return survivor;
  }

  /** Answers who is still there and should not be. Who is protected was met by mistake: this manager, its parents. */
  function noteKill(kill: KillReport, layers: LayerCounts = { chain: kill.killed.length }): Survivor | undefined {
    if (kill.killed.length + kill.survivors.length > 0) {
      road.noteKill(kill);
      publish({ type: 'process.killed', tunnel: spec.id, kill, layers });
    }
    return findSurvivor(kill);
  }

  /** Something went wrong that is no answer: no program to run, no descriptors left. With a link there is one to lose. */
  function fail(error: unknown): void {
    lastError = error instanceof Error ? error.message : String(error);
    const { state } = condition;
    if (state === 'stopping') dispatch({ type: 'timeout', reason: 'stuck' });
    else if (state === 'up') dispatch({ type: 'lost', reason: 'exited' });
    else if (link) dispatch({ type: 'timeout', reason: 'exited' });
    else dispatch({ type: 'exited', reason: isBadSpec(error) ? 'bad_spec' : 'exited' });
  }

  function onOutput(line: string): void {
    publish({ type: 'tunnel.output', tunnel: spec.id, line });
  }

  // How it is.

  function resultOf(walked: Road): OperationResult {
    const { state } = condition;
    return { id: spec.id, name: spec.name, state, ...walked.report(state), tunnel: status() };
  }

  function status(): TunnelStatus {
    const engine = engineInUse();
    const chain = { root: link?.root, allocatedPort: link?.allocatedPort() };
    const facts = { spec, condition, health: health(), engine, since, ...history.read(), nextRetryAt, lastError };
    return describe({ ...facts, ...chain, traffic: traffic(), logFile: context.logFileOf(spec) });
  }

  function traffic(): Traffic | null {
    return spec.seamless !== null || engineInUse() === 'embedded' ? meter.read() : null;
  }

  function engineInUse(): EngineName {
    return (link && engineName) ?? context.engineFor(spec).name;
  }

  function health(): Health {
    if (condition.state !== 'up') return { state: 'unknown', reason: null, detail: null };
    return spec.check ? checkUps.health() : { state: 'ok', reason: null, detail: null };
  }
}

/** A key whose passphrase is not known needs somebody; who was there and did not know it has failed. Ctrl-C is a person's. */
function reasonForPerson({ reason, signal }: LinkExit): Reason {
  if (signal === 'SIGINT') return 'needs_auth';
  return reason === 'needs_auth' ? 'auth_failed' : reason;
}

/** Of what a person's own function has thrown nothing is kept: it may be about what it was to answer. */
function describeGivenUp(why: unknown): string {
  if (!isTunwardError(why)) return 'given up';
  const { lastError } = why.info as { readonly lastError?: unknown };
  return typeof lastError === 'string' ? lastError : why.message;
}

const FROZEN = 'the chain is stopped by a signal (SIGSTOP)';
const GONE = 'the listener is gone';

function findSurvivor({ survivors }: KillReport): Survivor | undefined {
  return survivors.find(({ why }) => !why.startsWith('protected'));
}

function describeSurvivor({ pid, command, why }: Survivor): string {
  return `pid ${pid} (${command}) survived: ${why}`;
}

function isBadSpec(error: unknown): boolean {
  return error instanceof TunwardError && (error.info as { reason?: unknown }).reason === 'bad_spec';
}
