/**
 * One table: what a tunnel does, by every engine and behind every kind of listener. Its rows are what all of them have in
 * common; the other files here hold ssh, in full: restart.test.ts the two hundred restarts, reasons.test.ts and
 * truth.test.ts each reason, reload.test.ts each way of editing, jump.test.ts each way through other hosts, boot.test.ts
 * what a former life has left. All that is asked, by ssh and by the engine embedded, is in auth.test.ts and terminal.test.ts.
 *
 * Each row runs in all columns at once, each of which has a daemon and a server of its own.
 */
import { execSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { tunward, tunwardJson } from '../cli/run.js';
import { type Answer, allGone, tunnelIn } from '../support/daemon.js';
import {
  beginAt,
  type Column,
  carries,
  exchange,
  expectEcho,
  type Ground,
  knockDuring,
  openGround,
  startEcho,
} from '../support/ground.js';
import { makeKey } from '../support/keys.js';
import { isListenedTo, listeningInodes } from '../support/listening.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive, sendSignal } from '../support/proc.js';
import { startListener } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { type LocalServer, startServer } from '../support/servers.js';
import { startSshd } from '../support/sshd.js';

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

const loopback = ['127.0.0.1', '::1'];
const inUse = /address (already )?in use|cannot listen to port/i;
const startLine = /Starting tunnel \((remote to local|local to remote)\): /;

/** Who is in it: the chain, or the daemon where nobody else is. */
function membersOf({ daemon }: Ground, { chain }: Answer['body']): number[] {
  return [daemon.pid, ...chain.map(({ pid }: { pid: number }) => pid)];
}

/** Waits until the server has so many clients. */
async function expectConnections({ far }: Ground, count: number, timeoutMs = 5000): Promise<void> {
  const isSo = () => far.connections() === count;
  expect(await until(isSo, { timeoutMs }), `${far.connections()} connections`).to.equal(true);
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
      const { port } = await ground.stands('web');
      for (const host of loopback) await expectEcho(port, 3_000_000, host);
    },
  },
  {
    title: 'carries from the far side to here as well, and tells which port the server has chosen',
    columns: isPlain,
    async run(ground) {
      const port = await freeLocalPort();
      const [, any] = await ground.has(await ground.remote('back', port), await ground.remote('any', 0));
      await expectEcho(port);
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
      const { port } = await ground.stands('web', { ssh_options });
      for (const sent of [randomBytes(1_000_000), Buffer.alloc(3_000_000)]) await expectEcho(port, sent);
    },
  },
  {
    title: 'listens on every address of it when it is said to be up, and on none when it is said to be stopped',
    columns: everywhere,
    async run(ground) {
      const { port } = await ground.stands('web');
      for (let round = 0; round < 3; round++) {
        const stopped = await ground.act('web', 'stop');
        for (const host of loopback) {
          expect(listeningInodes(host, port), JSON.stringify(stopped.body)).to.deep.equal([]);
        }
        expect(await exchange(port, Buffer.from('x'))).to.equal(undefined);
        const { status, body } = await ground.act('web', 'start');
        expect(status, JSON.stringify(body)).to.equal(200);
        for (const host of loopback) {
          expect(isListenedTo(host, port, membersOf(ground, body.tunnel)), host).to.equal(true);
        }
        expect(await carries(port)).to.equal(true);
      }
    },
  },
  {
    title: 'restarts many times under its clients: no address is in use, and nobody is left of the life before',
    columns: everywhere,
    async run(ground) {
      const { home, column } = ground;
      let { port, before } = await ground.stands('web');
      const restart = async () => {
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
          const texts = ground.textsOf(before);
          expect(texts.filter((text) => inUse.test(text))).to.deep.equal([]);
          const isStart = (text: string) => startLine.test(text);
          expect(texts.slice(texts.findLastIndex(isStart)).filter(isStart)).to.have.lengthOf(1);
          // The clients that come all the time may be cut off by the next one, every time.
          expect(await carries(port)).to.equal(true);
          before = body.tunnel;
        }
      };
      const { well, badly } = await knockDuring(restart, { port, clients: column.seamless ? 2 : 1 });
      if (column.seamless) expect(well).to.be.greaterThan(0);
      if (column.seamless) expect(badly, 'clients that were turned away').to.equal(0);
      await expectConnections(ground, 1);
      expect(await carries(port)).to.equal(true);
      expect((await home.api('GET', '/v1/tunnels/web')).body).to.include({ state: 'up', restarts: before.restarts });
    },
  },
  {
    title: 'gives twenty restarts at once one cycle and twenty equal answers',
    columns: everywhere,
    async run(ground) {
      const { port, before } = await ground.stands('web');
      const answers = await Promise.all(Array.from({ length: 20 }, () => ground.act('web', 'restart')));
      expect(answers.map(({ status }) => status)).to.deep.equal(Array(20).fill(200));
      expect(new Set(answers.map(({ body }) => JSON.stringify(body.phases))).size).to.equal(1);
      expect((await tunnelIn(ground.home, 'web', 'up')).restarts).to.equal(before.restarts + 1);
      expect(await carries(port)).to.equal(true);
    },
  },
  {
    title: 'comes up again by itself when its link dies, and says in its log what was',
    columns: everywhere,
    async run(ground) {
      const { far, column } = ground;
      let { port, before } = await ground.stands('web');
      const deaths = [() => far.cut(), () => killLast(before.chain)];
      for (const die of isEmbedded(column) ? deaths.slice(0, 1) : deaths) {
        die();
        before = await ground.becomes('web', { state: 'up', restarts: before.restarts + 1 });
        expect(await carries(port)).to.equal(true);
      }
      const texts = ground.textsOf(before);
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
      const { port } = await ground.stands('web');
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
      expect(await carries(port)).to.equal(true);
      await ground.configure(await ground.local('web', { ssh_options: { HostName: 'nobody.invalid' } }));
      const lost = await ground.becomes('web', { state: 'backoff', reason: 'unreachable' });
      expect(lost.last_error).to.match(/Could not resolve hostname nobody\.invalid/);
    },
  },
  {
    title: 'tries again a minute later when the server does not take its key',
    columns: everywhere,
    async run(ground) {
      const wrong = join(ground.dir, 'wrong');
      makeKey(wrong);
      const ssh_config = ground.rewriteConfig('wrong_config', (text) =>
        text.replace(/IdentityFile .*/, `IdentityFile ${wrong}`),
      );
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
      const { port } = await ground.stands('web');
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
      expect(await carries(port)).to.equal(true);
    },
  },
  {
    title: 'writes a host key that is met for the first time into a file of its own, once',
    columns: everywhere,
    async run(ground) {
      const { home, dir } = ground;
      const file = join(dir, 'nobody_known');
      const ssh_config = ground.rewriteConfig('unknown_config', (text) =>
        text.replace(/UserKnownHostsFile .*/, `UserKnownHostsFile ${file}`),
      );
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
      await ground.configure(await ground.remote('back', remote_port));
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
      const texts = ground.textsOf(unwell);
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
      const { port, before } = await ground.stands('web', { ssh_options });
      far.freeze();
      const isLost = async () => (await ground.home.api('GET', '/v1/tunnels/web')).body.state !== 'up';
      expect(await until(isLost, { timeoutMs: 10_000, everyMs: 20 })).to.equal(true);
      await far.thaw();
      await ground.becomes('web', { state: 'up' });
      expect(ground.textsOf(before).join('\n')).to.match(/Timeout, server .+ not responding/);
      expect(await carries(port)).to.equal(true);
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
      const client = await beginAt(kept.local_port);
      await using other = await startServer((socket) => socket.on('error', () => undefined).end('another'));
      await ground.configure(kept, { ...changed, remote_port: `127.0.0.1:${other.port}` });
      const isChanged = async () => String(await exchange(changed.local_port, Buffer.from(''))) === 'another';
      expect(await until(isChanged, { timeoutMs: 10_000 })).to.equal(true);
      const isGone = async () => (await exchange(leaving.local_port, Buffer.from('x'))) === undefined;
      expect(await until(isGone, { timeoutMs: 5000 })).to.equal(true);
      expect(await client.finish()).to.equal('begun, and ended');
      const after = await tunnelIn(ground.home, 'kept', 'up');
      expect([after.restarts, after.chain]).to.deep.equal([before.restarts, before.chain]);
    },
  },
  {
    title: 'is carried by another engine when the file says so',
    columns: ({ engine }) => engine === 'ssh',
    async run(ground) {
      const { column } = ground;
      let { port, before, tunnel } = await ground.stands('web');
      const exchangeEngines = async () => {
        for (const engine of ['embedded', 'autossh', 'ssh']) {
          await ground.configure({ ...tunnel, engine });
          const restarts = before.restarts + 1;
          const after = await ground.becomes('web', { state: 'up', engine, restarts });
          expect(after.chain.length, engine).to.equal({ embedded: 0, autossh: 2, ssh: 1 }[engine]);
          expect(await allGone(before.chain, 5000)).to.equal(true);
          expect(await carries(port), engine).to.equal(true);
          before = after;
        }
      };
      const { badly } = await knockDuring(exchangeEngines, { port });
      if (column.seamless) expect(badly, 'clients that were turned away').to.equal(0);
      await expectConnections(ground, 1);
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
      const client = await beginAt(two?.local_port ?? 0);
      expect((await ground.act('one', 'restart')).status).to.equal(200);
      expect((await ground.act('three', 'stop')).status).to.equal(200);
      expect(await client.finish()).to.equal('begun, and ended');
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
      const { dir } = ground;
      const hopDir = mkdtempSync(join(dir, 'hop-'));
      let hop = await startSshd({ dir: hopDir });
      try {
        const ofHop = readFileSync(hop.sshConfigFile, 'utf8').replace('Host rig', 'Host hop');
        const ssh_config = ground.rewriteConfig('jump_config', (text) => `${text}\n${ofHop}`);
        const { port, before } = await ground.stands('web', { ssh_config, jump: ['hop'] });
        expect(await carries(port)).to.equal(true);
        await hop.stop();
        const away = await ground.becomes('web', { state: 'backoff', reason: 'refused' });
        expect(away.last_error).to.contain(String(hop.port));
        hop = await startSshd({ dir: hopDir, port: hop.port });
        await ground.becomes('web', { state: 'up', restarts: before.restarts + 1 });
        expect(await carries(port)).to.equal(true);
      } finally {
        await hop.stop();
      }
    },
  },
  {
    title: 'is up again in the next life of a daemon that was killed, and nothing is left of this one',
    columns: everywhere,
    async run(ground) {
      const { port, before } = await ground.stands('web');
      await ground.daemon.end('SIGKILL');
      if (isEmbedded(ground.column)) await expectConnections(ground, 0, 3000);
      await ground.boot();
      await tunnelIn(ground.home, 'web', 'up', 20_000);
      expect(await allGone(before.chain)).to.equal(true);
      await expectConnections(ground, 1);
      expect(await carries(port)).to.equal(true);
    },
  },
  {
    title: 'ends with the daemon: in time, with 0, and the server sees it at once',
    columns: everywhere,
    async run(ground) {
      const { port, before } = await ground.stands('web');
      const client = net.connect(port, '127.0.0.1').on('error', () => undefined);
      await once(client, 'connect');
      const closed = new Promise((resolve) => client.resume().once('close', resolve));
      expect(await ground.daemon.end('SIGTERM'), ground.daemon.stderr()).to.equal(0);
      await expectConnections(ground, 0, 1000);
      await closed;
      expect(await allGone(before.chain, 0)).to.equal(true);
      expect(listeningInodes('127.0.0.1', port)).to.deep.equal([]);
      await ground.boot();
    },
  },
  {
    title: 'ends with the daemon also when the server says nothing any more: in time, with 0',
    columns: isEmbedded,
    async run(ground) {
      const { far, column } = ground;
      const web = await ground.local('web');
      await ground.has(web, ...(column.seamless ? [] : [await ground.remote('back', 0)]));
      far.freeze();
      expect(await ground.daemon.end('SIGTERM'), ground.daemon.stderr()).to.equal(0);
      // What is not over by its deadline it would name.
      expect(ground.daemon.stderr()).not.to.contain('not over after');
      await far.thaw();
      await expectConnections(ground, 0);
      await ground.boot();
    },
  },
  {
    title: 'is told of by ls, status and doctor as one that this process carries',
    columns: isEmbedded,
    async run(ground) {
      const { reaper, home } = ground;
      const { port } = await ground.stands('web');
      expect(await carries(port)).to.equal(true);
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
        .and.match(new RegExp(String(port)));
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

function killLast(chain: readonly { pid: number; start_ticks: number }[]): void {
  const last = chain.at(-1);
  if (!last) throw new Error('There is nobody in the chain');
  sendSignal({ pid: last.pid, startTicks: last.start_ticks }, 'SIGKILL');
}

describe('a tunnel, by whatever engine', function () {
  this.timeout(60_000);
  let echo: LocalServer;
  const grounds = new Map<Column, Ground>();

  before(async function () {
    need(this, 'ssh', 'sshd', 'autossh', 'ipv6');
    echo = await startEcho();
    await Promise.all(
      columns.map(async (column) => {
        grounds.set(column, await openGround(column, echo.port));
      }),
    );
  });

  after(async () => {
    const codes = await Promise.all([...grounds.values()].map((ground) => ground.close()));
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
