import { randomBytes } from 'node:crypto';
import type { Marker } from '../proc/marker.js';

/*
 * The test kit's door to the environment. A marker in it is inherited by everything that a test starts, also by what
 * leaves the tree. The names begin with LC_ because programs that hand on an allow-list alone (ssh, sudo, this project's
 * daemon) let LC_* through.
 */
const RUN = 'LC_TUNWARD_TEST_RUN';
const TREE = 'LC_TUNWARD_TEST_TREE';
const run = randomBytes(8).toString('hex');

/** Carried by whatever this process starts from now on. */
export function markEnvironment(): Marker {
  process.env[RUN] = run;
  return [`${RUN}=${run}`];
}

/** What one tree carries, to be found wherever it has gone. */
export function createTreeMarker(): { readonly entry: string; readonly env: Readonly<Record<string, string>> } {
  const id = randomBytes(8).toString('hex');
  return { entry: `${TREE}=${id}`, env: { [TREE]: id } };
}

/** This process's environment for an actor, which wants none of the options that the tests are run with. */
export function actorEnvironment(added: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: _, ...inherited } = process.env;
  return { ...inherited, ...added };
}
