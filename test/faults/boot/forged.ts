import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { makeHome } from '../../support/daemon.js';
import { fault } from '../../support/fault.js';
import { programsDir, repoRoot, which } from '../../support/paths.js';
import { isAlive, statOf } from '../../support/proc.js';
import { createReaper, type Reaper } from '../../support/reaper.js';
import { inParallel } from '../kill/rig.js';

const tunnel = 'f'.repeat(32);

/** What is forged: the state of one installation, and one who must not be signalled, and says every signal it gets. */
interface Scene {
  readonly instance: string;
  readonly pid: number;
  readonly startTicks: number;
  harmed(): string[];
}

/** One forgery: the ledger, and the instance beside it. */
interface Forgery {
  /** The text of the ledger, or what is planted in its place; not given: `own`. */
  readonly ledger?: (scene: Scene, file: string) => string | undefined;
  /** Written by the daemon's own process, which alone knows its number. */
  readonly own?: (scene: Scene) => string;
  /** Not given: the right one. */
  readonly instance?: (scene: Scene, file: string) => string | undefined;
}

const forgeries: Readonly<Record<string, Forgery>> = {
  'pid 0': { ledger: (scene) => rows(scene, 0, 0), instance: () => '0\n' },
  'pid 1': { ledger: (scene) => rows(scene, 1, statOf(1)?.startTicks), instance: () => '1\n' },
  'pid -1': { ledger: (scene) => rows(scene, -1, 0), instance: () => '-1\n' },
  'an empty pid': { ledger: (scene) => rows(scene, '', ''), instance: () => '' },
  'a list for a pid': { ledger: (scene) => rows(scene, [], []), instance: () => '[]\n' },
  'itself, with its mark': { own: (scene) => rows(scene, '@pid@', '@start@') },
  'its parent, with its mark': { own: (scene) => rows(scene, '@ppid@', '@parent_start@') },
  'a thread': { ledger: (scene) => threadRows(scene) },
  'a living stranger': { ledger: (scene) => rows(scene, scene.pid, scene.startTicks) },
  'more than there can be': {
    ledger: (scene) => `${rows(scene, scene.pid, scene.startTicks)}${' '.repeat(5_000_000)}`,
    instance: ({ instance }) => instance.repeat(100_000),
  },
  'a link': {
    ledger: (scene, file) => linkTo(file, rows(scene, scene.pid, scene.startTicks)),
    instance: ({ instance }, file) => linkTo(file, `${instance}\n`),
  },
  'a FIFO': { ledger: (_, file) => makeFifo(file), instance: (_, file) => makeFifo(file) },
  'half of a file': {
    ledger: (scene) => rows(scene, scene.pid, scene.startTicks).slice(0, -20),
    instance: ({ instance }) => instance.slice(0, 20),
  },
};

export function forgedCases(): void {
  const title = 'signals nobody whom a forged or a damaged state names, and boots over it';
  const times = Object.keys(forgeries).length;
  fault({ id: 'B3', title, times, reduced: times }, async () => {
    const signalled: string[] = [];
    const all = Object.entries(forgeries);
    await inParallel(all.length, 4, async (at) => {
      const [name, forgery] = all[at] ?? [];
      if (!forgery) return;
      await using reaper = createReaper();
      const harmed = await bootOver(reaper, forgery).catch((error: unknown) => {
        throw new Error(`${name}: ${error instanceof Error ? error.message : error}`, { cause: error });
      });
      if (harmed.length > 0) signalled.push(`${name}: ${harmed.join(', ')}`);
    });
    expect(signalled).to.deep.equal([]);
    return `${signalled.length} innocents signalled / ${times}`;
  });
}

/** A daemon over that state, to its end: who was harmed. */
async function bootOver(reaper: Reaper, forgery: Forgery): Promise<string[]> {
  const home = makeHome();
  try {
    const scene = await startScene(reaper);
    // Interactive: it starts nothing by itself, and the sweep at the start is all that happens.
    home.configure({}, [
      { name: 'one', remote_host: 'nobody.invalid', remote_port: 1, local_port: 9, interactive: true },
    ]);
    mkdirSync(home.stateDir, { recursive: true, mode: 0o700 });
    const file = (name: string) => join(home.stateDir, name);
    put(file('ledger.json'), forgery.ledger?.(scene, file('ledger.json')));
    put(file('instance'), forgery.instance ? forgery.instance(scene, file('instance')) : `${scene.instance}\n`);
    const own = forgery.own && JSON.stringify({ file: file('ledger.json'), text: forgery.own(scene) });
    const parent = await startBelowParent(reaper, home.configFile, { TUNWARD_INSTANCE: scene.instance }, own);
    const isReady = async () => (await home.api('GET', '/v1/tunnels').catch(() => undefined)) !== undefined;
    expect(await until(isReady, { timeoutMs: 10_000, everyMs: 10 }), `answers: ${parent.said()}`).to.equal(true);
    const harmed = [...scene.harmed(), ...parent.harmed()];
    if (harmed.length > 0) return harmed;
    await parent.end();
    expectState(home.stateDir, forgery);
    return scene.harmed();
  } finally {
    await reaper.end();
    home.remove();
  }
}

/** What was there is kept aside where it was no state, and what is there now is one that names nobody. */
function expectState(stateDir: string, forgery: Forgery): void {
  const aside = readdirSync(stateDir).map((name) => name.replace(/-[0-9a-f]+$/, ''));
  expect(aside.includes('ledger.json.invalid'), 'the ledger is kept aside').to.equal(forgery.instance !== undefined);
  expect(aside.includes('instance.invalid'), 'the instance is kept aside').to.equal(forgery.instance !== undefined);
  const text = readFileSync(join(stateDir, 'instance'), 'utf8');
  expect(text).to.match(/^[0-9a-f]{32}\n$/);
  if (!forgery.instance)
    expect(JSON.parse(readFileSync(join(stateDir, 'ledger.json'), 'utf8')).chains).to.deep.equal([]);
}

/** The daemon with the mark of a tunnel of its own, below a shell with the same one. */
async function startBelowParent(
  reaper: Reaper,
  configFile: string,
  mark: Readonly<Record<string, string>>,
  own: string | undefined,
) {
  const forge = `--import ${pathToFileURL(join(programsDir, 'forge.mjs'))}`;
  const argv = [process.execPath, join(repoRoot, 'lib/cli/main.js'), 'up', '-c', configFile];
  const env = own === undefined ? {} : { NODE_OPTIONS: forge, TUNWARD_FORGE: own };
  const child = spawn('/bin/sh', ['-c', '"$@" & echo $!; wait $!', 'sh', ...argv], {
    env: { ...process.env, ...reaper.env, TUNNEL_ID: tunnel, ...mark, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  reaper.own(child);
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const pid = Number(String((await once(child.stdout, 'data'))[0]));
  const family = [pid, child.pid ?? 0].map((one) => ({ pid: one, startTicks: statOf(one)?.startTicks }));
  const harmed = () =>
    family
      .filter((one) => !isAlive(one.pid, one.startTicks) || statOf(one.pid)?.state === 'T')
      .map((one) => `${one.pid}`);
  const end = async () => {
    const over = once(child, 'exit');
    process.kill(pid, 'SIGTERM');
    expect(await over, said).to.deep.equal([0, null]);
  };
  return { harmed, end, said: () => said };
}

async function startScene(reaper: Reaper): Promise<Scene> {
  const child = spawn(process.execPath, [join(programsDir, 'witness.mjs')], {
    env: { ...process.env, ...reaper.env },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  reaper.own(child);
  const lines: string[] = [];
  child.stdout.setEncoding('utf8').on('data', (text: string) => lines.push(...text.split('\n').filter(Boolean)));
  await until(() => lines.length > 0, { timeoutMs: 10_000 });
  const pid = child.pid ?? 0;
  const startTicks = statOf(pid)?.startTicks ?? 0;
  const harmed = () => [
    ...lines.slice(1),
    ...(isAlive(pid, startTicks) ? [] : ['killed']),
    ...(statOf(pid)?.state === 'T' ? ['stopped'] : []),
  ];
  // Of its own, since several daemons are there at once, and each ends whoever carries its mark.
  return { instance: randomBytes(16).toString('hex'), pid, startTicks, harmed };
}

function put(file: string, text: string | undefined): void {
  if (text !== undefined) writeFileSync(file, text);
}

/** A ledger of this boot and this namespace, whole but for what its row says. What stands in `@` is filled in later. */
function rows({ instance }: Scene, pid: unknown, startTicks: unknown): string {
  const here = {
    boot_id: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
    pid_namespace: readlinkSync('/proc/self/ns/pid'),
  };
  const chains = [{ tunnel, instance, pid, start_ticks: startTicks }];
  return `${JSON.stringify({ version: 1, ...here, chains })}\n`.replace(/"(@\w+@)"/g, '$1');
}

function threadRows(scene: Scene): string {
  const tasks = readdirSync(`/proc/${scene.pid}/task`).map(Number);
  const thread = tasks.find((task) => task !== scene.pid) ?? 0;
  return rows(scene, thread, statOf(thread)?.startTicks);
}

function linkTo(file: string, text: string): undefined {
  writeFileSync(`${file}.real`, text);
  symlinkSync(`${file}.real`, file);
}

function makeFifo(file: string): undefined {
  execFileSync(which('mkfifo') ?? 'mkfifo', [file]);
}
