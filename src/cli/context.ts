import type { ReadStream } from 'node:tty';
import { TunwardError } from '../errors.js';
import type { BackendName } from '../proc/backend.js';
import type { Screen } from './render.js';

/** What every command is handed: the one place to write to, and what main.ts has read of the process. */
export interface Context {
  readonly screen: Screen;
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
  /** Aborts with an {@link Interruption} at the first Ctrl-C, SIGTERM or SIGHUP. */
  readonly signal: AbortSignal;
  /**
   * From now on SIGHUP does this instead of ending the command. Not so where there is a terminal: its end is what
   * SIGHUP tells then, and a program without a head must not stay.
   */
  readonly onHangup: (act: () => void) => void;
  /** Whether what a person has to agree to is agreed to. */
  readonly consent: Consent;
  /** Ends the program with that code, whatever of it still goes on. Everything has been said. */
  readonly exitNow: (exit: number) => void;
}

/** See `confirm()`. */
export interface Consent {
  /** `--yes`. */
  readonly isGiven: boolean;
  /** The terminal where an answer is typed; undefined: there is none, or `--no-input` says to leave it alone. */
  readonly input: ReadStream | undefined;
}

/** The back end that TUNWARD_BACKEND names; undefined: the system's own. */
export function backendOf({ env }: Context): BackendName | undefined {
  const name = env.TUNWARD_BACKEND || undefined;
  if (name === undefined || name === 'linux' || name === 'portable') return name;
  const message = `TUNWARD_BACKEND: expected linux or portable, found '${name}'`;
  throw new TunwardError('ERR_BAD_REQUEST', message, { backend: name });
}

/** Why a command ends early: a signal, or nobody reads its output any more. */
export class Interruption extends Error {
  override readonly name = 'Interruption';
  /** 128 and the signal's number, as a shell counts. */
  readonly exit: number;

  constructor(why: string, exit: number) {
    super(why);
    this.exit = exit;
  }
}
