import { TunwardError } from '../errors.js';
import type { Proc } from '../proc/read.js';
import { type Clock, until } from '../time.js';
import { checkTarget } from './check.js';
import type { Link, LinkExit, Reason } from './engine.js';
import { remedyOf } from './remedy.js';
import type { TunnelSpec } from './spec.js';

/** Why a link cannot take the place of the one that there is. */
export interface Trouble {
  readonly reason: Reason;
  readonly why: string;
}

export interface ExchangeOptions {
  readonly proc: Proc;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/**
 * How often a link that is coming up is looked at, in milliseconds: at first every 5, later a twentieth of the time that it
 * has taken. Eight that start at once on a busy machine take half a second each, and 200 of them 30,000 looks.
 */
const readyEveryMs = (check: number) => Math.min(20, 5 * Math.max(1, 1.05 ** (check - 20)));

/** Asks `look` of a link that is coming up until it answers, as {@link until} does; and once more when the link says that it is ready. */
export function untilReady<T>(
  look: () => Promise<T>,
  { ready }: Link,
  { clock, ...options }: { readonly timeoutMs: number; readonly signal: AbortSignal; readonly clock: Clock },
) {
  let wake: () => void = () => undefined;
  void ready?.then(() => wake());
  // No race with a promise that may stay open for minutes: that one would keep each of the pauses.
  const sleep = (ms: number, signal?: AbortSignal) =>
    new Promise<void>((resolve, reject) => {
      wake = resolve;
      clock.sleep(ms, signal).then(resolve, reject);
    });
  return until(look, { ...options, everyMs: readyEveryMs, clock: { ...clock, sleep } });
}

/**
 * Waits until a new link is ready, within the bound of a start, and looks whether anything comes through it where the spec
 * has a check; undefined: it is of use.
 *
 * @throws the signal's reason.
 */
export async function waitUntilOfUse(
  link: Link,
  spec: TunnelSpec,
  { proc, clock, signal }: ExchangeOptions,
): Promise<Trouble | undefined> {
  let exit: LinkExit | undefined;
  void link.exited.then((ended) => {
    exit = ended;
  });
  const look = async () => exit !== undefined || (await link.check()) === 'ready';
  const { startTimeoutMs: timeoutMs, check } = spec;
  const isOver = await untilReady(look, link, { timeoutMs, signal, clock });
  if (exit) return { reason: exit.reason, why: exit.lastError ?? describeExit(exit) };
  if (!isOver) return { reason: 'timeout', why: link.lastLine() ?? `not ready after ${timeoutMs} ms` };
  if (!check) return undefined;
  const { verdict, detail } = await checkTarget(spec, { check, link, proc, clock, signal });
  return verdict === 'silent' ? { reason: 'timeout', why: detail ?? 'nothing came back through it' } : undefined;
}

/** What a start that came to nothing has to say of itself. */
export function troubleOf(error: unknown): Trouble {
  const { reason = 'exited' } = error instanceof TunwardError ? (error.info as { readonly reason?: Reason }) : {};
  return { reason, why: error instanceof Error ? error.message : String(error) };
}

/** What is said to whoever has asked for the exchange. */
export function refuseExchange(spec: TunnelSpec, { reason, why }: Trouble): TunwardError {
  const { id, name } = spec;
  const remedy = remedyOf(reason, { spec, lastError: why });
  const message = `Tunnel ${name} (${id}) could not be restarted, and goes on as it was: ${reason} (${why})`;
  const info = { id, reason, lastError: why, nextRetryAt: null, remedy };
  return new TunwardError('ERR_START_FAILED', remedy ? `${message}; ${remedy}` : message, info);
}

export function describeExit({ code, signal }: LinkExit): string {
  return signal ? `killed by ${signal}` : `exited with code ${code}`;
}
