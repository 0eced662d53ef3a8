/*
 * A tunnel in a process of its own, by openTunnel(): `node opened.mjs OPTIONS`, in JSON. Says "up" to its parent, and
 * answers each message with what it has in memory, once everything that can be thrown away is.
 */
import { openTunnel } from '../lib/index.js';

const tunnel = await openTunnel(JSON.parse(process.argv[2]));
process.on('message', () => {
  for (let round = 0; round < 3; round++) globalThis.gc?.();
  process.send({ rss: process.memoryUsage.rss(), open: tunnel.status().traffic?.open ?? null });
});
process.once('disconnect', () => tunnel.close().then(() => process.exit(0)));
process.send('up');
