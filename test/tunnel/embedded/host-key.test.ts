import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { remedyOf } from '#lib/tunnel/remedy.js';
import { byKey, startAsking } from '../../support/asking.js';
import { askingOf, createStand, localSpec } from '../../support/embedded.js';
import { knownHostLine, makeKey } from '../../support/keys.js';
import { createTestPrompt } from '../../support/person.js';
import { startServer } from '../../support/servers.js';
import { startSshd } from '../../support/sshd.js';

describe('the host key of a server of the embedded engine', () => {
  it('is written down once when it is met for the first time, and known from then on', async () => {
    await using sshd = await startSshd({ known: false });
    const own = join(sshd.dir, 'own_known_hosts');
    await using stand = createStand({ knownHosts: own });
    for (let time = 0; time < 2; time++) {
      const link = await stand.start(await localSpec(sshd, 9));
      expect(await link.settled(), link.lines.join()).to.equal('ready');
      await link.stop();
    }
    expect(readFileSync(own, 'utf8')).to.equal(knownHostLine(sshd.port, sshd.hostKeyFile));
    expect(readFileSync(sshd.knownHostsFile, 'utf8')).to.equal('');
  });

  it("goes into the person's own file where there is no other", async () => {
    await using sshd = await startSshd({ known: false });
    await using stand = createStand();
    const link = await stand.start(await localSpec(sshd, 9));
    expect(await link.settled(), link.lines.join()).to.equal('ready');
    expect(readFileSync(sshd.knownHostsFile, 'utf8')).to.equal(knownHostLine(sshd.port, sshd.hostKeyFile));
  });

  it('is refused when it has changed, with the line that contradicts and the remedy', async () => {
    await using sshd = await startSshd();
    const { port } = sshd;
    // Known by the key of the former one.
    makeKey(join(sshd.dir, 'other'));
    writeFileSync(sshd.knownHostsFile, `# a comment\n${knownHostLine(port, join(sshd.dir, 'other'))}`);
    await using stand = createStand({ knownHosts: join(sshd.dir, 'own') });
    const spec = await localSpec(sshd, 9);
    const exit = await (await stand.start(spec)).settled();
    if (exit === 'ready') throw new Error("let in with a stranger's key");
    expect(exit).to.include({
      reason: 'host_key_changed',
      lastError: `Host key for [127.0.0.1]:${port} has changed; Offending ED25519 key in ${sshd.knownHostsFile}:2`,
    });
    expect(remedyOf(exit.reason, { spec, lastError: exit.lastError })).to.include(
      `ssh-keygen -f '${sshd.knownHostsFile}' -R '[127.0.0.1]:${port}'`,
    );
    // Nobody has logged in with a key of ours there.
    expect(sshd.log()).not.to.include('Accepted');
  });

  it('is refused when it has been revoked', async () => {
    await using sshd = await startSshd();
    writeFileSync(sshd.knownHostsFile, `@revoked ${knownHostLine(sshd.port, sshd.hostKeyFile)}`);
    await using stand = createStand();
    const exit = await (await stand.start(await localSpec(sshd, 9))).settled();
    expect(exit).to.include({ reason: 'host_key_changed' });
    expect(exit).to.have.property('lastError').that.includes('revoked').and.includes(`${sshd.knownHostsFile}:1`);
  });

  it('is refused when it is not known and strict checking is asked for', async () => {
    await using sshd = await startSshd({ known: false });
    await using stand = createStand({ knownHosts: join(sshd.dir, 'own') });
    const spec = await localSpec(sshd, 9, { sshOptions: { StrictHostKeyChecking: 'yes' } });
    const exit = await (await stand.start(spec)).settled();
    expect(exit).to.include({
      reason: 'host_key_unknown',
      lastError: `No ED25519 host key is known for [127.0.0.1]:${sshd.port} and you have requested strict checking.`,
    });
  });

  it('is asked for by the kind that is known', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'tunward-ecdsa-'));
    const ecdsa = join(dir, 'ecdsa');
    execFileSync('ssh-keygen', ['-q', '-t', 'ecdsa', '-N', '', '-f', ecdsa]);
    await using sshd = await startSshd({ extra: [`HostKey ${ecdsa}`] });
    writeFileSync(sshd.knownHostsFile, knownHostLine(sshd.port, ecdsa));
    await using stand = createStand();
    const link = await stand.start(await localSpec(sshd, 9));
    expect(await link.settled(), link.lines.join()).to.equal('ready');
    rmSync(dir, { recursive: true });
  });

  it('is shown to somebody who is there, and taken for yes or for the fingerprint', async () => {
    for (const answers of [['yes'], ['perhaps', 'yes'], ['FINGERPRINT']]) {
      await using server = await startAsking({ factors: [byKey], known: false });
      await using stand = createStand();
      const { prompt, questions } = createTestPrompt(
        answers.map((answer) => answer.replace('FINGERPRINT', server.fingerprint())),
      );
      const link = await stand.start(await localSpec(server, 9), { asking: askingOf(prompt) });
      expect(await link.settled(), link.lines.join()).to.equal('ready');
      expect(questions).to.have.length(answers.length);
      expect(questions[0]).to.include(`ED25519 key fingerprint is ${server.fingerprint()}.`);
      expect(readFileSync(server.knownHostsFile, 'utf8')).to.include(`[127.0.0.1]:${server.port} ssh-ed25519 `);
    }
  });

  it('is not taken for no', async () => {
    await using server = await startAsking({ factors: [byKey], known: false });
    await using stand = createStand();
    const { prompt } = createTestPrompt(['no']);
    const link = await stand.start(await localSpec(server, 9), { asking: askingOf(prompt) });
    expect(await link.settled()).to.include({
      reason: 'host_key_unknown',
      lastError: 'Host key verification failed.',
    });
    expect(readFileSync(server.knownHostsFile, 'utf8')).to.equal('');
  });

  it('must stay the same when keys are exchanged anew', async () => {
    await using sshd = await startSshd({ extra: ['RekeyLimit 1M'] });
    await using stand = createStand();
    await using source = await startServer((socket) => socket.end(Buffer.alloc(8_000_000, 'y')));
    const spec = await localSpec(sshd, source.port);
    const link = await stand.start(spec);
    expect(await link.settled(), link.lines.join()).to.equal('ready');
    let count = 0;
    const socket = net.connect(spec.forward.listen.port, '127.0.0.1');
    for await (const chunk of socket) count += (chunk as Buffer).length;
    expect(count).to.equal(8_000_000);
    expect(await link.check()).to.equal('ready');
  });
});
