/**
 * One table: what a tunnel does, by every engine and behind every kind of listener. Its rows are what all of them have in
 * common; the other files here hold ssh, in full: restart.test.ts the two hundred restarts, reasons.test.ts and
 * truth.test.ts each reason, reload.test.ts each way of editing, jump.test.ts each way through other hosts, boot.test.ts
 * what a former life has left, auth.test.ts and terminal.test.ts all that is asked.
 *
 * Each row runs in all columns at once, each of which has a daemon and a server of its own.
 */
import { execSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { mainFile, tunward, tunwardJson } from '../cli/run.js';
import { byKey, byPassword, byPasswordAndCode, startAsking } from '../support/asking.js';
import { type Answer, allGone, type Home, makeHome, type RunningDaemon, startUp, tunnelIn } from '../support/daemon.js';
import { answer, question } from '../support/dialogue.js';
import { type Far, type FarKind, startFar } from '../support/far.js';
import { makeKey } from '../support/keys.js';
import { isListenedTo, listeningInodes } from '../support/listening.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive, sendSignal } from '../support/proc.js';
import { startListener } from '../support/processes.js';
import { createReaper, type Reaper } from '../support/reaper.js';
import { type LocalServer, startServer } from '../support/servers.js';
import { startSshd } from '../support/sshd.js';
import { type OnTerminal, runOnTerminal } from '../support/terminal.js';
import { visitOpen } from '../support/visitor.js';

interface Column {
  readonly engine: 'ssh' | 'autossh' | 'embedded';
  readonly far: FarKind;
  /** The daemon listens, and the link is behind it. */
  readonly seamless: boolean;
}

const columns: readonly Column[] = [
  { engine: 'ssh', far: 'sshd', seamless: false },
  { engine: 'ssh', far: 'sshd', seamless: true },
  { engine: 'autossh', far: 'sshd', seamless: false },
  { engine: 'autossh', far: 'sshd', seamless: true },
  { engine: 'embedded', far: 'sshd', seamless: false },
  { engine: 'embedded', far: 'sshd', seamless: true },
  { engine: 'embedded', far: 'ssh2', seamless: false },
];

const everywhere = () => true;
const isPlain = ({ seamless }: Column) => !seamless;
const isEmbedded = ({ engine }: Column) => engine === 'embedded';

const titleOf = ({ engine, far, seamless }: Column) =>
  `${engine}${seamless ? ', seamless,' : ''} on ${far === 'sshd' ? 'sshd' : 'ssh2’s Server'}`;

/** As tunnels stand in a configuration. */
type Tunnel = Readonly<Record<string, unknown>> & { readonly name: string };

/** What one column stands on: a server, a daemon, and what can be said to it. */
interface Ground {
  readonly column: Column;
  readonly far: Far;
  readonly home: Home;
  readonly reaper: Reaper;
  daemon: RunningDaemon;
  /** What echoes, once it has heard all: the port of it. */
  readonly echo: number;
  /** A folder for a row's own files. */
  readonly dir: string;
  /** A local tunnel to the echo, as this column has it, by any free port. */
  local(name: string, changes?: Readonly<Record<string, unknown>>): Promise<Tunnel & { readonly local_port: number }>;
  /** The configuration is these from now on, read again. */
  configure(...tunnels: readonly Tunnel[]): Promise<void>;
  /** The same, and each is up; answers their records. */
  has(...tunnels: readonly Tunnel[]): Promise<Answer['body'][]>;
  /** Waits until a tunnel is like that; answers its record. */
  becomes(name: string, fields: Readonly<Record<string, unknown>>, timeoutMs?: number): Promise<Answer['body']>;
  act(name: string, action: string): Promise<Answer>;
}

const restartTimeoutMs = 20_000;
const keys = { restart_timeout_ms: restartTimeoutMs, backoff: { min_ms: 50, max_ms: 300 } };
const inUse = /address (already )?in use|cannot listen to port/i;
const startLine = /Starting tunnel \((remote to local|local to remote)\): /;

async function openGround(column: Column, echo: number): Promise<Ground> {
  const [home, reaper, far] = [makeHome(), createReaper(), await startFar(column.far)];
  home.configure(keys, []);
  const daemon = await startUp(reaper, home, { SSH_AUTH_SOCK: undefined, DISPLAY: undefined });
  const { engine, seamless } = column;
  const common = { engine, remote_host: far.host, ssh_config: far.sshConfigFile };
  const ground: Ground = {
    ...{ column, far, home, reaper, daemon, echo, dir: mkdtempSync(join(tmpdir(), 'tunward-engines-')) },
    async local(name, changes = {}) {
      const local_port = await freeLocalPort();
      const forward = { local_port, remote_port: `127.0.0.1:${echo}` };
      return { ...common, ...(seamless ? { seamless } : {}), name, ...forward, ...changes } as never;
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
  };
  return ground;
}

async function closeGround({ daemon, far, home, reaper, dir }: Ground): Promise<number | null> {
  const code = await daemon.end('SIGTERM');
  await reaper.end();
  await far[Symbol.asyncDispose]();
  home.remove();
  rmSync(dir, { recursive: true, force: true });
  return code;
}

/** Sends it, says that this is all, and resolves to all that comes back; undefined: it was refused, or cut off. */
async function exchange(port: number, sent: Buffer, host = '127.0.0.1'): Promise<Buffer | undefined> {
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

async function carries(port: number, host?: string): Promise<boolean> {
  return String(await exchange(port, Buffer.from('there and back'), host)) === 'there and back';
}

/** Who is in it: the chain, or the daemon where nobody else is. */
function membersOf({ daemon }: Ground, { chain }: Answer['body']): number[] {
  return [daemon.pid, ...chain.map(({ pid }: { pid: number }) => pid)];
}

/** The lines of a tunnel's log, without the time. */
function textsOf({ home }: Ground, { id }: Answer['body']): string[] {
  return home.logLines(id).map((line) => line.slice(22));
}

interface Row {
  readonly title: string;
  readonly columns: (column: Column) => boolean;
  readonly run: (ground: Ground) => Promise<void>;
}

const rows: readonly Row[] = [
  {
    title: 'carries 3 MB both ways, by either loopback address, and the end of one direction without that of the other',
    columns: everywhere,
    async run(ground) {
      const web = await ground.local('web');
      await ground.has(web);
      const sent = randomBytes(3_000_000);
      for (const host of ['127.0.0.1', '::1']) {
        const back = await exchange(web.local_port, sent, host);
        expect(back?.equals(sent), `${back?.length} bytes by ${host}`).to.equal(true);
      }
    },
  },
  {
    title: 'carries from the far side to here as well, and tells which port the server has chosen',
    columns: isPlain,
    async run(ground) {
      const changes = { direction: 'local_to_remote', local_port: `127.0.0.1:${ground.echo}` };
      const port = await freeLocalPort();
      const [, any] = await ground.has(
        await ground.local('back', { ...changes, remote_port: port }),
        await ground.local('any', { ...changes, remote_port: 0 }),
      );
      const sent = randomBytes(3_000_000);
      expect((await exchange(port, sent))?.equals(sent)).to.equal(true);
      expect(any.listen[0].port).to.be.greaterThan(1023);
      expect(await carries(any.listen[0].port)).to.equal(true);
      for (const name of ['back', 'any']) expect((await ground.act(name, 'restart')).status, name).to.equal(200);
      expect(await carries(port)).to.equal(true);
      const { listen } = await tunnelIn(ground.home, 'any', 'up');
      expect(await carries(listen[0].port)).to.equal(true);
      expect((await ground.act('back', 'stop')).status).to.equal(200);
      expect(await until(() => listeningInodes('127.0.0.1', port).length === 0, { timeoutMs: 3000 })).to.equal(true);
    },
  },
  {
    title: 'needs no ssh_config: none, or /dev/null, is no file at all',
    columns: everywhere,
    async run(ground) {
      const { far } = ground;
      const text = readFileSync(far.sshConfigFile, 'utf8');
      const wordOf = (name: string) => new RegExp(`^ *${name} "?([^"\n]+)`, 'm').exec(text)?.[1];
      const tunnels = ['none', '/dev/null'].map((ssh_config, at) =>
        ground.local(`web${at}`, {
          ...{ ssh_config, remote_host: `${wordOf('User')}@127.0.0.1`, identity_file: wordOf('IdentityFile') },
          ssh_options: { Port: far.port, UserKnownHostsFile: far.knownHostsFile, IdentitiesOnly: true },
        }),
      );
      const webs = await Promise.all(tunnels);
      await ground.has(...webs);
      for (const { local_port } of webs) expect(await carries(local_port)).to.equal(true);
    },
  },
  {
    title: 'goes to a server by IPv6, from an address that is named, and compressed',
    columns: ({ far }) => far === 'sshd',
    async run(ground) {
      const ssh_options = {
        HostName: '::1',
        BindAddress: '::1',
        Compression: 'yes',
        StrictHostKeyChecking: 'accept-new',
      };
      const web = await ground.local('web', { ssh_options });
      await ground.has(web);
      for (const sent of [randomBytes(1_000_000), Buffer.alloc(3_000_000)]) {
        const back = await exchange(web.local_port, sent);
        expect(back?.equals(sent), `${back?.length}`).to.equal(true);
      }
    },
  },
  {
    title: 'listens on every address of it when it is said to be up, and on none when it is said to be stopped',
    columns: everywhere,
    async run(ground) {
      const web = await ground.local('web');
      await ground.has(web);
      for (let round = 0; round < 3; round++) {
        const stopped = await ground.act('web', 'stop');
        for (const host of ['127.0.0.1', '::1']) {
          expect(listeningInodes(host, web.local_port), JSON.stringify(stopped.body)).to.deep.equal([]);
        }
        expect(await exchange(web.local_port, Buffer.from('x'))).to.equal(undefined);
        const { status, body } = await ground.act('web', 'start');
        expect(status, JSON.stringify(body)).to.equal(200);
        for (const host of ['127.0.0.1', '::1']) {
          expect(isListenedTo(host, web.local_port, membersOf(ground, body.tunnel)), host).to.equal(true);
        }
        expect(await carries(web.local_port)).to.equal(true);
      }
    },
  },
  {
    title: 'restarts many times under its clients: no address is in use, and nobody is left of the life before',
    columns: everywhere,
    async run(ground) {
      const { home, far, column } = ground;
      const web = await ground.local('web');
      let [before] = await ground.has(web);
      let isOver = false;
      const outcomes = { well: 0, badly: 0 };
      const client = async () => {
        while (!isOver) {
          if (await carries(web.local_port)) outcomes.well++;
          else outcomes.badly++;
        }
      };
      const clients = column.seamless ? [client(), client()] : [client()];
      try {
        // Two hundred times for the others: restart.test.ts.
        for (let round = 0; round < (isEmbedded(column) || column.seamless ? 20 : 5); round++) {
          const { status, body } = await ground.act('web', 'restart');
          expect(status, JSON.stringify(body)).to.equal(200);
          expect(body).to.include({ name: 'web', state: 'up' });
          expect(body.phases).to.have.all.keys('stop_ms', 'free_ms', 'start_ms');
          expect(body.kill.survivors).to.deep.equal([]);
          // Behind a front the link before is let go when its clients have gone.
          expect(await allGone(before.chain, column.seamless ? 10_000 : 0), 'the old chain is gone').to.equal(true);
          expect(body.tunnel.restarts).to.equal(before.restarts + 1);
          const texts = textsOf(ground, before);
          expect(texts.filter((text) => inUse.test(text))).to.deep.equal([]);
          expect(texts.slice(texts.findLastIndex((text) => startLine.test(text))).filter(isStart)).to.have.lengthOf(1);
          // The clients that come all the time may be cut off by the next one, every time.
          expect(await carries(web.local_port)).to.equal(true);
          before = body.tunnel;
        }
      } finally {
        isOver = true;
        await Promise.all(clients);
      }
      if (column.seamless) expect(outcomes.well).to.be.greaterThan(0);
      if (column.seamless) expect(outcomes.badly, 'clients that were turned away').to.equal(0);
      expect(await until(() => far.connections() === 1, { timeoutMs: 5000 }), `${far.connections()}`).to.equal(true);
      expect(await carries(web.local_port)).to.equal(true);
      expect((await home.api('GET', '/v1/tunnels/web')).body).to.include({ state: 'up', restarts: before.restarts });
    },
  },
  {
    title: 'gives twenty restarts at once one cycle and twenty equal answers',
    columns: everywhere,
    async run(ground) {
      const web = await ground.local('web');
      const [{ restarts }] = await ground.has(web);
      const answers = await Promise.all(Array.from({ length: 20 }, () => ground.act('web', 'restart')));
      expect(answers.map(({ status }) => status)).to.deep.equal(Array(20).fill(200));
      expect(new Set(answers.map(({ body }) => JSON.stringify(body.phases))).size).to.equal(1);
      expect((await tunnelIn(ground.home, 'web', 'up')).restarts).to.equal(restarts + 1);
      expect(await carries(web.local_port)).to.equal(true);
    },
  },
  {
    title: 'comes up again by itself when its link dies, and says in its log what was',
    columns: everywhere,
    async run(ground) {
      const { far, column } = ground;
      const web = await ground.local('web');
      let [before] = await ground.has(web);
      const deaths = [() => far.cut(), () => sendSignal(toRef(before.chain.at(-1)), 'SIGKILL')];
      for (const die of isEmbedded(column) ? deaths.slice(0, 1) : deaths) {
        die();
        before = await ground.becomes('web', { state: 'up', restarts: before.restarts + 1 });
        expect(await carries(web.local_port)).to.equal(true);
      }
      const texts = textsOf(ground, before);
      expect(texts[0]).to.match(/^Starting tunnel \(remote to local\): localhost:\d+ <- rig:127\.0\.0\.1:\d+$/);
      expect(texts.filter((text) => /^Up: ./.test(text))).to.have.lengthOf(before.restarts + 1);
      // Why, in the words of whoever noticed: never just an exit code.
      const why = texts.filter((text) => /^(No longer forwarding|Reconnecting|Not up)/.test(text)).join('\n');
      expect(why, texts.join('\n')).to.not.equal('');
      expect(texts.join('\n')).to.match(/Connection (closed|reset) by 127\.0\.0\.1 port \d+|client_loop|Connection to/);
    },
  },
  {
    title: 'waits for a server that is away, says why and until when, and is up when it is back',
    columns: everywhere,
    async run(ground) {
      const { far } = ground;
      const web = await ground.local('web');
      await ground.has(web);
      await far.leave();
      // The first try may still have met it on its way out.
      const isAway = async () => {
        const now = await ground.becomes('web', { state: 'backoff', reason: 'refused' });
        return /connect to (host|address) .*Connection refused/.test(now.last_error) && now;
      };
      const away = await until(isAway, { timeoutMs: 15_000, everyMs: 20 });
      if (!away) throw new Error('The web tunnel does not say that nobody listens there');
      expect(new Date(away.next_retry_at).getTime()).to.be.a('number').and.not.NaN;
      await far.comeBack();
      expect(await ground.becomes('web', { state: 'up', reason: null, last_error: null })).to.include({
        next_retry_at: null,
      });
      expect(await carries(web.local_port)).to.equal(true);
      await ground.configure(await ground.local('web', { ssh_options: { HostName: 'nobody.invalid' } }));
      const lost = await ground.becomes('web', { state: 'backoff', reason: 'unreachable' });
      expect(lost.last_error).to.match(/Could not resolve hostname nobody\.invalid/);
    },
  },
  {
    title: 'tries again a minute later when the server does not take its key',
    columns: everywhere,
    async run(ground) {
      const { far, dir } = ground;
      const [wrong, ssh_config] = [join(dir, 'wrong'), join(dir, 'wrong_config')];
      makeKey(wrong);
      const text = readFileSync(far.sshConfigFile, 'utf8').replace(/IdentityFile .*/, `IdentityFile ${wrong}`);
      writeFileSync(ssh_config, text, { mode: 0o600 });
      await ground.configure(await ground.local('web', { ssh_config }));
      const refused = await ground.becomes('web', { state: 'backoff', reason: 'auth_failed' });
      expect(refused.last_error).to.match(/Permission denied \(publickey/);
      expect(refused.remedy).to.contain('ssh-copy-id rig');
      expect(Date.parse(refused.next_retry_at) - Date.parse(refused.since)).to.be.within(59_000, 67_000);
      const { status, body } = await ground.act('web', 'restart');
      expect([status, body.reason]).to.deep.equal([502, 'auth_failed']);
    },
  },
  {
    title: 'is given up when the host key has changed, and what is said to be done about it helps',
    columns: everywhere,
    async run(ground) {
      const { far } = ground;
      const web = await ground.local('web');
      await ground.has(web);
      await far.changeHostKey();
      far.cut();
      const changed = await ground.becomes('web', { state: 'fatal', reason: 'host_key_changed' });
      const name = `[127.0.0.1]:${far.port}`;
      expect(changed.last_error).to.contain(`Host key for ${name} has changed`);
      expect(changed.last_error).to.contain(`${far.knownHostsFile}:1`);
      const remedy = /\((ssh-keygen -f '.+' -R '.+')\), then start the tunnel/.exec(changed.remedy)?.[1];
      expect(remedy, changed.remedy).to.equal(`ssh-keygen -f '${far.knownHostsFile}' -R '${name}'`);
      expect(changed.next_retry_at).to.equal(null);
      execSync(remedy ?? '', { stdio: 'ignore' });
      const { body } = await ground.act('web', 'start');
      expect(body, JSON.stringify(body)).to.include({ state: 'up' });
      expect(await carries(web.local_port)).to.equal(true);
    },
  },
  {
    title: 'writes a host key that is met for the first time into a file of its own, once',
    columns: everywhere,
    async run(ground) {
      const { home, far, dir } = ground;
      const [file, ssh_config] = [join(dir, 'nobody_known'), join(dir, 'unknown_config')];
      const text = readFileSync(far.sshConfigFile, 'utf8').replace(
        /UserKnownHostsFile .*/,
        `UserKnownHostsFile ${file}`,
      );
      writeFileSync(ssh_config, text, { mode: 0o600 });
      await ground.has(await ground.local('web', { ssh_config, ssh_options: { HostKeyAlias: 'met.first' } }));
      for (let round = 0; round < 2; round++) expect((await ground.act('web', 'restart')).status).to.equal(200);
      const learnt = readFileSync(join(home.stateDir, 'known_hosts'), 'utf8').split('\n');
      expect(learnt.filter((line) => line.startsWith('met.first '))).to.have.lengthOf(1);
      expect(existsSync(file), 'the person’s own').to.equal(false);
    },
  },
  {
    title: 'says that the server has its port already, and is up when that is free',
    columns: isPlain,
    async run(ground) {
      const remote_port = await freeLocalPort();
      await using others = createReaper();
      await startListener(others, { port: remote_port }).ready;
      const changes = { direction: 'local_to_remote', local_port: `127.0.0.1:${ground.echo}`, remote_port };
      await ground.configure(await ground.local('back', changes));
      const busy = await ground.becomes('back', { state: 'backoff', reason: 'remote_port_busy' });
      expect(busy.last_error).to.match(/remote port forwarding failed for listen port/);
      expect(Date.parse(busy.next_retry_at) - Date.parse(busy.since)).to.be.within(4900, 5600);
      await others.end();
      await ground.becomes('back', { state: 'up', reason: null });
      expect(await carries(remote_port)).to.equal(true);
    },
  },
  {
    title: 'names the stranger on its port, and takes the port when it is told to',
    columns: everywhere,
    async run(ground) {
      const web = await ground.local('web');
      await using others = createReaper();
      const stranger = startListener(others, { port: web.local_port, host: '::1' });
      await stranger.ready;
      await ground.configure(web);
      const { status, body } = await ground.act('web', 'restart');
      expect([status, body.code]).to.deep.equal([409, 'ERR_PORT_HELD']);
      expect(body.holders.map(({ pid }: { pid: number }) => pid)).to.deep.equal([stranger.pid]);
      expect(isAlive(stranger.pid, stranger.startTicks)).to.equal(true);
      const forced = await ground.act('web', 'restart?force=true');
      expect(forced.body, JSON.stringify(forced.body)).to.include({ state: 'up' });
      expect(forced.body.kill.killed.map(({ pid }: { pid: number }) => pid)).to.deep.equal([stranger.pid]);
      expect(await carries(web.local_port, '::1')).to.equal(true);
    },
  },
  {
    title: 'stays up when its target is not well, says so, and that it is well again',
    columns: everywhere,
    async run(ground) {
      const port = await freeLocalPort();
      const check = { every_ms: 1000, timeout_ms: 1000 };
      await ground.configure(await ground.local('web', { remote_port: `127.0.0.1:${port}`, check }));
      const unwell = await ground.becomes('web', { state: 'up', health: 'degraded', reason: 'target_refused' });
      expect(unwell.health_reason).to.match(/^channel \d+: open failed: \S+/);
      await using _target = await startServer((socket) => socket.resume(), { port });
      const { last_restart } = await ground.becomes('web', { state: 'up', health: 'ok', reason: null });
      expect(last_restart, 'it was up all the time').to.deep.equal(unwell.last_restart);
      const texts = textsOf(ground, unwell);
      expect(texts.filter((text) => /^Degraded: /.test(text))).to.have.lengthOf(1);
      expect(texts).to.include('Well again');
    },
  },
  {
    title: 'notices a server that says nothing any more, within the time that is configured',
    columns: everywhere,
    async run(ground) {
      const { far } = ground;
      const ssh_options = { ServerAliveInterval: 1, ServerAliveCountMax: 2, ConnectTimeout: 2 };
      const web = await ground.local('web', { ssh_options });
      const [{ id }] = await ground.has(web);
      far.freeze();
      const isLost = async () => (await ground.home.api('GET', `/v1/tunnels/${id}`)).body.state !== 'up';
      expect(await until(isLost, { timeoutMs: 10_000, everyMs: 20 })).to.equal(true);
      await far.thaw();
      await ground.becomes('web', { state: 'up' });
      expect(textsOf(ground, { id }).join('\n')).to.match(/Timeout, server .+ not responding/);
      expect(await carries(web.local_port)).to.equal(true);
    },
  },
  {
    title: 'is another one when the file says so; who is left alone keeps its connections; who has left is gone',
    columns: everywhere,
    async run(ground) {
      const [kept, changed, leaving] = [
        await ground.local('kept'),
        await ground.local('changed'),
        await ground.local('leaving'),
      ];
      const [before] = await ground.has(kept, changed, leaving);
      const client = net.connect(kept.local_port, '127.0.0.1');
      client.on('error', () => undefined);
      await once(client, 'connect');
      client.write('begun, ');
      await using other = await startServer((socket) => socket.on('error', () => undefined).end('another'));
      await ground.configure(kept, { ...changed, remote_port: `127.0.0.1:${other.port}` });
      const isChanged = async () => String(await exchange(changed.local_port, Buffer.from(''))) === 'another';
      expect(await until(isChanged, { timeoutMs: 10_000 })).to.equal(true);
      const isGone = async () => (await exchange(leaving.local_port, Buffer.from('x'))) === undefined;
      expect(await until(isGone, { timeoutMs: 5000 })).to.equal(true);
      const chunks: Buffer[] = [];
      client.on('data', (chunk: Buffer) => chunks.push(chunk));
      client.end('and ended');
      await once(client, 'close');
      expect(String(Buffer.concat(chunks))).to.equal('begun, and ended');
      const after = await tunnelIn(ground.home, 'kept', 'up');
      expect([after.restarts, after.chain]).to.deep.equal([before.restarts, before.chain]);
    },
  },
  {
    title: 'is carried by another engine when the file says so',
    columns: ({ engine }) => engine === 'ssh',
    async run(ground) {
      const { column, far } = ground;
      const web = await ground.local('web');
      let [before] = await ground.has(web);
      let isOver = false;
      let refused = 0;
      const client = async () => {
        while (!isOver) if (!(await carries(web.local_port))) refused++;
      };
      const going = client();
      try {
        for (const engine of ['embedded', 'autossh', 'ssh']) {
          await ground.configure({ ...web, engine });
          const restarts = before.restarts + 1;
          const after = await ground.becomes('web', { state: 'up', engine, restarts });
          expect(after.chain.length, engine).to.equal({ embedded: 0, autossh: 2, ssh: 1 }[engine]);
          expect(await allGone(before.chain, 5000)).to.equal(true);
          expect(await carries(web.local_port), engine).to.equal(true);
          before = after;
        }
      } finally {
        isOver = true;
        await going;
      }
      if (column.seamless) expect(refused, 'clients that were turned away').to.equal(0);
      expect(await until(() => far.connections() === 1, { timeoutMs: 5000 })).to.equal(true);
    },
  },
  {
    title: 'shares one connection with its like, and none of them minds what becomes of another',
    columns: isEmbedded,
    async run(ground) {
      const { far } = ground;
      const names = ['one', 'two', 'three'];
      const tunnels = await Promise.all(names.map((name) => ground.local(name)));
      const befores = await ground.has(...tunnels);
      expect(far.connections()).to.equal(1);
      const [one, two, three] = tunnels;
      const client = net.connect(two?.local_port ?? 0, '127.0.0.1').on('error', () => undefined);
      await once(client, 'connect');
      client.write('begun, ');
      expect((await ground.act('one', 'restart')).status).to.equal(200);
      expect((await ground.act('three', 'stop')).status).to.equal(200);
      const chunks: Buffer[] = [];
      client.on('data', (chunk: Buffer) => chunks.push(chunk)).end('and ended');
      await once(client, 'close');
      expect(String(Buffer.concat(chunks))).to.equal('begun, and ended');
      expect(await carries(one?.local_port ?? 0)).to.equal(true);
      expect(await carries(three?.local_port ?? 0)).to.equal(false);
      expect((await ground.act('three', 'start')).status).to.equal(200);
      far.cut();
      for (const [at, name] of names.entries()) {
        const isBack = async () => {
          const { state, restarts } = (await ground.home.api('GET', `/v1/tunnels/${name}`)).body;
          return state === 'up' && restarts > befores[at].restarts + (name === 'two' ? 0 : 1);
        };
        expect(await until(isBack, { timeoutMs: 10_000, everyMs: 20 }), name).to.equal(true);
        expect(await carries(tunnels[at]?.local_port ?? 0), name).to.equal(true);
      }
      expect(far.connections()).to.equal(1);
    },
  },
  {
    title: 'goes through another host, and comes back when that one is lost',
    columns: everywhere,
    async run(ground) {
      const { far, dir } = ground;
      const ssh_config = join(dir, 'jump_config');
      const hopDir = mkdtempSync(join(dir, 'hop-'));
      let hop = await startSshd({ dir: hopDir });
      try {
        const ofHop = readFileSync(hop.sshConfigFile, 'utf8').replace('Host rig', 'Host hop');
        writeFileSync(ssh_config, `${readFileSync(far.sshConfigFile, 'utf8')}\n${ofHop}`, { mode: 0o600 });
        const web = await ground.local('web', { ssh_config, jump: ['hop'] });
        const [{ restarts }] = await ground.has(web);
        expect(await carries(web.local_port)).to.equal(true);
        await hop.stop();
        const away = await ground.becomes('web', { state: 'backoff', reason: 'refused' });
        expect(away.last_error).to.contain(String(hop.port));
        hop = await startSshd({ dir: hopDir, port: hop.port });
        await ground.becomes('web', { state: 'up', restarts: restarts + 1 });
        expect(await carries(web.local_port)).to.equal(true);
      } finally {
        await hop.stop();
      }
    },
  },
  {
    title: 'is up again in the next life of a daemon that was killed, and nothing is left of this one',
    columns: everywhere,
    async run(ground) {
      const { far, home, reaper } = ground;
      const web = await ground.local('web');
      const [{ chain }] = await ground.has(web);
      await ground.daemon.end('SIGKILL');
      if (isEmbedded(ground.column)) {
        expect(await until(() => far.connections() === 0, { timeoutMs: 3000 })).to.equal(true);
      }
      ground.daemon = await startUp(reaper, home, { SSH_AUTH_SOCK: undefined, DISPLAY: undefined });
      await tunnelIn(home, 'web', 'up', 20_000);
      expect(await allGone(chain)).to.equal(true);
      expect(await until(() => far.connections() === 1, { timeoutMs: 5000 })).to.equal(true);
      expect(await carries(web.local_port)).to.equal(true);
    },
  },
  {
    title: 'ends with the daemon: in time, with 0, and the server sees it at once',
    columns: everywhere,
    async run(ground) {
      const { far, home, reaper } = ground;
      const web = await ground.local('web');
      const [{ chain }] = await ground.has(web);
      const client = net.connect(web.local_port, '127.0.0.1').on('error', () => undefined);
      await once(client, 'connect');
      const closed = new Promise((resolve) => client.resume().once('close', resolve));
      expect(await ground.daemon.end('SIGTERM'), ground.daemon.stderr()).to.equal(0);
      expect(await until(() => far.connections() === 0, { timeoutMs: 1000 })).to.equal(true);
      await closed;
      expect(await allGone(chain, 0)).to.equal(true);
      expect(listeningInodes('127.0.0.1', web.local_port)).to.deep.equal([]);
      ground.daemon = await startUp(reaper, home, { SSH_AUTH_SOCK: undefined, DISPLAY: undefined });
    },
  },
  {
    title: 'ends with the daemon also when the server says nothing any more: in time, with 0',
    columns: isEmbedded,
    async run(ground) {
      const { far, home, reaper, column } = ground;
      const changes = { direction: 'local_to_remote', local_port: `127.0.0.1:${ground.echo}`, remote_port: 0 };
      const web = await ground.local('web');
      await ground.has(web, ...(column.seamless ? [] : [await ground.local('back', changes)]));
      far.freeze();
      expect(await ground.daemon.end('SIGTERM'), ground.daemon.stderr()).to.equal(0);
      // What is not over by its deadline it would name.
      expect(ground.daemon.stderr()).not.to.contain('not over after');
      await far.thaw();
      expect(await until(() => far.connections() === 0, { timeoutMs: 5000 })).to.equal(true);
      ground.daemon = await startUp(reaper, home, { SSH_AUTH_SOCK: undefined, DISPLAY: undefined });
    },
  },
  {
    title: 'is told of by ls, status and doctor as one that this process carries',
    columns: isEmbedded,
    async run(ground) {
      const { reaper, home } = ground;
      const web = await ground.local('web');
      await ground.has(web);
      expect(await carries(web.local_port)).to.equal(true);
      const at = ['--socket', home.socket];
      const [listed, shown, record, examined] = await Promise.all([
        tunward(reaper, ['ls', ...at]),
        tunward(reaper, ['status', 'web', ...at]),
        tunwardJson(reaper, ['status', 'web', ...at]),
        tunward(reaper, ['doctor', '-c', home.configFile]),
      ]);
      expect([listed.code, shown.code], `${listed.stderr}${shown.stderr}`).to.deep.equal([0, 0]);
      expect(listed.stdout).to.match(/web .*up/);
      expect(shown.stdout)
        .to.match(/embedded/)
        .and.match(new RegExp(String(web.local_port)));
      expect(record.tunnels[0]).to.include({
        engine: 'embedded',
        pid: null,
        state: 'up',
        seamless: ground.column.seamless,
      });
      expect(record.tunnels[0].traffic).to.include({
        connections: 1,
        open: 0,
        refused: 0,
        bytes_in: 14,
        bytes_out: 14,
      });
      expect(examined.code, `${examined.stdout}${examined.stderr}`).to.be.oneOf([0, 2]);
      expect(examined.stdout).to.not.match(/TypeError|undefined/);
    },
  },
];

function isStart(text: string): boolean {
  return startLine.test(text);
}

function toRef({ pid, start_ticks }: { pid: number; start_ticks: number }) {
  return { pid, startTicks: start_ticks };
}

describe('a tunnel, by whatever engine', function () {
  this.timeout(60_000);
  let echo: LocalServer;
  const grounds = new Map<Column, Ground>();

  before(async function () {
    need(this, 'ssh', 'sshd', 'autossh', 'ipv6');
    // Says nothing before it has heard all: who loses the end of one direction has no answer.
    echo = await startServer(
      (socket) => {
        const chunks: Buffer[] = [];
        socket.on('data', (chunk: Buffer) => chunks.push(chunk)).once('end', () => socket.end(Buffer.concat(chunks)));
      },
      { allowHalfOpen: true },
    );
    await Promise.all(
      columns.map(async (column) => {
        grounds.set(column, await openGround(column, echo.port));
      }),
    );
  });

  after(async () => {
    const codes = await Promise.all([...grounds.values()].map(closeGround));
    await echo?.[Symbol.asyncDispose]();
    expect(codes.filter((code) => code !== 0)).to.deep.equal([]);
  });

  for (const row of rows) {
    describe(row.title, () => {
      const outcomes = new Map<Column, Promise<unknown>>();

      before(() => {
        for (const [column, ground] of grounds) {
          // What it throws is for its own test, which may come later.
          if (row.columns(column))
            outcomes.set(
              column,
              row.run(ground).catch((error: unknown) => ({ error })),
            );
        }
      });

      for (const column of columns.filter(row.columns)) {
        it(titleOf(column), async () => {
          const outcome = (await outcomes.get(column)) as { readonly error: unknown } | undefined;
          if (outcome) throw outcome.error;
        });
      }
    });
  }
});

/** What ssh is asked on a terminal of its own is asked here by the daemon, in the same words: auth.test.ts has the rest. */
describe('a tunnel that asks, by the engine embedded', function () {
  this.timeout(60_000);
  const [PASSWORD, CODE, PASSPHRASE] = ['correct horse', '424242', 'of the key'];
  const reaper = createReaper();
  let home: Home;
  let daemon: RunningDaemon;
  let port: number;

  before(function () {
    need(this, 'pty');
  });

  beforeEach(() => {
    home = makeHome();
  });

  afterEach(async () => {
    const end = await daemon?.end('SIGTERM');
    await reaper.end();
    home.remove();
    expect(end).to.equal(0);
  });

  async function serve({ host, sshConfigFile }: { readonly host: string; readonly sshConfigFile: string }) {
    port = await freeLocalPort();
    const listen = { remote_port: '127.0.0.1:1', local_port: `127.0.0.1:${port}` };
    const tunnel = { name: 'vault', remote_host: host, ssh_config: sshConfigFile, interactive: true, ...listen };
    home.configure({}, [{ ...tunnel, engine: 'embedded' }]);
    daemon = await startUp(reaper, home, { SSH_AUTH_SOCK: undefined, DISPLAY: undefined });
  }

  const vault = async () => (await home.api('GET', '/v1/tunnels/vault')).body;
  const auth = (...args: string[]) => {
    const words = [process.execPath, mainFile, 'auth', 'vault', '--socket', home.socket, ...args];
    return runOnTerminal(reaper, words, { columns: 120 });
  };
  const lastOf = async (terminal: OnTerminal) => (await terminal.all()).join(' ');
  const listens = () => listeningInodes('127.0.0.1', port).length > 0;

  it('is logged in to with a password and a code at a terminal, keeps neither, and waits again when it is lost', async () => {
    await using server = await startAsking({ factors: [byPasswordAndCode(PASSWORD, CODE)] });
    await serve(server);
    expect(await vault()).to.include({ state: 'stopped', reason: 'needs_auth' });
    const terminal = auth();
    await answer(terminal, /Password: /, PASSWORD);
    expect(await vault()).to.include({ state: 'starting' });
    await answer(terminal, /One-time code: /, CODE);
    expect(await terminal.ended).to.equal(0);
    expect(await lastOf(terminal)).to.match(/✔ vault {2}up in .* {2}127\.0\.0\.1:\d+ → 127\.0\.0\.1:1 via rig/);
    expect(terminal.bytes()).not.to.contain(PASSWORD).and.not.contain(CODE);
    const { id } = await vault();
    expect(home.logLines(id).join('\n')).not.to.contain(PASSWORD).and.not.contain(CODE);
    expect(listens()).to.equal(true);
    server.drop();
    const isLost = async () => (await vault()).state === 'stopped';
    expect(await until(isLost, { timeoutMs: 5000 })).to.equal(true);
    const lost = await vault();
    expect([lost.next_retry_at, listens()]).to.deep.equal([null, false]);
    expect(lost.remedy).to.equal("it waits for a person: 'tunward auth vault', or the panel");
    expect(home.logLines(id).at(-1)).to.contain('Lost: it waits for a person: tunward auth vault');
  });

  it('says that the password was wrong, and is given up by Ctrl-C: nothing of it is left', async () => {
    await using server = await startAsking({ factors: [byPassword(PASSWORD)] });
    await serve(server);
    const terminal = auth();
    for (let attempt = 0; attempt < 3; attempt++) await answer(terminal, /password: /i, 'wrong');
    expect(await terminal.ended).to.equal(1);
    expect(await lastOf(terminal))
      .to.contain('auth_failed')
      .and.contain('tunward auth vault');
    expect(await vault()).to.include({ state: 'stopped', reason: 'auth_failed', next_retry_at: null });
    const second = auth();
    await question(second, /password: /i);
    second.type('half of it\u0003');
    expect(await second.ended).to.equal(130);
    expect(await until(async () => (await vault()).state === 'stopped', { timeoutMs: 5000 })).to.equal(true);
    expect(await vault()).to.include({ reason: 'needs_auth' });
    expect(await until(() => server.connections() === 0, { timeoutMs: 5000 })).to.equal(true);
    expect(listens()).to.equal(false);
  });

  it('shows the fingerprint of a host that is not known, and asks for a passphrase, by a WebSocket', async () => {
    await using server = await startAsking({ factors: [byKey], passphrase: PASSPHRASE, known: false });
    await serve(server);
    const file = join(home.stateDir, 'known_hosts');
    const { id } = await vault();
    const refusing = await visitOpen({ at: home.socket, id });
    await refusing.sees('(yes/no/[fingerprint])? ');
    expect(refusing.screen().replace(/\s+/g, '')).to.contain(server.fingerprint());
    refusing.type('no\r');
    await refusing.closed;
    expect(await vault()).to.include({ state: 'stopped', reason: 'host_key_unknown' });
    expect(existsSync(file)).to.equal(false);
    const visitor = await visitOpen({ at: home.socket, id });
    await visitor.sees('(yes/no/[fingerprint])? ');
    visitor.type('yes\r');
    await visitor.sees(`Enter passphrase for key '${server.identityFile}': `);
    visitor.type(`${PASSPHRASE}\r`);
    await visitor.closed;
    expect(visitor.messages().at(-1)).to.include({ type: 'end', outcome: 'up' });
    expect(visitor.screen()).not.to.contain(PASSPHRASE);
    expect(await vault()).to.include({ state: 'up', reason: null, pid: null });
    expect(readFileSync(file, 'utf8').trim().split('\n')).to.have.lengthOf(1);
    expect(listens()).to.equal(true);
  });

  it('logs in at a real sshd: a passphrase, then a password and a code by PAM', async function () {
    need(this, 'sshd', 'pam');
    const login = { password: PASSWORD, code: CODE };
    await using sshd = await startSshd({ passphrase: PASSPHRASE, login });
    await serve(sshd);
    const terminal = auth('--json');
    await answer(terminal, /passphrase for key .*: /, PASSPHRASE);
    await answer(terminal, /Password: /, PASSWORD);
    await answer(terminal, /One-time code: /, CODE);
    expect(await terminal.ended).to.equal(0);
    const record = JSON.parse(terminal.bytes().slice(terminal.bytes().indexOf('{')));
    expect(record).to.include({ name: 'vault', state: 'up' });
    expect(listens()).to.equal(true);
  });
});
