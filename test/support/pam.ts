/**
 * A login that asks, for a real sshd: by PAM's own modules, with a password of the test's own. sshd runs in a mount
 * namespace, and what it finds there as /etc/shadow and /etc/pam.d/sshd are files of the test's: outside nothing changes.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { programsDir, which } from './paths.js';

export interface Login {
  /** Whoever runs the test has it, for this sshd. PAM asks for it: `Password: `. */
  readonly password: string;
  /** Asked for when the password has been given, whether that was right or not: `One-time code: `. */
  readonly code?: string;
  /** Whether the code may be seen when it is typed. Default: it may not. */
  readonly echo?: boolean;
  /** sshd_config's AuthenticationMethods. Default: `publickey,keyboard-interactive`, first the key and then what PAM asks. */
  readonly methods?: string;
}

export interface PamLogin {
  /** Lines of sshd_config. */
  readonly settings: readonly string[];
  /** The command line that runs another one with these files in place of the system's; the process stays the same. */
  wrap(command: readonly string[]): readonly string[];
}

/** Writes its files to `dir`. First `need(this, 'pam')`. */
export function loginByPam(dir: string, { methods = 'publickey,keyboard-interactive', ...login }: Login): PamLogin {
  const shadow = join(dir, 'shadow');
  const stack = join(dir, 'pam');
  const write = (file: string, text: string) => writeFileSync(file, text, { mode: 0o600 });
  write(shadow, shadowWith(login.password));
  write(stack, `${['auth required pam_unix.so nodelay', ...codeLines(dir, login), ...permitted].join('\n')}\n`);
  return {
    settings: [
      'UsePAM yes',
      'PasswordAuthentication yes',
      'KbdInteractiveAuthentication yes',
      'PermitRootLogin yes',
      `AuthenticationMethods ${methods}`,
    ],
    wrap: (command) => [which('unshare') ?? 'unshare', '-m', '/bin/sh', '-c', inPlace, 'sh', shadow, stack, ...command],
  };
}

const inPlace = `mount --bind "$1" /etc/shadow && mount --bind "$2" /etc/pam.d/sshd && shift 2 && exec "$@"`;

// What comes after it is no question of anybody's: it would meet the account as the machine has it.
const permitted = ['account required pam_permit.so', 'session required pam_permit.so'];

function codeLines(dir: string, { code, echo = false }: Omit<Login, 'methods'>): string[] {
  if (code === undefined) return [];
  const module = join(dir, 'pam_code.so');
  execFileSync('cc', ['-shared', '-fPIC', '-o', module, join(programsDir, 'pam_code.c')], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  return [`auth required ${module} code=${code}${echo ? ' echo' : ''}`];
}

function shadowWith(password: string): string {
  const hash = execFileSync('perl', ['-e', `print crypt(<STDIN>, '$6$tunward$')`], {
    input: password,
    encoding: 'utf8',
  });
  const { username } = userInfo();
  const lines = readFileSync('/etc/shadow', 'utf8').split('\n');
  // Of the line the rest stays out: an account that has expired is one for sshd, too.
  const others = lines.filter((line) => line !== '' && !line.startsWith(`${username}:`));
  return `${[`${username}:${hash}:20000:0:99999:7:::`, ...others].join('\n')}\n`;
}
