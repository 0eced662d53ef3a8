/**
 * A program that opens a tunnel with a secret that it reads from descriptor 3: secrets.test.ts looks into its memory. The
 * tunnel's options come by descriptor 4, as JSON. It says `up`, and ends when its stdin does.
 */
import { readFileSync, readSync } from 'node:fs';
import { openTunnel } from '#lib/daemon/open.js';

/** What shows that whoever looks finds what is there: kept here on purpose. */
const decoy = Buffer.alloc(32);
readSync(3, decoy);

const tunnel = await openTunnel({
  ...JSON.parse(readFileSync(4, 'utf8')),
  prompt: () => {
    const bytes = Buffer.alloc(32);
    return bytes.subarray(0, readSync(3, bytes));
  },
  onEvent: (event) => console.log(JSON.stringify(event)),
});
console.log('up');
process.stdin.resume();
await new Promise((resolve) => process.stdin.once('end', resolve));
await tunnel.close();
console.log(decoy.length);
