import { readFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { type AskingServer, byKey, byPassword, byPasswordAndCode, evilTexts, startAsking } from './asking.js';
import { answer, question } from './dialogue.js';
import { need } from './need.js';
import { freeLocalPort } from './port.js';
import { createReaper } from './reaper.js';
import { startService } from './servers.js';
import { type OnTerminal, runOnTerminal } from './terminal.js';

describe('startAsking()', () => {
  const reaper = createReaper();
  before(function () {
    need(this, 'ssh', 'pty');
  });
  afterEach(() => reaper.end());

  const logIn = (server: AskingServer, ...words: string[]): OnTerminal =>
    runOnTerminal(reaper, ['ssh', '-F', server.sshConfigFile, '-N', ...words, server.host]);

  it('asks for a password', async () => {
    await using server = await startAsking({ factors: [byPassword('secret')] });
    const ssh = logIn(server);
    await answer(ssh, /person@127\.0\.0\.1's password: $/, 'secret');
    expect(await is(() => server.logins(), 1)).to.equal(true);
    expect([server.asked(), server.attempts(), server.wrong(), server.connections()]).to.deep.equal([1, 1, 0, 1]);
    expect(ssh.bytes()).not.to.include('secret');
  });

  it('counts wrong answers until ssh gives up', async () => {
    await using server = await startAsking();
    const ssh = logIn(server);
    for (const guess of ['wrong', 'Secret', '']) await answer(ssh, /password: $/, guess);
    expect(await ssh.ended, ssh.bytes()).to.equal(255);
    expect(ssh.bytes()).to.include('Permission denied (password)');
    // ssh asks no fourth time, however often it is told that it might.
    expect([server.attempts(), server.wrong(), server.logins()]).to.deep.equal([3, 3, 0]);
  });

  it('lets nobody in by another name', async () => {
    await using server = await startAsking();
    const ssh = logIn(server, '-l', 'somebody');
    await answer(ssh, /somebody@127\.0\.0\.1's password: $/, 'secret');
    await question(ssh, /password: $/);
    expect([server.wrong(), server.logins()]).to.deep.equal([1, 0]);
  });

  for (const echo of [false, true]) {
    it(`asks for a password and a code, which is ${echo ? 'shown' : 'hidden'} when it is typed`, async () => {
      await using server = await startAsking({ factors: [byPasswordAndCode('secret', '123456', { echo })] });
      const ssh = logIn(server);
      await answer(ssh, /\(person@127\.0\.0\.1\) Password: $/, 'secret');
      await answer(ssh, /One-time code: $/, '123456');
      expect(await is(() => server.logins(), 1)).to.equal(true);
      expect(ssh.bytes()).not.to.include('secret');
      expect(ssh.bytes().includes('123456')).to.equal(echo);
    });
  }

  it('wants both right, and says not which was wrong', async () => {
    await using server = await startAsking({ factors: [byPasswordAndCode('secret', '123456')] });
    const ssh = logIn(server);
    for (const [password, code] of [
      ['secret', '000000'],
      ['wrong', '123456'],
      ['secret', '123456'],
    ]) {
      await answer(ssh, /Password: $/, password ?? '');
      await answer(ssh, /One-time code: $/, code ?? '');
    }
    expect(await is(() => server.logins(), 1)).to.equal(true);
    expect([server.asked(), server.attempts(), server.wrong()]).to.deep.equal([3, 3, 2]);
  });

  it('takes a key with a passphrase, and asks for the rest then', async () => {
    const factors = [byKey, byPasswordAndCode('secret', '123456')];
    await using server = await startAsking({ factors, passphrase: 'open sesame' });
    const ssh = logIn(server);
    await answer(ssh, /Enter passphrase for key '.*id_ed25519': $/, 'open sesame');
    await answer(ssh, /Password: $/, 'secret');
    expect(server.logins()).to.equal(0);
    await answer(ssh, /One-time code: $/, '123456');
    expect(await is(() => server.logins(), 1)).to.equal(true);
  });

  it('takes no other key', async () => {
    await using server = await startAsking({ factors: [byKey] });
    await using other = await startAsking({ factors: [byKey] });
    const files = ['-F', other.sshConfigFile, '-o', `UserKnownHostsFile=${server.knownHostsFile}`];
    const ssh = runOnTerminal(reaper, ['ssh', ...files, '-p', String(server.port), '-N', server.host]);
    expect(await ssh.ended, ssh.bytes()).to.equal(255);
    expect(ssh.bytes()).to.include('Permission denied (publickey)');
    const own = logIn(server);
    expect(await is(() => server.logins(), 1), own.bytes()).to.equal(true);
  });

  it('carries bytes both ways, and lets go of its port at the end', async () => {
    await using server = await startAsking();
    await using service = await startService();
    const [near, far] = [await freeLocalPort(), await freeLocalPort()];
    const to = `127.0.0.1:${service.port}`;
    const ssh = logIn(server, '-v', '-L', `127.0.0.1:${near}:${to}`, '-R', `127.0.0.1:${far}:${to}`);
    await answer(ssh, /password: $/, 'secret');
    await question(ssh, /remote forward success/);
    for (const port of [near, far]) {
      const reply = await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' } });
      expect(await reply.text()).to.equal('served');
    }
    ssh.close();
    expect(await until(async () => !(await accepts(far)), { timeoutMs: 10_000 })).to.equal(true);
  });

  it('refuses to listen where somebody else does', async () => {
    await using server = await startAsking();
    await using service = await startService();
    const to = `127.0.0.1:${service.port}`;
    const ssh = logIn(server, '-o', 'ExitOnForwardFailure=yes', '-R', `${to}:${to}`);
    await answer(ssh, /password: $/, 'secret');
    expect(await ssh.ended).to.equal(255);
    expect(ssh.bytes()).to.include('remote port forwarding failed');
  });

  it('shows a banner', async () => {
    await using server = await startAsking({ banner: 'Mind the gap\r\n' });
    expect(await question(logIn(server), /password: $/)).to.include('Mind the gap');
  });

  for (const [at, text] of evilTexts.entries()) {
    it(`sends a hostile text, and still takes the answer (${at + 1})`, async () => {
      const factors = [{ method: 'keyboard-interactive' as const, questions: [{ text, answer: 'yes', echo: true }] }];
      await using server = await startAsking({ factors });
      const ssh = logIn(server);
      await question(ssh, /\(person@127\.0\.0\.1\) /);
      expect(await is(() => server.asked(), 1)).to.equal(true);
      ssh.type('yes\r');
      expect(await is(() => server.logins(), 1), JSON.stringify(ssh.bytes())).to.equal(true);
    });
  }

  it('keeps its question back until it is released', async () => {
    await using server = await startAsking({ held: true, factors: [byPasswordAndCode('secret', '123456')] });
    const ssh = logIn(server, '-v');
    await question(ssh, /Next authentication method: keyboard-interactive/);
    expect([server.asked(), ssh.bytes().includes('Password:')]).to.deep.equal([0, false]);
    server.release();
    await answer(ssh, /Password: $/, 'secret');
    await answer(ssh, /One-time code: $/, '123456');
    expect(await is(() => server.logins(), 1)).to.equal(true);
  });

  it('asks late', async () => {
    await using server = await startAsking({ delayMs: 300 });
    const ssh = logIn(server);
    const began = performance.now();
    await answer(ssh, /password: $/, 'secret');
    expect(performance.now() - began).to.be.greaterThan(290);
    expect(await is(() => server.logins(), 1)).to.equal(true);
  });

  it('ends while somebody waits for its question', async () => {
    const server = await startAsking({ held: true });
    const ssh = logIn(server);
    expect(await is(() => server.connections(), 1)).to.equal(true);
    await server[Symbol.asyncDispose]();
    expect(await ssh.ended).to.equal(255);
  });

  it('keeps its question from somebody who is gone', async () => {
    await using server = await startAsking({ held: true, factors: [byPasswordAndCode('secret', '123456')] });
    const ssh = logIn(server, '-v');
    await question(ssh, /Next authentication method: keyboard-interactive/);
    server.drop();
    expect(await ssh.ended).to.equal(255);
    server.release();
    await answer(logIn(server), /Password: $/, 'secret');
    expect(server.attempts()).to.equal(0);
  });

  it('hangs up in the middle of a question, which ends ssh when it is answered', async () => {
    await using server = await startAsking({ factors: [byPasswordAndCode('secret', '123456')] });
    // node-pty may close a terminal before its last words have been read, where this process is busy: they go to a file.
    const log = join(server.dir, 'said');
    const ssh = logIn(server, '-E', log);
    await question(ssh, /Password: $/);
    server.hangUp();
    expect(await is(() => server.connections(), 0), ssh.bytes()).to.equal(true);
    ssh.type('secret\r');
    await answer(ssh, /One-time code: $/, '123456');
    expect(await ssh.ended).to.equal(255);
    expect(readFileSync(log, 'utf8')).to.match(/Connection (closed|reset) by 127\.0\.0\.1/);
    expect(server.attempts()).to.equal(0);
  });

  it('hangs up on nobody who is in', async () => {
    await using server = await startAsking();
    const ssh = logIn(server);
    await answer(ssh, /password: $/, 'secret');
    expect(await is(() => server.logins(), 1)).to.equal(true);
    const other = logIn(server);
    await question(other, /password: $/);
    server.hangUp();
    expect(await is(() => server.connections(), 1)).to.equal(true);
    other.type('secret\r');
    expect(await other.ended).to.equal(255);
    expect(reaper.living().map(({ pid }) => pid)).to.deep.equal([ssh.pid]);
  });

  it('drops whoever is connected, and takes the next', async () => {
    await using server = await startAsking();
    const ssh = logIn(server);
    await answer(ssh, /password: $/, 'secret');
    expect(await is(() => server.logins(), 1)).to.equal(true);
    server.drop();
    expect(await ssh.ended).to.equal(255);
    const next = logIn(server);
    await answer(next, /password: $/, 'secret');
    expect(await is(() => server.logins(), 2)).to.equal(true);
  });

  it('is silent, and speaks again', async () => {
    await using server = await startAsking();
    await using service = await startService();
    const port = await freeLocalPort();
    const ssh = logIn(server, '-L', `127.0.0.1:${port}:127.0.0.1:${service.port}`);
    await answer(ssh, /password: $/, 'secret');
    expect(await until(() => accepts(port), { timeoutMs: 10_000 })).to.equal(true);
    server.silence();
    let isServed = false;
    const reply = fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' } }).then((got) => {
      isServed = true;
      return got.text();
    });
    const late = logIn(server);
    expect(await is(() => server.connections(), 2)).to.equal(true);
    expect([isServed, late.bytes()]).to.deep.equal([false, '']);
    server.speak();
    expect(await reply).to.equal('served');
    await question(late, /password: $/);
  });

  it('is silent to an ssh that asks whether it is there', async () => {
    await using server = await startAsking();
    const ssh = logIn(server, '-o', 'ServerAliveInterval=1', '-o', 'ServerAliveCountMax=1');
    await answer(ssh, /password: $/, 'secret');
    expect(await is(() => server.logins(), 1)).to.equal(true);
    server.silence();
    expect(await ssh.ended).to.equal(255);
    expect(ssh.bytes()).to.match(/Timeout, server 127\.0\.0\.1 not responding/);
  });

  it('has the fingerprint that ssh asks about, and is known then', async () => {
    await using server = await startAsking({ known: false });
    const ssh = logIn(server);
    const shown = await answer(ssh, /continue connecting \(yes\/no\/\[fingerprint\]\)\? $/, 'yes');
    expect(/SHA256:[\w+/]+/.exec(shown)?.[0]).to.equal(server.fingerprint());
    await answer(ssh, /password: $/, 'secret');
    expect(await is(() => server.logins(), 1)).to.equal(true);
    expect(await question(logIn(server), /password: $/)).not.to.include('SHA256');
  });

  it('comes with another host key on the same port', async () => {
    await using server = await startAsking();
    const before = server.fingerprint();
    await question(logIn(server), /password: $/);
    server.changeHostKey();
    const ssh = logIn(server);
    expect(await ssh.ended).to.equal(255);
    expect(ssh.bytes()).to.include('REMOTE HOST IDENTIFICATION HAS CHANGED');
    expect(ssh.bytes()).to.include(server.fingerprint());
    expect(server.fingerprint()).not.to.equal(before);
  });
});

async function is(counter: () => number, wanted: number): Promise<boolean> {
  return (await until(() => counter() === wanted, { timeoutMs: 10_000 })) === true;
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ port, host: '127.0.0.1' });
    socket
      .once('error', () => resolve(false))
      .once('connect', () => {
        socket.destroy();
        resolve(true);
      });
  });
}
