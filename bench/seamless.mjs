/*
 * What clients notice of a seamless tunnel: 200 of them ask through it, over a connection for each request, while it is
 * restarted again and again, and while its link is cut off. And how long many tunnels take that share one connection.
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
const CUTS = 20;
/** After a restart, for the link before it to be idle and ended; and after a cut, for those who waited to have their answers. */
const CALM_MS = 500;
/**
 * How long each client pauses between two requests, on average, while links are cut off: some 900 requests a second. 200
 * that never pause take both cores of a small machine, and one of their requests then takes longer than a handshake (75 ms
 * in the middle, 120 at the 99th percentile; 38 for the handshake) also when nothing happens: whatever a link that is lost
 * adds to that, it says more of the queue for the processor than of how long nobody could be carried.
 */
const THINK_MS = 200;
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
  const restarts = await measureRestarts(engine, daemon);
  const cuts = await measureCuts(engine, { daemon, sshd });
  daemon.assertNoConflict();
  await daemon.stop();
  return [...restarts, ...cuts];
}

/** By clients that never pause. */
async function measureRestarts(engine, daemon) {
  const load = startLoad(ports.chains, 0);
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
  const all = await load.end();
  const failed = all.filter(([, , how]) => how !== 'ok');
  const still = quantile(overlapping(all, quiet), 0.99);
  const moved = quantile(overlapping(all, busy), 0.99);
  return [
    figure(`seamless.${engine}.failed`, [failed.length], {
      unit: `of ${all.length} requests`,
      target: { text: '0 refused or failed in 100 restarts', met: failed.length === 0 },
    }),
    figure(`seamless.${engine}.p99`, [moved], {
      ratio: round(moved / still, 2),
      beside: `p99 without restarts (${round(still)} ms)`,
      target: { text: '<= 1.3 × p99 without restarts', met: moved <= 1.3 * still },
    }),
    figure(`seamless.${engine}.handshake.full`, handshakes, {
      note: 'of it: until the new link is up, under this load',
    }),
  ];
}

async function measureCuts(engine, { daemon, sshd }) {
  const paced = await cutAgainAndAgain(daemon, sshd, THINK_MS);
  const full = await cutAgainAndAgain(daemon, sshd, 0);
  const wrong = paced.wrong + full.wrong;
  const ratio = ratioOf(paced.rounds, 'waitMs');
  const beside = 'handshake';
  return [
    figure(`seamless.${engine}.handshake`, samplesOf(paced.rounds, 'handshakeMs'), { note: 'in turns with the cuts' }),
    figure(`seamless.${engine}.down`, samplesOf(paced.rounds, 'downMs'), {
      ...{ ratio: ratioOf(paced.rounds, 'downMs'), beside },
    }),
    figure(`seamless.${engine}.cut`, samplesOf(paced.rounds, 'waitMs'), {
      ...{ ratio, beside },
      ...(engine === 'embedded' ? { target: { text: '<= 1.5 × handshake', met: ratio <= 1.5 } } : {}),
    }),
    figure(`seamless.${engine}.cut.full`, samplesOf(full.rounds, 'waitMs'), {
      ...{ ratio: ratioOf(full.rounds, 'waitMs'), beside },
      note: 'the same by clients that never pause',
    }),
    figure(`seamless.${engine}.wrong`, [wrong], {
      unit: `of ${paced.count + full.count} requests`,
      target: { text: '0 refused, truncated, or failed without a cut', met: wrong === 0 },
    }),
    ...(paced.lost.length > 0 ? [figure(`seamless.${engine}.lost`, paced.lost, { note: 'until they were told' })] : []),
  ];
}

/**
 * The link is cut off, and there is no other. For each time: how long requests took (p99) that came while there was none, or
 * were on their way into it. Beside it the handshake: what a restart takes, in turns with the cuts and under the same load,
 * until its link is up.
 *
 * Those whose connection went through the link that was cut off go with it, whatever comes after (`lost`): they wait for
 * nothing, and what counts for them is when they are told.
 */
async function cutAgainAndAgain(daemon, sshd, pauseMs) {
  const load = startLoad(ports.chains, pauseMs);
  const handshakes = [];
  const cuts = [];
  await sleep(QUIET_MS);
  for (let cut = 0; cut < CUTS; cut++) {
    handshakes.push((await daemon.restart('web')).startMs);
    await sleep(CALM_MS);
    cuts.push(await cutOff(daemon, sshd));
    await sleep(CALM_MS);
  }
  const all = await load.end();
  const well = all.filter(([, , how]) => how === 'ok');
  const lost = overlapping(
    all.filter(([, , how]) => how === 'cut'),
    cuts,
  );
  const rounds = cuts.map((cut, at) => ({
    handshakeMs: handshakes[at],
    downMs: cut.to - cut.from,
    waitMs: quantile(overlapping(well, [cut]), 0.99),
  }));
  return {
    // Where all that were there went with the link, and were told after the next one was up, nobody has waited for it.
    rounds: rounds.filter(({ waitMs }) => !Number.isNaN(waitMs)),
    lost,
    wrong: all.length - well.length - lost.length,
    count: all.length,
  };
}

function samplesOf(rounds, name) {
  return rounds.map((round) => round[name]);
}

/** To the handshake, pair by pair. */
function ratioOf(rounds, name) {
  return round(median(rounds.map((one) => one[name] / one.handshakeMs)), 2);
}

/**
 * Kills what the server has for this connection, and waits until the tunnel is up anew: from when to when there was no link.
 * By the daemon's own word, so that it need not be asked all the time: that alone would be work for it.
 */
async function cutOff(daemon, sshd) {
  const [before] = await daemon.list();
  const from = performance.timeOrigin + performance.now();
  for (const pid of sessionsOf(sshd.child.pid)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      if (error.code !== 'ESRCH') throw error; // it has ended with the one before it
    }
  }
  for (const deadline = performance.now() + CUT_DEADLINE_MS; performance.now() < deadline; ) {
    await sleep(50);
    const [now] = (await daemon.list()) ?? [];
    if (now?.state === 'up' && now.restarts > before.restarts) return { from, to: Date.parse(now.last_restart.at) };
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

function startLoad(port, pauseMs) {
  const child = spawn(process.execPath, [requests, port, CLIENTS, pauseMs].map(String), {
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
  });
  await daemon.untilUp({ timeoutMs: 60_000, everyMs: 20 });
  return daemon;
}

if (isMain(import.meta)) await main(fileURLToPath(import.meta.url), { seamless: benchSeamless });
