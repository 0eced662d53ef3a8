/**
 * The root hooks of this suite: those of the test kit, `tunward/testing/mocha`, which fail a run that leaves a process, a
 * listener or a handle behind. The kit reads /proc as the code under test does, so its "nobody" is not taken on trust:
 * the tests' own reading of /proc must find nobody either.
 */
import { markEnvironment } from '#lib/testing/environment.js';
import { mochaHooks as kit } from '#lib/testing/mocha.js';
import { descendantsOf, processesWithEnv } from './proc.js';
import { describeAll, findLiving, killAll, listSurvivors } from './reaper.js';

export const mochaHooks: Mocha.RootHookObject = {
  ...kit,
  async afterAll(this: Mocha.Context) {
    await kit.afterAll.call(this);
    const [entry = ''] = markEnvironment();
    const left = describeAll(findLiving(descendantsOf(process.pid), entry));
    if (left.length === 0) return;
    await killAll(function* () {
      yield* descendantsOf(process.pid);
      yield* processesWithEnv(entry);
    });
    throw new Error(`The test kit has overlooked ${left.length} processes (now killed):\n${listSurvivors(left)}`);
  },
};
