import { openProc } from '../proc/read.js';
import { readUptimeTicks } from '../proc/stat.js';
import { systemClock } from '../time.js';
import { endProcesses, type Leak, LeakError, type LeakWatch, watchLeaks } from './leaks.js';

/** What the hooks use of mocha, which is not imported. */
interface HookContext {
  timeout(ms: number): unknown;
  readonly currentTest?: { fullTitle(): string } | undefined;
}

let watch: LeakWatch | undefined;
/** When each test began. A process leak is of the last one that began before it. */
let tests: { readonly title: string; readonly beganTicks: number }[] = [];

/**
 * Root hooks that fail a run which leaks processes, listeners or handles, and end the processes:
 * `mocha --require tunward/testing/mocha`.
 */
export const mochaHooks = {
  async beforeAll(): Promise<void> {
    // While a hook is waited for mocha has a timer of its own: there is one at both ends of the watch then.
    await systemClock.sleep(0);
    tests = [];
    watch = watchLeaks({ timers: true });
  },

  beforeEach(this: HookContext): void {
    const beganTicks = readUptimeTicks(openProc());
    if (this.currentTest && beganTicks !== undefined) tests.push({ title: this.currentTest.fullTitle(), beganTicks });
  },

  async afterAll(this: HookContext): Promise<void> {
    this.timeout(0); // the watch and the kill have bounds of their own
    await systemClock.sleep(0);
    try {
      await watch?.assertNoLeaks();
    } catch (error) {
      if (!(error instanceof LeakError)) throw error;
      const leaks = error.leaks.map(attribute);
      const { survivors } = await endProcesses(leaks);
      const kept = survivors.map(({ pid, why }) => `; pid ${pid} is still there: ${why}`).join('');
      const are = leaks.some(({ kind }) => kind === 'process') ? ' (the processes are killed now)' : '';
      throw new LeakError(leaks, `The tests left ${leaks.length} behind${are}${kept}`);
    }
  },
};

function attribute(leak: Leak): Leak {
  const began = leak.ref?.startTicks;
  const test = began === undefined ? undefined : tests.findLast(({ beganTicks }) => beganTicks <= began);
  return test ? { ...leak, what: `${leak.what}\n    started in or after “${test.title}”` } : leak;
}
