import { hasShell, readProgram } from '../../tunnel/chain.js';
import { needsShell } from '../../tunnel/jump.js';
import { type Check, failed, ok, type Surroundings, unknown, warning } from './check.js';

/** What runs, and what is run. */
export async function checkPrograms(surroundings: Surroundings): Promise<Check[]> {
  const { config } = surroundings;
  const wantsAutossh = config?.tunnels.some(({ engine }) => engine === 'autossh') ?? false;
  return [
    checkNode(process.versions.node),
    await checkSsh(surroundings),
    ...(wantsAutossh ? [await checkAutossh(surroundings)] : []),
    ...(config?.tunnels.some(needsShell) ? [checkShell(hasShell())] : []),
  ];
}

/** ssh goes through another host by a command, and runs that by a shell. */
export function checkShell(isThere: boolean): Check {
  if (isThere) return ok('shell', '/bin/sh, by which ssh goes through a jump host');
  return failed('shell', 'a tunnel has a jump host, and there is no /bin/sh', 'put a shell into the image');
}

/** As `engines` in package.json says: ^20.19 || >=22.12. */
export function checkNode(version: string): Check {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const isKnown = (major === 20 && minor >= 19) || (major === 22 && minor >= 12) || major > 22;
  if (isKnown) return ok('node', `Node ${version}`);
  return failed('node', `Node ${version}, and tunward wants ^20.19 || >=22.12`, 'install a newer Node');
}

async function checkSsh({ env }: Surroundings): Promise<Check> {
  const ssh = await readProgram('ssh', env);
  if (!ssh) return failed('ssh', `no ssh on PATH (${env.PATH ?? 'not set'})`, 'install openssh-client');
  return judgeSsh(ssh);
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
