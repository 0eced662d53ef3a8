import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { until } from '#lib/time.js';
import { fingerprintOf, knownHostLine, makeKey } from './keys.js';
import { type Login, loginByPam } from './pam.js';
import { which } from './paths.js';
import { freeLocalPort } from './port.js';
import { statOf } from './proc.js';
import { endTree } from './reaper.js';

export interface SshdOptions {
  /** Where keys and configuration are; what is there already is used again. Default: a folder that stop() removes. */
  readonly dir?: string;
  /** Default: any free one. */
  readonly port?: number;
  /** Lines of sshd_config. They come first, and sshd takes the first value of a keyword: they win. No `Match`. */
  readonly extra?: readonly string[];
  /** Protects the identity: ssh asks for it. */
  readonly passphrase?: string;
  /** `false`: known_hosts is empty, and ssh asks about the host key. */
  readonly known?: boolean;
  /** What is asked for beside the key. First `need(this, 'pam')`. */
  readonly login?: Login;
}

/**
 * A real OpenSSH server on 127.0.0.1 with throwaway keys; `ssh -F sshConfigFile rig` logs in without a question, unless
 * the options have it ask.
 */
export interface Sshd {
  readonly port: number;
  /** The listening sshd: to look at its children, or to stop it. Only stop() may kill it: its connections would outlive it. */
  readonly pid: number;
  readonly dir: string;
  /** The name in sshConfigFile: `rig`. */
  readonly host: 'rig';
  readonly sshConfigFile: string;
  readonly identityFile: string;
  readonly knownHostsFile: string;
  readonly hostKeyFile: string;
  /** Of the host key, as ssh shows it: `SHA256:…`. */
  readonly fingerprint: string;
  /** What sshd has said so far. */
  log(): string;
  /** Ends the server and every connection of it. A second call waits for the first. */
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Starts one; resolves when it listens. The server that comes after a stopped one (same `dir`, same `port`) has the same
 * keys; delete `hostKeyFile` in between for one whose host key changed (known_hosts is then kept as it was).
 *
 * @example
 * await using sshd = await startSshd({ extra: ['ClientAliveInterval 1'] });
 * spawn('ssh', ['-F', sshd.sshConfigFile, '-N', '-L', `127.0.0.1:${port}:127.0.0.1:80`, sshd.host]);
 */
export async function startSshd(options: SshdOptions = {}): Promise<Sshd> {
  const { dir: given, port: wanted, login } = options;
  const dir = given ?? mkdtempSync(join(tmpdir(), 'tunward-sshd-'));
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const port = wanted ?? (await freeLocalPort());
  const pam = login && loginByPam(dir, login);
  const files = writeFiles(dir, port, { ...options, extra: [...(options.extra ?? []), ...(pam?.settings ?? [])] });
  const server = runSshd(dir, pam?.wrap);
  const stop = once(async () => {
    await server.end();
    if (given === undefined) rmSync(dir, { recursive: true, force: true });
  });
  try {
    await server.listening();
  } catch (error) {
    await stop();
    throw error;
  }
  return { port, pid: server.pid, dir, host: 'rig', ...files, log: server.log, stop, [Symbol.asyncDispose]: stop };
}

function writeFiles(dir: string, port: number, { extra = [], passphrase, known: isKnown = true }: SshdOptions) {
  const hostKeyFile = join(dir, 'host_key');
  const identityFile = join(dir, 'id_ed25519');
  const knownHostsFile = join(dir, 'known_hosts');
  const sshConfigFile = join(dir, 'ssh_config');
  makeKey(hostKeyFile);
  makeKey(identityFile, passphrase);
  write(join(dir, 'authorized_keys'), readFileSync(`${identityFile}.pub`, 'utf8'));
  write(join(dir, 'sshd_config'), serverConfig(dir, port, extra));
  // What is there stays: a person's known_hosts does not learn a changed host key by itself either.
  const known = existsSync(knownHostsFile) ? readFileSync(knownHostsFile, 'utf8') : '';
  const isThere = known.includes(`[127.0.0.1]:${port} `);
  write(knownHostsFile, isThere || !isKnown ? known : known + knownHostLine(port, hostKeyFile));
  write(
    sshConfigFile,
    `Host rig
  HostName 127.0.0.1
  Port ${port}
  User ${userInfo().username}
  IdentityFile ${identityFile}
  IdentitiesOnly yes
  UserKnownHostsFile ${knownHostsFile}
`,
  );
  return { sshConfigFile, identityFile, knownHostsFile, hostKeyFile, fingerprint: fingerprintOf(hostKeyFile) };
}

function serverConfig(dir: string, port: number, extra: readonly string[]): string {
  const lines = [
    ...extra,
    `Port ${port}`,
    'ListenAddress 127.0.0.1',
    `HostKey ${join(dir, 'host_key')}`,
    `AuthorizedKeysFile ${join(dir, 'authorized_keys')}`,
    `PidFile ${join(dir, 'sshd.pid')}`,
    'StrictModes no',
    'UsePAM no',
    'PasswordAuthentication no',
    'PermitRootLogin prohibit-password',
    'MaxStartups 1000',
    'MaxSessions 1000',
  ];
  // Since OpenSSH 9.8 a killed handshake costs its source a penalty, and after a few every login is refused.
  return `${[...lines, ...(knowsPenalties(lines, dir) ? ['PerSourcePenalties no'] : [])].join('\n')}\n`;
}

function knowsPenalties(lines: readonly string[], dir: string): boolean {
  makePrivilegeSeparationFolder();
  const probe = join(dir, 'sshd_config.probe');
  write(probe, `${lines.join('\n')}\n`);
  const effective = execFileSync(sshdPath(), ['-T', '-f', probe], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  rmSync(probe);
  return /^persourcepenalties\b/im.test(effective);
}

function runSshd(dir: string, wrap = (command: readonly string[]): readonly string[] => command) {
  const pidFile = join(dir, 'sshd.pid');
  rmSync(pidFile, { force: true }); // the last server's, when that was killed
  const [program = '', ...words] = wrap([sshdPath(), '-D', '-e', '-f', join(dir, 'sshd_config')]);
  const child = spawn(program, words, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.on('error', (error) => {
    said += `${error}\n`;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const pid = child.pid ?? 0;
  const startTicks = statOf(pid)?.startTicks ?? 0;
  const log = (): string => said;
  // sshd writes its pid file once it listens: the one sign that costs no connection and depends on no LogLevel.
  const listening = async (): Promise<void> => {
    const written = () =>
      hasEnded(child) || (existsSync(pidFile) && readFileSync(pidFile, 'utf8').trim() === String(pid));
    const known = await until(written, { timeoutMs: 10_000 });
    if (!known || hasEnded(child)) throw new Error(`sshd does not listen: ${said}`);
  };
  return { pid, log, listening, end: () => endTree({ pid, startTicks }) };
}

function hasEnded(child: ChildProcess): boolean {
  return child.pid === undefined || child.exitCode !== null || child.signalCode !== null;
}

/** Where root's sshd keeps its unprivileged half. Packages leave it to the init system, and a container has none. */
function makePrivilegeSeparationFolder(): void {
  if (process.getuid?.() === 0) mkdirSync('/run/sshd', { recursive: true, mode: 0o755 });
}

// sshd re-executes itself, so it wants its absolute path.
function sshdPath(): string {
  return which('sshd') ?? '/usr/sbin/sshd';
}

function write(file: string, text: string): void {
  writeFileSync(file, text, { mode: 0o600 });
}

function once(act: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | undefined;
  return () => {
    running ??= act();
    return running;
  };
}
