import { findProgram, hasShell, readProgram } from '../../tunnel/chain.js';
import { needsShell } from '../../tunnel/jump.js';
import type { TunnelSpec } from '../../tunnel/spec.js';
import { type Check, count, failed, ok, type Surroundings, unknown, warning } from './check.js';

/** What runs, and what is run. */
export async function checkPrograms(surroundings: Surroundings): Promise<Check[]> {
  const { config } = surroundings;
  const embedded = findEmbedded(surroundings);
  const wantsAutossh = config?.tunnels.some(({ engine }) => engine === 'autossh') ?? false;
  return [
    checkNode(process.versions.node),
    await checkSsh(surroundings, embedded),
    ...(wantsAutossh ? [await checkAutossh(surroundings)] : []),
    ...(config?.tunnels.some((spec) => needsShell(spec) && !embedded.has(spec)) ? [checkShell(hasShell())] : []),
  ];
}

/** ssh goes through another host by a command, and runs that by a shell. */
export function checkShell(isThere: boolean): Check {
  if (isThere) return ok('shell', '/bin/sh, by which ssh goes through a jump host');
  return failed(
    'shell',
    'a tunnel has a jump host, and there is no /bin/sh',
    "put a shell into the image, or take 'engine: embedded'",
  );
}

/** As `engines` in package.json says: ^20.19 || >=22.12. */
export function checkNode(version: string): Check {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const isKnown = (major === 20 && minor >= 19) || (major === 22 && minor >= 12) || major > 22;
  if (isKnown) return ok('node', `Node ${version}`);
  return failed('node', `Node ${version}, and tunward wants ^20.19 || >=22.12`, 'install a newer Node');
}

/** The tunnels that are kept by the client inside the daemon: `auto` is that where there is no ssh. */
export function findEmbedded({ config, env }: Pick<Surroundings, 'config' | 'env'>): ReadonlySet<TunnelSpec> {
  const hasSsh = findProgram('ssh', env) !== undefined;
  const isEmbedded = ({ engine }: TunnelSpec) => engine === 'embedded' || (engine === 'auto' && !hasSsh);
  return new Set(config?.tunnels.filter(isEmbedded));
}

/** Of no need where every tunnel is kept without it; what is there and does not work is in the way of `auto` alone. */
async function checkSsh({ env, config }: Surroundings, embedded: ReadonlySet<TunnelSpec>): Promise<Check> {
  const ssh = await readProgram('ssh', env);
  const tunnels = config?.tunnels ?? [];
  if (ssh && tunnels.length > 0 && tunnels.every(({ engine }) => engine === 'embedded')) {
    return ok('ssh', `${ssh.version} (${ssh.file}), and no tunnel wants it`);
  }
  if (ssh) return judgeSsh(ssh);
  const finding = `no ssh on PATH (${env.PATH ?? 'not set'})`;
  const wanting = tunnels.length - embedded.size;
  if (wanting === 0) return ok('ssh', `${finding}: the embedded engine is used`);
  const remedy = "install openssh-client, or take out 'engine': the embedded engine is used then";
  return failed('ssh', `${finding}, and ${count(wanting, 'tunnel')} ${wanting === 1 ? 'asks' : 'ask'} for it`, remedy);
}

/** `accept-new`, which a host that is met for the first time needs, came with OpenSSH 7.6. */
export function judgeSsh({ file, version }: { readonly file: string; readonly version: string }): Check {
  const finding = `${version || 'says nothing of its version'} (${file})`;
  // What is missing then is said by a check of its own.
  if (version.startsWith('No user exists')) return unknown('ssh', `it does not run: ${finding}`);
  const [, major = '', minor = ''] = /^OpenSSH_(?:for_Windows_)?(\d+)\.(\d+)/.exec(version) ?? [];
  if (major === '') return failed('ssh', `${finding} is no OpenSSH`, 'install openssh-client');
  const number = Number(major) * 100 + Number(minor);
  if (number < 706) return failed('ssh', `${finding} does not know accept-new`, 'install OpenSSH 8.7 or later');
  if (number < 807) {
    return warning('ssh', `${finding} is older than any that tunward was tried with`, 'install OpenSSH 8.7 or later');
  }
  return ok('ssh', finding);
}

async function checkAutossh({ env }: Surroundings): Promise<Check> {
  const autossh = await readProgram('autossh', env);
  if (!autossh) {
    const remedy = "install autossh, or take out 'engine: autossh': ssh alone is kept up as well";
    return failed('autossh', 'a tunnel asks for autossh, and it is not on PATH', remedy);
  }
  const finding = `${autossh.version} (${autossh.file})`;
  return autossh.version.startsWith('autossh ') ? ok('autossh', finding) : unknown('autossh', finding);
}
