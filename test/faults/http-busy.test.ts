/** H3 of the fault catalogue: a daemon that cannot move for two seconds. What it has promised comes by so much later. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { systemClock, until } from '#lib/time.js';
import { type Home, makeHome, type RunningDaemon, startUp, tunnelIn } from '../support/daemon.js';
import { lacksDisk, makeDisk } from '../support/disk.js';
import { fault } from '../support/fault.js';
import { programsDir } from '../support/paths.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive, type Ref, sendSignal } from '../support/proc.js';
import { startClient } from '../support/processes.js';
import { createReaper, type Reaper } from '../support/reaper.js';
import { isMute, startServer } from '../support/servers.js';
import { type Sshd, startSshd } from '../support/sshd.js';
import { processesByTunnel, rootsOf } from './tunnel/rig.js';

/** How long it cannot move, and how much later an answer may be for that. */
const BUSY_MS = 2000;
/** What a busy machine may add to that, see S2. */
const LATE_MS = 3000;

describe('fault: a daemon that cannot move for two seconds', () => {
  const needs = ['ssh', 'sshd', 'autossh'] as const;
  const blocked = 'is as much later, kills nobody twice and loses no tunnel, when its event loop is blocked';
  fault({ id: 'H3', title: blocked, times: 8, needs }, (times) =>
    withScene({}, (scene) =>
      compare(scene, times, async (act, { at, isBoot }) => {
        const done = scene.blocks();
        // At any moment of what it does, which takes about 200 ms.
        scene.order({ blockMs: BUSY_MS, afterMs: (at * 67) % 240 }, isBoot ? 'the next' : 'this one');
        const result = await act();
        expect(await until(() => scene.blocks() > done, { timeoutMs: 10_000 }), 'was blocked').to.equal(true);
        scene.order({}, 'the next');
        return result;
      }),
    ),
  );

  const slow = 'the same when every wait for the disk takes half a second';
  fault({ id: 'H3', title: slow, times: 4, needs }, (times) =>
    withScene({}, (scene) =>
      compare(scene, times, async (act) => {
        scene.order({ syncMs: 500 }, 'this one');
        const result = await act();
        scene.order({}, 'this one');
        return result;
      }),
    ),
  );

  const frozen = 'the same when its disk, with state and logs, is frozen';
  fault({ id: 'H3', title: frozen, times: 6, needs: [...needs, 'root'], impossible: lacksDisk }, async (times) => {
    const disk = makeDisk();
    try {
      const folders = { state_dir: join(disk.dir, 'state'), log_dir: join(disk.dir, 'log') };
      return await withScene(folders, (scene) =>
        compare(scene, times, async (act) => {
          disk.freeze();
          const thawed = systemClock.sleep(BUSY_MS).then(disk.thaw);
          const [result] = await Promise.all([act(), thawed]);
          return result;
        }),
      );
    } finally {
      disk.unmake();
    }
  });
});

interface Scene {
  readonly home: Home;
  readonly sshd: Sshd;
  /** Makes daemons slow, as programs/busy.mjs has it: this one and those to come, or those alone. */
  order(how: Readonly<Record<string, number>>, which: 'this one' | 'the next'): void;
  /** How often it has been blocked. */
  blocks(): number;
  daemon(): RunningDaemon;
  /** Ends the daemon at once, and starts the next one over what it left. */
  reboot(): Promise<void>;
  /** Looks like a part of the tunnels, and is none. */
  readonly bystander: Ref;
}

/** Tunnels of both engines, one whose server is silent, and what only looks like one of them. */
async function withScene(
  folders: Readonly<Record<string, string>>,
  act: (scene: Scene) => Promise<string>,
): Promise<string> {
  await using reaper = createReaper();
  await using sshd = await startSshd();
  await using mute = await startServer(isMute);
  const home = makeHome();
  const file = join(home.dir, 'busy.json');
  const env = { NODE_OPTIONS: `--import ${pathToFileURL(join(programsDir, 'busy.mjs'))}`, TUNWARD_BUSY: file };
  try {
    const [plain, chained] = [await freeLocalPort(), await freeLocalPort()];
    const common = { remote_host: sshd.host, ssh_config: sshd.sshConfigFile, remote_port: `127.0.0.1:${sshd.port}` };
    const silent = { ssh_options: { Port: String(mute.port) }, restart_timeout_ms: 1000, enabled: false };
    home.configure(folders, [
      // What comes up while the daemon stands still is up, and not late.
      { ...common, name: 'plain', local_port: plain, start_timeout_ms: 1900 },
      { ...common, name: 'chained', local_port: chained, engine: 'autossh' },
      { ...common, name: 'silent', local_port: await freeLocalPort(), ...silent },
    ]);
    writeFileSync(file, '{}');
    let daemon = await startUp(reaper, home, env);
    await allUp(home);
    const bystander = await startBystander(reaper, plain);
    const scene: Scene = {
      ...{ home, sshd, bystander },
      order: (how, which) => {
        writeFileSync(file, JSON.stringify(how));
        if (which === 'this one') process.kill(daemon.pid, 'SIGUSR2');
      },
      blocks: () => (existsSync(`${file}.done`) ? readFileSync(`${file}.done`, 'utf8').split('\n').length - 1 : 0),
      daemon: () => daemon,
      reboot: async () => {
        await daemon.end('SIGKILL');
        daemon = await startUp(reaper, home, env);
        await allUp(home);
      },
    };
    const figure = await act(scene);
    expect(await daemon.end('SIGTERM'), daemon.stderr()).to.equal(0);
    return figure;
  } finally {
    await reaper.end();
    home.remove();
  }
}

async function startBystander(reaper: Reaper, port: number): Promise<Ref> {
  const { ready, pid, startTicks } = startClient(reaper, { port, comm: 'ssh', env: { OTHER_TUNNEL_ID: 'plain' } });
  await ready;
  return { pid, startTicks };
}

const allUp = (home: Home) => Promise.all(['plain', 'chained'].map((name) => tunnelIn(home, name, 'up', 30_000)));

/** What is asked of it, and what must be so afterwards. Answers how long that took. */
type Task = (scene: Scene) => Promise<number>;

const tasks: Readonly<Record<string, Task>> = {
  restart: (scene) => restart(scene, 'plain'),
  'restart of autossh': (scene) => restart(scene, 'chained'),
  'restart of a stopped chain': async (scene) => {
    for (const { pid, start_ticks } of (await tunnelIn(scene.home, 'plain', 'up')).chain) {
      sendSignal({ pid, startTicks: start_ticks }, 'SIGSTOP');
    }
    return restart(scene, 'plain');
  },
  'restart in vain': async ({ home }) => {
    const { tookMs, status, body } = await ask(home, 'silent', 'restart');
    expect(status, JSON.stringify(body)).to.equal(504);
    // Or the next one joins what goes on.
    expect((await ask(home, 'silent', 'stop')).status).to.equal(200);
    return tookMs;
  },
  stop: stopAndStart,
  boot: async ({ home, sshd, reboot }) => {
    const [before, logins] = [await allUp(home), countLogins(sshd)];
    const began = systemClock.now();
    await reboot();
    const tookMs = systemClock.now() - began;
    expect(
      before.flatMap(({ chain }) => chain.filter(isThere)),
      'left of the former life',
    ).to.deep.equal([]);
    for (const tunnel of await allUp(home)) expectOneChain(tunnel);
    expect(countLogins(sshd) - logins, 'logins').to.equal(before.length);
    return tookMs;
  },
};

/** Each task as often without trouble and with it: how much later the slowest was than is usual. */
async function compare(
  scene: Scene,
  times: number,
  trouble: (act: () => Promise<number>, round: { at: number; isBoot: boolean }) => Promise<number>,
): Promise<string> {
  const figures: string[] = [];
  for (const [name, task] of Object.entries(tasks)) {
    const [well, ill]: number[][] = [[], []];
    for (let at = 0; at < times; at++) {
      well?.push(await task(scene));
      ill?.push(await trouble(() => task(scene), { at, isBoot: name === 'boot' }));
      expect(isAlive(scene.bystander.pid, scene.bystander.startTicks), `the bystander, after ${name}`).to.equal(true);
    }
    const overMs = Math.max(...(ill ?? [])) - median(well ?? []);
    expect(overMs, `${name}: ${well?.map(Math.round)} and ${ill?.map(Math.round)}`).to.be.below(BUSY_MS + LATE_MS);
    figures.push(`${name} ${(overMs / 1000).toFixed(1)} s`);
  }
  return `${times} each, later at most by: ${figures.join(', ')}`;
}

async function restart({ home, sshd }: Scene, name: string): Promise<number> {
  const [before, logins] = [await tunnelIn(home, name, 'up'), countLogins(sshd)];
  const { tookMs, status, body } = await ask(home, name, 'restart');
  expect(status, JSON.stringify(body)).to.equal(200);
  expect(pidsOf(body.kill.killed), 'killed').to.have.members(pidsOf(before.chain));
  expectOneChain(body.tunnel);
  const now = await tunnelIn(home, name, 'up');
  expect(now.restarts, 'restarts').to.equal(before.restarts + 1);
  expect(now.pid, 'a life later than that of the answer').to.equal(body.tunnel.pid);
  expect(countLogins(sshd) - logins, 'logins').to.equal(1);
  return tookMs;
}

/** Of the stop alone. */
async function stopAndStart(scene: Scene): Promise<number> {
  const { home, sshd } = scene;
  const [before, logins] = [await tunnelIn(home, 'chained', 'up'), countLogins(sshd)];
  const { tookMs, status, body } = await ask(home, 'chained', 'stop');
  expect(status, JSON.stringify(body)).to.equal(200);
  expect(pidsOf(body.kill.killed), 'killed').to.have.members(pidsOf(before.chain));
  expect(processesByTunnel().get(before.id), 'left').to.equal(undefined);
  expect((await ask(home, 'chained', 'start')).status).to.equal(200);
  expectOneChain(await tunnelIn(home, 'chained', 'up'));
  expect(countLogins(sshd) - logins, 'logins').to.equal(1);
  return tookMs;
}

async function ask({ api }: Home, name: string, action: string) {
  const began = systemClock.now();
  const { status, body } = await api('POST', `/v1/tunnels/${name}/${action}`);
  return { status, body, tookMs: systemClock.now() - began };
}

function expectOneChain({ id, pid, chain }: { id: string; pid: number; chain: { pid: number }[] }): void {
  const found = processesByTunnel().get(id) ?? [];
  expect(pidsOf(rootsOf(found)), 'chains').to.deep.equal([pid]);
  expect(pidsOf(found)).to.have.members(pidsOf(chain));
}

const median = (list: readonly number[]) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)] ?? 0;
const pidsOf = (processes: readonly { pid: number }[]) => processes.map(({ pid }) => pid);
const isThere = ({ pid, start_ticks }: { pid: number; start_ticks: number }) => isAlive(pid, start_ticks);
const countLogins = (sshd: Sshd) => sshd.log().split('Accepted publickey').length - 1;
