import { TunwardError } from '../../errors.js';
import type { Clock } from '../../time.js';
import type { TunnelSpec } from '../spec.js';
import type { AskpassOptions } from './askpass.js';
import { createLineReader } from './lines.js';
import type { Person } from './person.js';
import { ADD_PTY } from './pty.js';

export interface AnswersOptions {
  readonly clock: Clock;
  readonly idleMs: number;
  /** Why there is no terminal, where that is not for want of a package; null: there is nothing to say of that. */
  readonly trouble?: string | null | undefined;
  /** They will not answer any more, and why. */
  readonly onGivenUp: (why: unknown) => void;
}

/** For a line that is typed the keys are what counts, and those are watched elsewhere. */
const LINE_MS = 3_600_000;

/** Who answers an askpass program: a function, or somebody at a terminal who types lines. */
export function answersOf(
  person: Person,
  spec: TunnelSpec,
  { clock, idleMs, trouble, onGivenUp }: AnswersOptions,
): Omit<AskpassOptions, 'folder'> {
  if ('prompt' in person) return { ask: person.prompt, clock, idleMs, onGivenUp };
  const { prompt, tell } = createLineReader(person.terminal, { clock, idleMs });
  if (trouble !== null) void tell(trouble ?? `ssh asks for each answer by itself: ${ADD_PTY}`);
  return {
    ...{ ask: prompt, tell, clock, idleMs: LINE_MS },
    onGivenUp: (why) =>
      onGivenUp(why instanceof DOMException && why.name === 'AbortError' ? describeGivenUp(spec) : why),
  };
}

/** What ssh itself would have ended with, if the Ctrl-C had met it on a terminal of its own. */
function describeGivenUp({ id, name }: TunnelSpec): TunwardError {
  const lastError = 'given up at the terminal';
  const info = { id, reason: 'needs_auth', lastError, nextRetryAt: null };
  return new TunwardError('ERR_START_FAILED', `Tunnel ${name} (${id}) did not start: ${lastError}`, info);
}
