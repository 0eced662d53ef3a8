/**
 * The far end of tunnels, of either kind and with the same handles: an OpenSSH server, or the one of ssh2 in this process.
 * What a tunnel meets there (a server that goes away, freezes, has another key) is done to both in the same words.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startSshServer } from '#lib/testing.js';
import { descendantsOf, sendSignal } from './proc.js';
import { type Sshd, startSshd } from './sshd.js';

export type FarKind = 'sshd' | 'ssh2';

export interface Far {
  readonly port: number;
  /** The name in sshConfigFile. */
  readonly host: string;
  /** Knows the host key and the identity; StrictHostKeyChecking is as tunward has it. */
  readonly sshConfigFile: string;
  readonly knownHostsFile: string;
  /** How many clients are connected at this moment. */
  connections(): number;
  /** Ends all connections from that side, without a word. */
  cut(): void;
  /** Neither reads nor writes, on any connection, until `thaw()`. */
  freeze(): void;
  thaw(): Promise<void>;
  /** Nobody is at its port, and all connections are cut; until `comeBack()`. */
  leave(): Promise<void>;
  comeBack(): Promise<void>;
  /** Has another host key from now on; all connections are cut. */
  changeHostKey(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** First `need(this, 'sshd', 'ipv6')` for that kind, which listens on ::1 as well; the other needs nothing. */
export function startFar(kind: FarKind): Promise<Far> {
  return kind === 'sshd' ? startReal() : startOfSsh2();
}

async function startReal(): Promise<Far> {
  const dir = mkdtempSync(join(tmpdir(), 'tunward-far-'));
  const start = (port?: number) =>
    startSshd({ dir, extra: ['ListenAddress ::1'], ...(port === undefined ? {} : { port }) });
  let server: Sshd = await start();
  const { port, host, sshConfigFile, knownHostsFile, hostKeyFile } = server;
  const each = (signal: NodeJS.Signals) => {
    for (const ref of descendantsOf(server.pid)) sendSignal(ref, signal);
  };
  const comeBack = async () => {
    server = await start(port);
  };
  return {
    ...{ port, host, sshConfigFile, knownHostsFile },
    connections: () => descendantsOf(server.pid).filter(({ ppid }) => ppid === server.pid).length,
    cut: () => each('SIGKILL'),
    freeze: () => each('SIGSTOP'),
    thaw: async () => each('SIGCONT'),
    leave: () => server.stop(),
    comeBack,
    async changeHostKey() {
      await server.stop();
      rmSync(hostKeyFile);
      await comeBack();
    },
    [Symbol.asyncDispose]: async () => {
      await server.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

async function startOfSsh2(): Promise<Far> {
  const dir = mkdtempSync(join(tmpdir(), 'tunward-far-'));
  const server = await startSshServer({ alias: 'rig' });
  const sshConfigFile = join(dir, 'ssh_config');
  const lines = readFileSync(server.sshConfigFile, 'utf8').split('\n');
  const own = lines.filter((line) => !line.includes('StrictHostKeyChecking'));
  writeFileSync(sshConfigFile, own.join('\n'), { mode: 0o600 });
  return {
    ...{ port: server.port, host: 'rig', sshConfigFile, knownHostsFile: server.knownHostsFile },
    connections: () => server.connections.filter(({ isOpen }) => isOpen).length,
    cut: () => server.drop(),
    freeze: () => server.stall(),
    thaw: () => server.resume(),
    async leave() {
      server.refuse('connection');
      server.drop();
    },
    comeBack: () => server.resume(),
    async changeHostKey() {
      server.changeHostKey();
      server.drop();
    },
    [Symbol.asyncDispose]: async () => {
      await server.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
