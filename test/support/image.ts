/**
 * A Dockerfile, read and carried out without an engine: each step of a stage, in a root file system of ours. The
 * base is this host's Node with a shell and what a step calls; `apt-get install` takes this host's own packages. What
 * cannot be done without a network, the stage that builds, is handed in as its result.
 */
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, chownSync, cpSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Contained, ContainedResult } from './namespace.js';
import { which } from './paths.js';
import { descendantsOf, type Stat } from './proc.js';
import { addBinary, makeRootfs } from './rootfs.js';

export interface Step {
  /** In capitals: `RUN`. */
  readonly name: string;
  /** What stands behind it, continued lines joined. */
  readonly text: string;
}

export interface Stage {
  readonly from: string;
  readonly as: string | undefined;
  readonly steps: readonly Step[];
}

/** What an image says of the processes that are started from it. */
export interface Image {
  readonly root: string;
  readonly env: Readonly<Record<string, string>>;
  readonly user: { readonly uid: number; readonly gid: number };
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  readonly healthcheck: readonly string[];
  readonly stopSignal: string;
}

export function parseDockerfile(text: string): Stage[] {
  const lines = text.split('\n').filter((line) => !/^\s*(#|$)/.test(line));
  const steps = lines
    .join('\n')
    .replace(/\\\n\s*/g, '')
    .split('\n')
    .map(parseStep);
  const stages: { from: string; as: string | undefined; steps: Step[] }[] = [];
  for (const step of steps) {
    const [, from = '', as] = step.name === 'FROM' ? (/^(\S+)(?: AS (\S+))?$/i.exec(step.text) ?? []) : [];
    if (step.name === 'FROM') stages.push({ from, as, steps: [] });
    else stages.at(-1)?.steps.push(step);
  }
  return stages;
}

function parseStep(line: string): Step {
  const [, name = '', text = ''] = /^(\S+)\s+(.*)$/.exec(line) ?? [];
  return { name: name.toUpperCase(), text };
}

/** The text of a step that stands once in a stage. */
export function textOf({ steps }: Stage, name: string): string {
  const found = steps.filter((step) => step.name === name);
  if (found.length !== 1) throw new Error(`Expected one ${name}, found ${found.length}`);
  return found[0]?.text ?? '';
}

const basePath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const baseBinaries = 'sh env chmod ln install rm userdel groupadd useradd'.split(' ');
const packages: Readonly<Record<string, readonly string[]>> = { 'openssh-client': ['ssh'], tini: ['tini'] };

/** Carries a stage out in `root`. `built` has, by name, the folders that other stages have made. */
export function buildImage(root: string, stage: Stage, built: Readonly<Record<string, string>>): Image {
  if (stage.from.startsWith('gcr.io/distroless/nodejs')) makeDistroless(root);
  else makeBase(root);
  const env: Record<string, string> = { PATH: basePath };
  const args: Record<string, string> = {};
  let user = 'root';
  for (const step of stage.steps) {
    const { name } = step;
    const text = name === 'RUN' ? step.text : step.text.replace(/\$(\w+)/g, (all, key: string) => args[key] ?? all);
    if (name === 'ENV') Object.assign(env, parsePairs(text));
    else if (name === 'ARG') Object.assign(args, parsePairs(text));
    else if (name === 'RUN') runStep(root, text, { ...args, ...env });
    else if (name === 'COPY') copyStep(root, text, built);
    else if (name === 'USER') user = text;
    else if (['VOLUME', 'WORKDIR'].includes(name)) mkdirSync(join(root, text), { recursive: true });
    else if (!['STOPSIGNAL', 'HEALTHCHECK', 'ENTRYPOINT', 'CMD'].includes(name)) {
      throw new Error(`No step of this Dockerfile was to be ${name}`);
    }
  }
  return {
    root,
    env,
    user: findUser(root, user),
    entrypoint: parseWords(textOf(stage, 'ENTRYPOINT')),
    command: parseWords(textOf(stage, 'CMD')),
    healthcheck: parseWords(textOf(stage, 'HEALTHCHECK').replace(/^.*?CMD /, '')),
    stopSignal: textOf(stage, 'STOPSIGNAL'),
  };
}

/** As gcr.io/distroless/nodejs22 has it: node, its libraries, and nothing that could be run beside it. */
function makeDistroless(root: string): void {
  makeRootfs(root);
  mkdirSync(join(root, 'nodejs/bin'), { recursive: true });
  renameSync(join(root, 'bin/node'), join(root, 'nodejs/bin/node'));
}

/** As node:22-slim has it: a user `node` with the number 1000, and the files that useradd writes. */
function makeBase(root: string): void {
  makeRootfs(root, baseBinaries);
  for (const folder of ['home/node', 'usr/local/bin', 'var/mail', 'opt', 'etc/default']) {
    mkdirSync(join(root, folder), { recursive: true });
  }
  chownSync(join(root, 'home/node'), 1000, 1000);
  append(root, 'etc/passwd', 'node:x:1000:1000::/home/node:/bin/sh\n');
  append(root, 'etc/group', 'node:x:1000:\n');
  append(root, 'etc/shadow', 'root:*:20000:0:99999:7:::\nnode:!:20000:0:99999:7:::\n');
  append(root, 'etc/gshadow', 'root:*::\nnode:!::\n');
  for (const file of ['etc/login.defs', 'etc/default/useradd']) {
    if (existsSync(`/${file}`)) cpSync(`/${file}`, join(root, file));
  }
}

function append(root: string, file: string, text: string): void {
  writeFileSync(join(root, file), text, { flag: 'a' });
}

function runStep(root: string, text: string, env: Readonly<Record<string, string>>): void {
  const list = /^apt-get update && apt-get install -y --no-install-recommends (.+) && rm -rf \S+$/.exec(text)?.[1];
  if (list === undefined) {
    execFileSync(which('chroot') ?? 'chroot', [root, '/bin/sh', '-ec', text], { env, stdio: 'pipe' });
    return;
  }
  for (const name of list.split(' ')) {
    const binaries = packages[name];
    if (!binaries) throw new Error(`Nobody said what is in the package ${name}`);
    for (const binary of binaries) addBinary(root, binary);
  }
}

function copyStep(root: string, text: string, built: Readonly<Record<string, string>>): void {
  const [, stage = '', owner, from = '', to = ''] = /^--from=(\S+) (?:--chown=(\S+) )?(\S+) (\S+)$/.exec(text) ?? [];
  const folder = built[stage];
  if (folder === undefined) throw new Error(`COPY ${text}: there is no stage '${stage}'`);
  cpSync(join(folder, from), join(root, to), { recursive: true });
  // Whatever the modes were here: an image is for any user of it.
  execFileSync('chmod', ['-R', 'a+rX', join(root, to)]);
  if (owner !== undefined) execFileSync('chown', ['-R', owner, join(root, to)]);
}

function parsePairs(text: string): Record<string, string> {
  return Object.fromEntries(text.split(/\s+/).map((pair) => pair.split(/=(.*)/, 2) as [string, string]));
}

function parseWords(text: string): string[] {
  return JSON.parse(text);
}

function findUser(root: string, name: string): { uid: number; gid: number } {
  const [, uid, gid] = /^(\d+):(\d+)$/.exec(name) ?? [];
  if (uid !== undefined) return { uid: Number(uid), gid: Number(gid) };
  const row = readFileSync(join(root, 'etc/passwd'), 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
    .find(([user]) => user === name);
  if (!row) throw new Error(`USER ${name}: the image has no such user`);
  return { uid: Number(row[2]), gid: Number(row[3]) };
}

/** From outside: pid 1 of a container, the one child of what made its namespaces. */
export function pid1Of(box: Contained): Stat {
  const [first] = descendantsOf(box.pid);
  if (!first) throw new Error(`There is no pid 1 in there: ${box.stderr()}`);
  return first;
}

/** As `docker exec`: one more program in a container, with its environment and as its user. */
export async function execIn(
  box: Contained,
  argv: readonly string[],
  { env, user: { uid, gid } }: Pick<Image, 'env' | 'user'>,
): Promise<ContainedResult> {
  const enter = ['-t', String(pid1Of(box).pid), '-m', '-p', '-n', '-r', '-w', '-G', String(gid), '-S', String(uid)];
  const nsenter = which('nsenter') ?? 'nsenter';
  const child = spawn(nsenter, [...enter, '--', ...argv], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      said[name] += text;
    });
  }
  await new Promise((resolve) => child.once('close', resolve).once('error', resolve));
  return { code: child.exitCode, signal: child.signalCode, ...said };
}

/** A folder as the stage that builds leaves it: the package, built, with what it needs and nothing that builds it. */
export function makeBuiltPackage(folder: string, checkout: string): void {
  const { packages: all } = JSON.parse(readFileSync(join(checkout, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean; optional?: boolean; devOptional?: boolean; peer?: boolean }>;
  };
  const needed = Object.entries(all).filter(
    ([name, { dev, optional, devOptional, peer }]) => name !== '' && !dev && !optional && !devOptional && !peer,
  );
  for (const part of ['package.json', 'lib', ...needed.map(([name]) => name)]) {
    cpSync(join(checkout, part), join(folder, part), { recursive: true });
  }
  // npm makes a bin executable where it installs it; tsc does not.
  chmodSync(join(folder, 'lib/cli/main.js'), 0o644);
}
