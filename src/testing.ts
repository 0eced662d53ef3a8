/// <reference types="node" preserve="true" />

/**
 * The test kit, `tunward/testing`: ports that are yours, real process trees, and the question whether anything is left.
 * It loads no package. `tunward/testing/mocha` has the root hooks for mocha.
 */
export { assertNoLeaks, type Leak, LeakError, type LeakOptions, type LeakWatch, watchLeaks } from './testing/leaks.js';
export { type ReservedPort, reservePort } from './testing/ports.js';
export type { TreeShape } from './testing/spawn.js';
export { type SpawnedTree, spawnTree, type TreeNode, type TreeProcess } from './testing/tree.js';
