/** Somebody who answers what ssh asks: at a terminal, or by a function that is called with each question. */
export type Person = { readonly terminal: Terminal } | { readonly prompt: Prompt };

/** One thing that ssh wants to know. */
export interface Question {
  /** As ssh puts it, in one or several lines, without control characters: `Enter passphrase for key '/home/me/.ssh/id_ed25519': `. */
  readonly text: string;
  /** May what is typed be seen? Of a host key (yes or no) it may; of all else ssh does not say, and then it may not. */
  readonly echo: boolean;
}

/**
 * Answers a question. `signal` aborts when nobody waits for the answer any more. To throw gives the attempt up, with what
 * was thrown. A Buffer is wiped as soon as ssh has it; a string stays in memory until it is collected.
 */
export type Prompt = (
  question: Question & { readonly signal: AbortSignal },
) => Promise<string | Buffer> | string | Buffer;

/** The terminal that somebody sits at, as whoever puts ssh on it sees it. */
export interface Terminal {
  readonly columns: number;
  readonly rows: number;
  /**
   * Draws bytes, which are wiped once it has resolved: there is room for more then, and whoever writes on before that fills
   * somebody's memory. Never rejects.
   */
  readonly show: (bytes: Uint8Array) => Promise<void>;
  /**
   * From now on, what is typed and how large the window is go there. Called before the first `show`, and anew where ssh could
   * not be put on a terminal and asks in another way.
   */
  readonly listen: (keyboard: Keyboard) => void;
}

/** Where what happens at a {@link Terminal} goes. */
export interface Keyboard {
  /**
   * Takes what was typed, and wipes it (fills the buffer with zeros) when it has been passed on. Resolves when there is room
   * for more. Never rejects: what is typed after the end is wiped and forgotten.
   */
  readonly type: (bytes: Buffer) => Promise<void>;
  readonly resize: (columns: number, rows: number) => void;
}

/** How long an attempt may take that needs a person, in milliseconds. */
export interface Patience {
  /** In all. */
  readonly totalMs: number;
  /** Without a key pressed (at a terminal), or for one answer (of a prompt). */
  readonly idleMs: number;
}

export const usualPatience: Patience = { totalMs: 300_000, idleMs: 120_000 };
