/*
 * Who holds a port, on a crowded box: findListeners() beside the same look-up in C and beside the tools that people use
 * for it, each started as they start it. And what a look at the LISTEN rows costs where there are connections by the thousand.
 */
import { createRequire } from 'node:module';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { findListeners } from '../lib/index.js';
import { confirmListeners, readListeners } from '../lib/proc/net.js';
import { openProc } from '../lib/proc/read.js';
import { createSlice } from '../lib/time.js';
import {
  compile,
  crowd,
  figure,
  isMain,
  main,
  median,
  notMeasured,
  peersFolder,
  rotated,
  round,
  run,
  say,
  sleep,
  startCrowd,
  which,
} from './support.mjs';

const FLOOR_TARGET = 1.4;
const DELAY_TARGET_MS = 15;
const EARLY_TARGET = 20;
/** Held by two processes. */
const port = crowd.port + crowd.listeners - 1;

export async function benchHolders({ n, dir }) {
  const floor = compile('floor', dir);
  if (!floor) return [notMeasured('holders', 'cc is missing, and the crowd and the floor are C programs')];
  const box = await startCrowd(crowd, dir);
  say(`holders: with ${box.how} around`);
  const looks = { floor: () => lookByFloor(floor), tunward: lookByTunward, ...tools(), ...(await libraries()) };
  const figures = [...(await measureLooks(n, looks)), ...(await measureTables(n))];
  await box.stop();
  return figures;
}

async function measureLooks(n, looks) {
  const samples = Object.fromEntries(Object.keys(looks).map((name) => [name, []]));
  const delays = [];
  for (let at = -1; at < n; at++) {
    for (const name of inTurn(Object.keys(looks), at + 1)) {
      const { ms, pids } = await looks[name]();
      if (pids.length === 0) throw new Error(`${name} found nobody on port ${port}`);
      if (name === 'tunward' && pids.length !== 2) throw new Error(`found ${pids.length} holders of 2`);
      if (at >= 0) samples[name].push({ ms, holders: pids.length });
    }
    const delayMs = await measureTurns();
    if (at >= 0) delays.push(delayMs);
  }
  const ms = (name) => samples[name].map((sample) => sample.ms);
  const ours = median(ms('tunward'));
  const figures = Object.keys(looks).map((name) => {
    if (name === 'floor') return figure('holders.floor', ms(name), { ratio: 1, beside: 'itself', note: 'floor.c' });
    if (name !== 'tunward') return describePeer(name, samples[name], ours);
    // Round by round, since a machine that is shared is now quick and now slow.
    const ratio = round(median(ms('tunward').map((sample, at) => sample / ms('floor')[at])), 2);
    const target = { text: `<= ${FLOOR_TARGET} × floor, and the quickest`, met: ratio <= FLOOR_TARGET && isQuickest() };
    return figure('holders.tunward', ms(name), { ratio, beside: 'floor', target });
  });
  const target = { text: `<= ${DELAY_TARGET_MS} ms`, met: median(delays) <= DELAY_TARGET_MS };
  return [...figures, figure('holders.tunward.loop', delays, { target, note: 'the longest turn of a look-up' })];

  function isQuickest() {
    return Object.keys(looks).every((name) => name === 'floor' || name === 'tunward' || median(ms(name)) > ours);
  }
}

/** Another order each round, in which the floor and tunward stay neighbours. */
function inTurn(names, by) {
  const [floor, tunward, ...peers] = names;
  return rotated([by % 2 === 0 ? [floor, tunward] : [tunward, floor], ...peers], by).flat();
}

function describePeer(name, samples, ours) {
  const ms = samples.map((sample) => sample.ms);
  const holders = Math.min(...samples.map((sample) => sample.holders));
  const note = holders === 2 ? 'names both holders' : 'names one of two holders';
  return figure(`holders.${name}`, ms, { ratio: round(median(ms) / ours, 2), beside: 'tunward', note });
}

async function lookByTunward() {
  const began = performance.now();
  const listeners = await findListeners(port);
  const ms = performance.now() - began;
  return { ms, pids: listeners.flatMap(({ holders }) => holders.map(({ pid }) => pid)) };
}

/** Another look, since a monitor that looks at the clock each millisecond costs time itself. */
async function measureTurns() {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  await findListeners(port);
  await sleep(5); // so that the last turn is counted too
  delay.disable();
  return round(delay.max / 1e6);
}

function lookByFloor(program) {
  const { ms, holders } = JSON.parse(run(program, [String(port)]));
  return { ms, pids: Array.from({ length: holders }) };
}

/** The programs, with the words that people give them, and the pids in what they say. */
function tools() {
  const known = {
    ss: [['-Hltnp', `sport = :${port}`], /pid=(\d+)/g],
    fuser: [[`${port}/tcp`], /\b(\d+)\b/g],
    netstat: [['-ltnp'], new RegExp(`:${port}\\s.*?(\\d+)/\\S+`, 'g')],
    lsof: [['-nP', '-t', `-iTCP:${port}`, '-sTCP:LISTEN'], /(\d+)/g],
  };
  const found = {};
  for (const [name, [words, pattern]] of Object.entries(known)) {
    const program = which(name);
    if (!program) say(`holders.${name}: not measured, it is missing`);
    else
      found[name] = () => {
        const began = performance.now();
        const text = run(program, words);
        const ms = performance.now() - began;
        return { ms, pids: [...text.matchAll(pattern)].map(([, pid]) => Number(pid)) };
      };
  }
  return found;
}

/** What Node programs import for it, from the peers' own folder. */
async function libraries() {
  const load = async (name) => {
    const require = createRequire(`${peersFolder()}/package.json`);
    return import(pathToFileURL(require.resolve(name)).href);
  };
  const known = {
    'find-process': async () => {
      const { default: find } = await load('find-process');
      return async () => (await (find.default ?? find)('port', port)).map(({ pid }) => pid);
    },
    'pid-port': async () => {
      const { portToPid } = await load('pid-port');
      return async () => [await portToPid(port)];
    },
  };
  const found = {};
  for (const [name, prepare] of Object.entries(known)) {
    try {
      const look = await prepare();
      found[name] = async () => {
        const began = performance.now();
        const pids = await look();
        return { ms: performance.now() - began, pids };
      };
    } catch (error) {
      if (!/MODULE_NOT_FOUND|PATH_NOT_EXPORTED/.test(error.code)) throw error;
      say(`holders.${name}: not measured, it is not installed (npm ci --prefix bench/peers)`);
    }
  }
  return found;
}

/** The LISTEN rows by stopping early, and by reading the tables to their end. */
async function measureTables(n) {
  const proc = openProc();
  const early = [];
  const whole = [];
  for (let at = -1; at < n; at++) {
    const began = performance.now();
    const found = readListeners(proc, port).length;
    const between = performance.now();
    const confirmed = (await confirmListeners(proc, port, createSlice())).length;
    const ended = performance.now();
    if (found !== 1 || confirmed !== 1) throw new Error(`the tables name ${found} and ${confirmed} listeners of 1`);
    if (at < 0) continue;
    early.push(between - began);
    whole.push(ended - between);
  }
  const ratio = round(median(whole) / median(early), 0);
  const target = { text: `whole >= ${EARLY_TARGET} × early`, met: ratio >= EARLY_TARGET };
  return [
    figure('holders.table.early', early, { ratio: 1, beside: 'itself' }),
    figure('holders.table.whole', whole, { ratio, beside: 'early', target }),
  ];
}

if (isMain(import.meta)) await main(fileURLToPath(import.meta.url), { holders: benchHolders });
