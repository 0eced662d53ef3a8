import type { AskpassOptions } from '../asking/askpass.js';
import { putQuestion, wipe } from '../asking/prompt.js';
import { LONGEST_QUESTION, printableLines, readQuestion } from '../asking/question.js';

/** Asks somebody, one question at a time. */
export interface Questions {
  /**
   * Resolves to what was answered, a buffer of the caller's to wipe; undefined: nobody answers. Never rejects. `echo` is
   * what the server says of it; not given: it may be seen where it is about a host key.
   */
  ask(text: string, echo?: boolean): Promise<Buffer | undefined>;
  /** Says something to which there is no answer; to nobody once it is closed. */
  tell(text: string): void;
  /** When a question was open last, by the clock: now, if one is. undefined: there was none. */
  openUntil(): number | undefined;
  /** Nobody answers any more. */
  isGivenUp(): boolean;
  /** Whoever is asked just now need not answer any more. Idempotent. */
  close(): void;
}

/** The same bounds as those of a question that ssh asks through a program (asking/askpass.ts). */
export function createQuestions(answers: Omit<AskpassOptions, 'folder'>): Questions {
  const { ask: prompt, tell = () => undefined, clock, idleMs, onGivenUp = () => undefined } = answers;
  const over = new AbortController();
  let tail: Promise<unknown> = Promise.resolve();
  let open = 0;
  let answeredAt: number | undefined;
  let isGivenUp = false;
  return {
    ask(text, echo) {
      open++;
      const answer = tail.then(() => put(text, echo));
      tail = answer;
      return answer.finally(() => {
        open--;
        answeredAt = clock.now();
      });
    },
    tell(text) {
      if (!over.signal.aborted) void tell(printableLines(text.slice(0, LONGEST_QUESTION)));
    },
    openUntil: () => (open > 0 ? clock.now() : answeredAt),
    isGivenUp: () => isGivenUp,
    close: () => over.abort(new Error('The question is over: nobody waits for the answer')),
  };

  async function put(text: string, echo: boolean | undefined): Promise<Buffer | undefined> {
    if (over.signal.aborted) return undefined;
    const question = readQuestion(text, '');
    const bounds = { signal: over.signal, idleMs, clock };
    try {
      return toBuffer(await putQuestion(prompt, { ...question, echo: echo ?? question.echo }, bounds));
    } catch (error) {
      if (!over.signal.aborted) {
        isGivenUp = true;
        over.abort(error);
        onGivenUp(error);
      }
      return undefined;
    }
  }
}

/** What is before the first line end, as ssh takes it. A buffer that was given is wiped: what is left of it is ours. */
function toBuffer(answer: unknown): Buffer {
  if (typeof answer !== 'string' && !(answer instanceof Uint8Array)) {
    const given = answer === null ? 'null' : typeof answer;
    throw new TypeError(`Cannot answer with ${given}: expected a string or a Buffer`);
  }
  // In a room of its own: the pool that small buffers share is not wiped.
  const bytes = Buffer.alloc(typeof answer === 'string' ? Buffer.byteLength(answer) : answer.length);
  if (typeof answer === 'string') bytes.write(answer);
  else bytes.set(answer);
  wipe(answer);
  const end = bytes.findIndex((byte) => byte === 0x0a || byte === 0x0d);
  return end === -1 ? bytes : bytes.subarray(0, end);
}
