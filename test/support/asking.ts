/**
 * An SSH server in this process that asks for what a test likes: a password, several things at once, a key and then
 * a code; late, never, over and over. The real ssh logs in to it. What a real sshd asks for: sshd.ts, with `passphrase`
 * and `login`.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ssh2, { type ClientInfo, type Connection } from 'ssh2';
import { byPassword, type Factor, openExamination } from './examination.js';
import { serveForwards } from './forwards.js';
import { fingerprintOf, knownHostLine, makeKey } from './keys.js';
import { freeLocalPort } from './port.js';

export { byKey, byPassword, byPasswordAndCode, evilTexts, type Factor } from './examination.js';

export interface AskingOptions {
  /** What has to be proved, in this order; ssh is told of each when the one before it is. Default: `byPassword('secret')`. */
  readonly factors?: readonly Factor[];
  /** Who may log in. Default: `person`. */
  readonly user?: string;
  /** Default: any free one. */
  readonly port?: number;
  /** Protects the identity that a factor `byKey` is proved by. */
  readonly passphrase?: string;
  /** `false`: known_hosts is empty, and ssh asks about the host key first. */
  readonly known?: boolean;
  /** Sent before anything is asked. */
  readonly banner?: string;
  /** Waits so long before it asks anything, in milliseconds. */
  readonly delayMs?: number;
  /** Asks nothing until `release()`. */
  readonly held?: boolean;
}

export interface AskingServer {
  readonly port: number;
  readonly dir: string;
  /** The name in sshConfigFile: `rig`. */
  readonly host: 'rig';
  readonly user: string;
  readonly sshConfigFile: string;
  readonly knownHostsFile: string;
  /** There is one if a factor is `byKey`; else ''. */
  readonly identityFile: string;
  /** Of the host key, as ssh shows it: `SHA256:…`. */
  fingerprint(): string;
  /** How many connections are open. */
  connections(): number;
  /** How often something was asked. Of a password: how often one was asked for, since it is ssh that puts that question. */
  asked(): number;
  /** How many answers have come, right and wrong; to several questions at once they count as one. */
  attempts(): number;
  /** How many of those were wrong. */
  wrong(): number;
  /** How many have logged in. */
  logins(): number;
  /** What `held` keeps back is asked, and all that follows. */
  release(): void;
  /** Hangs up on everybody who has not logged in. ssh reads of it when its question is answered, and not before. */
  hangUp(): void;
  /** Ends all connections at once, by a reset: as when a network is lost. New ones are served. */
  drop(): void;
  /** Neither reads nor writes, on any connection, and takes new ones without a word, until `speak()`. */
  silence(): void;
  speak(): void;
  /** Has another host key from now on, on the same port; known_hosts stays as it is. */
  changeHostKey(): void;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Starts one on 127.0.0.1; resolves when it listens.
 *
 * @example
 * await using server = await startAsking({ factors: [byPasswordAndCode('secret', '123456')] });
 * const ssh = runOnTerminal(reaper, ['ssh', '-F', server.sshConfigFile, '-N', server.host]);
 * await answer(ssh, /Password: $/, 'secret');
 * await answer(ssh, /One-time code: $/, '123456');
 * expect(await until(() => server.logins(), { timeoutMs: 10_000 })).to.equal(1);
 */
export async function startAsking(options: AskingOptions = {}): Promise<AskingServer> {
  const { factors = [byPassword('secret')], user = 'person', known = true, banner } = options;
  const { delayMs = 0, held = false } = options;
  const dir = mkdtempSync(join(tmpdir(), 'tunward-asking-'));
  const port = options.port ?? (await freeLocalPort());
  const hostKeyFile = join(dir, 'host_key');
  makeKey(hostKeyFile);
  const identityFile = identityOf(dir, factors, options);
  const files = writeFiles(dir, { port, user, hostKeyFile, known, identityFile });
  const { counts, ...examination } = openExamination(factors, { user, identityFile, delayMs, held });
  const greet = (connection: Connection, { port: from }: ClientInfo): void => {
    connection.on('error', () => undefined); // somebody who broke off: `close` follows
    examination.examine(connection, () => end(from));
    serveForwards(connection);
  };
  const withKey = () =>
    new ssh2.Server(
      // Nobody is asked whether he is still there: a frozen ssh is for the test to end.
      { hostKeys: [readFileSync(hostKeyFile)], keepaliveInterval: 2 ** 31 - 1, ...(banner ? { banner } : {}) },
      greet,
    );
  let server = withKey();
  const { end, close, ...line } = await openLine(port, (socket) => server.injectSocket(socket));
  return {
    port,
    dir,
    host: 'rig',
    user,
    ...files,
    identityFile: identityFile ?? '',
    asked: () => counts.asked,
    attempts: () => counts.attempts,
    wrong: () => counts.wrong,
    logins: () => counts.logins,
    release: examination.release,
    hangUp: examination.hangUp,
    ...line,
    fingerprint: () => fingerprintOf(hostKeyFile),
    changeHostKey() {
      rmSync(hostKeyFile);
      makeKey(hostKeyFile);
      server = withKey();
    },
    [Symbol.asyncDispose]: async () => {
      examination.end();
      await close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

function identityOf(dir: string, factors: readonly Factor[], { passphrase }: AskingOptions): string | undefined {
  if (!factors.some(({ method }) => method === 'publickey')) return undefined;
  const identityFile = join(dir, 'id_ed25519');
  makeKey(identityFile, passphrase);
  return identityFile;
}

interface Place {
  readonly port: number;
  readonly user: string;
  readonly hostKeyFile: string;
  readonly known: boolean;
  readonly identityFile: string | undefined;
}

function writeFiles(dir: string, { port, user, hostKeyFile, known, identityFile }: Place) {
  const sshConfigFile = join(dir, 'ssh_config');
  const knownHostsFile = join(dir, 'known_hosts');
  const write = (file: string, text: string) => writeFileSync(file, text, { mode: 0o600 });
  write(knownHostsFile, known ? knownHostLine(port, hostKeyFile) : '');
  // The last two: ssh2 has no post-quantum key exchange, of which OpenSSH warns since 10.1.
  write(
    sshConfigFile,
    `Host rig
  HostName 127.0.0.1
  Port ${port}
  User ${user}
  IdentityFile ${identityFile ?? 'none'}
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile ${knownHostsFile}
  GlobalKnownHostsFile /dev/null
  IgnoreUnknown WarnWeakCrypto
  WarnWeakCrypto no
`,
  );
  return { sshConfigFile, knownHostsFile };
}

/** The sockets below the server's connections: what a network can do is done to them. */
async function openLine(port: number, serve: (socket: net.Socket) => void) {
  const sockets = new Set<net.Socket>();
  const waiting = new Set<net.Socket>();
  let silent = false;
  const listener = net.createServer({ pauseOnConnect: true, noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    // Who hangs up is gone then, as an sshd is that ends: ssh, at a question, closes its own side no sooner than it is answered.
    socket.once('finish', () => socket.destroy());
    socket.once('close', () => {
      sockets.delete(socket);
      waiting.delete(socket);
    });
    if (silent) waiting.add(socket);
    else serve(socket);
  });
  await new Promise<void>((resolve, reject) => {
    listener.once('error', reject).listen(port, '127.0.0.1', resolve);
  });
  return {
    connections: () => sockets.size,
    /** Says no last word, and closes. */
    end(from: number): void {
      for (const socket of sockets) if (socket.remotePort === from) socket.end();
    },
    drop(): void {
      for (const socket of sockets) socket.resetAndDestroy();
    },
    silence(): void {
      silent = true;
      for (const socket of sockets) {
        socket.pause();
        socket.cork();
      }
    },
    speak(): void {
      silent = false;
      for (const socket of sockets) {
        if (waiting.delete(socket)) serve(socket);
        socket.uncork();
        socket.resume();
      }
    },
    async close(): Promise<void> {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => listener.close(resolve));
    },
  };
}
