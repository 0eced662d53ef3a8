// What P10 runs as another user or elsewhere: what it makes of each port that it is given.
import { freePort } from '#lib/port/free.js';
import { inspectPort } from '#lib/port/inspect.js';
import { isPortFree } from '#lib/port/wait.js';
import { emit } from '../support/namespace.js';

for (const port of process.argv.slice(2).map(Number)) {
  const who = await inspectPort(port);
  emit(String(port), { who, free: await freePort(port, { timeoutMs: 500 }), isFree: await isPortFree(port) });
}
