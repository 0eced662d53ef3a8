// Says every signal that it is sent, one a line, beginning with its own pid. A stop cannot be caught: who is continued
// after one says SIGCONT, and who is not is seen in state T.
import { constants } from 'node:os';

// The leash: one that its test forgot ends by itself.
setTimeout(() => process.exit(3), 180_000);
const deaf = [
  'SIGKILL',
  'SIGSTOP',
  'SIGCHLD',
  'SIGPROF',
  'SIGSEGV',
  'SIGBUS',
  'SIGFPE',
  'SIGILL',
  'SIGURG',
  'SIGWINCH',
];
for (const name of Object.keys(constants.signals)) {
  if (!deaf.includes(name)) process.on(name, () => process.stdout.write(`${name}\n`));
}
process.stdout.write(`${process.pid}\n`);
