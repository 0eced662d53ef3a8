import type { ChildProcess } from 'node:child_process';
import { findListeners } from '#lib/port/listeners.js';
import { until } from '#lib/time.js';
import type { Reaper } from './reaper.js';
import { startScript } from './sockets.js';

/** A shell command that listens on 127.0.0.1 within some milliseconds of its start. */
export function perlListener(port: number): string {
  const program = `use Socket; socket(S, PF_INET, SOCK_STREAM, 0); setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1);
    bind(S, sockaddr_in(${port}, inet_aton("127.0.0.1"))) or die $!; listen(S, 5); sleep 170`;
  return `perl -e '${program}'`;
}

/** `while …; do prog; done`, with an end: what a person types to keep something alive. Resolves when it listens. */
export async function startShellLoop(
  reaper: Reaper,
  {
    port,
    pauseMs,
    generations = 30,
  }: { readonly port: number; readonly pauseMs: number; readonly generations?: number },
): Promise<ChildProcess & { readonly pid: number }> {
  const pause = pauseMs > 0 ? `sleep ${pauseMs / 1000}` : ':';
  const script = `echo ready; i=0; while [ $i -lt ${generations} ]; do ${perlListener(port)}; i=$((i + 1)); ${pause}; done`;
  const loop = await startScript(reaper, 'setsid', ['--wait', 'sh', '-c', script]);
  if (!(await until(async () => (await findListeners(port)).length > 0, { timeoutMs: 10_000 }))) {
    throw new Error(`the loop does not listen on ${port}`);
  }
  return loop;
}
