/*
 * How long an autossh and its ssh take from "away with them" to a port proved free: through freePort() (which has to
 * find them first) and killTree(), beside what it costs at least, with few and with many other processes around.
 */
import net from 'node:net';
import { fileURLToPath } from 'node:url';
import { freePort, isPortFree, killTree } from '../lib/index.js';
import {
  childOf,
  crowd,
  end,
  figure,
  findProcesses,
  isMain,
  loopback,
  main,
  median,
  notMeasured,
  ports,
  rotated,
  round,
  say,
  sleep,
  spawnApart,
  startCrowd,
  startIdle,
  startSshd,
  startTarget,
  untilAccepting,
  which,
} from './support.mjs';

/** How many others there are, and what freePort() may take beside them: the last one is the crowded box of the targets. */
const crowds = [
  { name: '', processes: 0, targets: { freePort: 8, killTree: 8 } },
  { name: '.80', processes: 80, targets: { freePort: 12 } },
  { name: '.500', processes: 500, targets: {} },
  { name: '.2000', processes: 2000, targets: {} },
  { name: '.crowded', targets: { freePort: 60 } },
];
/** Nothing that was killed comes back within this time, nor does what started it: autossh takes 14 ms. */
const PAUSE_MS = 40;
const hostName = 'bench-kill';

/** Three figures for each crowd, which shows what grows with it. */
export async function benchKill({ n, dir }) {
  if (!which('autossh')) return [notMeasured('kill', 'autossh is missing')];
  const sshd = await startSshd(dir);
  const target = await startTarget();
  const figures = [];
  for (const { name, processes, targets } of crowds) {
    if (processes === undefined && !which('cc')) {
      figures.push(notMeasured(`kill.freePort${name}`, 'cc is missing, and the crowd is a C program'));
      continue;
    }
    const others = processes === undefined ? await startCrowd(crowd, dir) : await startIdle(processes, dir);
    say(`kill: with ${others.how} around`);
    figures.push(...(await measureCrowd(n, sshd.config, { name, targets })));
    await others.stop();
  }
  await end(sshd.child);
  target.close();
  return figures;
}

async function measureCrowd(n, config, { name, targets }) {
  const samples = { floor: [], freePort: [], killTree: [] };
  const ways = Object.keys(samples);
  // One round more than is counted: the first compiles.
  for (let at = -1; at < n; at++) {
    const chains = await Promise.all(ways.map((_, place) => startChain(ports.chains + place, config)));
    await sleep(PAUSE_MS);
    for (const [place, way] of rotated(ways, at + 1).entries()) {
      const ms = await killers[way](chains[place]);
      await sleep(PAUSE_MS);
      if (at >= 0) samples[way].push(ms);
    }
    assertGone();
  }
  const floor = median(samples.floor);
  return ways.map((way) =>
    figure(`kill.${way}${name}`, samples[way], {
      ratio: round(median(samples[way]) / floor, 2),
      beside: way === 'floor' ? 'itself' : 'floor',
      ...(way === 'floor' ? { note: 'SIGKILL to known pids, then binds until one succeeds' } : {}),
      ...judge(median(samples[way]), targets[way]),
    }),
  );
}

function judge(ms, most) {
  return most === undefined ? {} : { target: { text: `<= ${most} ms`, met: ms <= most } };
}

const killers = {
  /** Both signals in one tick, autossh first: a process with SIGKILL pending never runs again, so it starts nothing. */
  async floor({ autossh, ssh, port }) {
    const began = performance.now();
    process.kill(autossh.pid, 'SIGKILL');
    process.kill(ssh, 'SIGKILL');
    while (!(await canBind(port))) if (performance.now() - began > 5000) throw new Error(`port ${port} is not free`);
    return performance.now() - began;
  },
  async freePort({ port }) {
    const began = performance.now();
    const report = await freePort(port);
    const ms = performance.now() - began;
    if (!report.free || report.kill?.killed.length !== 2) throw new Error(`freePort: ${JSON.stringify(report)}`);
    return ms;
  },
  async killTree({ autossh, port }) {
    const began = performance.now();
    const report = await killTree(autossh.pid);
    while (!(await isPortFree(port))) if (performance.now() - began > 5000) break;
    const ms = performance.now() - began;
    if (report.killed.length !== 2 || report.survivors.length > 0) throw new Error(JSON.stringify(report));
    return ms;
  },
};

/** An autossh as people run it, which starts its ssh again at once when that is killed. */
async function startChain(port, config) {
  const forward = `${loopback}:${port}:${loopback}:${ports.target}`;
  const words = ['-M', '0', '-F', config, '-N', '-o', 'ExitOnForwardFailure=yes', '-L', forward, hostName];
  const env = { ...process.env, AUTOSSH_GATETIME: '0' };
  const autossh = spawnApart('autossh', words, { env, stdio: 'ignore' });
  await untilAccepting(port, autossh);
  const ssh = childOf(autossh.pid);
  if (ssh === undefined) throw new Error(`autossh ${autossh.pid} has no ssh`);
  return { autossh, ssh, port };
}

/** Cheaper than a look at /proc/net/tcp, for which the kernel walks a table of 100,000 buckets or more. */
function canBind(port) {
  const server = net.createServer((stranger) => stranger.destroy());
  return new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen({ host: loopback, port, exclusive: true }, () => {
      server.close();
      resolve(true);
    });
  });
}

/** A time in which somebody was missed, or came back, is worth nothing. */
function assertGone() {
  const left = findProcesses((words) => words.includes(hostName));
  if (left.length > 0) throw new Error(`still there, or again: ${left.join(', ')}`);
}

if (isMain(import.meta)) await main(fileURLToPath(import.meta.url), { kill: benchKill });
