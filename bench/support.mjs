/*
 * What the benches share: the namespace they run in, an SSH server of their own, medians, and how a figure is printed.
 */
import { execFileSync, spawn } from 'node:child_process';
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

export { sleep };

/** Everything listens in a network namespace of its own, so the ports can be fixed. */
export const ports = {
  sshd: 2022,
  target: 8080,
  floor: 9001,
  ssh: 9002,
  autossh: 9003,
  shell: 9004,
  chains: 9100,
  api: 9200,
};
export const loopback = '127.0.0.1';

/**
 * Runs benches as a command of their own: goes into namespaces, measures, prints one JSON line a figure on stdout and a
 * table on stderr. A missed target is said and is no failure: the exit code tells whether there was a measurement.
 *
 * @param {Record<string, (options: {n: number, dir: string}) => Promise<Figure[]>>} benches
 */
export async function main(file, benches) {
  const { n, help, names } = readOptions(Object.keys(benches));
  if (help) {
    const choice = Object.keys(benches).length > 1 ? ` [${Object.keys(benches).join('|')}]...` : '';
    return say(`Usage: node ${path.relative(process.cwd(), file)}${choice} [--n ROUNDS]   (default ${defaultRounds})`);
  }
  if (!isInside()) {
    process.exitCode = await enterNamespaces(file);
    return;
  }
  assertIsolated();
  assertLoopback();
  say(describeMachine());
  const figures = [];
  for (const name of names) {
    const began = performance.now();
    const dir = path.join(process.env[folderVariable], name);
    mkdirSync(dir, { mode: 0o700 });
    for (const figure of await benches[name]({ n, dir })) {
      figures.push(figure);
      if (figure.p50 !== undefined) process.stdout.write(`${JSON.stringify(toRecord(figure))}\n`);
    }
    say(`${name}: ${round((performance.now() - began) / 1000, 1)} s`);
  }
  say(renderTable(figures));
  // A child that hangs must not keep us: the end of the namespace is the end of everything in it.
  process.exit(0);
}

export function isMain(meta) {
  return process.argv[1] !== undefined && path.resolve(process.argv[1]) === fileURLToPath(meta.url);
}

const defaultRounds = 12;

function readOptions(known) {
  const options = { n: { type: 'string' }, help: { type: 'boolean', short: 'h' } };
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  const unknown = positionals.filter((name) => !known.includes(name));
  if (unknown.length > 0) throw new RangeError(`There is no bench '${unknown[0]}': expected ${known.join(', ')}`);
  const n = Number(values.n ?? defaultRounds);
  if (!Number.isInteger(n) || n < 1 || n > 1000) throw new RangeError(`--n: expected 1 to 1000, found '${values.n}'`);
  return { n, help: values.help, names: positionals.length > 0 ? positionals : known };
}

// --- the namespace ---

/** In the command line of the namespace's pid 1, where nobody has it by accident. */
const initName = 'tunward-bench-init';
const outerVariable = 'TUNWARD_BENCH_OUTER';
const folderVariable = 'TUNWARD_BENCH_DIR';

function isInside() {
  return process.env[outerVariable] !== undefined;
}

/** Runs the same command again, in network, mount and PID namespaces; when it ends, all that it started ends. */
async function enterNamespaces(file) {
  const missing = ['unshare', 'ip', 'ssh', 'sshd', 'ssh-keygen'].filter((program) => which(program) === undefined);
  if (process.getuid?.() !== 0) {
    say('not measured: the benches kill without bounds, so they run in namespaces of their own, and that takes root.');
    say(`Run it as root: sudo ${process.execPath} ${process.argv.slice(1).join(' ')}`);
    return 1;
  }
  if (missing.length > 0) {
    const why = missing.includes('ip') ? ' (ip, of iproute2, brings the loopback of the namespace up)' : '';
    say(`not measured: ${missing.join(', ')} missing on PATH${why}`);
    return 1;
  }
  const dir = mkdtempSync(path.join(os.tmpdir(), 'tunward-bench-'));
  const script = `${which('ip')} link set lo up || exit 97; "$@" & wait $!`;
  const command = ['/bin/sh', '-c', script, initName, process.execPath, file, ...process.argv.slice(2)];
  const flags = ['-n', '-m', '-p', '-f', '--mount-proc', '--kill-child'];
  const env = { ...process.env, [outerVariable]: namespaces().join(' '), [folderVariable]: dir };
  const child = spawn(which('unshare'), [...flags, ...command], { env, stdio: ['ignore', 'inherit', 'inherit'] });
  const forward = () => child.kill('SIGKILL');
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(name, forward);
  try {
    return await new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code) => {
        if (code === 97) say('not measured: ip could not bring the loopback of the namespace up');
        resolve(code ?? 1);
      });
    });
  } finally {
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Throws unless nobody but the bench can be seen, reached or killed from here. The variable alone proves nothing. */
export function assertIsolated() {
  const init = readFileSync('/proc/1/cmdline', 'utf8').split('\0');
  const outer = (process.env[outerVariable] ?? '').split(' ');
  const isOwn = namespaces().every((name, at) => outer[at] !== undefined && outer[at] !== '' && outer[at] !== name);
  const others = Object.keys(os.networkInterfaces()).filter((name) => name !== 'lo');
  if (init.includes(initName) && isOwn && others.length === 0) return;
  throw new Error('refused: this kills without bounds, and is not in namespaces that the bench made for itself');
}

function namespaces() {
  return ['pid', 'net', 'mnt'].map((kind) => readlinkSync(`/proc/self/ns/${kind}`));
}

function assertLoopback() {
  if (os.networkInterfaces().lo?.some(({ address }) => address === loopback)) return;
  throw new Error('the loopback of the namespace is not up: ip link set lo up did nothing');
}

// --- programs ---

export function which(program) {
  const folders = [...(process.env.PATH ?? '').split(path.delimiter), '/usr/sbin', '/sbin'];
  return folders.map((folder) => path.join(folder, program)).find(isExecutable);
}

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Starts somebody who is measured, or serves those who are: in a session of its own, as a tunnel of tunward is. Linux shares
 * the processors out by session (autogroup), so that on a busy machine the same ssh takes twice as long in a crowded one.
 */
export function spawnApart(program, words, options) {
  return spawn(program, words, { ...options, detached: true });
}

/** Ends a child by its id and waits until it is reaped; who is asked politely and does not hear is killed after some time. */
export async function end(child, signal = 'SIGKILL', timeoutMs = 5000) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill(signal);
  const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
  await gone;
  clearTimeout(timer);
}

/**
 * A real OpenSSH server with throwaway keys; `ssh -F config bench-<anything>` logs in without a question. Each party has
 * a host name of its own, since the shell remedy kills by it. `maxStartups`: how many may be logging in at once.
 */
export async function startSshd(dir, { maxStartups = '1000' } = {}) {
  const at = (name) => path.join(dir, name);
  for (const key of ['host_key', 'user_key']) {
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'tunward-bench', '-f', at(key)]);
  }
  const write = (name, lines) => writeFileSync(at(name), `${lines.join('\n')}\n`, { mode: 0o600 });
  write('authorized_keys', [readFileSync(at('user_key.pub'), 'utf8').trim()]);
  write('known_hosts', [`[${loopback}]:${ports.sshd} ${readFileSync(at('host_key.pub'), 'utf8').trim()}`]);
  write('ssh_config', [
    'Host bench-*',
    `  HostName ${loopback}`,
    `  Port ${ports.sshd}`,
    '  User root',
    `  IdentityFile ${at('user_key')}`,
    '  IdentitiesOnly yes',
    `  UserKnownHostsFile ${at('known_hosts')}`,
  ]);
  const lines = [
    `ListenAddress ${loopback}:${ports.sshd}`,
    `HostKey ${at('host_key')}`,
    `AuthorizedKeysFile ${at('authorized_keys')}`,
    `PidFile ${at('sshd.pid')}`,
    'PasswordAuthentication no',
    'PermitRootLogin prohibit-password',
    'StrictModes no',
    'UsePAM no',
    `MaxStartups ${maxStartups}`,
  ];
  mkdirSync('/run/sshd', { recursive: true, mode: 0o755 });
  write('sshd_config', lines);
  const knows = /^persourcepenalties\b/im.test(run(which('sshd'), ['-T', '-f', at('sshd_config')]));
  if (knows) write('sshd_config', [...lines, 'PerSourcePenalties no']);
  const child = spawnApart(which('sshd'), ['-D', '-f', at('sshd_config'), '-E', at('sshd.log')], { stdio: 'ignore' });
  await untilAccepting(ports.sshd, child);
  return { child, config: at('ssh_config'), log: () => readFileSync(at('sshd.log'), 'utf8') };
}

/** What a program says. What else it has to say is its own affair: lsof warns of folders, ss of columns. */
export function run(program, words) {
  return execFileSync(program, words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], maxBuffer: 2 ** 26 });
}

/** What the tunnels lead to: accepts, and says nothing. */
export async function startTarget() {
  const server = net.createServer((socket) => socket.on('error', () => socket.destroy()).resume());
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(ports.target, loopback, resolve);
  });
  return server;
}

/** Resolves with the moment at which a connection to the port was accepted. */
export async function untilAccepting(port, child, timeoutMs = 15_000) {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const at = await connectOnce(port);
    if (at !== undefined) return at;
    if (child && (child.exitCode !== null || child.signalCode !== null)) {
      throw new Error(`${child.spawnfile} ended (${child.exitCode ?? child.signalCode}) before port ${port} accepted`);
    }
    if (performance.now() > deadline) throw new Error(`port ${port} does not accept after ${timeoutMs} ms`);
    await sleep(1);
  }
}

/** The moment at which it was accepted, if it was. Leaves no socket behind: the shell remedy kills the clients of a port, and that would be the bench itself. */
export function connectOnce(port) {
  return new Promise((resolve) => {
    let at;
    const socket = net.connect(port, loopback, () => {
      at = performance.now();
      socket.destroy();
    });
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(at));
  });
}

/** The first child of a process, as the kernel lists them. */
export function childOf(pid) {
  const file = `/proc/${pid}/task/${pid}/children`;
  const [child] = existsSync(file) ? readFileSync(file, 'utf8').split(' ').filter(Boolean) : [];
  return child === undefined ? undefined : Number(child);
}

/** The pids whose command line is as wanted; the dead that nobody has reaped yet have none. */
export function findProcesses(isWanted) {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => isWanted(readWords(pid)));
}

function readWords(pid) {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return []; // it has ended meanwhile
  }
}

/** The C programs of this folder. Undefined where there is no compiler. */
export function compile(name, dir) {
  const compiler = which('cc');
  if (!compiler) return undefined;
  const program = path.join(dir, name);
  const source = fileURLToPath(new URL(`${name}.c`, import.meta.url));
  execFileSync(compiler, ['-O2', '-o', program, source], { stdio: ['ignore', 'inherit', 'inherit'] });
  return program;
}

/** The crowded box of the targets: 75,000 descriptors, and two for each connection. */
export const crowd = { processes: 2000, descriptors: 37, connections: 15_000, listeners: 60, port: 17_000 };

/** Starts a crowd, by crowd.c: only for who has a compiler. */
export async function startCrowd({ processes, descriptors, connections, listeners, port }, dir) {
  const words = [processes, descriptors, connections, listeners, port].map(String);
  const child = spawn(compile('crowd', dir), words, { stdio: ['ignore', 'pipe', 'inherit'] });
  await untilReady(child, `a crowd of ${words.join(' ')}`);
  const how = `${processes} processes with ${descriptors} descriptors each, ${connections} connections, ${listeners} listeners`;
  return { how, stop: () => endAll(child) };
}

/** So many processes that do nothing. A small C program makes them where there is a compiler, and sleep(1) elsewhere. */
export async function startIdle(count, dir) {
  if (count === 0) return { how: 'nobody else', stop: async () => undefined };
  if (which('cc')) {
    const box = await startCrowd({ processes: count, descriptors: 0, connections: 0, listeners: 0, port: 0 }, dir);
    return { ...box, how: `${count} idle processes (forks of a C program)` };
  }
  const child = startSleeps(count);
  await untilReady(child, `${count} idle processes`);
  const stop = async () => {
    process.kill(-child.pid, 'SIGKILL'); // the sleeps are its group
    await endAll(child);
  };
  return { how: `${count} idle processes (sleep(1), as there is no cc)`, stop };
}

async function untilReady(child, what) {
  await new Promise((resolve, reject) => {
    child.stdout.once('data', resolve);
    child.once('exit', () => reject(new Error(`could not start ${what}`)));
  });
}

/** The crowd dies with its parent, which takes a moment. */
async function endAll(child) {
  await end(child);
  await sleep(500);
}

function startSleeps(count) {
  const script = 'n=0; while [ $n -lt "$1" ]; do sleep 86400 >/dev/null & n=$((n+1)); done; echo ready; wait';
  return spawn('/bin/sh', ['-c', script, 'sh', String(count)], {
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  });
}

/** Where the peers are installed by `npm ci --prefix bench/peers`. */
export function peersFolder() {
  return fileURLToPath(new URL('peers', import.meta.url));
}

// --- figures ---

/**
 * @typedef {object} Figure
 * @property {string} bench which one, `restart.ssh`
 * @property {string} [unit]
 * @property {number} [p50] the figure; not there: not measured, and `note` says why
 * @property {number} [min]
 * @property {number} [max]
 * @property {number} [n]
 * @property {number} [ratio] to `beside`
 * @property {string} [beside] whatever the ratio is to, measured in the same run
 * @property {{text: string, met: boolean}} [target]
 * @property {string} [note]
 */

/** A figure out of samples: its median is what counts, its extremes say how noisy the machine was. */
export function figure(bench, samples, rest = {}) {
  const { unit = 'ms', ...others } = rest;
  return {
    bench,
    unit,
    n: samples.length,
    p50: round(median(samples)),
    min: round(Math.min(...samples)),
    max: round(Math.max(...samples)),
    ...others,
  };
}

export function notMeasured(bench, why) {
  return { bench, note: `not measured: ${why}` };
}

export function median(samples) {
  const sorted = [...samples].sort((one, other) => one - other);
  const middle = sorted.length / 2;
  return Number.isInteger(middle) ? (sorted[middle - 1] + sorted[middle]) / 2 : sorted[Math.floor(middle)];
}

export function round(value, digits = 2) {
  return Number(value.toFixed(digits));
}

/** The same things in another order each round, so that none always comes after the same one. */
export function rotated(things, by) {
  const at = by % things.length;
  return [...things.slice(at), ...things.slice(0, at)];
}

function toRecord({ bench, unit, ratio = null, n, p50, min, max, beside = null, target, note }) {
  const judged = target ? { target: target.text, met: target.met } : {};
  return { bench, figure: p50, unit, ratio, n, p50, min, max, beside, ...judged, ...(note ? { note } : {}) };
}

function renderTable(figures) {
  const rows = figures.map(({ bench, unit = '', n, p50, min, max, ratio, beside, target, note = '' }) =>
    p50 === undefined
      ? [bench, note, '', '', '', '']
      : [
          bench,
          `${p50} ${unit}`,
          `${min} to ${max}, n ${n}`,
          ratio === undefined ? '' : `${ratio} × ${beside}`,
          target?.text ?? '',
          target ? (target.met ? 'met' : 'MISSED') : note,
        ],
  );
  const table = [['bench', 'median', 'range', 'ratio', 'target', ''], ...rows];
  const widths = table[0].map((_, column) =>
    Math.max(...table.filter((row) => row[2] !== '').map((row) => row[column].length)),
  );
  const lines = table.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]))
      .join('  ')
      .trimEnd(),
  );
  const judged = figures.filter(({ target }) => target);
  const missed = judged.filter(({ target }) => !target.met).map(({ bench }) => bench);
  const verdict =
    missed.length > 0 ? `${missed.length} missed: ${missed.join(', ')}` : 'every target that was measured is met';
  const unmeasured = figures.filter(({ p50 }) => p50 === undefined).map(({ bench }) => bench);
  const rest = unmeasured.length > 0 ? `; not measured, and so not judged: ${unmeasured.join(', ')}` : '';
  return `\n${lines.join('\n')}\n\n${judged.length} targets measured, ${verdict}${rest}`;
}

function describeMachine() {
  const ssh = execFileSync('sh', ['-c', 'ssh -V 2>&1'], { encoding: 'utf8' }).trim().split(',')[0];
  const [load] = os.loadavg();
  const cpu = os.cpus()[0]?.model.trim();
  return `${os.cpus().length} × ${cpu}, load ${round(load)}, Linux ${os.release()}, Node ${process.version}, ${ssh}`;
}

export function say(line) {
  process.stderr.write(`${line}\n`);
}
