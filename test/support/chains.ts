/** Chains of ssh and autossh started by hand, as a former life, another manager or a person would leave them. */
import { spawn } from 'node:child_process';
import { until } from '#lib/time.js';
import { which } from './paths.js';
import { descendantsOf, isAlive, type Ref, statOf } from './proc.js';
import type { Reaper } from './reaper.js';
import type { Sshd } from './sshd.js';

export interface Chain {
  readonly root: Ref;
  /** The root and all below it, now. */
  refs(): Ref[];
  isAlive(): boolean;
  stderr(): string;
}

export interface ChainStart {
  readonly program?: 'ssh' | 'autossh';
  /** `-L …` or `-R …` words, and whatever else. */
  readonly words: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Resolves when this answers true; an ssh below autossh alone counts by default. */
  readonly ready: () => boolean | Promise<boolean>;
}

/** autossh here retries for ever (GATETIME 0), as the stale ones that people meet do. */
export async function startChain(
  reaper: Reaper,
  sshd: Pick<Sshd, 'sshConfigFile' | 'host'>,
  { program = 'autossh', words, env, ready }: ChainStart,
): Promise<Chain> {
  const own = program === 'autossh' ? ['-M', '0'] : [];
  const argv = [...own, '-F', sshd.sshConfigFile, '-N', '-o', 'ExitOnForwardFailure=yes', ...words, sshd.host];
  const child = spawn(which(program) ?? program, argv, {
    env: { ...process.env, ...reaper.env, AUTOSSH_GATETIME: '0', ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true,
  });
  reaper.own(child);
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const root = { pid: child.pid ?? 0, startTicks: statOf(child.pid ?? 0)?.startTicks ?? 0 };
  if (!(await until(ready, { timeoutMs: 10_000, everyMs: 20 }))) throw new Error(`${program} is not ready: ${said}`);
  return {
    root,
    refs: () => [root, ...descendantsOf(root.pid)],
    isAlive: () => isAlive(root.pid, root.startTicks),
    stderr: () => said,
  };
}
