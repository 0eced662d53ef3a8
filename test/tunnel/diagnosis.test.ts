import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net, { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { openProc } from '#lib/proc/read.js';
import { systemClock } from '#lib/time.js';
import { parseSshFacts } from '#lib/tunnel/arguments.js';
import { createChains } from '#lib/tunnel/chain.js';
import { diagnoseExit, parseOpensshKey } from '#lib/tunnel/diagnosis.js';
import type { LinkExit } from '#lib/tunnel/engine.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { createReaper } from '../support/reaper.js';
import { makeSpec } from '../support/specs.js';
import { startAgent } from '../support/ssh-agent.js';
import { type Sshd, startSshd } from '../support/sshd.js';

describe('what ssh does not say of its end', () => {
  const reaper = createReaper();
  let dir: string;
  let sshd: Sshd;

  before(async function () {
    need(this, 'ssh', 'sshd');
    dir = mkdtempSync(path.join(tmpdir(), 'tunward-test-'));
    sshd = await startSshd();
  });

  afterEach(() => reaper.end());

  after(async () => {
    await sshd?.stop();
    if (dir) rmSync(dir, { recursive: true });
  });

  function makeKey(name: string, passphrase: string, ...format: string[]): string {
    const file = path.join(dir, name);
    execFileSync('ssh-keygen', ['-q', '-t', 'ecdsa', '-N', passphrase, '-f', file, ...format]);
    return file;
  }

  /** How a tunnel ends that logs in with these keys, or as these lines of ssh_config say. */
  async function endOf(
    lines: readonly string[],
    env: Readonly<Record<string, string>> = {},
    port = sshd.port,
  ): Promise<LinkExit> {
    const sshConfig = path.join(dir, 'ssh_config');
    const known = `UserKnownHostsFile ${sshd.knownHostsFile}`;
    const host = ['HostName 127.0.0.1', `Port ${port}`, 'IdentitiesOnly yes', known, ...lines];
    writeFileSync(sshConfig, `Host rig\n${host.map((line) => `  ${line}\n`).join('')}`);
    const listen = { host: '127.0.0.1', port: await freeLocalPort() };
    const spec = makeSpec({ side: 'local', listen, remoteHost: 'rig', sshConfig });
    const options = { instance: 'd'.repeat(32), knownHosts: null, proc: openProc(), clock: systemClock };
    const chains = createChains({ ...options, env: { PATH: process.env.PATH, ...reaper.env, ...env } });
    const signal = new AbortController().signal;
    const link = await chains.engineFor(spec).start(spec, { signal, onOutput: () => undefined });
    if (link.root) reaper.ownPid(link.root.pid, link.root.startTicks);
    return link.exited;
  }

  it('is that the only key needs a passphrase: needs_auth, and which key', async () => {
    for (const format of [[], ['-m', 'PEM']]) {
      const key = makeKey(`locked${format.length}`, 'secret', ...format);
      const exit = await endOf([`IdentityFile ${key}`]);
      expect(exit).to.include({ code: 255, signal: null, reason: 'needs_auth' });
      expect(exit.lastError).to.match(/Permission denied \(publickey/);
      expect(exit.lastError).to.include(`; the key ${key} needs a passphrase, and nobody was there to type it`);
    }
  });

  it('is auth_failed when another key was tried and refused, with the hint', async () => {
    const locked = makeKey('locked-too', 'secret');
    const exit = await endOf([`IdentityFile ${locked}`, `IdentityFile ${makeKey('plain', '')}`]);
    expect(exit).to.include({ reason: 'auth_failed' });
    expect(exit.lastError).to.include(`the key ${locked} needs a passphrase`);
  });

  it('is auth_failed and nothing more when a key without a passphrase was refused', async () => {
    const exit = await endOf([`IdentityFile ${makeKey('open', '')}`]);
    expect(exit).to.include({ reason: 'auth_failed' });
    expect(exit.lastError).to.match(/: Permission denied \([^)]+\)\.$/);
  });

  it('asks the agent, which may have the key without its passphrase', async () => {
    const plain = makeKey('lent', '');
    const agent = path.join(dir, 'agent');
    await startAgent(reaper, agent, plain);
    // The same key, locked: the agent has it, and it is refused all the same.
    execFileSync('ssh-keygen', ['-q', '-p', '-P', '', '-N', 'secret', '-f', plain]);
    const lent = await endOf([`IdentityFile ${plain}`], { SSH_AUTH_SOCK: agent });
    expect(lent).to.include({ reason: 'auth_failed' });
    expect(lent.lastError).to.not.include('passphrase');
    const empty = path.join(dir, 'empty-agent');
    await startAgent(reaper, empty);
    expect(await endOf([`IdentityFile ${plain}`], { SSH_AUTH_SOCK: empty })).to.include({ reason: 'needs_auth' });
    const none = await endOf([`IdentityFile ${plain}`, 'IdentityAgent none'], { SSH_AUTH_SOCK: agent });
    expect(none).to.include({ reason: 'needs_auth' });
  });

  it('is not waited for at an agent that says nothing, and no file that is no key is in the way', async () => {
    const socket = path.join(dir, 'mute-agent');
    const sockets: net.Socket[] = [];
    const mute = net.createServer((each) => sockets.push(each.on('error', () => undefined)));
    mute.listen(socket);
    await once(mute, 'listening');
    const locked = makeKey('locked-mute', 'secret');
    const odd = path.join(dir, 'odd');
    writeFileSync(odd, '-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n', {
      mode: 0o600,
    });
    const pipe = path.join(dir, 'pipe');
    execFileSync('mkfifo', [pipe]);
    const facts = parseSshFacts(['', odd, pipe, dir, '/nowhere', locked].join('\nidentityfile '));
    const denied: LinkExit = { code: 255, signal: null, reason: 'auth_failed', lastError: 'Permission denied' };
    const began = performance.now();
    const exit = await diagnoseExit(denied, {
      facts,
      steps: [],
      said: [],
      env: { SSH_AUTH_SOCK: socket },
      clock: systemClock,
    });
    expect(performance.now() - began).to.be.below(3000);
    mute.close();
    for (const each of sockets) each.destroy();
    expect(exit).to.deep.equal({
      ...denied,
      lastError: `Permission denied; the key ${locked} needs a passphrase, and nobody was there to type it`,
    });
  });

  describe('of a server that hangs up', () => {
    let server: net.Server;
    let greeting: string;
    let calls: number;

    before(async () => {
      server = net.createServer((socket) => {
        calls++;
        socket.on('error', () => undefined).resume();
        socket.end(greeting);
      });
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
    });

    beforeEach(() => {
      calls = 0;
    });

    after(() => void server?.close());

    const refusedBy = (text: string, ...lines: string[]) => {
      greeting = text;
      return endOf(lines, {}, (server.address() as AddressInfo).port);
    };

    it('is what it said: a penalty, for which one waits half a minute', async () => {
      const exit = await refusedBy('Not allowed at this time\r\n');
      expect(exit).to.include({ reason: 'refused', retryAfterMs: 30_000 });
      expect(exit.lastError).to.match(/; the server says: Not allowed at this time$/);
    });

    it('is that it has too many at once', async () => {
      const exit = await refusedBy('Exceeded MaxStartups\r\n');
      expect(exit).to.include({ reason: 'refused' });
      expect(exit).to.not.have.property('retryAfterMs');
      expect(exit.lastError).to.match(/; the server says: Exceeded MaxStartups$/);
    });

    it('is nothing that a stranger would like us to say', async () => {
      const exit = await refusedBy('\u001b[2J all your base\r\n');
      expect(exit).to.include({ reason: 'refused' });
      expect(exit.lastError).to.not.include('base');
    });

    it('is not asked for where ssh goes through another program', async () => {
      const port = (server.address() as AddressInfo).port;
      const through = `ProxyCommand exec 3<>/dev/tcp/127.0.0.1/${port}; cat <&3`;
      await refusedBy('Not allowed at this time\r\n', through);
      expect(calls).to.be.at.most(1);
    });
  });
});

describe('parseOpensshKey()', () => {
  it('takes nothing for a key that is cut off, wherever that is', () => {
    const whole = Buffer.concat([
      Buffer.from('openssh-key-v1\0'),
      ...['aes256-ctr', 'bcrypt', 'options'].map((text) => string(Buffer.from(text))),
      Buffer.from([0, 0, 0, 1]),
      string(Buffer.from('public')),
    ]);
    expect(parseOpensshKey(whole)).to.deep.equal({ isLocked: true, publicKey: Buffer.from('public') });
    for (let length = 0; length < whole.length; length++) {
      expect(() => parseOpensshKey(whole.subarray(0, length))).to.not.throw();
    }
    expect(parseOpensshKey(Buffer.alloc(0))).to.deep.equal({ isLocked: false, publicKey: undefined });
  });

  function string(bytes: Buffer): Buffer {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    return Buffer.concat([length, bytes]);
  }
});
