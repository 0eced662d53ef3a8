import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { unprintable } from '#lib/wire.js';
import { byKey, byPassword, byPasswordAndCode, evilTexts, startAsking } from '../../support/asking.js';
import { askingOf, createStand, get, localSpec } from '../../support/embedded.js';
import { makeKey } from '../../support/keys.js';
import { createTestPrompt, createTestTerminal } from '../../support/person.js';
import { createReaper } from '../../support/reaper.js';
import { startService } from '../../support/servers.js';
import { startAgent } from '../../support/ssh-agent.js';
import { startSshd } from '../../support/sshd.js';

describe('the login of the embedded engine', () => {
  const reaper = createReaper();
  afterEach(() => reaper.end());

  it('asks for a password and a code, as the server puts it, and says which may be seen', async () => {
    await using server = await startAsking({ factors: [byPasswordAndCode('secret', '123456', { echo: true })] });
    await using service = await startService();
    await using stand = createStand();
    const asked: string[] = [];
    const asking = askingOf(({ text, echo }) => {
      asked.push(`${text}${echo}`);
      return text.includes('code') ? '123456' : Buffer.from('secret');
    });
    const spec = await localSpec(server, service.port, { interactive: true });
    const link = await stand.start(spec, { asking });
    expect(await link.settled(), link.lines.join()).to.equal('ready');
    expect(asked).to.deep.equal(['(person@127.0.0.1) Password: false', '(person@127.0.0.1) One-time code: true']);
    expect(asking.opened).to.deep.equal(['askpass']);
    expect(await get(spec.forward.listen.port)).to.equal('served');
  });

  it('asks for a password again that was wrong, and wipes what it was given', async () => {
    await using server = await startAsking({ factors: [byPassword('secret')] });
    await using stand = createStand();
    const answers = [Buffer.from('wrong'), Buffer.from('secret')];
    const { prompt, questions } = createTestPrompt(answers);
    const link = await stand.start(await localSpec(server, 9), { asking: askingOf(prompt) });
    expect(await link.settled(), link.lines.join()).to.equal('ready');
    expect(questions).to.deep.equal(["person@127.0.0.1's password: ", "person@127.0.0.1's password: "]);
    expect(Buffer.concat(answers).every((byte) => byte === 0)).to.equal(true);
  });

  it('gives up after as many wrong passwords as ssh', async () => {
    await using server = await startAsking({ factors: [byPassword('secret')] });
    await using stand = createStand();
    const { prompt, questions } = createTestPrompt(['a', 'b', 'c', 'd']);
    const link = await stand.start(await localSpec(server, 9), { asking: askingOf(prompt) });
    expect(await link.settled()).to.include({
      reason: 'auth_failed',
      lastError: 'person@127.0.0.1: Permission denied (password).',
    });
    expect(questions).to.have.length(3);
  });

  it('asks nobody where there is nobody', async () => {
    await using server = await startAsking({ factors: [byPassword('secret')] });
    await using stand = createStand();
    const link = await stand.start(await localSpec(server, 9));
    expect(await link.settled()).to.include({ reason: 'auth_failed' });
    expect(server.attempts()).to.equal(0);
  });

  it('proves a key and then answers, where the server wants both', async () => {
    await using server = await startAsking({ factors: [byKey, byPassword('secret')], passphrase: 'open sesame' });
    await using stand = createStand();
    const { prompt, questions } = createTestPrompt(['wrong', 'open sesame', 'secret']);
    const link = await stand.start(await localSpec(server, 9), { asking: askingOf(prompt) });
    expect(await link.settled(), link.lines.join()).to.equal('ready');
    const passphrase = `Enter passphrase for key '${server.identityFile}': `;
    expect(questions).to.deep.equal([passphrase, passphrase, "person@127.0.0.1's password: "]);
  });

  it('asks for the passphrase of a key that the server would take, and of no other', async () => {
    await using sshd = await startSshd({ passphrase: 'open sesame' });
    const dir = mkdtempSync(join(tmpdir(), 'tunward-keys-'));
    const other = join(dir, 'other');
    makeKey(other, 'of another');
    // Its format shows the public half as well.
    rmSync(`${other}.pub`);
    const text = readFileSync(sshd.sshConfigFile, 'utf8');
    writeFileSync(sshd.sshConfigFile, text.replace('  IdentityFile', `  IdentityFile ${other}\n  IdentityFile`));
    await using stand = createStand();
    const first = createTestPrompt(['open sesame']);
    const link = await stand.start(await localSpec(sshd, 9), { asking: askingOf(first.prompt) });
    expect(await link.settled(), link.lines.join()).to.equal('ready');
    expect(first.questions).to.deep.equal([`Enter passphrase for key '${sshd.identityFile}': `]);
    await link.stop();
    writeFileSync(join(sshd.dir, 'authorized_keys'), '');
    const second = createTestPrompt([]);
    const refused = await stand.start(await localSpec(sshd, 9), { asking: askingOf(second.prompt) });
    expect(await refused.settled()).to.include({ reason: 'auth_failed' });
    const unattended = await stand.start(await localSpec(sshd, 9));
    expect(await unattended.settled(), 'no passphrase would help').to.include({ reason: 'auth_failed' });
    expect(second.questions).to.deep.equal([]);
    rmSync(dir, { recursive: true });
  });

  for (const [kind, ...more] of [['rsa'], ['ecdsa'], ['rsa', '-m', 'PEM']] as const) {
    it(`unlocks a key of ${[kind, ...more].join(' ')} and proves it`, async () => {
      await using sshd = await startSshd();
      rmSync(sshd.identityFile);
      const words = ['-q', '-t', kind, ...more, '-N', 'open sesame', '-f', sshd.identityFile];
      execFileSync('ssh-keygen', words, { input: 'y\n' });
      copyFileSync(`${sshd.identityFile}.pub`, join(sshd.dir, 'authorized_keys'));
      await using stand = createStand();
      const { prompt, questions } = createTestPrompt(['wrong', 'open sesame']);
      const link = await stand.start(await localSpec(sshd, 9), { asking: askingOf(prompt) });
      expect(await link.settled(), link.lines.join()).to.equal('ready');
      expect(questions).to.have.lengthOf(2);
    });
  }

  it('needs somebody for a key that has a passphrase', async () => {
    await using sshd = await startSshd({ passphrase: 'open sesame' });
    await using stand = createStand();
    const link = await stand.start(await localSpec(sshd, 9));
    const exit = await link.settled();
    expect(exit).to.include({ reason: 'needs_auth' });
    expect(exit).to.have.property('lastError').that.includes(sshd.identityFile).and.includes('Permission denied');
  });

  it('says of a certificate beside a key that it cannot use it, where the key alone is not let in', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'tunward-ca-'));
    const ca = join(dir, 'ca');
    makeKey(ca);
    await using sshd = await startSshd({ extra: [`TrustedUserCAKeys ${ca}.pub`] });
    const { username } = userInfo();
    execFileSync('ssh-keygen', ['-q', '-s', ca, '-I', 'me', '-n', username, `${sshd.identityFile}.pub`]);
    await using stand = createStand();
    const link = await stand.start(await localSpec(sshd, 9));
    expect(await link.settled(), 'the key alone may').to.equal('ready');
    expect(link.lines.join()).not.to.contain('certificate');
    await link.stop();
    writeFileSync(join(sshd.dir, 'authorized_keys'), '');
    execFileSync('ssh', ['-F', sshd.sshConfigFile, sshd.host, 'true']);
    const refused = await (await stand.start(await localSpec(sshd, 9))).settled();
    expect(refused).to.include({ reason: 'auth_failed' });
    expect(refused)
      .to.have.property('lastError')
      .that.matches(
        /^The engine embedded cannot use the certificate .+\/id_ed25519-cert\.pub: use 'engine: ssh'; .+Permission denied/,
      );
    rmSync(dir, { recursive: true });
  });

  it('says who is not let in', async () => {
    await using sshd = await startSshd();
    writeFileSync(join(sshd.dir, 'authorized_keys'), '');
    await using stand = createStand();
    const link = await stand.start(await localSpec(sshd, 9));
    const exit = await link.settled();
    expect(exit).to.include({ reason: 'auth_failed' });
    expect(exit)
      .to.have.property('lastError')
      .that.matches(/@127\.0\.0\.1: Permission denied \(publickey/);
  });

  it('says what the server says of too many failures', async () => {
    await using sshd = await startSshd({ extra: ['MaxAuthTries 1'] });
    const dir = mkdtempSync(join(tmpdir(), 'tunward-keys-'));
    const [one, two] = [join(dir, 'one'), join(dir, 'two')];
    for (const file of [one, two]) makeKey(file);
    const config = readFileSync(sshd.sshConfigFile, 'utf8');
    writeFileSync(
      sshd.sshConfigFile,
      config.replace('  IdentityFile', `  IdentityFile ${one}\n  IdentityFile ${two}\n  IdentityFile`),
    );
    await using stand = createStand();
    const link = await stand.start(await localSpec(sshd, 9));
    const exit = await link.settled();
    rmSync(dir, { recursive: true });
    expect(exit).to.include({ reason: 'auth_failed' });
    expect(exit).to.have.property('lastError').that.includes('Too many authentication failures');
  });

  it('draws nothing of what a hostile server asks', async () => {
    const questions = evilTexts.map((text) => ({ text, answer: 'yes' }));
    await using server = await startAsking({ factors: [{ method: 'keyboard-interactive', questions }] });
    await using stand = createStand();
    const asked: string[] = [];
    const asking = askingOf(({ text }) => {
      asked.push(text);
      return 'yes';
    });
    const link = await stand.start(await localSpec(server, 9), { asking });
    expect(await link.settled()).to.equal('ready');
    expect(asked).to.have.length(evilTexts.length);
    expect(asked.join('').replaceAll('\n', '')).not.to.match(unprintable);
  });

  it('ends at a question that nobody answers, when it is stopped, and tells who was asked', async () => {
    await using server = await startAsking({ factors: [byPassword('secret')] });
    await using stand = createStand();
    let signal: AbortSignal | undefined;
    const asking = askingOf((question) => {
      ({ signal } = question);
      return new Promise(() => undefined);
    });
    const link = await stand.start(await localSpec(server, 9), { asking });
    expect(await until(() => signal, { timeoutMs: 10_000 })).not.to.equal(undefined);
    await link.stop();
    expect(signal?.aborted).to.equal(true);
    expect(await until(() => server.connections() === 0, { timeoutMs: 5000 })).to.equal(true);
    expect(asking.given).to.deep.equal([]);
  });

  it('gives up with who was asked, and says why', async () => {
    await using server = await startAsking({ factors: [byPassword('secret')] });
    await using stand = createStand();
    const asking = askingOf(() => {
      throw new Error('not today');
    });
    const link = await stand.start(await localSpec(server, 9), { asking });
    expect(await link.settled()).to.include({ reason: 'needs_auth', lastError: 'given up at the prompt' });
    expect(asking.given.map(String)).to.deep.equal(['Error: not today']);
  });

  it('logs in by an agent, with the key that is named here first', async () => {
    await using sshd = await startSshd({ passphrase: 'open sesame' });
    const dir = mkdtempSync(join(tmpdir(), 'tunward-agent-'));
    const agent = await startAgent(reaper, join(dir, 'agent.sock'));
    const env = { SSH_AUTH_SOCK: join(dir, 'agent.sock') };
    const strangers = ['a', 'b', 'c', 'd', 'e', 'f', 'g'].map((name) => join(dir, name));
    for (const file of strangers) {
      makeKey(file);
      add(file, env);
    }
    // The key itself, without its passphrase.
    const plain = join(dir, 'plain');
    copyFileSync(sshd.identityFile, plain);
    execFileSync('ssh-keygen', ['-q', '-p', '-P', 'open sesame', '-N', '', '-f', plain], { stdio: 'ignore' });
    add(plain, env);
    await using stand = createStand({ env });
    const link = await stand.start(await localSpec(sshd, 9));
    // Six keys are what sshd listens to: that of the agent that is named came before the others.
    expect(await link.settled(), link.lines.join()).to.equal('ready');
    await link.stop();
    agent.kill();
    rmSync(dir, { recursive: true });

    function add(file: string, more: NodeJS.ProcessEnv): void {
      execFileSync('ssh-add', ['-q', file], { env: { ...process.env, ...more }, stdio: 'ignore' });
    }
  });

  it('asks at a terminal, and says nothing there that is about an ssh', async () => {
    await using server = await startAsking({ factors: [byPassword('secret')], banner: 'be welcome' });
    await using stand = createStand();
    const { terminal, drawn, answer } = createTestTerminal();
    const asking = { ...askingOf(() => ''), person: { terminal } };
    const link = await stand.start(await localSpec(server, 9), { asking });
    await answer(/password: $/, 'secret\r');
    expect(await link.settled(), link.lines.join()).to.equal('ready');
    expect(drawn()).to.include('be welcome').and.not.to.include('node-pty');
    expect(link.lines).to.include('be welcome');
  });

  it('does not wait for an agent that says nothing, and keeps no socket to it', async () => {
    await using server = await startAsking({ factors: [byKey] });
    const dir = mkdtempSync(join(tmpdir(), 'tunward-agent-'));
    const sockets = new Set<net.Socket>();
    const agent = net.createServer((socket) => {
      sockets.add(socket.on('error', () => undefined).once('close', () => sockets.delete(socket)));
      socket.resume();
    });
    await new Promise<void>((resolve) => agent.listen(join(dir, 'agent.sock'), resolve));
    await using stand = createStand();
    const sshOptions = { IdentityAgent: join(dir, 'agent.sock'), ConnectTimeout: '1' };
    const link = await stand.start(await localSpec(server, 9, { sshOptions }));
    expect(await until(() => sockets.size, { timeoutMs: 5000 })).to.equal(1);
    expect(await link.settled()).to.include({ reason: 'timeout' });
    expect(await until(() => sockets.size === 0, { timeoutMs: 5000 })).to.equal(true);
    await new Promise((resolve) => agent.close(resolve));
    rmSync(dir, { recursive: true });
  });

  it('goes on after the signature of an agent, where the server wants more', async () => {
    await using server = await startAsking({ factors: [byKey, byPassword('secret')] });
    const dir = mkdtempSync(join(tmpdir(), 'tunward-agent-'));
    const env = { SSH_AUTH_SOCK: join(dir, 'agent.sock') };
    const agent = await startAgent(reaper, env.SSH_AUTH_SOCK, server.identityFile);
    const config = readFileSync(server.sshConfigFile, 'utf8');
    writeFileSync(server.sshConfigFile, config.replace('IdentityAgent none', 'IdentityAgent SSH_AUTH_SOCK'));
    rmSync(server.identityFile);
    await using stand = createStand({ env });
    const { prompt } = createTestPrompt(['secret']);
    const link = await stand.start(await localSpec(server, 9), { asking: askingOf(prompt) });
    expect(await link.settled(), link.lines.join()).to.equal('ready');
    await link.stop();
    agent.kill();
    rmSync(dir, { recursive: true });
  });
});
