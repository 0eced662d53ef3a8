// What abort.test.ts runs: a program that ends, as by an exception that nobody catches, while the tree is stopped.
import { killTree } from '#lib/kill.js';
import { openProc, type Proc } from '#lib/proc/read.js';
import { descendantsOf, statOf } from '../support/proc.js';

const pid = Number(process.argv[2]);
const family = [pid, ...descendantsOf(pid).map((child) => child.pid)];
const proc = openProc();
let reads = 0;
const text: Proc['text'] = (path) => {
  // The second time all of them were sent SIGSTOP just then.
  if (path === 'stat' && ++reads === 2) endWhenStopped();
  return proc.text(path);
};
await killTree(pid, { proc: { ...proc, text } });

function endWhenStopped(): void {
  const states = () => family.map((one) => statOf(one)?.state).join('');
  const limit = performance.now() + 2000;
  while (/[^T]/.test(states()) && performance.now() < limit);
  process.stdout.write(states());
  process.exit(3);
}
