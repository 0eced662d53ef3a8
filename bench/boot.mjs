/*
 * How long it takes until 200 tunnels to one server are up: `tunward up`, from its start as a process, beside as many bare
 * ssh with the same words, so many at once. How many are logging in at once is what sshd itself counts, in its title.
 */
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from 'node:fs';
import path from 'node:path';
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
  rotated,
  round,
  say,
  sleep,
  spawnApart,
  startSshd,
  startTarget,
} from './support.mjs';

const TUNNELS = 200;
const PER_HOST = 8;
/** How often it is looked whether somebody listens. */
const LOOK_MS = 10;
const FIRST_PORT = 10_000;
const LIMIT = 1.15;

export async function benchBoot({ n, dir }) {
  const rounds = Math.max(1, Math.round(n / 4));
  const target = await startTarget();
  const figures = await measureBoots(dir, rounds);
  figures.push(...(await measureThrottled(dir)));
  target.close();
  return figures;
}

async function measureBoots(dir, rounds) {
  const sshd = await startSshd(makeFolder(dir, 'sshd'));
  const samples = { bare: [], tunward: [] };
  const most = { bare: [], tunward: [] };
  for (let at = 0; at < rounds; at++) {
    for (const name of rotated(['bare', 'tunward'], at)) {
      const startups = watchStartups(sshd.child.pid);
      const boot = name === 'bare' ? bootBare : bootTunward;
      const ms = await boot(makeFolder(dir, `${name}-${at}`), sshd.config);
      samples[name].push(ms);
      most[name].push(startups.stop());
      say(`boot: ${TUNNELS} by ${name} in ${round(ms)} ms, at most ${most[name].at(-1)} logging in at once`);
      await untilListeners(0);
    }
  }
  await end(sshd.child);
  const ratio = round(median(samples.tunward.map((ms, at) => ms / samples.bare[at])), 3);
  const what = `${TUNNELS} × ssh -N -L, ${PER_HOST} at once, spawn of the first to the LISTEN socket of the last`;
  return [
    figure('boot.bare', samples.bare, { ratio: 1, beside: 'itself', note: what }),
    figure('boot.tunward', samples.tunward, {
      ...{ ratio, beside: 'bare' },
      target: { text: `<= ${LIMIT} × bare`, met: ratio <= LIMIT },
    }),
    figure('boot.bare.logins', most.bare, { unit: 'at once', note: 'as sshd counts them' }),
    figure('boot.tunward.logins', most.tunward, {
      unit: 'at once',
      target: { text: `<= ${PER_HOST} (per_host)`, met: Math.max(...most.tunward) <= PER_HOST },
    }),
  ];
}

/** A server as it is installed, which drops some of those who come while ten are logging in. */
async function measureThrottled(dir) {
  const sshd = await startSshd(makeFolder(dir, 'throttled'), { maxStartups: '10:30:100' });
  await bootTunward(makeFolder(dir, 'tunward-throttled'), sshd.config);
  const dropped = sshd.log().match(/^(drop connection|beginning MaxStartups throttling).*$/gm) ?? [];
  await untilListeners(0);
  await end(sshd.child);
  const target = { text: '0 by MaxStartups 10:30:100', met: dropped.length === 0 };
  return [figure('boot.tunward.dropped', [dropped.length], { unit: 'connections', target })];
}

/** Until all are up by the daemon's word, which is checked: each port is listened on by a process of its own chain. */
async function bootTunward(dir, sshConfig) {
  const tunnels = Array.from({ length: TUNNELS }, (_, at) => ({ name: `t${at}`, local_port: FIRST_PORT + at }));
  const began = performance.now();
  const daemon = startDaemon(dir, { sshConfig, tunnels });
  await untilListeners(TUNNELS);
  const list = await daemon.untilUp({ everyMs: LOOK_MS });
  const took = performance.now() - began;
  const failures = list.filter(({ restarts, attempt }) => restarts !== 0 || attempt !== 0);
  if (failures.length > 0) throw new Error(`${failures.length} tunnels needed more than one attempt`);
  assertTrue(list);
  daemon.assertNoConflict();
  await daemon.stop(60_000);
  return took;
}

/** Up must be so: of each tunnel both LISTEN sockets belong to a process of its chain. */
function assertTrue(list) {
  const rows = [...listenRows('tcp'), ...listenRows('tcp6')];
  for (const { name, listen, chain } of list) {
    const held = new Set(chain.flatMap(({ pid }) => socketsOf(pid)));
    const own = rows.filter(({ port, inode }) => port === listen[0].port && held.has(inode));
    if (own.length !== 2) throw new Error(`${name} is up, and its chain has ${own.length} LISTEN sockets`);
  }
}

/** Each is ready when it listens on 127.0.0.1: ssh binds ::1 in the next microseconds, and one table is quicker read than two. */
async function bootBare(_dir, sshConfig) {
  const began = performance.now();
  const children = [];
  for (let ready = 0; ready < TUNNELS; await sleep(LOOK_MS)) {
    ready = listenRows('tcp').length;
    for (let starting = children.length - ready; starting < PER_HOST && children.length < TUNNELS; starting++) {
      children.push(spawnApart('ssh', bareWords(sshConfig, FIRST_PORT + children.length), { stdio: 'ignore' }));
    }
  }
  const took = performance.now() - began;
  if (listenRows('tcp6').length !== TUNNELS) throw new Error('a bare ssh does not listen on both addresses');
  await Promise.all(children.map((child) => end(child)));
  return took;
}

/** What tunward gives its own. */
function bareWords(sshConfig, port) {
  const options = [
    ...['ControlMaster=no', 'ControlPersist=no', 'ExitOnForwardFailure=yes', 'ClearAllForwardings=no'],
    ...['PermitLocalCommand=no', 'BatchMode=yes', 'LogLevel=INFO', 'ForkAfterAuthentication=no'],
    ...['ServerAliveInterval=15', 'ServerAliveCountMax=3', 'ConnectTimeout=10'],
  ];
  const target = `${loopback}:${ports.target}`;
  return [
    ...['-N', '-T', '-S', 'none', '-F', sshConfig, ...options.flatMap((option) => ['-o', option])],
    ...['-L', `127.0.0.1:${port}:${target}`, '-L', `[::1]:${port}:${target}`, 'bench-bare'],
  ];
}

/**
 * The tunnels' LISTEN sockets that there are in one of the kernel's tables. They stand first in it, and are read one by one:
 * whoever asks for more at a time makes the kernel look through its hash of connections, 5 ms, and this is done every 10.
 */
function listenRows(table) {
  const fd = openSync(`/proc/net/${table}`, 'r');
  const row = Buffer.alloc(150);
  let text = '';
  try {
    for (let size = -1; size !== 0 && !/^ *\d+: \S+ \S+ 0[1-9B-C] /m.test(text.slice(-400)); ) {
      size = readSync(fd, row);
      text += row.toString('latin1', 0, size);
    }
  } finally {
    closeSync(fd);
  }
  const rows = [...text.matchAll(/^ *\d+: [0-9A-F]+:([0-9A-F]{4}) \S+ 0A (?:\S+ +){5}(\d+)/gm)];
  return rows
    .map(([, port, inode]) => ({ port: Number.parseInt(port, 16), inode: Number(inode) }))
    .filter(({ port }) => port >= FIRST_PORT && port < FIRST_PORT + TUNNELS);
}

async function untilListeners(count, timeoutMs = 120_000) {
  for (const deadline = performance.now() + timeoutMs; listenRows('tcp').length !== count; await sleep(50)) {
    if (performance.now() > deadline) throw new Error(`there are not ${count} listeners after ${timeoutMs} ms`);
  }
}

function socketsOf(pid) {
  const links = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
  return links.flatMap((link) => /^socket:\[(\d+)\]$/.exec(link)?.slice(1).map(Number) ?? []);
}

/** Looks again and again at how many are logging in, as the title of sshd says: `… [listener] 3 of 10-100 startups`. */
function watchStartups(pid) {
  let most = 0;
  const timer = setInterval(() => {
    const title = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
    most = Math.max(most, Number(/ (\d+) of \d+-\d+ startups/.exec(title)?.[1] ?? 0));
  }, 2);
  return {
    stop() {
      clearInterval(timer);
      return most;
    },
  };
}

function makeFolder(dir, name) {
  const folder = path.join(dir, name);
  mkdirSync(folder, { mode: 0o700 });
  return folder;
}

if (isMain(import.meta)) await main(fileURLToPath(import.meta.url), { boot: benchBoot });
