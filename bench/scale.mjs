/*
 * A daemon with 500 tunnels: what it uses while nothing happens, how long `tunward ls` takes, and whether one of them is
 * restarted as fast as if it were alone.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { ask, command, startDaemon } from './daemon.mjs';
import {
  end,
  figure,
  isMain,
  loopback,
  main,
  median,
  ports,
  rotated,
  round,
  say,
  sleep,
  spawnApart,
  startSshd,
  startTarget,
  untilAccepting,
} from './support.mjs';

const TUNNELS = 500;
const FIRST_PORT = 10_000;
const RSS_MB = 150;
const IDLE_PERCENT = 2;
const LS_MS = 100;
const TIMES_ALONE = 1.2;
/** The kernel counts CPU time in ticks of 10 ms: a share is that of some seconds. */
const IDLE_SAMPLES = 6;
const IDLE_MS = 5000;
const PAUSE_MS = 50;

export async function benchScale({ n, dir }) {
  const sshd = await startSshd(dir);
  const target = await startTarget();
  const restarts = { floor: [], alone: [], crowd: [] };
  const half = Math.ceil(n / 2);
  await measureRestarts(makeFolder(dir, 'before'), sshd.config, { count: 1, n: half, into: restarts, as: 'alone' });
  const figures = await measureCrowd(makeFolder(dir, 'crowd'), sshd.config, { n, restarts });
  await measureRestarts(makeFolder(dir, 'after'), sshd.config, { count: 1, n: half, into: restarts, as: 'alone' });
  await end(sshd.child);
  target.close();
  return [...figures, ...restartFigures(restarts)];
}

async function measureCrowd(dir, config, { n, restarts }) {
  const daemon = start(dir, config, TUNNELS);
  await daemon.untilUp({ timeoutMs: 300_000, everyMs: 500 });
  say(`scale: ${TUNNELS} tunnels are up`);
  await sleep(IDLE_MS); // what the start has left over, and what was put off
  const figures = await measureIdle(daemon.pid);
  figures.push(...(await measureList(daemon, n)));
  await restartSome(daemon, config, { count: TUNNELS, n, into: restarts, as: 'crowd' });
  const began = performance.now();
  daemon.assertNoConflict();
  await daemon.stop(120_000);
  figures.push(figure('scale.stop', [performance.now() - began], { note: `SIGTERM to the end of all ${TUNNELS}` }));
  return figures;
}

async function measureIdle(pid) {
  const cpu = [];
  const rss = [];
  for (let at = 0; at < IDLE_SAMPLES; at++) {
    const [ticks, began] = [cpuTicks(pid), performance.now()];
    await sleep(IDLE_MS);
    cpu.push(((cpuTicks(pid) - ticks) * 10 * 100) / (performance.now() - began));
    rss.push(rssMb(pid));
  }
  return [
    figure('scale.rss', rss, {
      unit: 'MB',
      target: { text: `<= ${RSS_MB} MB`, met: median(rss) <= RSS_MB },
      note: `the daemon itself, ${readdirSync(`/proc/${pid}/fd`).length} descriptors`,
    }),
    figure('scale.idle', cpu, {
      unit: '% of a core',
      target: { text: `< ${IDLE_PERCENT} %`, met: median(cpu) < IDLE_PERCENT },
    }),
  ];
}

/** The whole command, from its start as a process to its end, beside an empty program. */
async function measureList({ file, socket }, n) {
  const ways = {
    'scale.node': ['-e', '0'],
    'scale.ls': [command, 'ls', '-c', file],
    'scale.ls.socket': [command, 'ls', '--socket', socket],
    'scale.version': [command, '--version'],
  };
  const samples = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
  const answers = [];
  for (let at = -1; at < n; at++) {
    for (const name of rotated(Object.keys(ways), at + 1)) {
      await sleep(PAUSE_MS);
      const ms = await timeNode(ways[name]);
      if (at >= 0) samples[name].push(ms);
    }
    await sleep(PAUSE_MS);
    const began = performance.now();
    await ask(socket, 'GET', '/v1/tunnels');
    if (at >= 0) answers.push(performance.now() - began);
  }
  const floor = median(samples['scale.node']);
  const figures = Object.entries(samples).map(([name, ms]) =>
    figure(name, ms, {
      ...{ ratio: round(median(ms) / floor), beside: 'node' },
      ...(name === 'scale.ls' ? { target: { text: `< ${LS_MS} ms`, met: median(ms) < LS_MS } } : {}),
    }),
  );
  return [...figures, figure('scale.ls.answer', answers, { note: 'of it: from the request to the end of the answer' })];
}

async function timeNode(words) {
  const began = performance.now();
  const child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] });
  let lines = 0;
  child.stdout.on('data', (chunk) => {
    lines += chunk.toString('latin1').split('\n').length - 1;
  });
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`${words.join(' ')} ended with ${code}`);
  if (words.includes('ls') && lines !== TUNNELS + 1) throw new Error(`ls has said ${lines} lines`);
  return performance.now() - began;
}

async function measureRestarts(dir, config, run) {
  const daemon = start(dir, config, run.count);
  await daemon.untilUp();
  await restartSome(daemon, config, run);
  await daemon.stop();
}

/** Restarts of one tunnel, and in turns with them bare ssh, so that it is seen what the machine itself did meanwhile. */
async function restartSome(daemon, config, { count, n, into, as }) {
  const contenders = [
    async () => into.floor.push(await measureFloor(config)),
    async () => {
      const { wholeMs, stopMs, freeMs } = await daemon.restart(`t${Math.floor(count / 2)}`);
      await untilAccepting(FIRST_PORT + Math.floor(count / 2), undefined, 0);
      into[as].push({ wholeMs, cleanMs: stopMs + freeMs });
    },
  ];
  for (const measure of contenders) await measure();
  into.floor.pop();
  into[as].pop();
  for (let at = 0; at < n; at++) {
    for (const measure of rotated(contenders, at)) {
      await sleep(PAUSE_MS);
      await measure();
    }
  }
}

async function measureFloor(config) {
  const forward = `${loopback}:${ports.floor}:${loopback}:${ports.target}`;
  const began = performance.now();
  const child = spawnApart('ssh', ['-F', config, '-N', '-L', forward, 'bench-floor'], { stdio: 'ignore' });
  const took = (await untilAccepting(ports.floor, child)) - began;
  await end(child);
  return took;
}

function restartFigures({ floor, ...runs }) {
  const [alone, crowd] = [runs.alone, runs.crowd].map((list) => list.map(({ wholeMs }) => wholeMs));
  const [aloneClean, crowdClean] = [runs.alone, runs.crowd].map((list) => list.map(({ cleanMs }) => cleanMs));
  const ratio = round(median(crowd) / median(alone), 3);
  const cleanRatio = round(median(crowdClean) / median(aloneClean), 2);
  return [
    figure('scale.restart.floor', floor, { note: 'bare ssh -N -L, spawn to accepting' }),
    figure('scale.restart.alone', alone, { ratio: round(median(alone) / median(floor), 3), beside: 'floor' }),
    figure('scale.restart', crowd, {
      ...{ ratio, beside: 'alone' },
      target: { text: `<= ${TIMES_ALONE} × alone`, met: ratio <= TIMES_ALONE },
    }),
    figure('scale.restart.alone.clean', aloneClean, { note: 'of it: the old chain gone, the port proved free' }),
    figure('scale.restart.clean', crowdClean, { ratio: cleanRatio, beside: 'alone.clean' }),
  ];
}

function start(dir, sshConfig, count) {
  const tunnels = Array.from({ length: count }, (_, at) => ({ name: `t${at}`, local_port: FIRST_PORT + at }));
  return startDaemon(dir, { sshConfig, tunnels });
}

/** User and system time, the fields 14 and 15. */
function cpuTicks(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1].split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

function rssMb(pid) {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))[1]) / 1024;
}

function makeFolder(dir, name) {
  const folder = path.join(dir, name);
  mkdirSync(folder, { mode: 0o700 });
  return folder;
}

if (isMain(import.meta)) await main(fileURLToPath(import.meta.url), { scale: benchScale });
