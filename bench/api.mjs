/*
 * The API of a daemon with 500 tunnels: the list of them for 50 clients at once, a change of state for 200 readers of
 * events, and a restart in the middle of all that. Beside it a server of nothing but node:http that sends the same bytes.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { startDaemon } from './daemon.mjs';
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
const CLIENTS = 50;
const SECONDS = 2;
const TURNS = 5;
const READERS = 200;
const LIST_P99_MS = 25;
const EVENT_P99_MS = 50;
const TIMES_ALONE = 1.2;
const PAUSE_MS = 100;

export async function benchApi({ n, dir }) {
  const sshd = await startSshd(dir);
  const target = await startTarget();
  const daemon = await startMany(dir, sshd.config);
  const url = `http://${loopback}:${ports.api}/v1/tunnels`;
  const token = readFileSync(path.join(dir, 'state', 'token'), 'utf8').trim();
  const at = { url, headers: { authorization: `Bearer ${token}` } };
  const floor = await startFloor(dir, at);
  const figures = [...(await measureLists(at, floor)), ...(await measureChanges(daemon, at, n))];
  daemon.assertNoConflict();
  await daemon.stop(120_000);
  await end(floor.child);
  await end(sshd.child);
  target.close();
  return figures;
}

async function startMany(dir, sshConfig) {
  const tunnels = Array.from({ length: TUNNELS }, (_, at) => ({ name: `t${at}`, local_port: FIRST_PORT + at }));
  const api = { socket: path.join(dir, 'api.sock'), listen: ports.api };
  const daemon = startDaemon(dir, { sshConfig, tunnels, keys: { api } });
  await daemon.untilUp({ timeoutMs: 300_000, everyMs: 500 });
  say(`api: ${TUNNELS} tunnels are up`);
  await sleep(5000); // what the start has left over
  return daemon;
}

/** The same bytes from a server that does nothing else, in a process of its own. */
async function startFloor(dir, { url, headers }) {
  const answer = await fetch(url, { headers: { ...headers, 'accept-encoding': 'identity' } });
  if (answer.status !== 200) throw new Error(`GET ${url}: ${answer.status} ${await answer.text()}`);
  const files = { plain: path.join(dir, 'list.json'), gzip: path.join(dir, 'list.json.gz') };
  writeFileSync(files.plain, Buffer.from(await answer.arrayBuffer()));
  writeFileSync(files.gzip, gzipSync(readFileSync(files.plain), { level: 1 }));
  const child = spawnApart(process.execPath, ['-e', floorScript, files.plain, files.gzip, String(ports.floor)], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  await untilAccepting(ports.floor, child);
  const bytes = Object.values(files).map((file) => readFileSync(file).length);
  return { child, url: `http://${loopback}:${ports.floor}/`, bytes };
}

const floorScript = `
  const [plain, zipped] = process.argv.slice(1, 3).map((file) => require('node:fs').readFileSync(file));
  require('node:http').createServer((request, response) => {
    const isZipped = /gzip/.test(request.headers['accept-encoding'] ?? '');
    const body = isZipped ? zipped : plain;
    const more = isZipped ? { 'content-encoding': 'gzip' } : {};
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length, ...more }).end(body);
  }).listen(Number(process.argv[3]), '127.0.0.1');
`;

/** 50 clients, each of which asks again as soon as it has its answer; ten seconds of it, in turns with the floor. */
async function measureLists({ url, headers }, floor) {
  const figures = [];
  for (const [suffix, encoding] of Object.entries({ '': 'gzip', '.plain': 'identity' })) {
    const sent = { ...headers, 'accept-encoding': encoding };
    await checkList(url, sent);
    const contenders = { floor: floor.url, list: url };
    const found = { floor: [], list: [] };
    for (const [name, to] of Object.entries(contenders)) found[name].push(await cannon(to, sent));
    for (const list of Object.values(found)) list.pop();
    for (let turn = 0; turn < TURNS; turn++) {
      for (const name of rotated(Object.keys(contenders), turn)) found[name].push(await cannon(contenders[name], sent));
    }
    const bytes = floor.bytes[encoding === 'gzip' ? 1 : 0];
    figures.push(
      ...loadFigures(`api.list${suffix}.floor`, found.floor, { note: `a bare node:http with the same ${bytes} bytes` }),
      ...loadFigures(`api.list${suffix}`, found.list, { floor: found.floor, isJudged: encoding === 'gzip' }),
    );
  }
  return figures;
}

/** Of each turn autocannon has the percentiles. */
function loadFigures(bench, turns, { floor, isJudged, note }) {
  const [p50, p99, max] = ['p50', 'p99', 'max'].map((name) => turns.map(({ latency }) => latency[name]));
  const rates = turns.map(({ requests }) => requests.average);
  const beside = (list, name) => {
    if (!floor) return {};
    const ratios = list.map((value, at) => value / Math.max(1, name(floor[at])));
    return { ratio: round(median(ratios)), beside: 'floor' };
  };
  const target = { text: `p99 <= ${LIST_P99_MS} ms`, met: median(p99) <= LIST_P99_MS };
  return [
    figure(bench, p50, { ...beside(p50, ({ latency }) => latency.p50), ...(note ? { note } : {}) }),
    figure(`${bench}.p99`, p99, { ...beside(p99, ({ latency }) => latency.p99), ...(isJudged ? { target } : {}) }),
    figure(
      `${bench}.max`,
      max,
      beside(max, ({ latency }) => latency.max),
    ),
    figure(`${bench}.rate`, rates, { unit: 'answers/s', ...beside(rates, ({ requests }) => requests.average) }),
  ];
}

async function checkList(url, headers) {
  const answer = await fetch(url, { headers });
  const { tunnels } = await answer.json();
  if (answer.status !== 200 || tunnels.length !== TUNNELS) throw new Error(`GET ${url}: ${answer.status}`);
}

/** autocannon in a process of its own; `rate`: so many requests a second by all clients, instead of as many as they can. */
async function cannon(url, headers, { seconds = SECONDS, rate } = {}) {
  const options = { url, headers, connections: CLIENTS, duration: seconds, ...(rate ? { overallRate: rate } : {}) };
  const program = fileURLToPath(new URL('./cannon.mjs', import.meta.url));
  const child = spawn(process.execPath, [program, JSON.stringify(options)], { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk) => {
    text += chunk;
  });
  const [code] = await once(child, 'close');
  const result = code === 0 ? JSON.parse(text) : undefined;
  if (!result || result.errors > 0 || result.non2xx > 0 || result.timeouts > 0) {
    throw new Error(`autocannon of ${url}: exit code ${code}, ${text.slice(0, 500)}`);
  }
  return result;
}

/** Restarts, alone and in the middle of the load, and how soon 200 readers hear of each change. */
async function measureChanges(daemon, at, n) {
  const readers = await startReaders(at);
  const restarts = { alone: [], busy: [], asking: [] };
  const heard = { alone: [], busy: [], asking: [] };
  const loads = {
    alone: () => undefined,
    asking: (seconds) => cannon(at.url, { ...at.headers, 'accept-encoding': 'gzip' }, { seconds, rate: CLIENTS }),
    busy: (seconds) => cannon(at.url, { ...at.headers, 'accept-encoding': 'gzip' }, { seconds }),
  };
  for (let turn = 0; turn < n; turn++) {
    for (const load of rotated(Object.keys(loads), turn)) {
      const loading = loads[load](2);
      await sleep(400); // it has begun
      const name = `t${Math.floor(TUNNELS / 2) + (turn % 3)}`;
      const { wholeMs } = await daemon.restart(name);
      restarts[load].push(wholeMs);
      await loading;
      await sleep(PAUSE_MS);
      heard[load].push(...(await readers.take()));
    }
  }
  await readers.stop();
  return [...restartFigures(restarts), ...eventFigures(heard)];
}

function restartFigures({ alone, asking, busy }) {
  const ratioOf = (list) => round(median(list.map((ms, at) => ms / alone[at])), 3);
  const ratio = ratioOf(asking);
  return [
    figure('api.restart.alone', alone, { note: `${READERS} readers of events, and nobody who asks` }),
    figure('api.restart', asking, {
      ...{ ratio, beside: 'alone', note: `while ${CLIENTS} clients ask for the list once a second each` },
      target: { text: `<= ${TIMES_ALONE} × alone`, met: ratio <= TIMES_ALONE },
    }),
    figure('api.restart.full', busy, {
      ...{ ratio: ratioOf(busy), beside: 'alone' },
      note: `while ${CLIENTS} clients ask as fast as they can, which takes every core of a small machine`,
    }),
  ];
}

function eventFigures(heard) {
  const percentile = (list, share) => [...list].sort((a, b) => a - b)[Math.floor(share * (list.length - 1))];
  const names = { alone: 'api.events', asking: 'api.events.asked', busy: 'api.events.full' };
  return Object.entries(heard).flatMap(([load, list]) => {
    const bench = names[load];
    const p99 = round(percentile(list, 0.99));
    const target = { text: `p99 <= ${EVENT_P99_MS} ms`, met: p99 <= EVENT_P99_MS };
    return [
      figure(bench, list, { note: `from the moment of a change to its receipt, ${READERS} readers` }),
      { ...figure(`${bench}.p99`, list, load === 'busy' ? {} : { target }), p50: p99 },
    ];
  });
}

/** 200 connections in a process of their own: bench/readers.mjs. */
async function startReaders({ url, headers }) {
  const program = fileURLToPath(new URL('./readers.mjs', import.meta.url));
  const events = new URL('/v1/events?type=tunnel', url);
  const words = [program, String(READERS), events.href, headers.authorization];
  const child = spawnApart(process.execPath, words, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  await lines.next(); // all are connected
  return {
    /** What has been heard since the last time: milliseconds. */
    async take() {
      child.stdin.write('take\n');
      const { heard, kinds } = JSON.parse((await lines.next()).value);
      if (heard.length < READERS * 3 || kinds !== 3)
        throw new Error(`${heard.length} events of ${kinds} kinds were heard`);
      return heard;
    },
    stop: () => end(child),
  };
}

if (isMain(import.meta)) await main(fileURLToPath(import.meta.url), { api: benchApi });
