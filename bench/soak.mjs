/*
 * 1,000 restarts of one tunnel in a row, and what the daemon has after each tenth of them: descriptors, memory, listeners,
 * zombies. Nothing of that may grow.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { startDaemon } from './daemon.mjs';
import {
  end,
  figure,
  isMain,
  loopback,
  main,
  median,
  ports,
  round,
  say,
  sleep,
  startSshd,
  startTarget,
} from './support.mjs';

const RESTARTS = 1000;
const PARTS = 10;
/** What is kept (the last events, the last logs) is full by then, and everything compiled. */
const WARM_UP = 100;

export async function benchSoak({ n, dir }) {
  const each = Math.max(1, Math.round((RESTARTS / PARTS) * (n / 12)));
  const sshd = await startSshd(dir);
  const target = await startTarget();
  const tunnels = [{ name: 'soak', local_port: `${loopback}:${ports.ssh}` }];
  const daemon = startDaemon(dir, { sshConfig: sshd.config, tunnels });
  await daemon.untilUp();
  await restart(daemon, Math.min(WARM_UP, each));
  const took = [];
  const stocks = [await takeStock(daemon.pid)];
  for (let part = 1; part <= PARTS; part++) {
    took.push(...(await restart(daemon, each)));
    stocks.push(await takeStock(daemon.pid));
    say(`soak: after ${part * each} restarts ${JSON.stringify(stocks.at(-1))}`);
  }
  daemon.assertNoConflict();
  await daemon.stop();
  await end(sshd.child);
  target.close();
  return figuresOf(took, stocks, each);
}

async function restart(daemon, times) {
  const took = [];
  for (let number = 0; number < times; number++) took.push((await daemon.restart('soak')).wholeMs);
  return took;
}

/** When the last connection, the last session of sshd and the last of the dead have gone. */
async function takeStock(pid) {
  await sleep(1000);
  const rows = ['tcp', 'tcp6'].flatMap((table) => readFileSync(`/proc/net/${table}`, 'latin1').split('\n'));
  return {
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    listeners: rows.filter((row) => /^ *\d+: \S+ \S+ 0A /.test(row)).length,
    zombies: childrenOf(pid).filter((child) => stateOf(child) === 'Z').length,
    rssMb: round(Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))[1]) / 1024, 1),
  };
}

/** By all of its threads. */
function childrenOf(pid) {
  return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, 'latin1').split(' ').filter(Boolean),
  );
}

function stateOf(pid) {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  return text.charAt(text.lastIndexOf(')') + 2);
}

function figuresOf(took, stocks, each) {
  const half = took.length / 2;
  const ratio = round(median(took.slice(half)) / median(took.slice(0, half)), 3);
  const flat = (name, unit) => {
    const samples = stocks.map((stock) => stock[name]);
    const changes = samples.slice(1).map((sample, at) => sample - samples[at]);
    const text = `the same after each ${each}`;
    return figure(`soak.${name}`, samples, { unit, target: { text, met: changes.every((change) => change === 0) } });
  };
  const memory = stocks.map(({ rssMb }) => rssMb);
  const [early, late] = [memory.slice(0, 6), memory.slice(5)];
  return [
    figure('soak.restart', took, { ratio, beside: 'the first half', note: `${took.length} in a row` }),
    flat('descriptors', ''),
    flat('listeners', ''),
    flat('zombies', ''),
    figure('soak.rss', memory, {
      unit: 'MB',
      // The heap breathes: what grows without end would be in every one of the later samples.
      target: {
        text: 'the least of the second half <= the most of the first',
        met: Math.min(...late) <= Math.max(...early),
      },
    }),
  ];
}

if (isMain(import.meta)) await main(fileURLToPath(import.meta.url), { soak: benchSoak });
