/** What a tunnel stands on in a table of engines: a server, a daemon, a service that echoes, and clients of it. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { type Answer, type Home, makeHome, type RunningDaemon, startUp, tunnelIn } from './daemon.js';
import { type Far, type FarKind, startFar } from './far.js';
import { freeLocalPort } from './port.js';
import { createReaper, type Reaper } from './reaper.js';
import { type LocalServer, startServer } from './servers.js';

export interface Column {
  readonly engine: 'ssh' | 'autossh' | 'embedded';
  readonly far: FarKind;
  /** The daemon listens, and the link is behind it. */
  readonly seamless: boolean;
}

/** Keys of a tunnel, as they stand in a configuration. */
type Keys = Readonly<Record<string, unknown>>;
export type Tunnel = Keys & { readonly name: string };
export type LocalTunnel = Tunnel & { readonly local_port: number };

export interface Ground {
  readonly column: Column;
  readonly far: Far;
  readonly home: Home;
  readonly reaper: Reaper;
  readonly daemon: RunningDaemon;
  /** A folder for a row's own files. */
  readonly dir: string;
  /** A tunnel to the echo, as this column has it, by any free port. */
  local(name: string, changes?: Keys): Promise<LocalTunnel>;
  /** A tunnel from that port of the far side to the echo. */
  remote(name: string, port: number): Promise<Tunnel>;
  /** The configuration is these from now on, read again. */
  configure(...tunnels: readonly Tunnel[]): Promise<void>;
  /** The same, and each is up; answers their records. */
  has(...tunnels: readonly Tunnel[]): Promise<Answer['body'][]>;
  /** One local tunnel, which is up: the port of it, its record, and how it stands in the configuration. */
  stands(name: string, changes?: Keys): Promise<{ port: number; before: Answer['body']; tunnel: LocalTunnel }>;
  /** Waits until a tunnel is like that; answers its record. */
  becomes(name: string, fields: Keys, timeoutMs?: number): Promise<Answer['body']>;
  act(name: string, action: string): Promise<Answer>;
  /** The lines of a tunnel's log, without the time. */
  textsOf(record: Answer['body']): string[];
  /** The file of ssh_config for this server, otherwise written, under that name. */
  rewriteConfig(name: string, rewrite: (text: string) => string): string;
  /** The next life of a daemon that has ended. */
  boot(): Promise<void>;
  /** Ends all of it; resolves to the exit code of the daemon. */
  close(): Promise<number | null>;
}

const keys = { restart_timeout_ms: 20_000, backoff: { min_ms: 50, max_ms: 300 } };

/** `echo` is the port of {@link startEcho}. */
export async function openGround(column: Column, echo: number): Promise<Ground> {
  const [home, reaper, far] = [makeHome(), createReaper(), await startFar(column.far)];
  home.configure(keys, []);
  const start = () => startUp(reaper, home, { SSH_AUTH_SOCK: undefined, DISPLAY: undefined });
  let daemon = await start();
  const dir = mkdtempSync(join(tmpdir(), 'tunward-engines-'));
  const { engine, seamless } = column;
  const common = { engine, remote_host: far.host, ssh_config: far.sshConfigFile, ...(seamless ? { seamless } : {}) };
  const ground: Ground = {
    ...{ column, far, home, reaper, dir },
    get daemon() {
      return daemon;
    },
    async local(name, changes = {}) {
      const local_port = await freeLocalPort();
      return { ...common, name, local_port, remote_port: `127.0.0.1:${echo}`, ...changes };
    },
    async remote(name, port) {
      const forward = { local_port: `127.0.0.1:${echo}`, remote_port: port };
      return { ...common, name, direction: 'local_to_remote', ...forward };
    },
    async configure(...tunnels) {
      home.configure(keys, tunnels);
      const { status, body } = await home.api('POST', '/v1/config/reload');
      expect(status, JSON.stringify(body)).to.equal(200);
    },
    async has(...tunnels) {
      await ground.configure(...tunnels);
      return Promise.all(tunnels.map(({ name }) => tunnelIn(home, name, 'up', 20_000)));
    },
    async stands(name, changes) {
      const tunnel = await ground.local(name, changes);
      const [before] = await ground.has(tunnel);
      return { port: tunnel.local_port, before, tunnel };
    },
    async becomes(name, fields, timeoutMs = 15_000) {
      let now: Answer['body'] = {};
      const isSo = async () => {
        now = (await home.api('GET', `/v1/tunnels/${name}`)).body;
        return Object.entries(fields).every(([key, value]) => now[key] === value);
      };
      const isThere = await until(isSo, { timeoutMs, everyMs: 20 });
      expect(isThere, `${JSON.stringify(fields)} was wanted; it is ${JSON.stringify(now)}`).to.equal(true);
      return now;
    },
    act: (name, action) => home.api('POST', `/v1/tunnels/${name}/${action}`),
    textsOf: ({ id }) => home.logLines(id).map((line) => line.slice(22)),
    rewriteConfig(name, rewrite) {
      const file = join(dir, name);
      writeFileSync(file, rewrite(readFileSync(far.sshConfigFile, 'utf8')), { mode: 0o600 });
      return file;
    },
    async boot() {
      daemon = await start();
    },
    async close() {
      const code = await daemon.end('SIGTERM');
      await reaper.end();
      await far[Symbol.asyncDispose]();
      home.remove();
      rmSync(dir, { recursive: true, force: true });
      return code;
    },
  };
  return ground;
}

/** Says nothing before it has heard all: who loses the end of one direction has no answer. */
export function startEcho(): Promise<LocalServer> {
  return startServer(
    (socket) => {
      const chunks: Buffer[] = [];
      socket.on('data', (chunk: Buffer) => chunks.push(chunk)).once('end', () => socket.end(Buffer.concat(chunks)));
    },
    { allowHalfOpen: true },
  );
}

/** Sends it, says that this is all, and resolves to all that comes back; undefined: it was refused, or cut off. */
export async function exchange(port: number, sent: Buffer, host = '127.0.0.1'): Promise<Buffer | undefined> {
  const socket = net.connect({ port, host, allowHalfOpen: true });
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.setTimeout(15_000, () => socket.destroy());
  socket.end(sent);
  return new Promise((resolve) => {
    socket.once('error', () => resolve(undefined));
    socket.once('close', () => resolve(chunks.length > 0 ? Buffer.concat(chunks) : undefined));
  });
}

export async function carries(port: number, host?: string): Promise<boolean> {
  return String(await exchange(port, Buffer.from('there and back'), host)) === 'there and back';
}

/** Sends that many bytes of no pattern (or these) to the echo, all of which have to come back. */
export async function expectEcho(port: number, sent: number | Buffer = 3_000_000, host = '127.0.0.1'): Promise<void> {
  const bytes = typeof sent === 'number' ? randomBytes(sent) : sent;
  const back = await exchange(port, bytes, host);
  expect(back?.equals(bytes), `${back?.length} of ${bytes.length} bytes by ${host}`).to.equal(true);
}

/** A client that has said something and goes on; `finish()` says the rest, and resolves to all that came back. */
export async function beginAt(port: number): Promise<{ finish(): Promise<string> }> {
  const client = net.connect(port, '127.0.0.1').on('error', () => undefined);
  await once(client, 'connect');
  client.write('begun, ');
  return {
    async finish() {
      const chunks: Buffer[] = [];
      client.on('data', (chunk: Buffer) => chunks.push(chunk)).end('and ended');
      await once(client, 'close');
      return String(Buffer.concat(chunks));
    },
  };
}

/** So many clients come all the time, one after another, while that goes on: how often it went well for them, and badly. */
export async function knockDuring(
  work: () => Promise<void>,
  { port, clients = 1 }: { readonly port: number; readonly clients?: number },
): Promise<{ readonly well: number; readonly badly: number }> {
  const outcomes = { well: 0, badly: 0 };
  let isOver = false;
  const knocking = Array.from({ length: clients }, async () => {
    while (!isOver) outcomes[(await carries(port)) ? 'well' : 'badly']++;
  });
  try {
    await work();
  } finally {
    isOver = true;
    await Promise.all(knocking);
  }
  return outcomes;
}
