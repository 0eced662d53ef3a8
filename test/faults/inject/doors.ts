// The doors through which X1 hands its strings: the keys of a configuration.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { parseConfig } from '#lib/daemon/config.js';
import { isErrno, isTunwardError } from '#lib/errors.js';
import { allowedSshOptions, type TunnelSpec } from '#lib/tunnel/spec.js';
import type { Site } from './site.js';

/** A tunnel as it stands in the file. */
type Keys = Readonly<Record<string, unknown>>;

/** What a string makes of a tunnel; `at` is the string's number. */
export const doors: Readonly<Record<string, (text: string, at: number) => Keys>> = {
  remote_host: (text) => ({ remote_host: text }),
  user: (text) => ({ remote_host: `${text}@target` }),
  'host of a user': (text) => ({ remote_host: `me@${text}` }),
  jump: (text) => ({ jump: text }),
  'jump, second': (text) => ({ jump: ['127.0.0.1', text] }),
  'jump, user': (text) => ({ jump: [`${text}@127.0.0.1:22`] }),
  'jump, port': (text) => ({ jump: `127.0.0.1:${text}` }),
  remote_port: (text) => ({ remote_port: text }),
  'remote_port, host': (text) => ({ remote_port: `${text}:80` }),
  local_port: (text) => ({ local_port: text }),
  'local_port, host': (text) => ({ local_port: `${text}:8080` }),
  'target of -R': (text) => ({ direction: 'local_to_remote', local_port: `${text}:80`, remote_port: '8080' }),
  'listener of -R': (text) => ({ direction: 'local_to_remote', local_port: '80', remote_port: text }),
  direction: (text) => ({ direction: text }),
  engine: (text) => ({ engine: text }),
  takeover: (text) => ({ takeover: text }),
  interactive: (text) => ({ interactive: text }),
  'ssh_options, name': (text) => ({ ssh_options: { [text]: 'yes' } }),
  'ssh_options, value': (text, at) => ({ ssh_options: { [optionOf(at)]: text } }),
  HostName: (text) => ({ ssh_options: { HostName: text } }),
  HostKeyAlias: (text) => ({ ssh_options: { HostKeyAlias: text } }),
  User: (text) => ({ ssh_options: { User: text } }),
  Port: (text) => ({ ssh_options: { Port: text } }),
  UserKnownHostsFile: (text) => ({ ssh_options: { UserKnownHostsFile: text } }),
  IdentityAgent: (text) => ({ ssh_options: { IdentityAgent: text } }),
  identity_file: (text) => ({ identity_file: text }),
  ssh_config: (text) => ({ ssh_config: text }),
  name: (text) => ({ name: text }),
  groups: (text) => ({ groups: [text] }),
  'check.http': (text) => ({ check: { http: text } }),
};

function optionOf(at: number): string {
  return allowedSshOptions[at % allowedSshOptions.length] ?? 'Port';
}

export interface Entered {
  /** How many doors a string was refused at. */
  readonly refused: number;
  /** The others, and the tunnel that it makes there. */
  readonly tunnels: readonly (readonly [door: string, spec: TunnelSpec])[];
}

/** A string at every door. */
export function enterAll(text: string, at: number, site: Site): Entered {
  const all = Object.entries(doors).map(([door, keysOf], number) => {
    return { door, keys: { ...plain(number, at, site), ...keysOf(text, at) } };
  });
  const tunnels: (readonly [string, TunnelSpec])[] = [];
  // Of the longest strings a file with all of them would be too large.
  for (let from = 0; from < all.length; from += 10) tunnels.push(...enter(all.slice(from, from + 10), site));
  for (const [door, spec] of tunnels) if (door === 'ssh_config') copyConfig(spec, site);
  return { refused: all.length - tunnels.length, tunnels };
}

interface Attempt {
  readonly door: string;
  readonly keys: Keys;
}

/** A file with all of these tunnels, and again without those that are refused. */
function enter(attempts: readonly Attempt[], site: Site): (readonly [string, TunnelSpec])[] {
  for (let left = attempts; ; ) {
    const { specs, wrong } = parse(left, site);
    if (specs) return specs.map((spec, number) => [left[number]?.door ?? '', spec] as const);
    left = left.filter((_attempt, number) => !wrong.has(number));
  }
}

/** A tunnel with nothing wrong, at an address of its own. */
export function plain(number: number, at: number, { port, configs, closedPort }: Site): Keys {
  return {
    ...{ name: `t${at}-${number}`, remote_host: 'target', remote_port: '127.0.0.1:80' },
    local_port: `127.1.${number}.${(at % 250) + 1}:${port}`,
    ssh_config: configs[at % configs.length],
    // By a command of ours then, which a shell takes apart.
    ...(at % 4 < 2 ? { jump: `127.0.0.1:${closedPort}` } : {}),
    ...{ start_timeout_ms: 2000, restart_timeout_ms: 20_000, backoff: { min_ms: 60_000, max_ms: 60_000 } },
    // Known, and started by hand.
    enabled: false,
  };
}

/** The tunnels of a file, or the numbers of those that are wrong. */
function parse(attempts: readonly Attempt[], { fileDir }: Site) {
  const file = { direction_mode: 'default', tunnels: attempts.map(({ keys }) => keys) };
  try {
    const options = { file: join(fileDir, 'tunward.yaml'), env: { HOME: fileDir }, uid: 0, hasIpv6Loopback: true };
    return { specs: parseConfig(JSON.stringify(file), options).tunnels, wrong: new Set<number>() };
  } catch (error) {
    if (!isTunwardError(error, 'ERR_CONFIG_INVALID')) throw error;
    const wrong = new Set(error.info.problems.map(({ path }) => Number(/^tunnels\[(\d+)\]/.exec(path)?.[1])));
    if (wrong.has(Number.NaN)) throw error;
    return { specs: undefined, wrong };
  }
}

/** A file of that name, where one can be: ssh ends at one that is not there, before anything of it meets a shell. */
function copyConfig({ sshConfig }: TunnelSpec, { fileDir, closedPort }: Site): void {
  const file = resolve(fileDir, sshConfig ?? '');
  const isInside = file.startsWith(`${fileDir}/`);
  if (!isInside) return;
  try {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, `Host *\n  HostName 127.0.0.1\n  Port ${closedPort}\n`, { mode: 0o600 });
  } catch (error) {
    // Such a name no file can have.
    if (!isErrno(error, 'ENAMETOOLONG', 'EISDIR', 'ENOTDIR', 'EEXIST')) throw error;
  }
}
