import { now } from './clock.js';
import type { Problem } from './types.js';

/** The daemon has answered, and the answer is no. */
export class Refusal extends Error {
  override readonly name = 'Refusal';
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.detail ?? problem.title ?? `HTTP ${problem.status}`);
    this.problem = problem;
  }
}

/** Nobody has answered, or nobody who speaks our language: what the tunnels do is then not known. */
export class Unreachable extends Error {
  override readonly name = 'Unreachable';
}

export interface Call {
  readonly method?: 'GET' | 'POST' | 'DELETE';
  readonly body?: unknown;
  readonly timeoutMs?: number;
}

export interface Api {
  call<T>(path: string, options?: Call): Promise<T>;
  /** How far the daemon's clock is ahead of this browser's, in milliseconds: 0 as long as they agree to a few seconds. */
  clockAheadMs(): number;
}

/** A look is quick or the daemon hangs. What acts has bounds of the daemon's own, up to a start of some minutes. */
const LOOK_MS = 10_000;
const ACT_MS = 300_000;

/** `Date` has whole seconds. */
const DATE_ERROR_MS = 3000;

export function createApi(): Api {
  let aheadMs = 0;
  return { call, clockAheadMs: () => aheadMs };

  async function call<T>(path: string, { method = 'GET', body, timeoutMs }: Call = {}): Promise<T> {
    const isLook = method === 'GET';
    const answer = await send(path, {
      method,
      signal: AbortSignal.timeout(timeoutMs ?? (isLook ? LOOK_MS : ACT_MS)),
      ...(isLook ? {} : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body ?? {}) }),
    });
    noteClock(answer.headers.get('date'));
    const data = await readJson(answer);
    if (answer.ok) return data as T;
    throw new Refusal({ ...(data as object), status: answer.status });
  }

  function noteClock(date: string | null): void {
    const difference = Date.parse(date ?? '') - now();
    if (Number.isNaN(difference)) return;
    aheadMs = Math.abs(difference) > DATE_ERROR_MS ? difference : 0;
  }
}

async function send(path: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(path, init);
  } catch (error) {
    // Refused, reset, timed out: fetch tells none of them from another.
    throw new Unreachable(String(error), { cause: error });
  }
}

async function readJson(answer: Response): Promise<unknown> {
  try {
    const data: unknown = await answer.json();
    if (typeof data === 'object' && data !== null) return data;
  } catch (error) {
    throw new Unreachable(`HTTP ${answer.status}: ${String(error)}`, { cause: error });
  }
  throw new Unreachable(`HTTP ${answer.status}`);
}
