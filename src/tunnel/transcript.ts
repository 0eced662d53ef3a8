import { printable } from '../wire.js';

/** What a chain has said so far, line by line. */
export interface Transcript {
  take(chunk: string): void;
  /** Nothing more will come: what has no line end yet is a line too. */
  end(): void;
  /** The last ones, oldest first. */
  lines(): readonly string[];
  lastLine(): string | null;
  /** How many remote forwards the server has granted. ssh says so at DEBUG1 alone. */
  grantedForwards(): number;
  /** The port that the server has chosen for a remote forward of port 0. */
  allocatedPort(): number | undefined;
  /** Connections that the far end of the forward refused, and what ssh said of the last one. */
  refusals(): { readonly count: number; readonly last: string | null };
}

const KEPT_LINES = 50;
const MAX_LINE = 2000;
const debugging = /^debug[123]: |^OpenSSH_\d|^Authenticated to |^Transferred: |^Bytes per second: /;

/** Lines out of chunks. ssh's debugging stays here; the rest is handed on. Bounded, whatever comes. */
export function createTranscript(onOutput: (line: string) => void): Transcript {
  let rest = '';
  /** What comes up to the next line end belongs to a line that was too long, and has been handed on, cut off. */
  let isOverlong = false;
  let granted = 0;
  let allocated: number | undefined;
  let refused: { count: number; last: string | null } = { count: 0, last: null };
  const kept: string[] = [];
  return {
    take,
    end,
    lines: () => kept,
    lastLine: () => kept.at(-1) ?? null,
    grantedForwards: () => granted,
    allocatedPort: () => allocated,
    refusals: () => refused,
  };

  function take(chunk: string): void {
    const text = rest + chunk;
    let start = 0;
    // One by one: a list of 30,000 lines for each chunk of a flood would be garbage by the 10 MB a second.
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', start)) {
      if (!isOverlong) note(text.slice(start, end));
      isOverlong = false;
      start = end + 1;
    }
    rest = text.slice(start);
    if (!isOverlong && rest.length > MAX_LINE) {
      note(rest);
      isOverlong = true;
    }
    if (isOverlong) rest = '';
  }

  function end(): void {
    if (rest !== '') note(rest);
    rest = '';
  }

  /** A server that floods us is heard at this function's speed: nothing is done twice, nor for an empty line. */
  function note(text: string): void {
    if (text === '' || text === '\r') return;
    const end = text.length <= MAX_LINE && text.endsWith('\r') ? -1 : MAX_LINE;
    const line = printable(text.slice(0, end));
    if (debugging.test(line)) {
      if (/^debug1: remote forward success for: listen /.test(line)) granted++;
      return;
    }
    const port = /^Allocated port (\d+) for remote forward to /.exec(line)?.[1];
    if (port !== undefined) allocated = Number(port);
    if (/^channel \d+: open failed: |^connect_to .+: failed\.$/.test(line)) {
      refused = { count: refused.count + 1, last: line };
    }
    kept.push(line);
    if (kept.length > KEPT_LINES) kept.shift();
    onOutput(line);
  }
}
