/**
 * Runs as pid 1 in a root file system of node, its libraries and /proc: the whole library and every command about ports
 * and processes, on holders made of node alone, reported by emit().
 */
import { spawn } from 'node:child_process';
import { accessSync, constants, type Dirent, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { findListeners, freePort, inspectPort, isPortFree, killTree, readProcessTree, waitForPort } from 'tunward';
import { reservePort, type SpawnedTree, spawnTree, type TreeShape, watchLeaks } from 'tunward/testing';
import { emit } from '../../support/namespace.js';

/** A server that ignores what can be ignored, with a child in its session: a chain. */
const server: TreeShape = { listen: [{}], ignore: ['SIGTERM', 'SIGHUP'], children: [{ ignore: ['SIGTERM'] }] };

emit('programs', findPrograms('/'));
const leaks = watchLeaks();
await library();
await commands();
await leaks.assertNoLeaks({ waitMs: 5000 });
emit('leaks', await leaks.find());
process.exit(0);

async function library(): Promise<void> {
  await using held = await spawnTree(server);
  const [port = 0] = held.ports;
  await using client = await spawnTree({ connect: { port } });
  await waitForPort(port, { state: 'listening' });
  const listeners = await findListeners(port);
  const look = await inspectPort(port, { host: '127.0.0.1' });
  emit('look', {
    holders: pidsOf(
      held,
      listeners.flatMap(({ holders }) => holders),
    ),
    verdict: look.verdict,
    clients: pidsOf(client, look.clients),
    free: [await isPortFree(port), await isPortFree(port, { host: '127.0.0.1' })],
    late: await waitForPort(port, { state: 'free', timeoutMs: 50 }).then(String, ({ code }) => code),
  });
  const tree = await readProcessTree(held.pid);
  emit('tree', { ports: tree?.ports, below: pidsOf(held, tree?.children ?? []) });
  const dry = await freePort(port, { dryRun: true });
  emit('dry run', { free: dry.free, killed: pidsOf(held, dry.kill?.killed ?? []), living: held.living().length });
  const report = await freePort(port);
  await waitForPort(port, { state: 'free' });
  emit('free', {
    free: report.free,
    verdict: report.verdict,
    killed: pidsOf(held, report.kill?.killed ?? []),
    survivors: report.kill?.survivors,
    living: [held.living().length, client.living().length],
    proved: await isPortFree(port),
  });
  await using daemon = await spawnTree({ children: [{ setsid: true, children: [{ ignore: ['SIGTERM'] }] }] });
  const { killed, survivors } = await killTree(daemon, { graceMs: 50 });
  emit('kill', { killed: killed.length, survivors, living: daemon.living().length });
}

async function commands(): Promise<void> {
  await using reserved = await reservePort();
  await reserved.release();
  const nobody = String(reserved.port);
  await using first = await spawnTree(server);
  await using second = await spawnTree(server);
  const [one = 0, two = 0] = [first.ports[0], second.ports[0]];
  await using client = await spawnTree({ connect: { port: one } });
  // By its name alone: there is no real one here.
  await using ssh = await spawnTree({ title: 'ssh' });

  await run('who', { args: ['who', String(one)], says: [`held by pid ${first.pid}`, `${client.pid}`] });
  await run('who --json', {
    args: ['who', `127.0.0.1:${one}`, '--json'],
    says: ['"listening"', `"pid":${first.pid}`],
  });
  await run('who, nobody', { args: ['who', nobody], says: ['free'] });
  await run('wait --listening', { args: ['wait', String(one), '--listening'], says: [`Port ${one} is listening`] });
  await run('wait --listening --json', {
    args: ['wait', String(one), '--listening', '--json'],
    says: ['"state":"listening"'],
  });
  await run('wait --free, held', {
    args: ['wait', String(one), '--free', '--timeout', '50'],
    says: [`Port ${one} is not free after 50 ms`],
  });
  const table = first.children[0]?.pid ?? 0;
  await run('tree', { args: ['tree', String(first.pid)], says: [`${first.pid}`, `${table}`, `:${one}`] });
  await run('tree --json', { args: ['tree', String(first.pid), '--json'], says: [`"pid":${table}`, `${one}`] });
  await run('tree, nobody', { args: ['tree', '4194303'], says: ['No process has the pid 4194303'] });
  await run('free --dry-run', { args: ['free', String(one), '--dry-run'], says: ['would kill', `${table}`] });
  await run('free --dry-run --json', { args: ['free', String(one), '--dry-run', '--json'], says: [`"pid":${table}`] });
  emit('after the dry runs', first.living().length);
  await run('free', {
    args: ['free', String(one)],
    says: [`${one} is free after`, 'killed', `${first.pid}`],
  });
  await run('free --json', {
    args: ['free', String(two), nobody, '--json'],
    says: ['"free":true', `"pid":${second.pid}`],
  });
  await run('free, nobody', { args: ['free', nobody], says: ['was free'] });
  await run('wait --free', { args: ['wait', String(one), '--free'], says: [`Port ${one} is free`] });
  await run('wait --free --json', { args: ['wait', String(one), '--free', '--json'], says: ['"state":"free"'] });
  emit(
    'after the frees',
    [first, second, client].map((tree) => tree.living().length),
  );
  await run('ps', { args: ['ps'], says: [`${ssh.pid}`, 'root'] });
  await run('ps --json', { args: ['ps', '--json'], says: [`"pid":${ssh.pid}`, '"program":"ssh"'] });
  await using tree = await spawnTree({ ignore: ['SIGTERM'], children: [{ setsid: true }] });
  await run('kill', {
    args: ['kill', String(tree.pid), '--grace', '50'],
    says: [`pid ${tree.pid} and all below it are gone`],
  });
  await run('kill --json', {
    args: ['kill', String(ssh.pid), '--json'],
    says: [`"pid":${ssh.pid}`, '"survivors":[]'],
  });
  await run('kill, nobody', { args: ['kill', String(tree.pid)], says: ['No process has the pid'] });
  await run('kill, protected', {
    args: ['kill', '1', '--timeout', '200'],
    says: ['pid 1 is still there, and nobody was killed', 'protected', 'pid 1'],
  });
  await run('ps, nobody', { args: ['ps'], says: ['No ssh and no autossh runs here'] });
  await run('usage', { args: ['who', 'http'], says: ['http'] });
  emit(
    'after the kills',
    [tree, ssh].map((each) => each.living().length),
  );
}

/** Runs `tunward …` and emits its exit code and what it should have said and has not. */
async function run(name: string, { args, says }: { args: readonly string[]; says: readonly string[] }): Promise<void> {
  const child = spawn(process.execPath, ['/app/lib/cli/main.js', ...args], {
    env: { PATH: '/bin', HOME: '/root' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
  }
  const code = await new Promise((resolve) => child.once('close', resolve));
  const missing = says.filter((text) => !said.includes(text));
  if (args.includes('--json')) JSON.parse(said);
  emit(`tunward ${name}`, missing.length === 0 ? code : { code, missing, said });
}

/** Who of a tree is among these, as their places in it: the root is 0. */
function pidsOf(tree: SpawnedTree, found: readonly { readonly pid: number }[]): number[] {
  return found.map(({ pid }) => tree.processes().findIndex((each) => each.pid === pid)).sort();
}

/** Every file that could be executed and is no shared library. */
function findPrograms(folder: string): string[] {
  if (['/proc', '/dev'].includes(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry: Dirent) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return findPrograms(path);
    return !/\.so(\.|$)/.test(path) && isExecutable(path) ? [path] : [];
  });
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false; // a file that is only read
  }
}
