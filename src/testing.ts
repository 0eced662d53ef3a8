/// <reference types="node" preserve="true" />

/**
 * The test kit, `tunward/testing`: ports that are yours, real process trees, an SSH server and tunnels to it, a clock that
 * stands still, and the question whether anything is left. An import loads no package, and the server needs none that is not
 * shipped with it. `tunward/testing/mocha` has the root hooks for mocha.
 */
export type { SshConnection, SshForward } from './sshd/journal.js';
export type { LoginMethod, LoginPolicy, LoginPrompt, SshLogin } from './sshd/policy.js';
export {
  type SshServer as TestSshServer,
  type SshServerOptions as TestSshServerOptions,
  startSshServer,
  type WaitOptions,
} from './sshd/server.js';
export type { Target as SshTarget, TargetChooser, TargetRequest } from './sshd/target.js';
export { createFakeClock, type FakeClock } from './testing/clock.js';
export { assertNoLeaks, type Leak, LeakError, type LeakOptions, type LeakWatch, watchLeaks } from './testing/leaks.js';
export { type ReservedPort, reservePort } from './testing/ports.js';
export type { TreeShape } from './testing/spawn.js';
export { type SpawnedTree, spawnTree, type TreeNode, type TreeProcess } from './testing/tree.js';
export { type StartTunnelOptions, startTunnel, type TestTunnel } from './testing/tunnel.js';
export type { Clock } from './time.js';
