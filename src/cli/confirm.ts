import readline from 'node:readline';
import { TunwardError } from '../errors.js';
import { printable } from '../wire.js';
import type { Context } from './context.js';
import type { Line } from './render.js';

export interface Question {
  /** What is to be done, as it follows "Really": `kill them`. */
  readonly act: string;
  /** Whom or what it is done to: said before anybody is asked. */
  readonly facts?: readonly Line[];
}

/**
 * Whether somebody agrees to what cannot be undone: `--yes` does, otherwise a person at a terminal is asked, and anything
 * but `y` or `yes` is a no. That nothing was done is said here. Ctrl-C rejects, as everywhere.
 *
 * @throws TunwardError ERR_BAD_REQUEST where nobody can be asked: no terminal, or `--no-input`
 */
export async function confirm({ act, facts = [] }: Question, context: Context): Promise<boolean> {
  const { screen, consent } = context;
  if (consent.isGiven) return true;
  screen.say(...facts);
  if (!consent.input) {
    const message = `Nobody can be asked here whether to ${printable(act)}: add --yes to do it`;
    throw new TunwardError('ERR_BAD_REQUEST', message, {});
  }
  const agrees = await ask(`Really ${act}`, { ...context, input: consent.input });
  if (!agrees) screen.say('Nothing was done');
  return agrees;
}

/** Whether somebody wants what is not necessary; undefined where nobody can be asked. `--yes` does. */
export async function offer(what: string, context: Context): Promise<boolean | undefined> {
  const { isGiven, input } = context.consent;
  if (isGiven) return true;
  return input && ask(what, { ...context, input });
}

interface Asking extends Context {
  readonly input: NodeJS.ReadableStream;
}

async function ask(what: string, { screen, signal, input }: Asking): Promise<boolean> {
  screen.complain(`${printable(what)}? [y/N] `);
  const answer = await readAnswer(input, signal).catch((error: unknown) => {
    screen.complain('\n');
    throw error;
  });
  // Ctrl-D leaves the cursor behind the question.
  if (answer === undefined) screen.complain('\n');
  return /^\s*y(es)?\s*$/i.test(answer ?? '');
}

/** One line, which the terminal itself lets be typed and mended; undefined: there is none to come. */
async function readAnswer(input: NodeJS.ReadableStream, signal: AbortSignal): Promise<string | undefined> {
  signal.throwIfAborted();
  const lines = readline.createInterface({ input, terminal: false });
  try {
    return await new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
      lines.once('line', resolve).once('close', () => resolve(undefined));
    });
  } finally {
    lines.close();
    input.pause();
  }
}
