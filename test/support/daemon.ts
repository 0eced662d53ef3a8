/** A real daemon, run as a person runs it (`tunward up`), and its API. */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '#lib/time.js';
import { repoRoot } from './paths.js';
import { isAlive } from './proc.js';
import type { Reaper } from './reaper.js';

export interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: JSON of the wire; the tests are its assertions
  readonly body: any;
}

/** The folder of one installation: configuration, state, logs, socket. */
export interface Home {
  readonly dir: string;
  readonly configFile: string;
  readonly socket: string;
  readonly logDir: string;
  readonly stateDir: string;
  /** The command that `tunward up` is started through, such as `unshare -m …`; none by default. */
  readonly through?: readonly string[];
  /** Writes tunward.yaml: the folders, then these keys and tunnels. JSON is YAML. */
  configure(keys: Readonly<Record<string, unknown>>, tunnels: readonly Readonly<Record<string, unknown>>[]): void;
  /** Every line of every log file of a tunnel, the oldest file first. */
  logLines(id: string): string[];
  api(method: string, path: string): Promise<Answer>;
  remove(): void;
}

export function makeHome(): Home {
  const dir = mkdtempSync(join(tmpdir(), 'tunward-home-'));
  const [logDir, stateDir, socket] = [join(dir, 'log'), join(dir, 'state'), join(dir, 'run', 'tunward.sock')];
  const configFile = join(dir, 'tunward.yaml');
  return {
    dir,
    configFile,
    socket,
    logDir,
    stateDir,
    configure(keys, tunnels) {
      mkdirSync(dir, { recursive: true });
      const config = { log_dir: logDir, state_dir: stateDir, api: { socket }, ...keys, tunnels };
      writeFileSync(configFile, JSON.stringify(config, null, 2));
    },
    logLines(id) {
      const files = readdirSync(logDir).filter((name) => name.startsWith(`tunnel_${id}.log`));
      return files
        .sort()
        .reverse()
        .flatMap((name) => readFileSync(join(logDir, name), 'utf8').split('\n').slice(0, -1));
    },
    api: (method, path) => request(socket, method, path),
    remove: () => rmSync(dir, { recursive: true, force: true }),
  };
}

export interface RunningDaemon {
  readonly pid: number;
  stderr(): string;
  /** Sends a signal to the daemon alone and waits for its end; resolves to its exit code. */
  end(signal: NodeJS.Signals): Promise<number | null>;
}

/** Starts `tunward up -c …` and waits until all tunnels have been told to start (the API lists them). */
export async function startUp(reaper: Reaper, home: Home, env: NodeJS.ProcessEnv = {}): Promise<RunningDaemon> {
  const daemon = spawnUp(reaper, home, env);
  const listed = async () => daemon.hasEnded() || (await lists(home));
  await until(listed, { timeoutMs: 15_000, everyMs: 20 });
  if (daemon.hasEnded() || !(await lists(home))) throw new Error(`tunward up is not ready: ${daemon.stderr()}`);
  return daemon;
}

/** Starts it and waits for nothing: for a start that is to be refused. */
export function spawnUp(reaper: Reaper, home: Home, env: NodeJS.ProcessEnv = {}) {
  const up = [process.execPath, join(repoRoot, 'lib/cli/main.js'), 'up', '-c', home.configFile];
  const [program = '', ...words] = [...(home.through ?? []), ...up];
  const child = spawn(program, words, {
    env: { ...process.env, ...reaper.env, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  reaper.own(child);
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const exited = new Promise<number | null>((resolve) => child.once('exit', resolve));
  return {
    pid: child.pid ?? 0,
    stderr: () => said,
    exited,
    hasEnded: () => child.exitCode !== null || child.signalCode !== null,
    end: (signal: NodeJS.Signals) => {
      child.kill(signal);
      return exited;
    },
  };
}

/** Waits until a tunnel (by name) is in a state; answers its record. */
export async function tunnelIn(home: Home, name: string, state: string, timeoutMs = 10_000): Promise<Answer['body']> {
  const find = async () => {
    const { body } = await home.api('GET', '/v1/tunnels');
    // biome-ignore lint/suspicious/noExplicitAny: as above
    return body.tunnels.find((tunnel: any) => tunnel.name === name && tunnel.state === state);
  };
  const found = await until(find, { timeoutMs, everyMs: 20 });
  if (found) return found;
  const { body } = await home.api('GET', '/v1/tunnels');
  throw new Error(`${name} is not ${state} after ${timeoutMs} ms: ${JSON.stringify(body, null, 1)}`);
}

/** Waits until all of these processes are gone. */
export async function allGone(
  refs: readonly { pid: number; start_ticks: number }[],
  timeoutMs = 3000,
): Promise<boolean> {
  const gone = () => refs.every(({ pid, start_ticks }) => !isAlive(pid, start_ticks));
  return (await until(gone, { timeoutMs })) === true;
}

/** A GET through a port of this host; the text, or undefined when nobody answers it. */
export async function fetchText(port: number, host = '127.0.0.1'): Promise<string | undefined> {
  try {
    const { status, text } = await send({ host, port, path: '/', method: 'GET', agent: false, timeout: 5000 });
    return status === 200 ? text : undefined;
  } catch {
    // Refused, reset, timed out: all of it is "no answer" here.
    return undefined;
  }
}

async function lists(home: Home): Promise<boolean> {
  try {
    const wanted = JSON.parse(readFileSync(home.configFile, 'utf8')).tunnels.length;
    const { body } = await home.api('GET', '/v1/tunnels');
    return body.tunnels.length === wanted;
  } catch (error) {
    if (/ENOENT|ECONNREFUSED|ECONNRESET/.test(String(error))) return false;
    throw error;
  }
}

async function request(socketPath: string, method: string, path: string): Promise<Answer> {
  const headers = { 'content-type': 'application/json' };
  const { status, text } = await send({ socketPath, method, path, headers, agent: false, timeout: 60_000 });
  return { status, body: JSON.parse(text) };
}

function send(options: http.RequestOptions): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const call = http.request(options, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, text }));
      answer.on('error', reject);
    });
    call.on('error', reject);
    call.on('timeout', () => call.destroy(new Error('ETIMEDOUT')));
    call.end();
  });
}
