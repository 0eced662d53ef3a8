import { TunwardError } from '../errors.js';
import type { Proc } from '../proc/read.js';
import { type Clock, growing, until } from '../time.js';
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
  const isOver = await until(look, { timeoutMs, everyMs: growing(20), signal, clock });
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
