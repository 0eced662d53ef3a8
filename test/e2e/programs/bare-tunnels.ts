/**
 * Runs as pid 1 in a root file system of node, its libraries and /proc, by a user who is in no passwd: tunnels of the engine
 * that is inside the daemon, from the check of their configuration to the end, reported by emit().
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import { reservePort, startSshServer } from 'tunward/testing';
import { until } from '#lib/time.js';
import { emit } from '../../support/namespace.js';
import { startService } from '../../support/servers.js';

interface Said {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const home = '/home/me';
const configFile = join(home, '.config/tunward/tunward.yaml');
const env = { PATH: '/bin', HOME: home };
const restarts = 20;
const clients = 10;

emit('surroundings', { named: isNamed(), uid: process.getuid?.(), programs: readdirSync('/bin') });
await using server = await startSshServer({ alias: 'rig' });
await using service = await startService();
const [plain = 0, steady = 0, back = 0, far = 0, own = 0] = await Promise.all([1, 2, 3, 4, 5].map(freePort));
writeSsh();
writeConfig();

emit('validate', await tunward('validate'));
emit('doctor', JSON.parse((await tunward('doctor', '--json')).stdout));
const daemon = start('up');
const up = await until(async () => (await find({ state: 'up' })).length === 5, { timeoutMs: 15_000, everyMs: 100 });
emit('up', up === true ? 'all' : await tunward('ls'));
emit('status', await find({}));
emit('ls', await tunward('ls'));
emit('served', await Promise.all([plain, steady, back, far, own].map(ask)));
emit('logins', [...new Set(server.logins.map(({ username }) => username))].sort());
emit('connections', server.connections.length);
emit('known hosts', readFileSync(join(home, '.local/state/tunward/known_hosts'), 'utf8'));
emit('restart', await tunward('restart', 'plain', 'back', 'own'));
emit('served again', await Promise.all([plain, back, own].map(ask)));
emit('restart under clients', await restartUnderClients());
server.changeHostKey();
emit('restart, changed key', await tunward('restart', 'own'));
emit('doctor, while it runs', JSON.parse((await tunward('doctor', '--json')).stdout));
daemon.child.kill('SIGTERM');
emit('end', await daemon.ended);
emit('demo', await tunward('demo', '--once'));
const nowhere = (command: string) => start(command, ['-c', configFile], { PATH: '/bin' }).ended;
emit('without a home', { up: await nowhere('up'), doctor: await nowhere('doctor') });
process.exit(0);

function isNamed(): boolean {
  try {
    return userInfo().username !== '';
  } catch {
    return false; // ENOENT: there is no passwd
  }
}

async function freePort(): Promise<number> {
  await using reserved = await reservePort();
  return reserved.port;
}

/** As a person has it: the key and the server under their usual names, and nothing of it said in the configuration. */
function writeSsh(): void {
  const folder = join(home, '.ssh');
  mkdirSync(folder, { mode: 0o700 });
  copyFileSync(server.identityFile, join(folder, 'id_ed25519'));
  copyFileSync(server.knownHostsFile, join(folder, 'known_hosts'));
  const lines = ['Host rig', 'HostName 127.0.0.1', `Port ${server.port}`, 'User tester', 'StrictHostKeyChecking yes'];
  writeFileSync(join(folder, 'config'), `${lines.join('\n  ')}\n`, { mode: 0o600 });
}

function writeConfig(): void {
  const target = `127.0.0.1:${service.port}`;
  const newcomer = { Port: String(server.port), HostKeyAlias: 'newcomer' };
  const tunnels = [
    { name: 'plain', remote_host: 'rig', remote_port: target, local_port: plain },
    { name: 'steady', remote_host: 'rig', remote_port: target, local_port: steady, seamless: true },
    { name: 'back', remote_host: 'rig', direction: 'local_to_remote', local_port: target, remote_port: back },
    { name: 'far', remote_host: 'rig', remote_port: target, local_port: far, jump: 'rig' },
    // Nobody says which user that is, and its key is met for the first time.
    {
      name: 'own',
      remote_host: '127.0.0.1',
      remote_port: target,
      local_port: own,
      ssh_options: newcomer,
      share: false,
    },
  ];
  mkdirSync(dirname(configFile), { recursive: true });
  writeFileSync(configFile, JSON.stringify({ tunnels }), { mode: 0o600 });
}

async function restartUnderClients() {
  let isOver = false;
  const counts = { served: 0, lost: 0 };
  const load = Array.from({ length: clients }, async () => {
    while (!isOver) counts[(await ask(steady)) === 'served' ? 'served' : 'lost']++;
  });
  const answers: unknown[] = [];
  for (let at = 0; at < restarts; at++) answers.push(await restartSteady());
  await until(() => counts.served > restarts * clients, { timeoutMs: 10_000 });
  isOver = true;
  await Promise.all(load);
  return { ...counts, states: [...new Set(answers)], restarts: answers.length };
}

function restartSteady(): Promise<unknown> {
  const options = { socketPath: join(home, '.local/state/tunward/tunward.sock'), method: 'POST' };
  return new Promise((resolve, reject) => {
    const request = http.request({ ...options, path: '/v1/tunnels/steady/restart' }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.once('end', () => resolve(JSON.parse(text).state));
    });
    request.once('error', reject).end();
  });
}

/** What answers, over a connection of its own; an error's code otherwise. */
function ask(port: number): Promise<string> {
  return new Promise((resolve) => {
    const options = { host: '127.0.0.1', port, agent: false, timeout: 10_000 };
    const request = http.get(options, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.once('error', ({ message }) => resolve(message)).once('end', () => resolve(text));
    });
    request.once('timeout', () => request.destroy(new Error('late')));
    request.once('error', ({ message }) => resolve(message));
  });
}

async function find(wanted: { readonly state?: string }) {
  const { code, stdout } = await tunward('status', '--json');
  if (code !== 0) return [];
  const { tunnels } = JSON.parse(stdout) as {
    tunnels: { name: string; state: string; engine: string; pid: number | null; seamless: boolean }[];
  };
  return tunnels
    .filter(({ state }) => wanted.state === undefined || state === wanted.state)
    .map(({ name, state, engine, pid, seamless }) => ({ name, state, engine, pid, seamless }));
}

function tunward(command: string, ...args: readonly string[]): Promise<Said> {
  return start(command, args).ended;
}

function start(
  command: string,
  args: readonly string[] = [],
  own: NodeJS.ProcessEnv = env,
): { readonly child: ChildProcess; readonly ended: Promise<Said> } {
  const argv = ['/app/lib/cli/main.js', command, ...args];
  const child = spawn(process.execPath, argv, { env: own, cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] });
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      said[name] += text;
    });
  }
  const ended = new Promise<Said>((resolve) => child.once('close', (code) => resolve({ code, ...said })));
  return { child, ended };
}
