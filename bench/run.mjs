/* Every figure of the README, in one run: `npm run bench`. */
import { fileURLToPath } from 'node:url';
import { benchKill } from './kill.mjs';
import { benchRestart } from './restart.mjs';
import { main } from './support.mjs';

await main(fileURLToPath(import.meta.url), { restart: benchRestart, kill: benchKill });
