import { type Need, need } from './need.js';

/** One case of the fault catalogue: a set-up that goes wrong, done many times, and what must hold each time. */
export interface Fault {
  /** `K1`: its number in the catalogue. */
  readonly id: string;
  /** What must hold, as the title of a test. */
  readonly title: string;
  /** How often it is done by `npm run test:faults`. */
  readonly times: number;
  /** How often as part of `npm test`. Without it the case runs by `npm run test:faults` alone. */
  readonly reduced?: number;
  readonly needs?: readonly Need[];
  /**
   * Why this machine cannot do it whatever is installed: a kernel without loop devices, say. Skipped loudly then, in CI
   * too, so this is for cases of the full catalogue alone.
   */
  readonly impossible?: () => string | undefined;
  /** The bound on the whole, in milliseconds. Default: one minute, and ten for the full count. */
  readonly timeoutMs?: number;
}

/** Do the cases run with their full counts? */
export const isFull = process.env.TUNWARD_FAULTS === 'full';

/**
 * Registers a case. `run` does it `times` times, asserts, and answers its figure (`500/500, p50 3.9 ms, max 12 ms`),
 * which is printed after the title.
 *
 * @example
 * fault({ id: 'K12', title: 'kills all who share a socket', times: 100, reduced: 5 }, async (times) => {
 *   for (let n = 0; n < times; n++) …
 *   return `${times}/${times}`;
 * });
 */
export function fault(
  { id, title, times, reduced, needs = [], impossible, timeoutMs }: Fault,
  run: (times: number) => Promise<string>,
): void {
  const count = isFull ? times : reduced;
  if (count === undefined) return;
  it(`${id} ${title}`, async function () {
    this.timeout(timeoutMs ?? (isFull ? 600_000 : 60_000));
    need(this, ...needs);
    const reason = impossible?.();
    if (reason !== undefined) {
      process.stderr.write(`\n*** SKIPPED *** ${id}: ${reason}\n`);
      this.skip();
    }
    const figure = await run(count);
    if (this.test) this.test.title += `: ${figure}`;
  });
}

/** `p50 3.9 ms, p99 8 ms, max 12 ms`. */
export function spread(samplesMs: readonly number[]): string {
  const sorted = [...samplesMs].sort((one, other) => one - other);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
  const ms = (value: number) => `${value.toFixed(value < 10 ? 1 : 0)} ms`;
  return `p50 ${ms(at(0.5))}, p99 ${ms(at(0.99))}, max ${ms(at(1))}`;
}
