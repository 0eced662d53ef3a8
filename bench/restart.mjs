/*
 * How long a tunnel takes from "restart it" to up: through the daemon's API, beside what it costs at least (a bare ssh
 * from its spawn to its port accepting) and beside the shell remedy. All in one run, in turns.
 */
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { startDaemon } from './daemon.mjs';
import {
  assertIsolated,
  connectOnce,
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
  startIdle,
  startSshd,
  startTarget,
  untilAccepting,
  which,
} from './support.mjs';

const remedy = fileURLToPath(new URL('shell-remedy.sh', import.meta.url));
/** Between two measurements: what the last one left (a session of sshd) has ended. */
const PAUSE_MS = 50;
const remedyHost = 'bench-remedy';

/** Among how many idle processes. The targets are those of an ordinary machine; a crowd shows what grows with it. */
const crowds = [0, 2000];

/** One figure for each engine, with its phases, and how many times faster than the remedy it is. */
export async function benchRestart({ n, dir }) {
  const engines = which('autossh') ? ['ssh', 'autossh'] : ['ssh'];
  const noRemedy = missingForRemedy();
  const sshd = await startSshd(dir);
  const target = await startTarget();
  const figures = [];
  for (const count of crowds) {
    const crowd = await startIdle(count, dir);
    say(`restart: with ${crowd.how} around`);
    figures.push(...(await measureCrowd({ n, dir, engines, noRemedy, config: sshd.config, count })));
    await crowd.stop();
  }
  await end(sshd.child);
  target.close();
  return [
    ...figures,
    ...(engines.includes('autossh') ? [] : [notMeasured('restart.autossh', 'autossh is missing')]),
    ...(noRemedy ? [notMeasured('restart.remedy', noRemedy)] : []),
  ];
}

async function measureCrowd({ n, dir, engines, noRemedy, config, count }) {
  const daemon = await startTunnels(dir, config, engines);
  const floor = createFloor(config);
  const runs = new Map(engines.map((engine) => [engine, []]));
  const floors = [];
  const remedies = [];
  const contenders = [
    async () => floors.push(await floor.measure()),
    ...engines.map((engine) => async () => runs.get(engine).push(await daemon.restart(engine))),
  ];
  // The first of each is thrown away: it compiles, it fills caches, and the remedy has nothing to clean away yet.
  for (const measure of contenders) await measure();
  if (!noRemedy) await measureRemedy(dir, config);
  floors.length = 0;
  for (const list of runs.values()) list.length = 0;
  for (let at = 0; at < n; at++) {
    for (const measure of rotated(contenders, at)) {
      await sleep(PAUSE_MS);
      await measure();
    }
    // It sleeps for two seconds each time: every second round is enough.
    if (!noRemedy && at % 2 === 0) remedies.push({ at, ...(await measureRemedy(dir, config)) });
    // What a failed one leaves would disturb whoever comes next.
    if (remedies.at(-1)?.at === at && remedies.at(-1).failed) await beginRemedyAnew(dir, config);
  }
  daemon.assertNoConflict();
  await floor.stop();
  await daemon.stop();
  const figures = [
    figure('restart.floor', floors, { ratio: 1, beside: 'itself', note: 'bare ssh -N -L, spawn to accepting' }),
    ...engines.flatMap((engine) => engineFigures(engine, runs.get(engine), floors)),
    ...(noRemedy ? [] : remedyFigures(engines, runs, floors, remedies)),
  ];
  if (count === 0) return figures;
  return figures.map(({ target: _ordinary, ...rest }) => ({ ...rest, bench: `${rest.bench}.${count}` }));
}

function engineFigures(engine, runs, floors) {
  const floor = median(floors);
  const limit = round(1.15 * floor + 25, 1);
  const wholes = runs.map(({ wholeMs }) => wholeMs);
  const part = (name, value, note) => figure(`restart.${engine}.${name}`, runs.map(value), { note });
  return [
    figure(`restart.${engine}`, wholes, {
      ratio: round(median(wholes) / floor, 3),
      beside: 'floor',
      target: { text: `<= 1.15 × floor + 25 ms (${limit} ms)`, met: median(wholes) <= limit },
    }),
    part('stop', ({ stopMs }) => stopMs, 'of it: until the old chain was gone'),
    part('free', ({ freeMs }) => freeMs, 'of it: until the port was proved free'),
    part('start', ({ startMs }) => startMs, 'of it: until up'),
    part('api', ({ wholeMs, tookMs }) => wholeMs - tookMs, 'of it: request and answer'),
  ];
}

function remedyFigures(engines, runs, floors, all) {
  const remedies = all.filter(({ failed }) => !failed);
  const failures = all.length - remedies.length;
  const what = `${failures} of ${all.length} did not free the port, and are not counted`;
  if (remedies.length === 0) return [notMeasured('restart.remedy', what)];
  const wholes = remedies.map(({ wholeMs }) => wholeMs);
  const cleans = remedies.map(({ cleanMs }) => cleanMs);
  // Each run of the remedy beside the restart of the same round.
  const times = (engine, of) => remedies.map((remedyRun) => of(remedyRun, runs.get(engine)[remedyRun.at]));
  const ratio = round(median(wholes) / median(floors), 1);
  return [
    figure('restart.remedy', wholes, { ratio, beside: 'floor', ...(failures > 0 ? { note: what } : {}) }),
    figure('restart.remedy.clean', cleans, { note: 'of it: until it thinks the port free' }),
    ...engines.flatMap((engine) => [
      timesFigure(`restart.${engine}.faster`, times(engine, faster), 5),
      timesFigure(`restart.${engine}.clean.faster`, times(engine, cleanFaster), 150),
    ]),
  ];
}

function faster(remedyRun, { wholeMs }) {
  return remedyRun.wholeMs / wholeMs;
}

function cleanFaster(remedyRun, { stopMs, freeMs }) {
  return remedyRun.cleanMs / (stopMs + freeMs);
}

function timesFigure(bench, samples, least) {
  const ratio = median(samples);
  const target = { text: `>= ${least} × as fast as the remedy`, met: ratio >= least };
  return figure(bench, samples, { unit: '×', ratio: round(ratio, 1), beside: 'remedy', target });
}

// --- the floor ---

/** A bare ssh. The one before is ended first, and its end is not in the time. */
function createFloor(config) {
  const forward = `${loopback}:${ports.floor}:${loopback}:${ports.target}`;
  let last;
  return {
    async measure() {
      await this.stop();
      await sleep(PAUSE_MS);
      const began = performance.now();
      last = spawnApart('ssh', ['-F', config, '-N', '-L', forward, 'bench-floor'], { stdio: 'ignore' });
      return (await untilAccepting(ports.floor, last)) - began;
    },
    async stop() {
      if (last) await end(last);
    },
  };
}

// --- tunward ---

/** One tunnel for each engine, named after it. */
async function startTunnels(dir, sshConfig, engines) {
  const tunnels = engines.map((engine) => ({ name: engine, engine, local_port: `${loopback}:${ports[engine]}` }));
  const daemon = startDaemon(dir, { sshConfig, tunnels });
  await daemon.untilUp();
  return {
    ...daemon,
    async restart(engine) {
      const run = await daemon.restart(engine);
      // "Up" must be so: the very first connection has to be accepted.
      await untilAccepting(ports[engine], undefined, 0);
      return run;
    },
  };
}

// --- the shell remedy ---

function missingForRemedy() {
  const needed = ['bash', 'autossh', 'lsof', 'netstat', 'pkill', 'xargs'];
  const missing = needed.filter((program) => which(program) === undefined);
  return missing.length === 0 ? undefined : `${missing.join(', ')} ${missing.length === 1 ? 'is' : 'are'} missing`;
}

/** The script says when it begins and when it thinks the port free; when the port accepts is seen as for everyone. */
async function measureRemedy(dir, config) {
  assertIsolated();
  const env = {
    ...process.env,
    BENCH_ID: 'f00dfacef00dfacef00dfacef00dface',
    BENCH_LISTEN: `${loopback}:${ports.shell}`,
    BENCH_TARGET: `${loopback}:${ports.target}`,
    BENCH_HOST: remedyHost,
    BENCH_CONFIG: config,
    BENCH_LOG: path.join(dir, 'remedy.log'),
  };
  const child = spawnApart('bash', [remedy], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  const moments = {};
  let failed = false;
  for await (const line of createInterface({ input: child.stdout })) {
    moments[line] = performance.now();
    if (line !== 'clean') continue;
    // No handshake is over by now: who accepts is the old ssh, started again in the midst of the kills by its autossh.
    failed = (await connectOnce(ports.shell)) !== undefined;
    break;
  }
  if (moments.clean === undefined) throw new Error('the shell remedy did not come to its end');
  const up = await untilAccepting(ports.shell);
  await end(child);
  return { wholeMs: up - moments.begin, cleanMs: moments.clean - moments.begin, failed };
}

/** Ends every process of the remedy's tunnel, one by one until none is left, and starts one chain that is as it should be. */
async function beginRemedyAnew(dir, config) {
  assertIsolated();
  for (let found = findRemedy(); found.length > 0; found = findRemedy()) {
    for (const pid of found) process.kill(pid, 'SIGKILL');
    await sleep(PAUSE_MS);
  }
  const { failed } = await measureRemedy(dir, config);
  if (failed) throw new Error('the shell remedy does not free a port that nobody holds');
}

function findRemedy() {
  return findProcesses((words) => words.includes(remedyHost));
}

if (isMain(import.meta)) await main(fileURLToPath(import.meta.url), { restart: benchRestart });
