import { execFileSync } from 'node:child_process';
import {
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';

import { parse } from 'yaml';
import { loadConfig } from '#lib/daemon/config.js';
import { defaultPaths } from '#lib/daemon/source.js';
import { probeAddress } from '#lib/port/probe.js';
import { openProc } from '#lib/proc/read.js';
import { readStat } from '#lib/proc/stat.js';
import { type SshServer, startSshServer } from '#lib/sshd/server.js';
import { until } from '#lib/time.js';
import { type AskingServer, byPasswordAndCode, startAsking } from '../support/asking.js';
import {
  buildImage,
  execIn,
  type Image,
  makeBuiltPackage,
  parseDockerfile,
  pid1Of,
  type Stage,
  textOf,
} from '../support/image.js';
import type { Contained } from '../support/namespace.js';
import { need } from '../support/need.js';
import { repoRoot } from '../support/paths.js';
import { freeLocalPort } from '../support/port.js';
import { descendantsOf, isAlive, sendSignal } from '../support/proc.js';
import { startInRootfs } from '../support/rootfs.js';
import { type Sshd, startSshd } from '../support/sshd.js';
import { visitOpen } from '../support/visitor.js';

const folder = join(repoRoot, 'examples/container');
const stages = parseDockerfile(readFileSync(join(folder, 'Dockerfile'), 'utf8'));
const [building, nodeOnly, final] = stages as [Stage, Stage, Stage];
const compose = parse(readFileSync(join(folder, 'compose.yaml'), 'utf8'));
const service = compose.services.tunward;
const bareService = parse(readFileSync(join(folder, 'node-only.yaml'), 'utf8')).services.tunward;

describe('examples/container: what is written there', () => {
  it('builds in one stage what it copies in the next, from files that are there', () => {
    expect(stages.map(({ from, as }) => [from, as])).to.deep.equal([
      ['node:22-slim', 'build'],
      ['gcr.io/distroless/nodejs22-debian12', 'node-only'],
      ['node:22-slim', undefined],
    ]);
    const copied = building.steps
      .filter(({ name }) => name === 'COPY')
      .flatMap(({ text }) => text.split(' ').slice(0, -1));
    expect(copied.filter((name) => !existsSync(join(repoRoot, name)))).to.deep.equal([]);
    const ignored = readFileSync(join(folder, 'Dockerfile.dockerignore'), 'utf8').trim().split('\n');
    expect(ignored, 'what is sent to the build is what it copies').to.have.members([
      '*',
      ...copied.map((name) => `!${name}`),
    ]);
    const { scripts } = JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8'));
    expect(textOf(building, 'RUN')).to.match(/^npm ci --ignore-scripts && npm run build && npm prune --omit=dev /);
    const [, ...programs] = /node (scripts\/\S+)/.exec(scripts.build) ?? [];
    expect(programs.filter((name) => copied.some((part) => name.startsWith(`${part}/`)))).to.have.length(1);
  });

  it('is for a user of its own, has an init in front, and asks for its health', () => {
    expect(textOf(final, 'USER')).not.to.match(/^(root|0)$/);
    expect(JSON.parse(textOf(final, 'ENTRYPOINT'))).to.deep.equal(['tini', '--', 'tunward']);
    expect(JSON.parse(textOf(final, 'CMD'))).to.deep.equal(['up']);
    expect(textOf(final, 'HEALTHCHECK')).to.match(/CMD \["tunward", "health"\]$/);
    expect(textOf(final, 'ENV')).to.contain('TUNWARD_TAKEOVER=any');
  });

  it('names variables that the code reads, and no other', () => {
    const sources = readdirSync(join(repoRoot, 'src'), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .map((name) => readFileSync(join(repoRoot, 'src', name), 'utf8'));
    const code = sources.join('\n');
    const names = [...textOf(final, 'ENV').matchAll(/(\w+)=/g)].map(([, name = '']) => name);
    const all = [...names, ...Object.keys(service.environment)];
    expect(all.filter((name) => !new RegExp(`\\b${name}\\b`).test(code))).to.deep.equal([]);
    expect(Object.keys(service.environment)).to.deep.equal([
      ...['AUTOSSH_CONFIG_FILE', 'SSH_CONFIG_DIR', 'TUNNEL_DIRECTION_MODE', 'API_PORT', 'API_KEY'],
    ]);
  });

  it('has its volumes where the daemon and ssh look', () => {
    const env = Object.fromEntries(
      textOf(final, 'ENV')
        .split(' ')
        .map((pair) => pair.split('=')),
    );
    const { stateDir, socket } = defaultPaths(env, 1000);
    expect(textOf(final, 'VOLUME')).to.equal(stateDir);
    const inside = service.volumes.map((volume: string) => volume.split(':')[1]);
    expect(inside).to.deep.equal(['/etc/autossh/config', `${env.HOME}/.ssh`, stateDir]);
    expect(service.environment.AUTOSSH_CONFIG_FILE).to.match(/^\/etc\/autossh\/config\//);
    expect(service.environment.SSH_CONFIG_DIR).to.equal(`${env.HOME}/.ssh`);
    expect(service.tmpfs[0].split(':')[0]).to.equal(socket.slice(0, socket.lastIndexOf('/')));
    expect(textOf(final, 'WORKDIR')).to.equal(env.HOME);
  });

  it('is given the time that a shutdown may take', async () => {
    const config = await loadConfig({ file: join(folder, 'config/config.yaml'), env: {}, uid: 1000 });
    expect(Number.parseInt(service.stop_grace_period, 10) * 1000).to.be.at.least(config.stopTimeoutMs + 1000);
  });

  it('builds with the file that is there, and mounts a folder with a configuration that loads', async () => {
    expect(existsSync(join(folder, service.build.context, service.build.dockerfile))).to.equal(true);
    const [from] = service.volumes[0].split(':');
    const file = join(folder, from, 'config.yaml');
    const { tunnels, warnings } = await loadConfig({ env: { AUTOSSH_CONFIG_FILE: file }, cwd: folder, uid: 1000 });
    expect(tunnels.map(({ name, forward }) => [name, forward.side])).to.deep.equal([
      ['database', 'local'],
      ['web', 'remote'],
    ]);
    expect(warnings).to.deep.equal([]);
  });

  it('has values that the configuration takes, also where nothing is set outside', async () => {
    const text = Object.entries(service.environment).map(([name, value]) => [name, substitute(String(value), {})]);
    const env = { ...Object.fromEntries(text), AUTOSSH_CONFIG_FILE: join(folder, 'config/config.yaml') };
    const { directionMode, api } = await loadConfig({ env, uid: 1000 });
    expect([directionMode, api.listen, api.keyDigests]).to.deep.equal(['default', null, []]);
  });
});

describe('examples/container: what is written of an image of node alone', () => {
  it('builds the stage that is there, for the folders that it has', () => {
    const { build, environment, volumes, tmpfs } = bareService;
    expect(build.target).to.equal(nodeOnly.as);
    expect(existsSync(join(folder, build.context, build.dockerfile))).to.equal(true);
    expect(volumes.map((volume: string) => volume.split(':')[1])).to.deep.equal([
      ...['/etc/tunward', '/home/myuser/.ssh', textOf(nodeOnly, 'VOLUME')],
    ]);
    expect(textOf(nodeOnly, 'ENV'), 'as the other one').to.equal(textOf(final, 'ENV'));
    expect(environment.TUNWARD_CONFIG).to.match(/^\/etc\/tunward\//);
    expect(tmpfs).to.deep.equal(service.tmpfs);
  });

  it('has no step that would have to be run in it', () => {
    expect(nodeOnly.steps.filter(({ name }) => name === 'RUN')).to.deep.equal([]);
  });
});

/** Compose's `${NAME:-default}`. */
function substitute(text: string, env: Readonly<Record<string, string>>): string {
  return text.replace(/\$\{(\w+):-([^}]*)\}/g, (_all, name: string, otherwise: string) => env[name] || otherwise);
}

describe('examples/container: the image, carried out step by step', () => {
  const apiKey = 'correct-horse-battery';
  let dir: string;
  let image: Image;
  let sshd: Sshd;
  let asking: AskingServer;
  let port: Record<'local' | 'remote' | 'asked' | 'api', number>;

  before(async function () {
    this.timeout(90_000);
    need(this, 'ssh', 'sshd', 'root', 'unshare', 'tini');
    sshd = await startSshd();
    asking = await startAsking({ factors: [byPasswordAndCode('secret', '123456')] });
    dir = mkdtempSync(join(tmpdir(), 'tunward-image-'));
    makeBuiltPackage(join(dir, 'src'), repoRoot);
    image = buildImage(join(dir, 'root'), final, { build: dir });
    const ports = await Promise.all(Array.from({ length: 4 }, () => freeLocalPort()));
    const [local = 0, remote = 0, asked = 0, api = 0] = ports;
    port = { local, remote, asked, api };
    writeVolumes();
  });
  after(async () => {
    await sshd?.stop();
    await asking?.[Symbol.asyncDispose]();
    if (dir) rmSync(dir, { recursive: true, force: true });
  });

  /** What an ancestor's user has: config/config.yaml, and a ~/.ssh whose config speaks of `~`. */
  function writeVolumes(): void {
    const target = `127.0.0.1:${sshd.port}`;
    const tunnels = [
      `  - {name: to us, remote_host: rig, remote_port: "${target}", local_port: ${port.local}}`,
      `  - {name: from us, remote_host: rig, remote_port: ${port.remote}, local_port: "${target}", direction: local_to_remote}`,
      `  - {name: vault, remote_host: asks, remote_port: 80, local_port: ${port.asked}, interactive: true}`,
    ];
    for (const name of ['config', 'ssh', 'state']) mkdirSync(join(dir, name), { mode: 0o700 });
    writeFileSync(join(dir, 'config/config.yaml'), `tunnels:\n${tunnels.join('\n')}\n`);
    cpSync(sshd.identityFile, join(dir, 'ssh/id_ed25519'));
    const host = `Host rig\n  HostName 127.0.0.1\n  Port ${sshd.port}\n  User root\n  IdentityFile ~/.ssh/id_ed25519\n`;
    const asks = `Host asks\n  HostName 127.0.0.1\n  Port ${asking.port}\n  User ${asking.user}\n`;
    writeFileSync(join(dir, 'ssh/config'), host + asks);
    for (const name of ['config', 'config/config.yaml', 'ssh', 'ssh/config', 'ssh/id_ed25519', 'state']) {
      chownSync(join(dir, name), image.user.uid, image.user.gid);
    }
  }

  /** As the compose file says, with the three folders that are here. */
  function start(argv: readonly string[]): { box: Contained; env: Readonly<Record<string, string>> } {
    const outside = { API_PORT: String(port.api), API_KEY: `some-other-key,${apiKey}` };
    const named = Object.entries(service.environment).map(([name, text]) => [name, substitute(String(text), outside)]);
    const env = { ...image.env, ...Object.fromEntries(named) };
    const inside: string[] = service.volumes.map((volume: string) => volume.split(':')[1]);
    const bind = ['config', 'ssh', 'state'].map((name, at) => [join(dir, name), inside[at] ?? ''] as const);
    const [at = '', options = ''] = substitute(service.tmpfs[0], {}).split(/:(.*)/);
    const box = startInRootfs(image.root, argv, {
      ...{ env, bind, network: 'shared', user: image.user, readOnly: service.read_only },
      tmpfs: [[at, options]],
    });
    return { box, env };
  }

  async function isHealthy(box: Contained, env: Readonly<Record<string, string>>): Promise<boolean> {
    const hasBegun = () => descendantsOf(box.pid).length > 0;
    const check = async () =>
      hasBegun() && (await execIn(box, image.healthcheck, { env, user: image.user })).code === 0;
    return (await until(check, { timeoutMs: 20_000, everyMs: 100 })) === true;
  }

  async function areUp(box: Contained): Promise<void> {
    for (const one of [port.local, port.remote]) {
      const isHeld = async () => (await probeAddress('127.0.0.1', one)) === 'busy';
      expect(await until(isHeld, { timeoutMs: 20_000, everyMs: 50 }), `port ${one}: ${box.stderr()}`).to.equal(true);
    }
  }

  /** A process whose parent leaves, and that dies then: it goes to pid 1. */
  async function orphan(box: Contained, env: Readonly<Record<string, string>>): Promise<void> {
    const { code } = await execIn(box, ['sh', '-c', '(sh -c : &)'], { env, user: image.user });
    expect(code).to.equal(0);
  }

  function zombies(box: Contained): number {
    const first = pid1Of(box).pid;
    const all = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map((name) => readStat(openProc(), Number(name)));
    return all.filter((stat) => stat?.ppid === first && stat.state === 'Z').length;
  }

  it('has the user of the Dockerfile, its folders, and no package that only builds', () => {
    expect(image.user).to.deep.equal({ uid: 1000, gid: 1000 });
    expect(readFileSync(join(image.root, 'etc/passwd'), 'utf8')).to.match(
      /^tunward:x:1000:1000::\/home\/myuser:\S+nologin$/m,
    );
    expect(readdirSync(join(image.root, 'opt/tunward/node_modules'))).to.have.members([
      ...['@hono', 'hono', 'commander', 'eventsource-parser', 'yaml', 'zod'],
      ...['lit-html', '@types', 'prom-client', '@opentelemetry', 'tdigest', 'bintrees', 'ws', '@xterm', 'ssh-config'],
    ]);
    const stat = execFileSync('stat', ['-c', '%u:%g %a', join(image.root, 'var/lib/tunward')], { encoding: 'utf8' });
    expect(stat.trim()).to.equal('1000:1000 700');
  });

  it('keeps the tunnels of an ancestor’s volumes up, is healthy, and ends in time with nothing left', async function () {
    this.timeout(60_000);
    const { box, env } = start([...image.entrypoint, ...image.command]);
    await using _box = box;
    expect(await isHealthy(box, env), box.stderr()).to.equal(true);
    await areUp(box);
    const running = descendantsOf(box.pid);
    expect(running.map(({ comm }) => comm)).to.include.members(['tini', 'ssh']);
    expect(pid1Of(box).comm).to.equal('tini');
    expect(uidsOf(pid1Of(box).pid), 'nobody is root').to.deep.equal(['1000', '1000', '1000', '1000']);

    expect(await ask(port.api, undefined)).to.equal(401);
    expect(await ask(port.api, apiKey)).to.equal(200);

    // Without node-pty in the image, on a read-only root, as an ordinary user.
    const person = await visitOpen({ at: port.api, id: 'vault', headers: { authorization: `Bearer ${apiKey}` } });
    await person.sees(asking.fingerprint());
    person.type('yes\r');
    await person.sees(/Password: $/);
    person.type('secret\r');
    await person.sees(/code: $/);
    person.type('123456\r');
    expect(await person.closed).to.include({ code: 1000 });
    expect(person.messages().map(({ type, via, outcome }) => [type, via ?? outcome])).to.deep.equal([
      ['open', 'askpass'],
      ['end', 'up'],
    ]);

    for (let at = 0; at < 3; at++) await orphan(box, env);
    expect(await until(() => zombies(box) === 0, { timeoutMs: 5000 }), 'tini takes the dead away').to.equal(true);
    const health = await execIn(box, [...image.healthcheck, '--json'], { env, user: image.user });
    expect(JSON.parse(health.stdout))
      .to.include({ status: 'ok', pid1: false, zombies: 0 })
      .and.not.have.property('advice');

    const doctor = await execIn(box, ['tunward', 'doctor', '--json'], { env, user: image.user });
    const { checks } = JSON.parse(doctor.stdout) as { checks: { check: string; status: string; finding: string }[] };
    expect(checks.filter(({ status }) => status === 'failed')).to.deep.equal([]);
    expect(doctor.code).to.equal(0);
    expect(checks.find(({ check }) => check === 'home')?.finding).to.equal('tunward (uid 1000), home /home/myuser');

    const began = performance.now();
    expect(sendSignal(pid1Of(box), 'SIGTERM')).to.equal(true);
    const { code, stderr } = await box.ended;
    expect(code, stderr).to.equal(0);
    expect(performance.now() - began).to.be.below(Number.parseInt(service.stop_grace_period, 10) * 1000);
    expect(running.filter(({ pid, startTicks }) => isAlive(pid, startTicks))).to.deep.equal([]);
    expect(readFileSync(join(dir, 'state/known_hosts'), 'utf8'), 'met for the first time').to.contain(`:${sshd.port} `);
  });

  it('works with node as pid 1 as well, and says what is missing', async function () {
    this.timeout(60_000);
    const { box, env } = start([...image.entrypoint.filter((word) => !/^(tini|--)$/.test(word)), ...image.command]);
    await using _box = box;
    expect(await isHealthy(box, env), box.stderr()).to.equal(true);
    await areUp(box);
    expect(box.stderr()).to.contain('no init').and.contain('docker run --init');
    await orphan(box, env);
    expect(await until(() => zombies(box) === 1, { timeoutMs: 5000 }), 'nobody takes it away').to.equal(true);
    const health = await execIn(box, [...image.healthcheck, '--json'], { env, user: image.user });
    expect(JSON.parse(health.stdout)).to.include({ status: 'ok', pid: 1, pid1: true, zombies: 1 });
    expect(sendSignal(pid1Of(box), 'SIGTERM')).to.equal(true);
    expect((await box.ended).code).to.equal(0);
  });
});

describe('examples/container: the image of node alone', () => {
  let dir: string;
  let image: Image;
  let server: SshServer;
  let port: Record<'local' | 'remote', number>;

  before(async function () {
    this.timeout(90_000);
    need(this, 'root', 'unshare');
    server = await startSshServer({ alias: 'rig' });
    dir = mkdtempSync(join(tmpdir(), 'tunward-image-'));
    makeBuiltPackage(join(dir, 'src'), repoRoot);
    mkdirSync(join(dir, 'empty'));
    image = buildImage(join(dir, 'root'), nodeOnly, { build: dir });
    const [local = 0, remote = 0] = await Promise.all([freeLocalPort(), freeLocalPort()]);
    port = { local, remote };
    const target = `127.0.0.1:${server.port}`;
    const tunnels = [
      { name: 'to us', remote_host: 'rig', remote_port: target, local_port: local, seamless: true },
      { name: 'from us', remote_host: 'rig', remote_port: remote, local_port: target, direction: 'local_to_remote' },
    ];
    for (const name of ['config', 'ssh', 'state']) mkdirSync(join(dir, name), { mode: 0o700 });
    writeFileSync(join(dir, 'config/config.yaml'), JSON.stringify({ tunnels }));
    cpSync(server.identityFile, join(dir, 'ssh/id_ed25519'));
    writeFileSync(join(dir, 'ssh/config'), `Host rig\n  HostName 127.0.0.1\n  Port ${server.port}\n  User tester\n`);
    const { uid, gid } = image.user;
    for (const part of ['config', 'ssh', 'state']) execFileSync('chown', ['-R', `${uid}:${gid}`, join(dir, part)]);
  });
  after(async () => {
    await server?.close();
    if (dir) rmSync(dir, { recursive: true, force: true });
  });

  /** As the compose file says, with the three folders that are here. Without its init: node is pid 1. */
  function start(): Contained {
    const inside: string[] = bareService.volumes.map((volume: string) => volume.split(':')[1]);
    const bind = ['config', 'ssh', 'state'].map((name, at) => [join(dir, name), inside[at] ?? ''] as const);
    const [at = '', options = ''] = substitute(bareService.tmpfs[0], {}).split(/:(.*)/);
    return startInRootfs(image.root, [...image.entrypoint, ...image.command], {
      ...{ bind, network: 'shared', user: image.user, readOnly: bareService.read_only, tmpfs: [[at, options]] },
      env: { ...image.env, ...bareService.environment },
    });
  }

  it('holds one program, and has its folders for a user who is in no passwd', () => {
    expect(image.user).to.deep.equal({ uid: 1000, gid: 1000 });
    expect(readFileSync(join(image.root, 'etc/passwd'), 'utf8')).not.to.include(':1000:');
    expect(readdirSync(join(image.root, 'bin'))).to.deep.equal([]);
    for (const made of ['var/lib/tunward', 'run/tunward', 'home/myuser']) {
      const { uid } = statSync(join(image.root, made));
      expect(uid, made).to.equal(made.startsWith('home') ? 0 : 1000);
    }
  });

  it('keeps its tunnels up without ssh, restarts them, is healthy, and ends in time', async function () {
    this.timeout(60_000);
    await using box = start();
    const env = { ...image.env, ...bareService.environment };
    const exec = (...words: string[]) => execIn(box, [...image.entrypoint, ...words], { env, user: image.user });
    const isHealthy = async () =>
      descendantsOf(box.pid).length > 0 && (await execIn(box, image.healthcheck, { env, user: image.user })).code === 0;
    expect(await until(isHealthy, { timeoutMs: 20_000, everyMs: 100 }), box.stderr()).to.equal(true);
    for (const one of [port.local, port.remote]) {
      const isHeld = async () => (await probeAddress('127.0.0.1', one)) === 'busy';
      expect(await until(isHeld, { timeoutMs: 20_000, everyMs: 50 }), `port ${one}: ${box.stderr()}`).to.equal(true);
    }
    expect(descendantsOf(box.pid), 'the daemon and nobody else').to.have.length(1);
    const { code, stdout, stderr } = await exec('restart', 'to us', 'from us');
    expect(code, stderr).to.equal(0);
    expect(stdout.match(/ up in /g)).to.have.length(2);
    const doctor = await exec('doctor', '--json');
    const { checks } = JSON.parse(doctor.stdout) as { checks: { check: string; status: string; finding: string }[] };
    expect(checks.filter(({ status }) => status === 'failed')).to.deep.equal([]);
    expect(checks.find(({ check }) => check === 'ssh')?.finding).to.match(/the embedded engine is used$/);
    const began = performance.now();
    expect(sendSignal(pid1Of(box), 'SIGTERM')).to.equal(true);
    const end = await box.ended;
    expect(end.code, end.stderr).to.equal(0);
    expect(performance.now() - began).to.be.below(Number.parseInt(bareService.stop_grace_period, 10) * 1000);
    expect(readFileSync(join(dir, 'state/known_hosts'), 'utf8'), 'met for the first time').to.contain(
      `:${server.port} `,
    );
  });
});

function uidsOf(pid: number): string[] {
  return /^Uid:\t(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]?.split('\t') ?? [];
}

/** The status of the API's answer to whoever bears a key, or none. */
function ask(at: number, key: string | undefined): Promise<number> {
  const headers = key === undefined ? {} : { authorization: `Bearer ${key}` };
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port: at, path: '/v1/tunnels', headers, agent: false };
    http.get(options, (response) => resolve(response.resume().statusCode ?? 0)).once('error', reject);
  });
}
