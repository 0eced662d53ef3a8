import { CommanderError } from 'commander';
import { errorCodes, isErrno, isTunwardError, TunwardError } from '../errors.js';
import { toProblem } from '../wire.js';
import { type Context, Interruption } from './context.js';
import { styled } from './render.js';

/** Says why a command failed: a sentence on stderr, with `--json` the problem on stdout too. Answers the exit code. */
export function report(error: unknown, { screen, signal }: Context): number {
  if (error instanceof CommanderError) {
    // It has written its text already: the help, the version, or what is wrong with the arguments.
    if (error.exitCode === 0) return 0;
    if (screen.json) screen.data({ error: toProblem(usageError(error)).body });
    return errorCodes.ERR_BAD_REQUEST.exit;
  }
  // Whatever a command was doing when it was interrupted, that is why it failed.
  if (signal.reason instanceof Interruption) return signal.reason.exit;
  // A wrong configuration is a list of `file:line:column: …`, which editors and people read as it is.
  const head = isTunwardError(error, 'ERR_CONFIG_INVALID') ? '' : 'error: ';
  screen.say(...sentence(error).map((line, at) => (at === 0 ? [styled('red', head), line] : line)));
  if (screen.json) screen.data({ error: toProblem(error).body });
  return exitOf(error);
}

function usageError({ code, message }: CommanderError): TunwardError {
  const text = code === 'commander.help' ? 'Expected a command' : message.replace(/^error: /, '');
  return new TunwardError('ERR_BAD_REQUEST', text, {});
}

/** The exit code of an error: its code's, else 1. */
export function exitOf(error: unknown): number {
  if (isTunwardError(error)) return errorCodes[error.code].exit;
  return isErrno(error, 'EACCES', 'EPERM') ? errorCodes.ERR_ACCESS_DENIED.exit : 1;
}

/** The message of an error that somebody wrote for a person; for a mistake of ours, where it happened. */
function sentence(error: unknown): string[] {
  if (!(error instanceof Error)) return [String(error)];
  return (isMeant(error) ? error.message : (error.stack ?? error.message)).split('\n');
}

/** Is its message for a person? Those that are thrown by mistake have a class of their own (TypeError, …). */
export function isMeant(error: Error): boolean {
  return isTunwardError(error) || error.constructor === Error;
}
