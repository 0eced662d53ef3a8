import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { isTunwardError, type TunwardError } from '#lib/errors.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import { createSupervisor, type Supervisor, type SupervisorOptions } from '#lib/tunnel/supervisor.js';
import { descendantsOf, environOf, type Ref, type Stat } from '../../support/proc.js';
import type { Reaper } from '../../support/reaper.js';
import { makeSpec } from '../../support/specs.js';
import type { Sshd } from '../../support/sshd.js';

/** A supervisor in this process, with the real ssh and autossh: between two of its statements nothing of it happens. */
export function superviseHere(reaper: Reaper, options: Partial<SupervisorOptions> = {}): Supervisor {
  return createSupervisor({ env: { ...process.env, ...reaper.env }, random: () => 1, ...options });
}

export interface Wanted extends Partial<TunnelSpec> {
  readonly name: string;
  readonly side?: 'local' | 'remote';
  /** Where it listens, on the loopback addresses of its side. */
  readonly port: number;
  /** A port of 127.0.0.1 on the other side. */
  readonly target: number;
}

/** A tunnel to that server that is not tried again by itself before a minute has gone by. Its bounds
 * leave room for a busy machine. */
export function tunnelTo(sshd: Sshd, { side = 'local', port, target, ...changes }: Wanted): TunnelSpec {
  const listen = { host: 'localhost', port };
  return makeSpec({
    side,
    listen,
    remoteHost: sshd.host,
    sshConfig: sshd.sshConfigFile,
    forward: { side, listen, target: { host: '127.0.0.1', port: target } },
    startTimeoutMs: 30_000,
    restartTimeoutMs: 30_000,
    backoff: { minMs: 60_000, maxMs: 60_000, stableMs: 30_000 },
    ...changes,
  });
}

/** The server's ssh_config with these lines of the person's own before it: ssh takes the first value of a keyword. */
export function writeConfig(sshd: Sshd, name: string, lines: readonly string[]): string {
  const file = join(sshd.dir, `${name}.ssh_config`);
  writeFileSync(file, `${lines.join('\n')}\n${readFileSync(sshd.sshConfigFile, 'utf8')}`, { mode: 0o600 });
  return file;
}

/** A known_hosts file for the server behind another port. */
export function knownHostsFor(sshd: Sshd, port: number): string {
  const file = join(sshd.dir, `known_hosts.${port}`);
  writeFileSync(file, readFileSync(sshd.knownHostsFile, 'utf8').replaceAll(`:${sshd.port} `, `:${port} `));
  return file;
}

/** Every living process that belongs to a tunnel, by the tunnel's id: also one whose parent is gone. */
export function processesByTunnel(): Map<string, Stat[]> {
  const found = new Map<string, Stat[]>();
  for (const stat of descendantsOf(1)) {
    const id = environOf(stat.pid).flatMap((entry) => /^TUNNEL_ID=(.+)$/.exec(entry)?.[1] ?? [])[0];
    if (id !== undefined) found.set(id, [...(found.get(id) ?? []), stat]);
  }
  return found;
}

/** Those of them that none of the others has started: more than one of a tunnel are two chains. */
export function rootsOf<T extends Ref & { readonly ppid: number }>(processes: readonly T[]): T[] {
  return processes.filter(({ ppid }) => !processes.some(({ pid }) => pid === ppid));
}

/** What somebody is told who asks in vain. */
export async function refusalOf(request: Promise<unknown>): Promise<TunwardError> {
  const error = await request.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (isTunwardError(error)) return error;
  if (error !== undefined) throw error;
  expect.fail('It was granted');
}
