import { openProc } from '../proc/read.js';
import { readUptimeTicks } from '../proc/stat.js';
import { systemClock } from '../time.js';
import { endProcesses, type Leak, LeakError, type LeakWatch, watchLeaks } from './leaks.js';

/** What the hooks use of mocha, which is not imported. */
interface HookContext {
  timeout(ms: number): unknown;
  readonly currentTest?: { fullTitle(): string } | undefined;
}

/** A test as the leaks are laid to it: when it began, and what kept the process from ending when it was over. */
interface Ran {
  readonly title: string;
  readonly beganTicks: number;
  resources: readonly string[];
}

let watch: LeakWatch | undefined;
let former: readonly string[] = [];
let tests: Ran[] = [];

/**
 * Root hooks that fail a run which leaks processes, listeners or handles, and end the processes:
 * `mocha --require tunward/testing/mocha`.
 */
export const mochaHooks = {
  async beforeAll(): Promise<void> {
    tests = [];
    former = process.getActiveResourcesInfo();
    // While a hook is waited for mocha has a timer of its own: there is one at both ends of the watch then.
    await systemClock.sleep(0);
    watch = watchLeaks({ timers: true });
  },

  beforeEach(this: HookContext): void {
    const beganTicks = readUptimeTicks(openProc()) ?? 0;
    tests.push({ title: this.currentTest?.fullTitle() ?? '', beganTicks, resources: [] });
  },

  afterEach(): void {
    const test = tests.at(-1);
    if (test) test.resources = process.getActiveResourcesInfo();
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
  const test = leak.ref ? lastBefore(leak.ref.startTicks) : firstWith(leak.type);
  return test ? { ...leak, what: `${leak.what}\n    since “${test.title}”, or next to it` } : leak;
}

function lastBefore(startTicks: number): Ran | undefined {
  return tests.findLast(({ beganTicks }) => beganTicks <= startTicks);
}

/** What is left at the end has been there ever since: the test after the last one that ended without more than before. */
function firstWith(type: string | undefined): Ran | undefined {
  const count = (resources: readonly string[]) => resources.filter((each) => each === type).length;
  const clean = tests.findLastIndex(({ resources }) => count(resources) <= count(former));
  return type === undefined ? undefined : tests[clean + 1];
}
