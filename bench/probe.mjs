/*
 * Whether a port can be bound, beside a bare bind, on a crowded box; and what `import 'tunward'` adds to a program.
 */
import net from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { isPortFree } from '../lib/index.js';
import {
  crowd,
  figure,
  isMain,
  loopback,
  main,
  median,
  notMeasured,
  rotated,
  round,
  run,
  say,
  startCrowd,
  which,
} from './support.mjs';

const IMPORT_MS = 25;
const IMPORT_MB = 6;
const freePort = 16_999;

export async function benchProbe({ n, dir }) {
  return [...(await measureProbes(n, dir)), ...measureImport(n)];
}

async function measureProbes(n, dir) {
  if (!which('cc')) return [notMeasured('probe', 'cc is missing, and the crowd is a C program')];
  const box = await startCrowd(crowd, dir);
  say(`probe: with ${box.how} around`);
  const ways = {
    'probe.floor': () => canBind(freePort),
    'probe.free': () => isPortFree(freePort),
    'probe.free.host': () => isPortFree(freePort, { host: loopback }),
    'probe.held': async () => !(await isPortFree(crowd.port)),
  };
  const samples = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
  // One probe takes a fraction of a millisecond, so many make a sample.
  for (let at = -1; at < n; at++) {
    for (const name of rotated(Object.keys(ways), at + 1)) {
      const began = performance.now();
      for (let probe = 0; probe < 20; probe++) if (!(await ways[name]())) throw new Error(`${name} is wrong`);
      if (at >= 0) samples[name].push((performance.now() - began) / 20);
    }
  }
  await box.stop();
  const floor = median(samples['probe.floor']);
  return Object.entries(samples).map(([name, ms]) =>
    figure(name, ms, { ratio: round(median(ms) / floor), beside: 'floor' }),
  );
}

function canBind(port) {
  const server = net.createServer((stranger) => stranger.destroy());
  return new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen({ host: loopback, port, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** The same program with the import and without it, each a process of its own. */
function measureImport(n) {
  const say = 'process.stdout.write(String(process.memoryUsage.rss()));';
  const library = path.join(path.dirname(fileURLToPath(import.meta.url)), '../lib/index.js');
  const programs = { empty: say, tunward: `import '${library}'; ${say}` };
  const ms = { empty: [], tunward: [] };
  const mb = { empty: [], tunward: [] };
  for (let at = -1; at < n; at++) {
    for (const name of rotated(['empty', 'tunward'], at + 1)) {
      const began = performance.now();
      const rss = Number(run(process.execPath, ['--input-type=module', '-e', programs[name]]));
      if (at < 0) continue;
      ms[name].push(performance.now() - began);
      mb[name].push(rss / 2 ** 20);
    }
  }
  const added = (samples) => samples.tunward.map((sample) => sample - median(samples.empty));
  const judge = (samples, most, unit) => ({
    unit,
    target: { text: `<= ${most} ${unit}`, met: median(added(samples)) <= most },
    note: 'more than an empty program',
  });
  return [
    figure('import.time', added(ms), judge(ms, IMPORT_MS, 'ms')),
    figure('import.memory', added(mb), judge(mb, IMPORT_MB, 'MB')),
  ];
}

if (isMain(import.meta)) await main(fileURLToPath(import.meta.url), { probe: benchProbe });
