// What free.test.ts and hidden.test.ts run as an ordinary user, or elsewhere: ports that root's processes hold.
import { freePort } from '#lib/port/free.js';
import { inspectPort } from '#lib/port/inspect.js';
import { isPortFree } from '#lib/port/wait.js';
import { emit } from '../support/namespace.js';

const [port = 0, heldLow = 0, freeLow = 0] = process.argv.slice(2).map(Number);
const host = '127.0.0.1';
const codeOf = (error: { readonly code?: string }) => error.code;
emit('who', await inspectPort(port));
emit('free', await freePort(port, { timeoutMs: 2000 }));
if (heldLow > 0) {
  emit('heldLow', await inspectPort(heldLow, { host }));
  emit('freeHeldLow', await freePort(heldLow, { host, timeoutMs: 2000 }));
  emit('freeLow', await inspectPort(freeLow, { host }));
  emit('isHeldFree', await isPortFree(heldLow, { host }).catch(codeOf));
  emit('isLowFree', await isPortFree(freeLow, { host }).catch(codeOf));
}
