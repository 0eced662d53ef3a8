// A mocha file for support.test.ts: it passes, and leaves a daemon and a child behind.
import { startDaemonized, startTree } from '../processes.js';
import { createReaper } from '../reaper.js';

it('passes', async () => {
  const reaper = createReaper(); // and never ends it
  const { pid } = await startDaemonized(reaper, {}).ready;
  await startTree(reaper, {}).ready;
  process.stdout.write(`leaked ${pid}\n`);
});
