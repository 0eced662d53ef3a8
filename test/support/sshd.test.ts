import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { answer, question } from './dialogue.js';
import { need } from './need.js';
import { freeLocalPort } from './port.js';
import { createReaper } from './reaper.js';
import { startService } from './servers.js';
import { type Sshd, startSshd } from './sshd.js';
import { type OnTerminal, runOnTerminal } from './terminal.js';

describe('startSshd() that asks', () => {
  const reaper = createReaper();
  before(function () {
    need(this, 'sshd', 'ssh', 'pty');
  });
  afterEach(() => reaper.end());

  const logIn = (sshd: Sshd, ...words: string[]): OnTerminal =>
    runOnTerminal(reaper, ['ssh', '-F', sshd.sshConfigFile, ...words]);

  it('has an identity with a passphrase', async () => {
    await using sshd = await startSshd({ passphrase: 'open sesame' });
    const ssh = logIn(sshd, sshd.host, 'echo $((1000 + 1))');
    await answer(ssh, /Enter passphrase for key '.*id_ed25519': $/, 'wrong');
    await answer(ssh, /Enter passphrase for key '.*id_ed25519': $/, 'open sesame');
    expect(await ssh.ended, ssh.bytes()).to.equal(0);
    expect(ssh.bytes()).to.include('1001');
  });

  it('has the fingerprint that ssh asks about, and is known then', async () => {
    await using sshd = await startSshd({ known: false });
    const ssh = logIn(sshd, sshd.host, 'true');
    const shown = await answer(ssh, /continue connecting \(yes\/no\/\[fingerprint\]\)\? $/, 'yes');
    expect(/SHA256:[\w+/]+/.exec(shown)?.[0]).to.equal(sshd.fingerprint);
    expect(await ssh.ended, ssh.bytes()).to.equal(0);
    expect(readFileSync(sshd.knownHostsFile, 'utf8')).to.include(`[127.0.0.1]:${sshd.port} ssh-ed25519 `);
    const again = logIn(sshd, sshd.host, 'true');
    expect(await again.ended, again.bytes()).to.equal(0);
  });

  describe('by PAM', () => {
    before(function () {
      need(this, 'pam');
    });

    it('asks for a passphrase, a password and a code, and carries bytes then', async () => {
      const login = { password: 'secret', code: '123456' };
      await using sshd = await startSshd({ passphrase: 'open sesame', login });
      await using service = await startService();
      const port = await freeLocalPort();
      const ssh = logIn(sshd, '-N', '-L', `127.0.0.1:${port}:127.0.0.1:${service.port}`, sshd.host);
      await answer(ssh, /Enter passphrase for key '.*id_ed25519': $/, 'open sesame');
      await answer(ssh, /Password: $/, 'secret');
      await answer(ssh, /One-time code: $/, '123456');
      const read = () => fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' } });
      const reply = await until(() => read().catch(() => undefined), { timeoutMs: 10_000 });
      expect(await reply?.text(), ssh.bytes() + sshd.log()).to.equal('served');
      expect(sshd.log()).to.include('Accepted keyboard-interactive/pam');
      for (const secret of Object.values(login)) expect(ssh.bytes()).not.to.include(secret);
    });

    it('wants both right', async () => {
      const login = { password: 'secret', code: '123456', methods: 'keyboard-interactive' };
      await using sshd = await startSshd({ login });
      const ssh = logIn(sshd, sshd.host, 'true');
      for (const [password, code] of [
        ['secret', '000000'],
        ['wrong', '123456'],
        ['', ''],
      ]) {
        await answer(ssh, /Password: $/, password ?? '');
        await answer(ssh, /One-time code: $/, code ?? '');
      }
      expect(await ssh.ended, ssh.bytes()).to.equal(255);
      expect(ssh.bytes()).to.include('Permission denied (keyboard-interactive)');
    });

    it('shows the code when it is typed, if that is wanted', async () => {
      const login = { password: 'secret', code: '123456', echo: true };
      await using sshd = await startSshd({ login });
      const ssh = logIn(sshd, sshd.host, 'true');
      await answer(ssh, /Password: $/, 'secret');
      await answer(ssh, /One-time code: $/, '123456');
      expect(await ssh.ended, ssh.bytes()).to.equal(0);
      expect(ssh.bytes()).to.include('123456').and.not.to.include('secret');
    });

    it('takes a password alone, and changes no file of the system', async () => {
      const before = systemFiles();
      await using sshd = await startSshd({ login: { password: 'secret', methods: 'password' } });
      const ssh = logIn(sshd, sshd.host, 'true');
      await answer(ssh, /@127\.0\.0\.1's password: $/, 'wrong');
      await answer(ssh, /@127\.0\.0\.1's password: $/, 'secret');
      expect(await ssh.ended, ssh.bytes()).to.equal(0);
      expect(systemFiles()).to.deep.equal(before);
    });

    it('ends in the middle of a question, and ssh when it is answered', async () => {
      await using sshd = await startSshd({ login: { password: 'secret' } });
      const ssh = logIn(sshd, sshd.host, 'true');
      await question(ssh, /Password: $/);
      await sshd.stop();
      ssh.type('secret\r');
      expect(await ssh.ended, ssh.bytes()).to.equal(255);
      expect(ssh.bytes()).to.match(/Connection (closed|reset) by 127\.0\.0\.1/);
    });
  });
});

function systemFiles(): string[] {
  return ['/etc/shadow', '/etc/pam.d/sshd'].map((file) => readFileSync(file, 'utf8'));
}
