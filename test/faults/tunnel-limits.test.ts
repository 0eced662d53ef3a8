/** S8 of the fault catalogue: a daemon that may open no more files, or start no more processes. */
import { execFileSync, spawn } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { expect } from 'chai';
import { isPortFree } from '#lib/index.js';
import { systemClock, until } from '#lib/time.js';
import { type Answer, fetchText, type Home, makeHome, startUp } from '../support/daemon.js';
import { fault } from '../support/fault.js';
import { isListenedTo } from '../support/listening.js';
import { repoRoot, which } from '../support/paths.js';
import { freeLocalPort } from '../support/port.js';
import { sendSignal, statOf } from '../support/proc.js';
import { createReaper, type Reaper } from '../support/reaper.js';
import { startService } from '../support/servers.js';
import { type Sshd, startSshd } from '../support/sshd.js';
import { nobody } from '../support/stranger.js';
import { processesByTunnel, rootsOf } from './tunnel/rig.js';

describe('fault: a daemon at the end of its means', () => {
  const needs = ['ssh', 'sshd', 'autossh', 'unshare'] as const;

  const looking =
    'ends no tunnel that carries bytes because there is no descriptor left to look at it, and starts the one that died';
  fault({ id: 'S8', title: looking, times: 1, needs }, async (times) => {
    await using scene = await openScene(4);
    const { home, reaper, names } = scene;
    const daemon = await startUp(reaper, home);
    await using api = await openApi(home);
    for (const name of names) await becomesUp(api, name);
    for (let round = 0; round < times; round++) {
      const before = await pidsOf(api, names);
      leaveDescriptors(daemon.pid, 0);
      // Each is looked at once in a second, and a lost one has three to come back.
      await systemClock.sleep(3000);
      const [victim = 0, ...others] = before;
      sendSignal({ pid: victim, startTicks: statOf(victim)?.startTicks ?? 0 }, 'SIGKILL');
      await systemClock.sleep(3000);
      limit(daemon.pid, '--nofile=1024:');
      await until(async () => (await pidsOf(api, names))[0] !== victim, { timeoutMs: 10_000, everyMs: 20 });
      for (const name of names) await becomesUp(api, name);
      expect((await pidsOf(api, names)).slice(1)).to.deep.equal(others);
    }
    expect(await daemon.end('SIGTERM'), daemon.stderr()).to.equal(0);
    return `${times * names.length}/${times * names.length}`;
  });

  const few = 'says that there is no descriptor left, leaves no half tunnel, and goes on when there is';
  fault({ id: 'S8', title: few, times: 20, needs }, async (times) => {
    await using scene = await openScene(4);
    const { home, reaper } = scene;
    const daemon = await startUp(reaper, home);
    await using api = await openApi(home);
    for (const name of scene.names) await becomesUp(api, name);
    const answers: number[] = [];
    for (let round = 0; round < times; round++) {
      const name = scene.names[round % scene.names.length] ?? '';
      leaveDescriptors(daemon.pid, round % 5);
      answers.push(await failCleanly(api, name, daemon.pid));
      limit(daemon.pid, '--nofile=1024:');
      await recovers(api, name);
    }
    expect(await daemon.end('SIGTERM'), daemon.stderr()).to.equal(0);
    expect(daemon.stderr()).to.not.match(/^\s+at /m);
    return `${answers.length}/${times} clean and recovered, ${count(answers)}`;
  });

  const small = 'starts as many as it can with 64 descriptors, and the others when it may have more';
  fault({ id: 'S8', title: small, times: 25, needs }, async (times) => {
    await using scene = await openScene(times);
    const { names } = scene;
    const daemon = await startBy(scene, []);
    const { api } = daemon;
    // It answers before it starts them. Node takes all that the hard limit allows, so it is told afterwards.
    limit(daemon.pid, '--nofile=64:');
    const isFull = async () => (await failuresOf(api, names)).length > 0;
    expect(await until(isFull, { timeoutMs: 60_000, everyMs: 100 }), 'or 64 are enough').to.equal(true);
    for (const name of names) await expectWhole(api, name, daemon.pid);
    const failed = (await failuresOf(api, names)).length;
    limit(daemon.pid, '--nofile=1024:');
    for (const name of names) await becomesUp(api, name);
    for (const name of names) await recovers(api, name);
    expect(await daemon.end(), daemon.stderr()).to.equal(0);
    expect(failed, 'or none was started').to.be.below(times);
    return `${times - failed} of ${times} at first, then all`;
  });

  const alone = 'says that it may start no process, leaves no half tunnel, and goes on when it may';
  fault({ id: 'S8', title: alone, times: 20, needs: [...needs, 'root'] }, async (times) => {
    await using scene = await openScene(4);
    const copy = giveToNobody(scene);
    try {
      const drop = ['--reuid', String(nobody), '--regid', String(nobody), '--clear-groups'];
      const daemon = await startBy(scene, [which('setpriv') ?? 'setpriv', ...drop], copy);
      const { api } = daemon;
      for (const name of scene.names) await becomesUp(api, name);
      for (let round = 0; round < times; round++) {
        const name = scene.names[round % scene.names.length] ?? '';
        // One that has more already may start no other, whatever else this user has.
        limit(daemon.pid, '--nproc=1:', nobody);
        expect(await failCleanly(api, name, daemon.pid)).to.equal(502);
        limit(daemon.pid, '--nproc=4096:', nobody);
        await recovers(api, name);
      }
      expect(await daemon.end(), daemon.stderr()).to.equal(0);
      return `${times}/${times} clean and recovered`;
    } finally {
      rmSync(copy, { recursive: true });
    }
  });
});

/** `tunward up` by way of a program that becomes it, with a connection to it from its first moment. */
async function startBy({ home, reaper }: Scene, way: readonly string[], root = repoRoot) {
  const main = [process.execPath, join(root, 'lib/cli/main.js'), 'up', '-c', home.configFile];
  const [program = '', ...words] = [...way, ...main];
  const env = { ...process.env, ...reaper.env, HOME: home.dir };
  const child = spawn(program, words, { env, stdio: ['ignore', 'ignore', 'pipe'] });
  reaper.own(child);
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const exited = new Promise<number | null>((resolve) => child.once('exit', resolve));
  if (!(await until(() => existsSync(home.socket) || child.exitCode !== null, { timeoutMs: 20_000 })))
    throw new Error(said);
  const api = await openApi(home);
  const end = async () => {
    await api[Symbol.asyncDispose]();
    child.kill('SIGTERM');
    return exited;
  };
  return { pid: child.pid ?? 0, api, stderr: () => said, end };
}

/** Makes the scene nobody's, and answers where nobody may read the program. */
function giveToNobody({ home, sshd }: Scene): string {
  const copy = mkdtempSync(join(tmpdir(), 'tunward-nobody-'));
  const packages = ['commander', 'hono', '@hono', 'yaml', 'zod'].map((name) => `node_modules/${name}`);
  for (const part of ['lib', 'package.json', ...packages]) {
    cpSync(join(repoRoot, part), join(copy, part), { recursive: true });
  }
  execFileSync('chmod', ['-R', 'a+rX', copy]);
  const config = readFileSync(sshd.sshConfigFile, 'utf8').replaceAll(sshd.dir, home.dir);
  writeFileSync(join(home.dir, 'ssh_config'), config);
  for (const file of [sshd.identityFile, sshd.knownHostsFile]) cpSync(file, join(home.dir, basename(file)));
  writeFileSync(home.configFile, readFileSync(home.configFile, 'utf8').replaceAll(sshd.dir, home.dir));
  execFileSync('chown', ['-R', `${nobody}:${nobody}`, home.dir]);
  return copy;
}

function count(answers: readonly number[]): string {
  const kinds = [...new Set(answers)].sort();
  return kinds.map((kind) => `${answers.filter((answer) => answer === kind).length} answered ${kind}`).join(', ');
}

interface Scene {
  readonly home: Home;
  readonly reaper: Reaper;
  readonly sshd: Sshd;
  readonly names: readonly string[];
  [Symbol.asyncDispose](): Promise<void>;
}

/** So many tunnels, ssh and autossh in turn, of a daemon that is not started yet. */
async function openScene(size: number): Promise<Scene> {
  const [sshd, service, reaper, home] = [await startSshd(), await startService(), createReaper(), makeHome()];
  const tunnels = [];
  for (let n = 0; n < size; n++) {
    const engine = n % 2 === 0 ? 'ssh' : 'autossh';
    tunnels.push({ name: `${engine} ${n}`, engine, local_port: await freeLocalPort(), remote_port: service.port });
  }
  const common = { remote_host: sshd.host, ssh_config: sshd.sshConfigFile };
  const backoff = { min_ms: 100, max_ms: 1000 };
  home.configure(
    { restart_timeout_ms: 15_000, backoff },
    tunnels.map((tunnel) => ({ ...common, ...tunnel })),
  );
  const close = async () => {
    await reaper.end();
    await sshd.stop();
    await service[Symbol.asyncDispose]();
    home.remove();
  };
  return { home, reaper, sshd, names: tunnels.map(({ name }) => name), [Symbol.asyncDispose]: close };
}

/** `by`: the user whose process it is, who needs no capability for that. */
function limit(pid: number, option: string, by = process.getuid?.()): void {
  execFileSync(
    which('prlimit') ?? 'prlimit',
    ['--pid', String(pid), option],
    by === undefined ? {} : { uid: by, gid: by },
  );
}

/** Limits a process to so many descriptors more: the limit is on their numbers, and the lowest that are free are taken. */
function leaveDescriptors(pid: number, count: number): void {
  const taken = new Set(readdirSync(`/proc/${pid}/fd`).map(Number));
  let least = 0;
  for (let free = 0; free < count || taken.has(least); least++) if (!taken.has(least)) free++;
  limit(pid, `--nofile=${least}:`);
}

interface Api {
  ask(method: string, name: string, action?: string): Promise<Answer>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** One connection that is open before there is a limit, and stays so: what is tried is the tunnels, not the door. */
async function openApi({ socket: socketPath }: Home): Promise<Api> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const headers = { 'content-type': 'application/json' };
  return {
    ask: (method, name, action = '') =>
      new Promise((resolve, reject) => {
        const path = `/v1/tunnels/${encodeURIComponent(name)}${action}`;
        const call = http.request({ socketPath, method, path, headers, agent }, (answer) => {
          let text = '';
          answer.setEncoding('utf8').on('data', (chunk: string) => {
            text += chunk;
          });
          answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body: JSON.parse(text) }));
        });
        call.on('error', reject).end();
      }),
    [Symbol.asyncDispose]: async () => agent.destroy(),
  };
}

async function becomesUp(api: Api, name: string): Promise<void> {
  const isUp = async () => (await api.ask('GET', name)).body.state === 'up';
  if (await until(isUp, { timeoutMs: 20_000, everyMs: 20 })) return;
  expect.fail(`${name} is not up: ${JSON.stringify((await api.ask('GET', name)).body)}`);
}

async function failuresOf(api: Api, names: readonly string[]): Promise<string[]> {
  const failed: string[] = [];
  for (const name of names) if ((await api.ask('GET', name)).body.state === 'backoff') failed.push(name);
  return failed;
}

async function pidsOf(api: Api, names: readonly string[]): Promise<number[]> {
  const pids: number[] = [];
  for (const name of names) pids.push((await api.ask('GET', name)).body.pid);
  return pids;
}

/** A restart that may fail, and then does so with a sentence and nothing half done. Answers the status. */
async function failCleanly(api: Api, name: string, parent: number): Promise<number> {
  const { status, body } = await api.ask('POST', name, '/restart');
  expect(status, JSON.stringify(body)).to.be.oneOf([200, 409, 502]);
  if (status !== 200) expect(body.detail, JSON.stringify(body)).to.match(/EMFILE|EAGAIN|too many open files/i);
  await expectWhole(api, name, parent);
  return status;
}

/** Up, or not and nothing of it there. */
async function expectWhole(api: Api, name: string, parent: number): Promise<void> {
  let seen: unknown;
  const isWhole = async () => {
    const { body: tunnel } = await api.ask('GET', name);
    const chain = processesByTunnel().get(tunnel.id) ?? [];
    const pids = chain.map(({ pid }) => pid);
    const isOurs = ({ host, port }: Listen) => isListenedTo(host, port, pids);
    seen = { state: tunnel.state, reason: tunnel.reason, lastError: tunnel.last_error, chain };
    if (chain.length === 0) return tunnel.state === 'backoff' && (await isPortFree(tunnel.listen[0].port));
    // Nobody without a parent, nobody left stopped. It may be that it could not be ended: then it is said to be stuck.
    const isSaid = tunnel.state === 'up' || (tunnel.state === 'backoff' && tunnel.reason === 'stuck');
    const isAttached = rootsOf(chain).every(({ ppid }) => ppid === parent) && !chain.some(({ state }) => state === 'T');
    return isSaid && isAttached && tunnel.listen.every(isOurs);
  };
  expect(await until(isWhole, { timeoutMs: 5000, everyMs: 20 }), `${name}: ${JSON.stringify(seen)}`).to.equal(true);
}

interface Listen {
  readonly host: string;
  readonly port: number;
}

async function recovers(api: Api, name: string): Promise<void> {
  const { status, body } = await api.ask('POST', name, '/restart');
  expect(status, JSON.stringify(body)).to.equal(200);
  expect(await fetchText(body.tunnel.listen[0].port), name).to.equal('served');
}
