import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { until } from '#lib/time.js';
import type { Reaper } from './reaper.js';

/** An ssh-agent of the test's at that socket, with these keys. */
export async function startAgent(reaper: Reaper, socket: string, ...keys: readonly string[]): Promise<ChildProcess> {
  const agent = spawn('ssh-agent', ['-D', '-a', socket], { stdio: 'ignore', env: { ...process.env, ...reaper.env } });
  reaper.own(agent);
  const env = { ...process.env, SSH_AUTH_SOCK: socket, SSH_ASKPASS_REQUIRE: 'never' };
  const answers = () => {
    try {
      execFileSync('ssh-add', ['-l'], { env, stdio: 'ignore' });
      return true;
    } catch (error) {
      // 1: it answers, and has no keys.
      return (error as { status?: number }).status === 1;
    }
  };
  if (!(await until(answers, { timeoutMs: 10_000, everyMs: 20 }))) throw new Error('ssh-agent does not answer');
  for (const key of keys) execFileSync('ssh-add', ['-q', key], { env, stdio: 'ignore' });
  return agent;
}
