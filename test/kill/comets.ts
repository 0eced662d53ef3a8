// What namespace.test.ts runs: comets, killed by their marker alone.
import { killChains } from '#lib/kill.js';
import { until } from '#lib/time.js';
import { startBystanders } from '../support/bystanders.js';
import { assertIsolated, emit } from '../support/namespace.js';
import { isAlive } from '../support/proc.js';
import { startComet } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';

assertIsolated();
const [rounds = 0, everyMs = 2, exec = 0] = process.argv.slice(2).map(Number);
// A table of some size: in a small one even a comet is caught at the first look.
const crowd = createReaper();
startBystanders(crowd, 60);
let leaked = 0;
let falseReports = 0;
const took: number[] = [];
for (let round = 0; round < rounds; round++) {
  const reaper = createReaper();
  const marker = [`TUNNEL_ID=comet${round}`, 'TUNWARD_INSTANCE=test'];
  const env = { TUNNEL_ID: `comet${round}`, TUNWARD_INSTANCE: 'test' };
  const comet = startComet(reaper, { everyMs, generations: 20_000, exec: exec === 1, env });
  const { pid } = await comet.ready;
  // It lives longer than there is time. From here on its pid is another one every few milliseconds.
  await until(() => !isAlive(pid), { timeoutMs: 5000 });
  const { survivors, tookMs } = await killChains([], { marker, timeoutMs: 3000 });
  took.push(tookMs);
  const left = reaper.living();
  if (left.length > 0) leaked++;
  if (left.length > 0 !== survivors.length > 0) falseReports++;
  await reaper.end();
}
await crowd.end();
emit('leaked', leaked);
emit('falseReports', falseReports);
emit('took', took);
