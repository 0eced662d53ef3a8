/** One question, put to somebody who answers by a function: within its time, and no longer than somebody waits. */
import { TunwardError } from '../../errors.js';
import type { Clock } from '../../time.js';
import type { Prompt, Question } from './person.js';

export interface PromptBounds {
  /** Nobody waits for the answer any more. */
  readonly signal: AbortSignal;
  readonly idleMs: number;
  readonly clock: Clock;
}

/**
 * Resolves to what was answered, whatever that is. An answer that comes later than it was waited for is wiped.
 *
 * @throws what the prompt has thrown; TunwardError ERR_TIMEOUT; the signal's reason.
 * @example
 * const answer = await putQuestion(prompt, readQuestion('Password: ', ''), { signal, idleMs: 120_000, clock });
 */
export async function putQuestion(
  prompt: Prompt,
  question: Question,
  { signal, idleMs, clock }: PromptBounds,
): Promise<unknown> {
  const done = new AbortController();
  const awaited = AbortSignal.any([signal, done.signal]);
  const asked = (async () => prompt({ ...question, signal: awaited }))();
  try {
    return await new Promise((resolve, reject) => {
      asked.then(resolve, reject);
      const late = () =>
        reject(new TunwardError('ERR_TIMEOUT', `Nobody answered within ${idleMs} ms`, { timeoutMs: idleMs }));
      clock.sleep(idleMs, awaited).then(late, () => reject(awaited.reason));
    });
  } catch (error) {
    done.abort(error);
    asked.then(wipe, () => undefined);
    throw error;
  } finally {
    done.abort();
  }
}

/** What is no buffer cannot be wiped. */
export function wipe(answer: unknown): void {
  if (answer instanceof Uint8Array) answer.fill(0);
}
