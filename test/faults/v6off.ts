// What P7 runs in a network namespace of its own, which it takes IPv6 from: an address of it is absent then, not busy.
import { writeFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { inspectPort } from '#lib/port/inspect.js';
import { isPortFree } from '#lib/port/wait.js';
import { startHolder } from '../support/holders.js';
import { assertIsolated, emit } from '../support/namespace.js';
import { freeLocalPort } from '../support/port.js';
import { createReaper } from '../support/reaper.js';

assertIsolated();
const times = Number(process.argv[2]);
writeFileSync('/proc/sys/net/ipv6/conf/all/disable_ipv6', '1');
if (JSON.stringify(networkInterfaces()).includes('"::1"')) throw new Error('IPv6 is still there');
const reaper = createReaper();
const hosts = [undefined, 'localhost', '*', '127.0.0.1', '0.0.0.0', '::1', '::'] as const;
/** The holder, and for each host whether the port is free beside it. */
const cases = [
  { address: undefined, free: [true, true, true, true, true, true, true] },
  { address: '127.0.0.1', free: [false, false, false, false, false, true, true] },
  { address: '0.0.0.0', free: [false, false, false, false, false, true, true] },
  { address: '::', free: [false, false, false, false, false, true, false] },
];
const wrong: string[] = [];
for (let n = 0; n < times; n++) {
  const { address, free } = cases[n % cases.length] ?? { address: undefined, free: [] };
  const port = await freeLocalPort();
  if (address) await startHolder(reaper, { port, address });
  for (const [at, host] of hosts.entries()) {
    if ((await isPortFree(port, { host })) !== free[at]) wrong.push(`${address} ${host}: not free: ${free[at]}`);
    const { verdict } = await inspectPort(port, { host });
    const expected = host === '::1' ? 'no_address' : free[at] ? 'free' : 'listening';
    if (verdict !== expected) wrong.push(`${address} ${host}: ${verdict} and not ${expected}`);
  }
  await reaper.end();
}
emit('wrong', wrong);
emit('right', times - wrong.length);
