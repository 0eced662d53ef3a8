import fs from 'node:fs';
import type net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import type { Connection } from 'ssh2';
import { TunwardError } from '../errors.js';
import { assertMs, until } from '../time.js';
import { loadSsh2 } from '../tunnel/embedded/ssh2.js';
import { createFaults, type Stage } from './faults.js';
import { createForwards } from './forwards.js';
import { createJournal, type SshConnection, type SshForward } from './journal.js';
import { type KeyPair, makeKeys } from './keys.js';
import { openLine } from './line.js';
import { createLogin } from './login.js';
import type { LoginPolicy, SshLogin } from './policy.js';
import type { TargetChooser } from './target.js';

export interface SshServerOptions extends LoginPolicy {
  /** Default 0: any free one. */
  readonly port?: number | undefined;
  /** Shown to whoever logs in, before anything is asked. */
  readonly banner?: string | undefined;
  /**
   * Says where a connection of `ssh -L` goes: a stream, a `net.Server` that listens, `{host, port}`, or undefined, which
   * refuses it. Default: what the client asks for, on this machine alone.
   */
  readonly target?: TargetChooser | undefined;
  /** What the server is called in its ssh_config. Default: `tunward-test`. */
  readonly alias?: string | undefined;
}

/** The client's side of it, as files and as options. */
export interface SshAccess {
  readonly host: '127.0.0.1';
  readonly port: number;
  /** Who logs in by the ssh_config below. */
  readonly username: string;
  /** The server's public key at this moment, as one line. */
  readonly hostKey: string;
  /** The same as a line of known_hosts. */
  readonly knownHostsLine: string;
  /** Its fellow for `authorized_keys`: the public half of `identityFile`. */
  readonly publicKey: string;
  /** A private key, 0600, that may log in unless a policy says otherwise. */
  readonly identityFile: string;
  /** The host key that the server had at its start. */
  readonly knownHostsFile: string;
  /** For `ssh -F`: it knows the server by its alias, and nothing of the person who runs the test. */
  readonly sshConfigFile: string;
  /** The options of `openTunnel()` that lead here: `openTunnel({...server.tunnelOptions, remotePort, localPort})`. */
  readonly tunnelOptions: { readonly remoteHost: string; readonly sshConfig: string };
}

export interface SshServer extends SshAccess {
  /** All clients so far, oldest first; they change as time goes by. */
  readonly connections: readonly SshConnection[];
  readonly logins: readonly SshLogin[];
  readonly forwards: readonly SshForward[];
  /**
   * Asks until the answer is truthy and resolves to that.
   *
   * @throws TunwardError ERR_TIMEOUT after `timeoutMs` (default 5000); the signal's reason.
   * @example
   * const { bytesToClient } = await server.waitFor(() => server.forwards.find(({ isOpen }) => isOpen));
   */
  waitFor<T>(
    check: () => T | Promise<T>,
    options?: WaitOptions,
  ): Promise<Exclude<T, false | null | undefined | 0 | ''>>;
  /**
   * From now on nobody can connect (as where no server is), every login fails, or every forward is refused. What is there
   * already goes on.
   */
  refuse(stage: Stage): void;
  /**
   * Says nothing more: to new TCP connections, to who wants to log in, to who wants something forwarded; or, which is the
   * default, `traffic`: nothing is read and nothing written at all, as when a network swallows every packet.
   */
  stall(what?: Stage | 'traffic'): void;
  /** Ends `refuse()` and `stall()`: who was kept waiting is served now. */
  resume(): Promise<void>;
  /** Ends all connections by a reset, or the one. New ones are served. */
  drop(connection?: SshConnection): void;
  /** Has another host key for new connections; `knownHostsFile` keeps the old one. */
  changeHostKey(): void;
  /** Ends all connections and forgets the keys. Idempotent. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface WaitOptions {
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** ssh2 asks a silent client three times, 15 s apart, and gives it up: how long one may be silent is for the test. */
const NEVER_MS = 2 ** 31 - 1;

/**
 * An SSH server inside this process, on 127.0.0.1, with keys of its own: it forwards ports both ways (`-L`, `-R`) and runs
 * nothing. Real clients log in to it (ssh, autossh, ssh2). It tells what it has seen, and misbehaves when it is told to. What
 * clients do wrong is never an error of this process.
 *
 * @throws TypeError, RangeError for a policy that cannot be; the system's error when it cannot listen on `port`.
 * @example
 * await using server = await startSshServer({ password: 'secret' });
 * await using tunnel = await openTunnel({ ...server.tunnelOptions, remotePort: 5432, localPort: 0, prompt: () => 'secret' });
 * server.drop(); // the network is lost
 */
export async function startSshServer(options: SshServerOptions = {}): Promise<SshServer> {
  const { alias = 'tunward-test', port: wanted = 0, username = 'tester', banner } = options;
  if (!/^[\w.-]+$/.test(alias)) throw new RangeError(`Cannot use ${alias} as alias: expected letters and digits`);
  const ssh2 = loadSsh2();
  const clientKeys = makeKeys(ssh2, username);
  let hostKeys = makeKeys(ssh2, alias);
  const faults = createFaults();
  const journal = createJournal();
  const login = createLogin(ssh2, withDefault(options, clientKeys), faults, journal);
  const forwards = createForwards(options.target, faults, journal);
  const sockets = new Map<SshConnection, net.Socket>();
  const line = await openLine(wanted, faults, meet);
  const { port } = line;
  const knownHostsLine = () => `[127.0.0.1]:${port} ${hostKeys.public}`;
  const keys = { identity: clientKeys.private, knownHosts: knownHostsLine() };
  const files = writeFiles({ ...keys, alias, port, username, usesKeys: login.usesKeys });
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closing ??= shut();
    return closing;
  };
  return {
    host: '127.0.0.1',
    port,
    username,
    get hostKey() {
      return hostKeys.public;
    },
    get knownHostsLine() {
      return knownHostsLine();
    },
    publicKey: clientKeys.public,
    ...files.paths,
    tunnelOptions: { remoteHost: alias, sshConfig: files.paths.sshConfigFile },
    connections: journal.connections,
    logins: journal.logins,
    forwards: journal.forwards,
    waitFor,
    refuse(stage) {
      if (stage === 'connection') line.hangUp();
      else faults.set(stage, 'refuse');
    },
    stall(what = 'traffic') {
      if (what === 'traffic') line.freeze();
      else faults.set(what, 'stall');
    },
    async resume() {
      faults.clear();
      await line.thaw();
    },
    drop(connection) {
      const dropped = connection === undefined ? sockets.values() : [sockets.get(connection)];
      for (const socket of dropped) socket?.resetAndDestroy();
    },
    changeHostKey() {
      hostKeys = makeKeys(ssh2, alias);
    },
    close,
    [Symbol.asyncDispose]: close,
  };

  /** Notes a client, and answers what serves it. */
  function meet(socket: net.Socket): () => void {
    const record = journal.noteConnection(socket.remotePort ?? 0);
    sockets.set(record, socket);
    socket.once('close', () => {
      record.isOpen = false;
      sockets.delete(record);
    });
    const begin = (connection: Connection): void => {
      // What concerns one client alone (one that broke off, or spoke out of turn) is told here; `close` follows.
      connection.on('error', () => undefined);
      login.judge(connection, record);
      forwards.serve(connection, record);
    };
    // A server of ssh2's for each: it tells of a connection when the client has said its first line, and not of whose socket.
    const identity = () => ({
      hostKeys: [hostKeys.private],
      keepaliveInterval: NEVER_MS,
      ...(banner ? { banner } : {}),
    });
    return () => new ssh2.Server(identity(), begin).injectSocket(socket);
  }

  async function waitFor<T>(check: () => T | Promise<T>, { timeoutMs = 5000, signal }: WaitOptions = {}) {
    assertMs('timeoutMs', timeoutMs);
    const found = await until(check, { timeoutMs, signal });
    if (found !== undefined) return found;
    const { connections, logins } = journal;
    const seen = `${connections.length} connections, ${logins.length} logins, ${journal.forwards.length} forwards`;
    const message = `The SSH server has not seen what was waited for in ${timeoutMs} ms, but ${seen}`;
    throw new TunwardError('ERR_TIMEOUT', message, { timeoutMs });
  }

  async function shut(): Promise<void> {
    faults.end();
    await Promise.all([line.close(), forwards.close()]);
    fs.rmSync(files.folder, { recursive: true, force: true });
  }
}

/** Without a policy the server's own key may log in. */
function withDefault(options: SshServerOptions, { public: own }: KeyPair): LoginPolicy {
  const { publicKey, password, keyboardInteractive, none } = options;
  const isGiven = [publicKey, password, keyboardInteractive, none].some((policy) => policy !== undefined);
  return isGiven ? options : { ...options, publicKey: [own] };
}

interface Files {
  readonly identity: string;
  readonly knownHosts: string;
  readonly alias: string;
  readonly port: number;
  readonly username: string;
  readonly usesKeys: boolean;
}

function writeFiles({ identity, knownHosts, alias, port, username, usesKeys }: Files) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tunward-sshd-'));
  const write = (name: string, text: string): string => {
    const file = path.join(folder, name);
    fs.writeFileSync(file, text, { mode: 0o600 });
    return file;
  };
  const identityFile = write('id_ed25519', identity);
  const knownHostsFile = write('known_hosts', `${knownHosts}\n`);
  const sshConfigFile = write(
    'ssh_config',
    `Host ${alias}
  HostName 127.0.0.1
  Port ${port}
  User ${username}
  IdentityFile ${usesKeys ? quote(identityFile) : 'none'}
  IdentitiesOnly yes
  IdentityAgent none
  StrictHostKeyChecking yes
  UserKnownHostsFile ${quote(knownHostsFile)}
  GlobalKnownHostsFile /dev/null
  # ssh2 knows no post-quantum key exchange, of which OpenSSH warns since 10.1
  IgnoreUnknown WarnWeakCrypto
  WarnWeakCrypto no
`,
  );
  return { folder, paths: { identityFile, knownHostsFile, sshConfigFile } };
}

/** ssh splits at blanks outside quotes, and takes % for the beginning of a token. */
function quote(file: string): string {
  return `"${file.replaceAll('%', '%%')}"`;
}
