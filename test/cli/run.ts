import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '#lib/time.js';
import { repoRoot } from '../support/paths.js';
import type { Reaper } from '../support/reaper.js';

/** The command as it is installed. */
export const mainFile = join(repoRoot, 'lib/cli/main.js');

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** As another user: for root. */
  readonly uid?: number;
}

/** A command that has ended. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command that runs. */
export interface Running {
  readonly child: ChildProcess;
  readonly pid: number;
  stdout(): string;
  stderr(): string;
  /** Its end, once everything it wrote has been read. */
  readonly ended: Promise<Ended>;
}

/** Runs `tunward …` to its end. Its output is no terminal, and nothing of this shell's settings reaches it. */
export async function tunward(reaper: Reaper, args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  return startTunward(reaper, args, options).ended;
}

/** What a command that must have succeeded printed with `--json`. */
// biome-ignore lint/suspicious/noExplicitAny: JSON of the wire; the tests are its assertions
export async function tunwardJson(reaper: Reaper, args: readonly string[], options: RunOptions = {}): Promise<any> {
  const { code, stdout, stderr } = await tunward(reaper, [...args, '--json'], options);
  if (code !== 0) throw new Error(`tunward ${args.join(' ')} ended with ${code}: ${stderr}`);
  return JSON.parse(stdout);
}

export function startTunward(reaper: Reaper, args: readonly string[], { env, cwd, uid }: RunOptions = {}): Running {
  const child = spawn(process.execPath, [mainFile, ...args], {
    cwd: cwd ?? tmpdir(),
    env: { ...cleanEnvironment(), ...reaper.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(uid === undefined ? {} : { uid, gid: uid }),
  });
  reaper.own(child);
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const ended = once(child, 'close').then(([code]) => ({ code: code as number | null, stdout, stderr }));
  return { child, pid: child.pid ?? 0, stdout: () => stdout, stderr: () => stderr, ended };
}

/** Waits until it has said something; throws with all that it said instead. */
export async function said(running: Running, what: 'stdout' | 'stderr', text: string): Promise<void> {
  const found = await until(() => running[what]().includes(text), { timeoutMs: 10_000, everyMs: 10 });
  if (!found) throw new Error(`'${text}' is not in ${what}:\n${running.stdout()}\n${running.stderr()}`);
}

function cleanEnvironment(): NodeJS.ProcessEnv {
  const ours = [
    'TUNWARD_CONFIG',
    'TUNWARD_SOCKET',
    'TUNWARD_TOKEN_FILE',
    'NO_COLOR',
    'FORCE_COLOR',
    'NODE_OPTIONS',
    'SSH_AUTH_SOCK',
  ];
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !ours.includes(name)));
}
