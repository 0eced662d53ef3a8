import { readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { type Answer, type Home, makeHome, spawnUp } from '../../support/daemon.js';
import { freeLocalPort } from '../../support/port.js';
import { environOf, processesWithEnv, statOf } from '../../support/proc.js';
import { createReaper, type Reaper } from '../../support/reaper.js';
import type { Sshd } from '../../support/sshd.js';

export type Up = ReturnType<typeof spawnUp>;

/** One installation: its folder, its tunnels to one server, and who ends what is left of it. */
export interface Site {
  readonly home: Home;
  readonly reaper: Reaper;
  /** A port of its own for each tunnel there may be. */
  readonly ports: readonly number[];
  /** Makes these the tunnels of its configuration file. */
  configure(tunnels: readonly Readonly<Record<string, unknown>>[]): void;
  up(env?: NodeJS.ProcessEnv): Up;
}

/** An installation without a state for `act`; nothing of it is left afterwards. */
export async function withSite<T>(sshd: Sshd, count: number, act: (site: Site) => Promise<T>): Promise<T> {
  const home = makeHome();
  await using reaper = createReaper();
  const ports: number[] = [];
  while (ports.length < count) ports.push(await freeLocalPort());
  const common = { remote_host: 'rig', ssh_config: sshd.sshConfigFile, remote_port: `127.0.0.1:${sshd.port}` };
  const configure: Site['configure'] = (tunnels) =>
    home.configure(
      {},
      tunnels.map((tunnel) => ({ ...common, ...tunnel })),
    );
  try {
    return await act({ home, reaper, ports, configure, up: (env) => spawnUp(reaper, home, env) });
  } finally {
    await reaper.end();
    home.remove();
  }
}

/** A tunnel to the server's own port, so that the server's greeting comes through it; each third one the other way. */
export function tunnelTo(sshd: Sshd, { ports }: Site, at: number): Readonly<Record<string, unknown>> {
  const engine = at % 3 === 1 ? 'autossh' : 'ssh';
  const local = { name: `t${at}`, engine, local_port: ports[at] };
  if (at % 3 !== 2) return local;
  return { ...local, direction: 'local_to_remote', local_port: `127.0.0.1:${sshd.port}`, remote_port: ports[at] };
}

/** The records of all tunnels of the file when all are up; undefined while one is not, or nobody answers. */
export async function allUp({ home }: Site): Promise<Answer['body'][] | undefined> {
  const { tunnels } = JSON.parse(readFileSync(home.configFile, 'utf8'));
  const answer = await home.api('GET', '/v1/tunnels').catch(() => undefined);
  const found: Answer['body'][] = answer?.body.tunnels ?? [];
  const isAll = found.length === tunnels.length && found.every(({ state }) => state === 'up');
  return isAll ? found : undefined;
}

/** Starts a daemon and waits until all of its tunnels are up: how long that took, in milliseconds. */
export async function bootAll(site: Site, env: NodeJS.ProcessEnv = {}): Promise<{ daemon: Up; tookMs: number }> {
  const began = performance.now();
  const daemon = site.up(env);
  const isUp = async () => daemon.hasEnded() || (await allUp(site)) !== undefined;
  const inTime = await until(isUp, { timeoutMs: 30_000, everyMs: 20 });
  if (!inTime || daemon.hasEnded()) throw new Error(`not all are up: ${daemon.stderr()}`);
  return { daemon, tookMs: performance.now() - began };
}

/**
 * All that must hold of an installation whose daemon has booted, whatever was before: what is up forwards, each tunnel
 * has one chain, the ledger names those, nobody else is there and nobody is stopped, and nothing was ever in use.
 */
export async function expectClean(site: Site, daemon: Up): Promise<void> {
  const { home, reaper } = site;
  const tunnels = (await allUp(site)) ?? [];
  const chains: { pid: number }[][] = tunnels.map(({ chain }) => chain);
  const members = chains.flat().map(({ pid }) => pid);
  for (const { name, listen } of tunnels) {
    expect(await greetingAt(listen[0].port), `what comes through ${name}`).to.match(/^SSH-2\.0/);
  }
  const instance = readFileSync(join(home.stateDir, 'instance'), 'utf8').trim();
  expect(instance).to.match(/^[0-9a-f]{32}$/);
  const marked = [...processesWithEnv(`TUNWARD_INSTANCE=${instance}`)].filter(({ pid }) => pid !== daemon.pid);
  expect(
    marked.map(({ pid }) => pid),
    'who carries the mark',
  ).to.have.members(members);
  for (const { id, chain } of tunnels) {
    for (const { pid } of chain) expect(environOf(pid), 'a chain of another').to.include(`TUNNEL_ID=${id}`);
  }
  await expectLedger(
    home,
    chains.map(([root]) => root?.pid ?? 0),
  );
  // An `ssh -G` that a daemon has left behind ends by itself.
  const others = () => reaper.living().filter(({ pid }) => ![daemon.pid, ...members].includes(pid));
  await until(() => others().length === 0, { timeoutMs: 3000 });
  expect(others(), 'left of a former life').to.deep.equal([]);
  expect(
    members.filter((pid) => statOf(pid)?.state === 'T'),
    'stopped',
  ).to.deep.equal([]);
  for (const { id } of tunnels) expectNothingInUse(home.logLines(id).join('\n'));
  expectNothingInUse(daemon.stderr());
}

export function expectNothingInUse(log: string): void {
  expect(
    log.split('\n').filter((line) => /address (already )?in use|cannot listen|_port_busy/i.test(line)),
  ).to.deep.equal([]);
}

/** A chain that has gone is taken out of it a moment later. */
async function expectLedger({ stateDir }: Home, roots: readonly number[]): Promise<void> {
  const read = () => JSON.parse(readFileSync(join(stateDir, 'ledger.json'), 'utf8'));
  const pids = (): number[] => read().chains.map(({ pid }: { pid: number }) => pid);
  await until(() => pids().length === roots.length, { timeoutMs: 2000 });
  expect(read().version).to.equal(1);
  expect(pids(), 'the ledger').to.have.members(roots);
}

/** The first that a server says there; empty when nobody does. */
function greetingAt(port: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = createConnection({ port, host: '127.0.0.1' });
    const finish = (text: string) => {
      socket.destroy();
      resolve(text);
    };
    socket.setTimeout(5000, () => finish(''));
    socket.once('data', (text) => finish(String(text)));
    socket.once('error', () => finish(''));
    socket.once('close', () => finish(''));
  });
}
