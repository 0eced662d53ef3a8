/*
 * What clients notice of a seamless tunnel: 200 of them ask through it without a pause, over a connection for each request,
 * while it is restarted again and again, and while its link is cut off. And how long many tunnels take that share one
 * connection.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { startDaemon } from './daemon.mjs';
import {
  childOf,
  end,
  figure,
  isMain,
  loopback,
  main,
  median,
  ports,
  round,
  sleep,
  startSshd,
  which,
} from './support.mjs';

const requests = fileURLToPath(new URL('requests.mjs', import.meta.url));
const CLIENTS = 200;
/** Rounds of a quiet time and of restarts in turns; 100 restarts in all. */
const ROUNDS = 5;
const RESTARTS = 20;
const QUIET_MS = 1500;
/** Between two restarts, so that an answer to one is not the time of the next. */
const PAUSE_MS = 100;
const CUTS = 10;
const STABLE_MS = 500;
/** A tunnel that is cut off is up again within a second; one that is not will not be. */
const CUT_DEADLINE_MS = 30_000;

export async function benchSeamless({ dir, n }) {
  const sshd = await startSshd(dir);
  const target = http.createServer((_request, answer) => answer.end('served'));
  await new Promise((resolve) => target.listen(ports.target, loopback, resolve));
  const engines = ['embedded', 'ssh', ...(which('autossh') ? ['autossh'] : [])];
  const figures = [];
  for (const engine of engines) figures.push(...(await measureEngine(engine, { dir: path.join(dir, engine), sshd })));
  figures.push(...(await measureShare({ dir: path.join(dir, 'share'), sshd, n })));
  await end(sshd.child);
  target.close();
  return figures;
}

async function measureEngine(engine, { dir, sshd }) {
  const daemon = await startOne(dir, {
    sshd,
    tunnels: [{ name: 'web', local_port: `${loopback}:${ports.chains}`, engine, seamless: true }],
  });
  await daemon.restart('web');
  const load = startLoad(ports.chains);
  const quiet = [];
  const busy = [];
  const handshakes = [];
  await sleep(QUIET_MS);
  for (let round = 0; round < ROUNDS; round++) {
    quiet.push(await during(() => sleep(QUIET_MS)));
    for (let restart = 0; restart < RESTARTS; restart++) {
      busy.push(await during(async () => handshakes.push((await daemon.restart('web')).startMs)));
      await sleep(PAUSE_MS);
    }
  }
  const cuts = [];
  for (let cut = 0; cut < CUTS; cut++) {
    // Until it has proved stable: then it is tried again at once.
    await sleep(STABLE_MS + 1500);
    cuts.push(await during(() => cutOff(daemon, sshd)));
  }
  const all = await load.end();
  daemon.assertNoConflict();
  await daemon.stop();
  const [first] = cuts;
  // Those that were under way when the link was cut off went with it.
  const orderly = all.filter(([began, took]) => began + took < first.from);
  const failed = orderly.filter(([, , how]) => how !== 'ok');
  const refused = all.filter(([, , how]) => how === 'refused' || how === 'truncated');
  const still = quantile(overlapping(orderly, quiet), 0.99);
  const moved = quantile(overlapping(orderly, busy), 0.99);
  const waited = overlapping(all, cuts).filter((ms) => ms > 0);
  const handshake = median(handshakes);
  return [
    figure(`seamless.${engine}.failed`, [failed.length], {
      unit: `of ${orderly.length} requests`,
      target: { text: '0 refused or failed in 100 restarts', met: failed.length === 0 },
    }),
    figure(`seamless.${engine}.p99`, [moved], {
      ratio: round(moved / still, 2),
      beside: `p99 without restarts (${round(still)} ms)`,
      target: { text: '<= 1.3 × p99 without restarts', met: moved <= 1.3 * still },
    }),
    figure(`seamless.${engine}.handshake`, handshakes, { note: 'of it: until the new link is up, under this load' }),
    figure(`seamless.${engine}.cut`, [quantile(waited, 0.99)], {
      ratio: round(quantile(waited, 0.99) / handshake, 2),
      beside: 'handshake',
      ...(engine === 'embedded'
        ? { target: { text: '<= 1.5 × handshake', met: quantile(waited, 0.99) <= 1.5 * handshake } }
        : {}),
      note: `p99 of requests while the link was cut off ${CUTS} times; ${refused.length} refused or truncated`,
    }),
  ];
}

/** Kills what the server has for this connection, and waits until the tunnel is up anew. */
async function cutOff(daemon, sshd) {
  const [before] = await daemon.list();
  for (const pid of sessionsOf(sshd.child.pid)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      if (error.code !== 'ESRCH') throw error; // it has ended with the one before it
    }
  }
  for (const deadline = performance.now() + CUT_DEADLINE_MS; performance.now() < deadline; ) {
    await sleep(2);
    const [now] = (await daemon.list()) ?? [];
    if (now?.state === 'up' && now.restarts > before.restarts) return;
  }
  throw new Error(`the tunnel is not up ${CUT_DEADLINE_MS} ms after it was cut off`);
}

function sessionsOf(pid) {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((one) => {
      try {
        return Number(readFileSync(`/proc/${one}/stat`, 'utf8').split(') ')[1].split(' ')[1]) === pid;
      } catch {
        return false; // it has ended meanwhile
      }
    })
    .flatMap((one) => [childOf(one) ?? one, one]);
}

async function during(act) {
  const from = performance.timeOrigin + performance.now();
  await act();
  return { from, to: performance.timeOrigin + performance.now() };
}

/** How long the requests took that were under way in one of these times. */
function overlapping(found, times) {
  return found
    .filter(([began, took]) => times.some(({ from, to }) => began < to && began + took > from))
    .map(([, took]) => took);
}

function quantile(samples, share) {
  const sorted = [...samples].sort((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

function startLoad(port) {
  const child = spawn(process.execPath, [requests, String(port), String(CLIENTS)], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  return {
    end: () =>
      new Promise((resolve, reject) => {
        child.once('message', resolve).once('error', reject);
        child.send('end');
      }),
  };
}

/** 100 tunnels to one host beside one; and what a daemon with 1,000 has. */
async function measureShare({ dir, sshd, n }) {
  const make = (count) =>
    Array.from({ length: count }, (_, at) => ({
      name: `t${at}`,
      local_port: `${loopback}:${ports.chains + at}`,
      engine: 'embedded',
    }));
  const one = [];
  const many = [];
  for (let at = 0; at < n; at++) {
    one.push(await startOfAll(path.join(dir, `one${at}`), { sshd, tunnels: make(1) }));
    many.push(await startOfAll(path.join(dir, `many${at}`), { sshd, tunnels: make(100) }));
  }
  const limit = round(1.5 * median(one) + 100, 1);
  const memory = await memoryOf(path.join(dir, 'thousand'), { sshd, tunnels: make(1000) });
  return [
    figure('share.one', one, { note: 'one tunnel: from its start to up, by the daemon’s events' }),
    figure('share.hundred', many, {
      ratio: round(median(many) / median(one), 2),
      beside: 'one',
      target: { text: `<= 1.5 × one + 100 ms (${limit} ms)`, met: median(many) <= limit },
    }),
    figure('share.memory', [memory], {
      unit: 'MB',
      target: { text: '<= 200 MB with 1,000 tunnels', met: memory <= 200 },
      note: 'VmRSS of the daemon',
    }),
  ];
}

/** From the first `starting` to the last `up`, as the daemon says. */
async function startOfAll(dir, { sshd, tunnels }) {
  const daemon = await startOne(dir, { sshd, tunnels });
  const found = await daemon.list();
  await daemon.stop();
  const starts = found.map(({ last_restart: { at, took_ms: tookMs } }) => ({
    up: Date.parse(at),
    began: Date.parse(at) - tookMs,
  }));
  return Math.max(...starts.map(({ up }) => up)) - Math.min(...starts.map(({ began }) => began));
}

async function memoryOf(dir, { sshd, tunnels }) {
  const daemon = await startOne(dir, { sshd, tunnels });
  await sleep(2000);
  const [, kb] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${daemon.pid}/status`, 'utf8'));
  await daemon.stop();
  return round(Number(kb) / 1024, 1);
}

async function startOne(dir, { sshd, tunnels }) {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const daemon = startDaemon(dir, {
    sshConfig: sshd.config,
    tunnels,
    keys: { backoff: { min_ms: 1000, max_ms: 60_000, stable_ms: STABLE_MS } },
  });
  await daemon.untilUp({ timeoutMs: 60_000, everyMs: 20 });
  return daemon;
}

if (isMain(import.meta)) await main(fileURLToPath(import.meta.url), { seamless: benchSeamless });
