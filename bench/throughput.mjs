/*
 * One stream of 400 MB through a tunnel, either way, beside the same through a plain `ssh -L`; what that costs of CPU; and
 * what an open connection costs of memory.
 */
import { execFile, fork } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import {
  compile,
  end,
  figure,
  isMain,
  loopback,
  main,
  median,
  notMeasured,
  ports,
  round,
  sleep,
  spawnApart,
  startSshd,
  startTarget,
  untilAccepting,
  which,
} from './support.mjs';

const BYTES = 400e6;
const CONNECTIONS = 1000;
const KB_EACH = 64;
const sourcePort = 8081;
const ciphers = { chacha: 'chacha20-poly1305@openssh.com', aes: 'aes128-gcm@openssh.com' };

/**
 * Beside whom each is put, and at least how fast it is to be. OpenSSH takes chacha20-poly1305 by default (up to 9.9, and
 * later where it is given as here), and the embedded engine aes128-gcm: with "its default cipher" it is that one.
 */
const pairs = [
  { name: 'embedded', beside: 'ssh', least: 1.2 },
  { name: 'embedded', beside: 'ssh.aes', least: 1 },
  { name: 'embedded.chacha', beside: 'ssh', least: 1 },
  { name: 'seamless', beside: 'ssh', least: 0.8 },
];

export async function benchThroughput({ n, dir }) {
  if (!which('cc')) return [notMeasured('throughput', 'cc is missing, and the ends of the stream are a C program')];
  const sshd = await startSshd(dir);
  const program = compile('stream', dir);
  const source = spawnApart(program, ['serve', String(sourcePort)], { stdio: 'ignore' });
  await untilAccepting(sourcePort, source);
  const parties = await startParties(sshd.config);
  const figures = [];
  for (const direction of ['down', 'up']) figures.push(...(await measureStreams(program, parties, direction, n)));
  figures.push(await measurePeak(parties.embedded));
  for (const { stop } of Object.values(parties)) await stop();
  await end(source);
  figures.push(...(await measureConnections(sshd.config)));
  await end(sshd.child);
  return figures;
}

async function startParties(config) {
  const common = { remoteHost: 'bench-tunward', remotePort: `${loopback}:${sourcePort}`, sshConfig: config };
  return {
    ssh: await startSsh(config, 9301, ciphers.chacha),
    'ssh.aes': await startSsh(config, 9302, ciphers.aes),
    embedded: await startOpened({ ...common, engine: 'embedded', localPort: 9303 }),
    'embedded.chacha': await startOpened({
      ...common,
      engine: 'embedded',
      localPort: 9304,
      sshOptions: { Ciphers: ciphers.chacha },
    }),
    seamless: await startOpened({
      ...common,
      engine: 'ssh',
      seamless: true,
      localPort: 9305,
      sshOptions: { Ciphers: ciphers.chacha },
    }),
  };
}

async function startSsh(config, port, cipher) {
  const forward = `${loopback}:${port}:${loopback}:${sourcePort}`;
  const words = ['-F', config, '-o', `Ciphers=${cipher}`, '-N', '-L', forward, 'bench-floor'];
  const child = spawnApart(which('ssh'), words, { stdio: 'ignore' });
  await untilAccepting(port, child);
  return { port, pid: child.pid, stop: () => end(child) };
}

async function startOpened(options) {
  const file = fileURLToPath(new URL('opened.mjs', import.meta.url));
  const child = fork(file, [JSON.stringify(options)], { execArgv: ['--expose-gc'], detached: true });
  const [word] = await Promise.race([once(child, 'message'), once(child, 'exit')]);
  if (word !== 'up') throw new Error(`opened.mjs ended (${word}) instead of opening ${JSON.stringify(options)}`);
  const look = async () => {
    child.send('look');
    const [found] = await once(child, 'message');
    return found;
  };
  const stop = async () => {
    const gone = once(child, 'exit');
    child.disconnect();
    await gone;
  };
  return { port: options.localPort, pid: child.pid, look, stop };
}

/** In each round all of them one after another, and then the other way round: whatever drifts, drifts for all alike. */
async function measureStreams(program, parties, direction, n) {
  const names = Object.keys(parties);
  const samples = Object.fromEntries(names.map((name) => [name, { mbPerS: [], cpu: [], seconds: [] }]));
  for (let at = -1; at < n; at++) {
    const sums = Object.fromEntries(names.map((name) => [name, { seconds: 0, cpu: 0 }]));
    for (const name of [...names, ...names.toReversed()]) {
      const { port, pid } = parties[name];
      const before = cpuSeconds(pid);
      sums[name].seconds += await stream(program, direction, port);
      sums[name].cpu += cpuSeconds(pid) - before;
    }
    if (at < 0) continue;
    for (const [name, { seconds, cpu }] of Object.entries(sums)) {
      samples[name].seconds.push(seconds);
      samples[name].mbPerS.push((2 * BYTES) / 1e6 / seconds);
      samples[name].cpu.push(cpu / ((2 * BYTES) / 1e9));
    }
  }
  return [...names.flatMap((name) => partyFigures(name, direction, samples)), ...pairFigures(direction, samples)];
}

function partyFigures(name, direction, samples) {
  const bench = `throughput.${direction}.${name}`;
  return [
    figure(bench, samples[name].mbPerS, { unit: 'MB/s' }),
    figure(`${bench}.cpu`, samples[name].cpu, { unit: 's/GB' }),
  ];
}

/** The ratio is that of each round; of the CPU there is one as well, which a busy machine disturbs less. */
function pairFigures(direction, samples) {
  return pairs.flatMap(({ name, beside, least }) => {
    const [one, other] = [samples[name], samples[beside]];
    const faster = one.seconds.map((seconds, at) => other.seconds[at] / seconds);
    const cheaper = one.cpu.map((cpu, at) => cpu / other.cpu[at]);
    const bench = `throughput.${direction}.${name}/${beside}`;
    const target = { text: `>= ${least} ×`, met: median(faster) >= least };
    return [
      figure(bench, faster, { unit: '×', target }),
      figure(`${bench}.cpu`, cheaper, { unit: '×', note: 'CPU time beside that of the other' }),
    ];
  });
}

async function stream(program, direction, port) {
  const { stdout } = await promisify(execFile)(program, [direction, String(port), String(BYTES)], { timeout: 120_000 });
  return Number(stdout);
}

async function measurePeak({ pid, look }) {
  const { rss } = await look();
  const peak = Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024;
  return figure('throughput.embedded.peak', [peak], {
    unit: 'MB',
    note: `resident at most during all of that; ${round(rss / 2 ** 20, 0)} MB afterwards`,
  });
}

/** What each open connection adds to the process that holds it, when nothing is said any more. */
async function measureConnections(config) {
  const target = await startTarget();
  const common = { remoteHost: 'bench-tunward', remotePort: `${loopback}:${ports.target}`, sshConfig: config };
  const figures = [];
  for (const options of [{ engine: 'embedded' }, { engine: 'ssh', seamless: true }]) {
    const { port, look, stop } = await startOpened({ ...common, ...options, localPort: 9310 });
    const warm = await holdSome(port, 50);
    await sleep(500);
    for (const socket of warm) socket.destroy();
    await untilOpen(look, 0);
    const before = await look();
    const held = await holdSome(port, CONNECTIONS);
    const after = await untilOpen(look, CONNECTIONS);
    const kbEach = (after.rss - before.rss) / 1024 / CONNECTIONS;
    const name = options.seamless ? 'seamless' : 'embedded';
    figures.push(
      figure(`throughput.${name}.connection`, [kbEach], {
        unit: 'KB',
        target: { text: `<= ${KB_EACH} KB`, met: kbEach <= KB_EACH },
        note: `each of ${CONNECTIONS} that are open`,
      }),
    );
    for (const socket of held) socket.destroy();
    await stop();
  }
  target.close();
  return figures;
}

/** Each says one byte, so that all that a connection needs has been made. */
async function holdSome(port, count) {
  const sockets = [];
  for (let at = 0; at < count; at++) {
    const socket = net.connect(port, loopback);
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    socket.write('x');
    sockets.push(socket);
  }
  return sockets;
}

async function untilOpen(look, count) {
  for (const deadline = performance.now() + 60_000; performance.now() < deadline; await sleep(500)) {
    const found = await look();
    if (found.open === count) return look();
  }
  throw new Error(`not ${count} connections are open: ${JSON.stringify(await look())}`);
}

/** User and system time of a process, its threads, and what it has started, by the scheduler's clock of nanoseconds. */
function cpuSeconds(pid) {
  const tasks = path.join('/proc', String(pid), 'task');
  return readdirSync(tasks).reduce((sum, task) => {
    const [onCpu] = readFileSync(path.join(tasks, task, 'schedstat'), 'utf8').split(' ');
    const children = readFileSync(path.join(tasks, task, 'children'), 'utf8')
      .split(' ')
      .filter(Boolean);
    return sum + Number(onCpu) / 1e9 + children.reduce((more, child) => more + cpuSeconds(child), 0);
  }, 0);
}

if (isMain(import.meta)) await main(fileURLToPath(import.meta.url), { throughput: benchThroughput });
