/** A person's half of what is said between a program and whoever sits at its terminal. */
import { until } from '#lib/time.js';
import type { OnTerminal } from './terminal.js';

const heard = new WeakMap<OnTerminal, number>();

/**
 * Waits until the terminal shows a text that was not answered yet, and resolves to all that came since the last answer.
 * Rejects, with that, when the text is not there after 15 s.
 */
export async function question(terminal: OnTerminal, text: RegExp): Promise<string> {
  const fresh = () => terminal.bytes().slice(heard.get(terminal) ?? 0);
  const shown = await until(() => text.test(fresh()), { timeoutMs: 15_000 });
  if (!shown) throw new Error(`${text} was not asked. What was: ${JSON.stringify(fresh())}`);
  const all = fresh();
  heard.set(terminal, terminal.bytes().length);
  return all;
}

/** Waits for the question, types the answer and Enter. ssh forgets what is typed before it asks. */
export async function answer(terminal: OnTerminal, text: RegExp, keys: string): Promise<string> {
  const all = await question(terminal, text);
  terminal.type(`${keys}\r`);
  return all;
}

/** All that the terminal has shown when it has ended, in one line. */
export async function allOf(terminal: OnTerminal): Promise<string> {
  return (await terminal.all()).join(' ');
}
