import { type ChildProcess, spawn } from 'node:child_process';
import { until } from '#lib/time.js';
import type { Reaper } from './reaper.js';

/**
 * Sockets as Node cannot make them, made by perl: `$s` is what the script gets, bound as it is asked, and whatever the
 * script prints first says that it is ready. Resolves to the process, when it has.
 *
 * @example
 * await startPerlSocket(reaper, { port, script: 'listen($s, 5); fork; fork;' }); // four processes, one socket
 */
export async function startPerlSocket(
  reaper: Reaper,
  {
    port,
    address = '127.0.0.1',
    options = [],
    script = '',
  }: {
    readonly port: number;
    readonly address?: string;
    readonly options?: readonly ('SO_REUSEADDR' | 'SO_REUSEPORT')[];
    readonly script?: string;
  },
): Promise<ChildProcess & { readonly pid: number }> {
  const set = options.map((option) => `setsockopt($s, SOL_SOCKET, ${option}, 1) or die "${option}: $!";`).join(' ');
  const program = `use strict; use Socket; $| = 1; $^F = 100;
    socket(my $s, PF_INET, SOCK_STREAM, 0) or die "socket: $!"; ${set}
    bind($s, sockaddr_in(${port}, inet_aton('${address}'))) or die "bind: $!";
    my $parent = $$; ${script}; print "ready\\n" if $$ == $parent; sleep 1 while 1`;
  return await startScript(reaper, 'perl', ['-e', program]);
}

/** Starts a program that prints a line when it is ready. */
export async function startScript(
  reaper: Reaper,
  program: string,
  args: readonly string[],
): Promise<ChildProcess & { readonly pid: number }> {
  const env = { ...process.env, ...reaper.env };
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  reaper.own(child);
  let said = '';
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  const ready = await until(() => said.includes('\n') || child.exitCode !== null, { timeoutMs: 10_000 });
  if (!ready || child.exitCode !== null || child.pid === undefined) throw new Error(`${program} failed: ${errors}`);
  return Object.assign(child, { pid: child.pid });
}
