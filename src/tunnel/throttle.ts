import type { Clock } from '../time.js';

/** How many lines of one tunnel may go on. All its lives share one: a crash loop has no more of them than a steady talker. */
export interface Allowance {
  /** Takes one line's worth; false when nothing is left. */
  spend(): boolean;
}

/** A way on for lines. Those that are too many are counted, and not kept. */
export interface Throttle {
  take(line: string): void;
  /** Nothing more will come: what was left out is told now. */
  end(): void;
}

/** Lines at once, and lines a second in the long run. */
const BURST = 50;
const PER_SECOND = 10;
/** Once it is shut, a throttle stays so for as long, so that what does go on are whole passages and not single lines. */
const SHUT_MS = 1000;

export function createAllowance(clock: Clock): Allowance {
  let left = BURST;
  let seenAt = clock.now();
  return { spend };

  function spend(): boolean {
    const now = clock.now();
    left = Math.min(BURST, left + ((now - seenAt) / 1000) * PER_SECOND);
    seenAt = now;
    if (left < 1) return false;
    left--;
    return true;
  }
}

/** Hands lines on as far as the allowance goes, and says of the rest how many there were: when it opens again, or at the end. */
export function createThrottle(
  onLine: (line: string) => void,
  { allowance, clock }: { allowance: Allowance; clock: Clock },
): Throttle {
  let hidden = 0;
  /** Ends the wait of a throttle that is shut. */
  let shut: AbortController | undefined;
  return { take, end };

  function take(line: string): void {
    if (!shut && allowance.spend()) return onLine(line);
    hidden++;
    if (!shut) close();
  }

  function close(): void {
    const waiting = new AbortController();
    shut = waiting;
    clock.sleep(SHUT_MS, waiting.signal).then(open, () => undefined); // called off by end(), which tells itself
  }

  function open(): void {
    shut = undefined;
    if (hidden === 0) return;
    allowance.spend();
    onLine(describeHidden(hidden));
    hidden = 0;
  }

  function end(): void {
    shut?.abort();
    open();
  }
}

/** `… 12,345 lines not shown` */
function describeHidden(count: number): string {
  return `… ${count.toLocaleString('en-US')} line${count === 1 ? '' : 's'} not shown`;
}
