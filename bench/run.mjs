/* Every figure of the README, in one run: `npm run bench`; some of them: `npm run bench -- holders kill probe`. */
import { fileURLToPath } from 'node:url';
import { benchApi } from './api.mjs';
import { benchBoot } from './boot.mjs';
import { benchHolders } from './holders.mjs';
import { benchKill } from './kill.mjs';
import { benchProbe } from './probe.mjs';
import { benchRestart } from './restart.mjs';
import { benchScale } from './scale.mjs';
import { benchSeamless } from './seamless.mjs';
import { benchSoak } from './soak.mjs';
import { main } from './support.mjs';
import { benchThroughput } from './throughput.mjs';

await main(fileURLToPath(import.meta.url), {
  restart: benchRestart,
  kill: benchKill,
  holders: benchHolders,
  probe: benchProbe,
  boot: benchBoot,
  scale: benchScale,
  api: benchApi,
  soak: benchSoak,
  throughput: benchThroughput,
  seamless: benchSeamless,
});
