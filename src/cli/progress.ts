import { type Clock, systemClock } from '../time.js';
import type { Context } from './context.js';
import { type Line, styled } from './render.js';
import { formatAge } from './units.js';

/** What takes less is not worth a line, in milliseconds; and how often it is drawn anew after that. */
const QUIET_MS = 1000;
const EVERY_MS = 500;

/**
 * Does something, and says on a terminal what is going on once that takes longer than a second: one line at the bottom,
 * which is gone when it is over. Nothing in a pipe, with `--json`, with NO_COLOR, or on a terminal that cannot draw.
 */
export async function withProgress<T>(
  going: () => string,
  context: Context,
  act: () => Promise<T>,
  clock: Clock = systemClock,
): Promise<T> {
  const over = new AbortController();
  const shown = show(going, { ...context, signal: over.signal, clock }).catch((error: unknown) => {
    if (!over.signal.aborted) throw error;
  });
  try {
    return await act();
  } finally {
    over.abort(new Error('it is over'));
    await shown;
  }
}

interface Showing extends Context {
  readonly clock: Clock;
}

async function show(going: () => string, { screen, env, signal, clock }: Showing): Promise<void> {
  const isDrawable = !screen.json && !env.NO_COLOR && env.TERM !== undefined && env.TERM !== '' && env.TERM !== 'dumb';
  if (!isDrawable) return;
  const began = clock.now();
  await clock.sleep(QUIET_MS, signal);
  let isOver = false;
  const render = (): Line[] => [styled('dim', `${going()} … ${formatAge((clock.now() - began) / 1000)}`)];
  const area = screen.openArea((size) => (isOver || size.columns === 0 ? [] : render()));
  if (!area) return;
  try {
    for (;;) {
      area.refresh();
      await clock.sleep(EVERY_MS, signal);
    }
  } finally {
    isOver = true;
    await area.close();
  }
}
