/**
 * A mocha root hook: the run fails when a process that the tests started is still alive at its end. It is found by a
 * marker that every child inherits, or, where a program wiped its environment (sshd), as our descendant. The marker's
 * name begins with LC_ because a daemon under test hands only an allow-list on to ssh, and LC_* is in it: no chain of
 * its making is left behind unseen.
 */
import { randomBytes } from 'node:crypto';
import { descendantsOf, processesWithEnv, type Ref } from './proc.js';
import { describeAll, findLiving, isEmptied, killAll, listSurvivors } from './reaper.js';

const run = randomBytes(8).toString('hex');
const entry = `LC_TUNWARD_TEST_RUN=${run}`;

export const mochaHooks: Mocha.RootHookObject = {
  beforeAll() {
    process.env.LC_TUNWARD_TEST_RUN = run;
  },
  async afterAll() {
    // What was signalled a moment ago may still be on its way out.
    if (await isEmptied(() => survivors().length, 1000)) return;
    const left = describeAll(survivors());
    await killAll(function* () {
      yield* descendantsOf(process.pid);
      yield* processesWithEnv(entry);
    });
    throw new Error(`The tests left ${left.length} processes alive (now killed):\n${listSurvivors(left)}`);
  },
};

function survivors(): Ref[] {
  return findLiving(descendantsOf(process.pid), entry);
}
