import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { networkInterfaces } from 'node:os';
import { which } from './paths.js';

export type Need =
  | 'sshd'
  | 'ssh'
  | 'autossh'
  | 'root'
  | 'unshare'
  | 'userns'
  | 'ip'
  | 'ipv6'
  | 'perl'
  | 'python3'
  | 'cc'
  | 'ps'
  | 'tini'
  | 'bash'
  | 'zsh'
  | 'fish'
  | 'openssl'
  | 'pty'
  | 'pam'
  | 'chromium';

/**
 * First in a `before()` hook: skips the suite, and says so on stderr, when the machine lacks something; with
 * TUNWARD_REQUIRE_REAL=1 (CI) it throws instead, so that the suite fails. What follows in the hook does not run then.
 *
 * @example
 * before(async function () {
 *   need(this, 'sshd', 'autossh');
 *   sshd = await startSshd();
 * });
 */
export function need(context: Mocha.Context, ...things: readonly Need[]): void {
  const missing = things.flatMap((thing) => lacks(thing) ?? []);
  if (missing.length === 0) return;
  const reason = `${context.test?.parent?.fullTitle() ?? 'the suite'}: ${missing.join('; ')}`;
  if (process.env.TUNWARD_REQUIRE_REAL === '1') throw new Error(`TUNWARD_REQUIRE_REAL=1 and ${reason}`);
  process.stderr.write(`\n*** SKIPPED *** ${reason}\n`);
  context.skip();
}

/** Why a thing cannot be used here, with the remedy; `undefined` when it can. */
export function lacks(thing: Need): string | undefined {
  return checks[thing]();
}

// What CI installs for these stands in .ci/run.
const checks: Readonly<Record<Need, () => string | undefined>> = {
  sshd: () => lacksProgram('sshd', 'openssh-server') ?? lacksProgram('ssh-keygen', 'openssh-client'),
  ssh: () => lacksProgram('ssh', 'openssh-client'),
  // Debian's /usr/bin/autossh is a shell wrapper around the real binary; elsewhere it is the binary.
  autossh: () => lacksProgram('autossh', 'autossh'),
  root: () => (process.getuid?.() === 0 ? undefined : 'needs root'),
  unshare: lacksNamespaces,
  userns: lacksUserNamespaces,
  ip: () => lacksProgram('ip', 'iproute2'),
  ipv6: () => (hasLoopback6() ? undefined : 'needs ::1 on the loopback interface'),
  openssl: () => lacksProgram('openssl', 'openssl'),
  perl: () => lacksProgram('perl', 'perl-base'),
  python3: () => lacksProgram('python3', 'python3'),
  ps: () => lacksProgram('ps', 'procps'),
  tini: () => lacksProgram('tini', 'tini'),
  cc: () => lacksProgram('cc', 'gcc libc6-dev'),
  bash: () => lacksProgram('bash', 'bash'),
  zsh: () => lacksProgram('zsh', 'zsh'),
  fish: () => lacksProgram('fish', 'fish'),
  pty: lacksPty,
  pam: lacksPam,
  chromium: () => lacksProgram('chromium', 'chromium'),
};

function lacksProgram(name: string, packages: string): string | undefined {
  return which(name) ? undefined : `needs ${name} (apt-get install ${packages})`;
}

function lacksNamespaces(): string | undefined {
  const unshare = which('unshare');
  if (!unshare) return lacksProgram('unshare', 'util-linux');
  if (!which('ip') && !which('perl')) return 'needs ip or perl to bring a loopback interface up';
  const { status, stderr } = spawnSync(unshare, ['-n', '-m', '-p', '-f', '--mount-proc', 'true'], { encoding: 'utf8' });
  return status === 0 ? undefined : `needs the right to make namespaces (${stderr?.trim()})`;
}

function lacksUserNamespaces(): string | undefined {
  const { status, stderr } = spawnSync('unshare', ['-U', '-r', 'true'], { encoding: 'utf8' });
  return status === 0 ? undefined : `needs the right to make user namespaces (${stderr?.trim()})`;
}

function lacksPty(): string | undefined {
  try {
    createRequire(import.meta.url)('node-pty');
    return undefined;
  } catch (error) {
    // It has no code: neither where the package is not installed for this platform, nor where it cannot be loaded.
    return `needs node-pty (npm ci): ${error}`;
  }
}

/** For an sshd that asks by PAM: its own view of two files in /etc, a hashed password, a module compiled for it. */
function lacksPam(): string | undefined {
  const lacking = lacks('root') ?? lacks('sshd') ?? lacks('perl') ?? lacks('cc');
  if (lacking !== undefined) return lacking;
  const missing = ['/etc/shadow', '/etc/pam.d/sshd'].find((file) => !existsSync(file));
  if (missing !== undefined) return `needs ${missing} (apt-get install openssh-server)`;
  const unshare = which('unshare');
  if (!unshare) return lacksProgram('unshare', 'util-linux');
  const { status, stderr } = spawnSync(unshare, ['-m', 'true'], { encoding: 'utf8' });
  return status === 0 ? undefined : `needs the right to make mount namespaces (${stderr?.trim()})`;
}

function hasLoopback6(): boolean {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return existsSync('/proc/net/if_inet6') && addresses.some(({ address }) => address === '::1');
}
