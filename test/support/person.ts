import { until } from '#lib/time.js';
import type { Keyboard, Prompt, Terminal } from '#lib/tunnel/asking/person.js';
import { createDisplay, type Display } from './terminal.js';

/** Somebody at a terminal: what is drawn is on a screen, and a test types. */
export interface TestTerminal {
  readonly terminal: Terminal;
  readonly display: Display;
  /** All that was drawn, as bytes. */
  drawn(): string;
  /** Types once the text is on the screen: since the last answer. */
  answer(question: RegExp, keys: string): Promise<void>;
  type(keys: string | Buffer): Promise<void>;
  resize(columns: number, rows: number): void;
}

export function createTestTerminal(columns = 80, rows = 24): TestTerminal {
  const display = createDisplay(columns, rows);
  let keyboard: Keyboard | undefined;
  let drawn = '';
  let read = 0;
  const terminal: Terminal = {
    columns,
    rows,
    async show(bytes) {
      // A copy: the bytes are wiped when this has resolved.
      const text = Buffer.from(bytes).toString();
      drawn += text;
      display.write(text);
    },
    listen: (to) => {
      keyboard = to;
    },
  };
  const type = async (keys: string | Buffer) => keyboard?.type(Buffer.from(keys));
  return {
    terminal,
    display,
    drawn: () => drawn,
    async answer(question, keys) {
      const isAsked = () => question.test(drawn.slice(read));
      if (!(await until(isAsked, { timeoutMs: 15_000 })))
        throw new Error(`not asked ${question}: ${drawn.slice(read)}`);
      read = drawn.length;
      await type(keys);
    },
    type,
    resize: (to, high) => keyboard?.resize(to, high),
  };
}

/** Answers in order, whatever is asked; remembers the questions. */
export function createTestPrompt(answers: readonly (string | Buffer)[]): { prompt: Prompt; questions: string[] } {
  const questions: string[] = [];
  const prompt: Prompt = async ({ text }) => {
    const answer = answers[questions.length];
    questions.push(text);
    if (answer === undefined) throw new Error(`nothing to answer to ${text}`);
    return answer;
  };
  return { prompt, questions };
}
