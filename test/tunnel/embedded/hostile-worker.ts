/** The client's side of breaker.test.ts, in a thread of its own: one that hangs can be ended. */
import { parentPort, workerData } from 'node:worker_threads';
import { createStand, localSpec } from '../../support/embedded.js';

const { port } = workerData as { readonly port: number };
const sshOptions = {
  ...{ Port: String(port), User: 'u', StrictHostKeyChecking: 'no' },
  ...{ UserKnownHostsFile: 'none', GlobalKnownHostsFile: 'none' },
};
const stand = createStand();
const spec = await localSpec({ host: '127.0.0.1', sshConfigFile: 'none' }, 9, { sshOptions });
const link = await stand.start(spec);
let hasEnded = false;
void link.exited.then(() => {
  hasEnded = true;
});
await link.settled();
parentPort?.on('message', (word: string) => {
  if (word === 'stop') {
    void stand[Symbol.asyncDispose]().then(() => parentPort?.close());
    return;
  }
  const { arrayBuffers } = process.memoryUsage();
  parentPort?.postMessage({ mb: Math.round(arrayBuffers / 1e6), hasEnded });
});
parentPort?.postMessage({ listen: spec.forward.listen.port });
