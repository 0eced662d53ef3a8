// What X1 does with what a door has let in: runs it, by the real ssh and autossh.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { isTunwardError } from '#lib/errors.js';
import { openTunnel } from '#lib/index.js';
import { openProc } from '#lib/proc/read.js';
import { systemClock } from '#lib/time.js';
import { parseSshCommand } from '#lib/tunnel/arguments.js';
import { createChains } from '#lib/tunnel/chain.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import { repoRoot } from '../../support/paths.js';
import type { Reaper } from '../../support/reaper.js';
import { superviseHere } from '../tunnel/rig.js';
import type { Site } from './site.js';
import type { Hostile } from './strings.js';

/** How often each came to pass. */
export type Tally = Map<string, number>;

export function count(tally: Tally, what: string): void {
  tally.set(what, (tally.get(what) ?? 0) + 1);
}

/** `2100 refused, 40 exited`, the most frequent first. */
export function describeTally(tally: Tally): string {
  const entries = [...tally].sort(([, one], [, other]) => other - one);
  return entries.map(([what, times]) => `${times} ${what}`).join(', ');
}

/** Starts each of these tunnels, which all fail, and says why each did. */
export async function startEach(specs: readonly TunnelSpec[], site: Site, reaper: Reaper): Promise<string[]> {
  const env = environment(site, reaper);
  await using supervisor = superviseHere(reaper, { env, gate: { concurrency: 8, perHost: 8, intervalMs: 0 } });
  await supervisor.reconcile(specs);
  return await Promise.all(
    specs.map(async ({ id }) => {
      const code = await failureOf(supervisor.start(id));
      return supervisor.status(id).reason ?? code;
    }),
  );
}

/** The library's own door. Answers as {@link startEach} does. */
export async function openOne(options: Readonly<Record<string, unknown>>, site: Site, reaper: Reaper): Promise<string> {
  const whole = {
    ...{ remoteHost: 'target', remotePort: '127.0.0.1:80', localPort: 0, sshConfig: site.configs[0] },
    ...{ env: environment(site, reaper), ...options },
  };
  return failureOf(openTunnel(whole));
}

async function failureOf(start: Promise<unknown>): Promise<string> {
  try {
    await start;
  } catch (error) {
    if (isTunwardError(error)) return error.code;
    throw error;
  }
  throw new Error('It is up, and nobody is there');
}

/** What a clean-up does that meets the command line of somebody's ssh: it takes it apart, and asks ssh where it goes. */
export async function lookAtCommands(hostiles: readonly Hostile[], site: Site, reaper: Reaper): Promise<number> {
  const env = environment(site, reaper);
  const chains = createChains({ instance: 'x1', env, knownHosts: null, proc: openProc(), clock: systemClock });
  let asked = 0;
  for (const [at, { text }] of hostiles.entries()) {
    const tunnel = ['ssh', '-N', '-L', '9443:localhost:443'];
    const forms = [
      ['-J', text],
      ['-l', text],
      ['-p', text],
      ['-o', text],
      ['-o', `ProxyCommand=${text}`],
      ['--', text],
    ];
    const words = forms[at % forms.length] ?? [];
    const command = parseSshCommand([...tunnel, ...words, 'target'], at % 2 === 0 ? 'ssh' : 'autossh');
    if (!command || command.destinationWords.some((word) => word.includes('\0'))) continue;
    asked++;
    await chains.resolve([...command.destinationWords, '--', command.destination]);
  }
  return asked;
}

/** Runs the command with these words; answers its exit code. */
export async function runCommand(words: readonly string[], site: Site, reaper: Reaper): Promise<number> {
  const child = spawn(process.execPath, [join(repoRoot, 'lib/cli/main.js'), ...words], {
    cwd: site.workDir,
    env: environment(site, reaper),
    stdio: 'ignore',
    timeout: 20_000,
    killSignal: 'SIGKILL',
  });
  reaper.own(child);
  const [code] = await once(child, 'exit');
  if (typeof code !== 'number') throw new Error(`tunward ${words.join(' ').slice(0, 500)} does not end`);
  return code;
}

function environment({ workDir }: Site, reaper: Reaper): NodeJS.ProcessEnv {
  return { PATH: process.env.PATH, HOME: workDir, SHELL: '/bin/sh', ...reaper.env };
}
