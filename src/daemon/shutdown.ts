import { type Clock, systemClock } from '../time.js';
import type { Supervisor } from '../tunnel/supervisor.js';

/** Something that was opened, and how to close it. */
export interface Opened {
  /** As in "the tunnels were not over". */
  readonly what: string;
  readonly close: () => Promise<void> | void;
}

/** How a shutdown ended. */
export interface StopReport {
  readonly tookMs: number;
  /** What was not over in time, or could not be closed, first; null: all went well. */
  readonly trouble: string | null;
  readonly survivors: readonly Surviving[];
}

/** A process of a tunnel that is still there. */
export interface Surviving {
  readonly tunnel: string;
  readonly pid: number;
  readonly command: string;
  readonly why: string;
}

/**
 * Closes what was opened, the last first, within one deadline for all of it: whoever started this process has one too
 * (docker: 10 s), and then kills without asking. What is late is not waited for any more, and what comes after it is
 * still closed, as after a failure. Answers what went wrong first, in a sentence. Never rejects.
 */
export async function closeAll(
  opened: readonly Opened[],
  timeoutMs: number,
  clock: Clock = systemClock,
): Promise<string | undefined> {
  const deadline = clock.now() + timeoutMs;
  let trouble: string | undefined;
  for (const { what, close } of opened.toReversed()) {
    const closing = Promise.resolve()
      .then(close)
      .catch((error: unknown) => {
        trouble ??= `${what}: ${error instanceof Error ? error.message : String(error)}`;
      });
    if (await isOverWithin(closing, deadline - clock.now(), clock)) continue;
    trouble ??= `${what}: not over after ${timeoutMs} ms, and not waited for any more`;
  }
  return trouble;
}

/** Who of the tunnels' chains is still there. */
export function findSurviving(supervisor: Supervisor): Surviving[] {
  return supervisor
    .list()
    .flatMap(({ name, state, lastError, chain }) =>
      chain.map(({ pid, command }) => ({ tunnel: name, pid, command, why: lastError ?? state })),
    );
}

/** The signal's reason, as a rejection, once it aborts. */
export function rejectAtAbort(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal?.aborted) reject(signal.reason);
    else signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

async function isOverWithin(work: Promise<void>, ms: number, clock: Clock): Promise<boolean> {
  const done = new AbortController();
  const late = clock.sleep(Math.max(0, ms), done.signal).then(
    () => false,
    () => true, // called off: it is over
  );
  try {
    return await Promise.race([work.then(() => true), late]);
  } finally {
    done.abort();
  }
}
