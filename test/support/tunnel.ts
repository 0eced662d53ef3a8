import { isTunwardError, type TunwardError } from '#lib/errors.js';
import type { KillReport } from '#lib/kill.js';
import { openProc } from '#lib/proc/read.js';
import type { CheckOutcome } from '#lib/tunnel/check.js';
import { createGate, type Gate } from '#lib/tunnel/gate.js';
import { createCheckUps } from '#lib/tunnel/health.js';
import { createRounds } from '#lib/tunnel/rounds.js';
import { createRunner, type OperationResult, type Runner, type TunnelEvent } from '#lib/tunnel/runner.js';
import type { Takeover, TunnelSpec } from '#lib/tunnel/spec.js';
import { createFakeClock, type FakeClock } from './fakeclock.js';
import { createFakeEngine, type FakeEngine, nobody } from './fakeengine.js';
import { makeSpec } from './specs.js';

/** A runner on a fake clock and a fake engine, and all that it says and does. */
export interface Bench {
  readonly clock: FakeClock;
  readonly engine: FakeEngine;
  readonly runner: Runner;
  readonly events: readonly TunnelEvent[];
  /** The states it went through, in order. */
  states(): string[];
  /** How far each clean-up went. */
  readonly cleared: readonly Takeover[];
  /** What the coming clean-ups find; they take until `holdClear` is fulfilled. */
  kill: KillReport;
  holdClear: Promise<unknown>;
  /** What the coming checks find. */
  outcome: CheckOutcome;
  /** How many checks there were. */
  checks: number;
  /** What `Math.random()` would say: 1, so that every wait is the longest. */
  random: number;
}

export function createBench(spec: TunnelSpec = makeSpec(), gate?: Gate): Bench {
  const clock = createFakeClock();
  const engine = createFakeEngine();
  const events: TunnelEvent[] = [];
  const cleared: Takeover[] = [];
  const proc = openProc();
  const look = async () => {
    bench.checks++;
    return bench.outcome;
  };
  const runner = createRunner(spec, {
    proc,
    clock,
    checkUps: createCheckUps({ proc, clock, look }),
    random: () => bench.random,
    gate: gate ?? createGate({ concurrency: 16, perHost: 8, intervalMs: 0 }, clock),
    rounds: createRounds(clock),
    publish: (event) => events.push(event),
    engineFor: () => engine,
    async clearLeftovers(_spec, takeover, signal) {
      cleared.push(takeover);
      await bench.holdClear;
      signal?.throwIfAborted();
      return { kill: bench.kill, layers: { marker: bench.kill.killed.length } };
    },
    logFileOf: () => null,
  });
  const bench: Bench = {
    ...{ clock, engine, runner, events, cleared, kill: nobody, holdClear: Promise.resolve(), random: 1 },
    outcome: { verdict: 'ok', reason: null, detail: null },
    checks: 0,
    states: () =>
      events.flatMap(({ type }) => (/^tunnel\.(?!output)/.test(type) ? [type.slice('tunnel.'.length)] : [])),
  };
  return bench;
}

/** What became of an operation so far. */
export interface Outcome {
  result?: OperationResult;
  error?: TunwardError;
}

/** Looks at a promise without waiting for it. An error that is none of ours is thrown by the test's end. */
export function watch(promise: Promise<OperationResult>): Outcome {
  const outcome: Outcome = {};
  promise.then(
    (result) => {
      outcome.result = result;
    },
    (error: unknown) => {
      if (!isTunwardError(error)) throw error;
      outcome.error = error;
    },
  );
  return outcome;
}

/** Fails a suite's test in which a rejection was nobody's business. First in the suite. */
export function forbidUnhandledRejections(): void {
  const unhandled: unknown[] = [];
  const note = (reason: unknown) => unhandled.push(reason);
  before(() => {
    process.on('unhandledRejection', note);
  });
  afterEach(async () => {
    // Node says so a turn after the one in which it happened.
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
    if (unhandled.length > 0) throw new Error(`Unhandled: ${unhandled.splice(0).map(String).join('; ')}`);
  });
  after(() => {
    process.off('unhandledRejection', note);
  });
}
