import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type Daemon, startDaemon } from '../../daemon/daemon.js';
import type { JournalEntry } from '../../daemon/events.js';
import { busyHosts, resolveHosts } from '../../port/probe.js';
import { known, openProc } from '../../proc/read.js';
import { startSshServer } from '../../sshd/server.js';
import { systemClock, until } from '../../time.js';
import { findProgram } from '../../tunnel/chain.js';
import type { TunnelStatus } from '../../tunnel/runner.js';
import type { EngineName } from '../../tunnel/spec.js';
import { createStack, type Stack } from './stack.js';
import { openService, openTraffic, type Service, type Traffic } from './traffic.js';

/** One of the demo's four tunnels. */
export interface DemoTunnel {
  readonly name: 'orders' | 'reports' | 'webhook' | 'checkout';
  readonly engine: EngineName;
  readonly seamless: boolean;
  /** `local`: the port is here and the service there (`ssh -L`). `remote`: the other way round (`ssh -R`). */
  readonly side: 'local' | 'remote';
  readonly port: number;
}

/** All that is there before the first act: a server, a service, a daemon with four tunnels up, requests through them. */
export interface Stage extends AsyncDisposable {
  /** A folder of its own, 0700. */
  readonly dir: string;
  readonly service: Service;
  readonly daemon: Daemon;
  readonly tunnels: readonly DemoTunnel[];
  readonly traffic: Traffic;
  /** How long the daemon and its tunnels took to come up, in milliseconds. */
  readonly upMs: number;
}

export interface StageOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly signal: AbortSignal;
  readonly onEvent: (entry: JournalEntry) => void;
}

/** How the tunnels' configuration of ssh calls the server, and its name in the demo's folder. */
export const SSH_HOST = 'demo';
export const SSH_CONFIG = 'ssh_config';

/** Opens all of it, or nothing: what had been opened before a failure is closed again. */
export async function openStage(options: StageOptions): Promise<Stage> {
  const stack = createStack();
  try {
    return { ...(await furnish(options, stack)), [Symbol.asyncDispose]: stack.close };
  } catch (error) {
    await stack.close();
    throw error;
  }
}

async function furnish({ env, signal, onEvent }: StageOptions, stack: Stack) {
  const dir = stack.defer(makeFolder(), (folder) => fs.rmSync(folder, { recursive: true, force: true }));
  const service = stack.use(await openService());
  const server = stack.use(await startSshServer({ username: 'demo', alias: SSH_HOST }));
  const [orders = 0, reports = 0, webhook = 0, checkout = 0] = await pickPorts(4);
  const { engine, chained } = chooseEngines(env);
  const tunnels: readonly DemoTunnel[] = [
    { name: 'orders', engine, side: 'local', port: orders, seamless: false },
    { name: 'reports', engine: chained, side: 'local', port: reports, seamless: false },
    { name: 'webhook', engine, side: 'remote', port: webhook, seamless: false },
    { name: 'checkout', engine, side: 'local', port: checkout, seamless: true },
  ];
  // A short name for the command lines that the demo shows.
  fs.copyFileSync(server.sshConfigFile, path.join(dir, SSH_CONFIG));
  writePrivate(dir, 'tunward.yaml', daemonConfig(dir, service.port, tunnels));
  const began = systemClock.now();
  const daemon = stack.use(await startDaemon({ configFile: path.join(dir, 'tunward.yaml'), env, cwd: dir, onEvent }));
  await allUp(daemon, signal);
  const upMs = systemClock.now() - began;
  const traffic = stack.use(openTraffic(new Map(tunnels.map(({ name, port }) => [name, port])), service.greeting));
  return { dir, service, daemon, tunnels, traffic, upMs };
}

/** What `auto` would take, and for one of the tunnels an autossh, where there is one. */
export function chooseEngines(env: NodeJS.ProcessEnv): { readonly engine: EngineName; readonly chained: EngineName } {
  if (findProgram('ssh', env) === undefined) return { engine: 'embedded', chained: 'embedded' };
  return { engine: 'ssh', chained: findProgram('autossh', env) === undefined ? 'ssh' : 'autossh' };
}

function makeFolder(): string {
  const inside = (folder: string) => path.join(folder, 'tunward-demo-');
  // A longer path than 107 bytes is no address for a unix socket: some systems' own temporary folders are deep.
  const tooLong = Buffer.byteLength(`${inside(os.tmpdir())}123456/tunward.sock`) > 107;
  return fs.mkdtempSync(inside(tooLong ? '/tmp' : os.tmpdir()));
}

function writePrivate(dir: string, name: string, text: string): void {
  fs.writeFileSync(path.join(dir, name), text, { mode: 0o600 });
}

function daemonConfig(dir: string, servicePort: number, tunnels: readonly DemoTunnel[]): string {
  const service = JSON.stringify(`127.0.0.1:${servicePort}`);
  const entries = tunnels.map(
    ({ name, engine, side, port, seamless }) => `  - name: ${name}
    remote_host: ${SSH_HOST}
    direction: ${side === 'local' ? 'remote_to_local' : 'local_to_remote'}
    local_port: ${side === 'local' ? port : service}
    remote_port: ${side === 'local' ? service : port}
    engine: ${engine}
    seamless: ${seamless}
`,
  );
  return `state_dir: ${JSON.stringify(path.join(dir, 'state'))}
log_dir: ${JSON.stringify(path.join(dir, 'log'))}
ssh_config: ${JSON.stringify(path.join(dir, SSH_CONFIG))}
api:
  socket: ${JSON.stringify(path.join(dir, 'tunward.sock'))}
tunnels:
${entries.join('')}`;
}

/** Below the range of which the kernel gives ports to clients: nobody takes one by accident while the demo has it free. */
async function pickPorts(count: number): Promise<number[]> {
  const range = known(openProc().text('sys/net/ipv4/ip_local_port_range')) ?? '';
  const lowest = Number(range.split(/\s+/)[0]) || 32_768;
  const [from, to] = lowest > 12_000 ? [10_000, lowest] : [10_000, 60_000];
  const found = new Set<number>();
  for (let tries = 0; found.size < count && tries < 200; tries++) {
    const port = from + Math.floor(Math.random() * (to - from));
    if ((await busyHosts(resolveHosts('localhost'), port)).length === 0) found.add(port);
  }
  if (found.size < count) throw new Error(`Found no ${count} free ports between ${from} and ${to}`);
  return [...found].sort((one, other) => one - other);
}

/** Up, or not to be: a tunnel that failed twice has a reason that a third attempt does not change. */
async function allUp({ supervisor }: Daemon, signal: AbortSignal): Promise<void> {
  const settled = () => supervisor.list().every(({ state }) => state === 'up') || supervisor.list().some(failedTwice);
  await until(settled, { timeoutMs: 15_000, signal });
  const down = supervisor.list().find(failedTwice) ?? supervisor.list().find(({ state }) => state !== 'up');
  if (!down) return;
  const { name, state, lastError } = down;
  throw new Error(`The demo's tunnel ${name} did not come up: ${state}${lastError ? ` (${lastError})` : ''}`);
}

function failedTwice({ attempt, state }: TunnelStatus): boolean {
  return state === 'fatal' || (state === 'backoff' && attempt >= 2);
}
