/** `tunward auth` on a terminal: the command, the daemon, ssh and the servers are the real ones. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { tunward } from '../cli/run.js';
import {
  type AskingOptions,
  type AskingServer,
  byKey,
  byPassword,
  byPasswordAndCode,
  startAsking,
} from '../support/asking.js';
import { allOf, answer, question } from '../support/dialogue.js';
import { need } from '../support/need.js';
import { isAlive } from '../support/proc.js';
import { startSshd } from '../support/sshd.js';
import { useVault, type Vault } from '../support/vault.js';
import { visitOpen } from '../support/visitor.js';

const [PASSWORD, CODE, PASSPHRASE] = ['correct horse', '424242', 'of the key'];

async function asking(scene: Vault, options: AskingOptions): Promise<AskingServer> {
  const server = await startAsking(options);
  await scene.serve(server);
  return server;
}

/** Three wrong passwords: it has failed, and is not tried again. */
async function typeWrongly(scene: Vault): Promise<void> {
  const terminal = scene.auth();
  for (let attempt = 0; attempt < 3; attempt++) await answer(terminal, /password: /i, 'wrong');
  expect(await terminal.ended).to.equal(1);
  expect(await allOf(terminal))
    .to.contain('auth_failed')
    .and.contain('tunward auth vault');
  expect(await scene.record()).to.include({ state: 'stopped', reason: 'auth_failed', next_retry_at: null });
}

function itLogsInAtSshd(scene: Vault): void {
  it('logs in at a real sshd: a passphrase, then a password and a code by PAM', async function () {
    need(this, 'sshd', 'pam');
    const login = { password: PASSWORD, code: CODE };
    await using sshd = await startSshd({ passphrase: PASSPHRASE, login });
    await scene.serve(sshd);
    const terminal = scene.auth('--json');
    await answer(terminal, /passphrase for key .*: /, PASSPHRASE);
    await answer(terminal, /Password: /, PASSWORD);
    await answer(terminal, /One-time code: /, CODE);
    expect(await terminal.ended).to.equal(0);
    const record = JSON.parse(terminal.bytes().slice(terminal.bytes().indexOf('{')));
    expect(record).to.include({ name: 'vault', state: 'up' });
    expect(await scene.listens()).to.equal(true);
  });
}

// What ssh says besides (of a wrong answer, of a new host) may come behind its next question.
describe('tunward auth, all the way', function () {
  this.timeout(60_000);
  before(function () {
    need(this, 'pty', 'ssh');
  });
  const scene = useVault();

  it('logs in with a password and a code, and is not needed any more', async () => {
    await using server = await asking(scene, { factors: [byPasswordAndCode(PASSWORD, CODE)] });
    const listed = await tunward(scene.reaper, ['ls', '--socket', scene.home.socket]);
    expect(listed.stdout).to.contain('needs_auth').and.contain('tunward auth vault');
    expect(scene.daemon.stderr()).to.match(/ vault {2}needs a person {2}.*tunward auth vault/);
    const refused = await tunward(scene.reaper, ['start', 'vault', '--socket', scene.home.socket]);
    expect(refused.code).to.equal(1);
    expect(refused.stderr).to.contain('tunward auth vault');
    const terminal = scene.auth();
    await answer(terminal, /Password: /, PASSWORD);
    const between = await scene.record();
    expect(between).to.include({ state: 'starting' });
    await answer(terminal, /One-time code: /, CODE);
    expect(await terminal.ended).to.equal(0);
    expect(await allOf(terminal)).to.match(/✔ vault {2}up in .* {2}127\.0\.0\.1:\d+ → 127\.0\.0\.1:1 via rig/);
    expect(terminal.bytes()).not.to.contain(PASSWORD).and.not.contain(CODE);
    expect(server.logins()).to.equal(1);
    expect(await scene.record()).to.include({ state: 'up', reason: null });
    expect(await scene.listens()).to.equal(true);
    // Nothing of it is kept: not in a log, nor in what any process was started with.
    const { id, chain } = await scene.record();
    expect(scene.home.logLines(id).join('\n')).not.to.contain(PASSWORD).and.not.contain(CODE);
    for (const { pid } of chain) {
      const [words, environment] = ['cmdline', 'environ'].map((name) => readFileSync(`/proc/${pid}/${name}`, 'latin1'));
      expect(`${words}${environment}`).not.to.contain(PASSWORD).and.not.contain(CODE);
    }
    // Whoever comes now is told.
    const second = scene.auth();
    expect(await second.ended).to.equal(1);
    expect(await allOf(second)).to.contain('is up');
  });

  it('ends with 1 when the password is wrong, and is not tried again', async () => {
    await using server = await asking(scene, { factors: [byPassword(PASSWORD)] });
    await typeWrongly(scene);
    expect(server.logins()).to.equal(0);
    // The next one may try again.
    const again = scene.auth();
    await answer(again, /password: /i, PASSWORD);
    expect(await again.ended).to.equal(0);
  });

  it('is given up by Ctrl-C at a prompt: nothing of it is left', async () => {
    await using server = await asking(scene, { factors: [byPassword(PASSWORD)] });
    const terminal = scene.auth();
    await question(terminal, /password: /i);
    const { chain } = await scene.record();
    expect(chain).to.have.length.above(0);
    terminal.type('half of it\u0003');
    expect(await terminal.ended).to.equal(130);
    const alive = () => chain.filter((one: { pid: number; start_ticks: number }) => isAlive(one.pid, one.start_ticks));
    expect(await until(() => alive().length === 0, { timeoutMs: 5000, everyMs: 5 }), JSON.stringify(alive())).to.equal(
      true,
    );
    const isStopped = async () => (await scene.record()).state === 'stopped';
    expect(await until(isStopped, { timeoutMs: 5000 })).to.equal(true);
    expect(await scene.record()).to.include({ reason: 'needs_auth', pid: null });
    expect(await until(() => server.connections() === 0, { timeoutMs: 5000 })).to.equal(true);
    expect(await scene.listens()).to.equal(false);
  });

  it('is one person’s at a time', async () => {
    await using _server = await asking(scene, { factors: [byPassword(PASSWORD)] });
    const first = scene.auth();
    await question(first, /password: /i);
    const second = scene.auth();
    expect(await second.ended).to.equal(1);
    expect(await allOf(second)).to.contain('somebody else');
    first.type(`${PASSWORD}\r`);
    expect(await first.ended).to.equal(0);
  });

  it('ends with 75 when the daemon is killed at a prompt, and nothing of it is left', async () => {
    await using _server = await asking(scene, { factors: [byPassword(PASSWORD)] });
    const terminal = scene.auth();
    await question(terminal, /password: /i);
    const { chain } = await scene.record();
    await scene.kill();
    expect(await terminal.ended).to.equal(75);
    expect(await allOf(terminal)).to.contain('went away');
    const isGone = () => chain.every((one: { pid: number; start_ticks: number }) => !isAlive(one.pid, one.start_ticks));
    expect(await until(isGone, { timeoutMs: 5000, everyMs: 5 })).to.equal(true);
  });

  for (const says of ['yes', 'no'] as const) {
    it(`shows the fingerprint of a host that is not known: ${says}`, async () => {
      await using server = await asking(scene, { factors: [byPassword(PASSWORD)], known: false });
      const file = join(scene.home.stateDir, 'known_hosts');
      const known = () => (existsSync(file) ? readFileSync(file, 'utf8') : '');
      const terminal = scene.auth();
      const shown = await answer(terminal, /\(yes\/no\/\[fingerprint\]\)\? /, says);
      expect(shown.replace(/\s+/g, '')).to.contain(server.fingerprint());
      if (says === 'yes') {
        await answer(terminal, /password: /i, PASSWORD);
        expect(await terminal.ended).to.equal(0);
        // The daemon has a file of its own, before the person's.
        expect(known()).to.contain('ssh-ed25519');
        expect(readFileSync(server.knownHostsFile, 'utf8')).to.equal('');
      } else {
        expect(await terminal.ended).to.equal(1);
        expect(await scene.record()).to.include({ state: 'stopped' });
        expect(known()).to.equal('');
      }
    });
  }

  itLogsInAtSshd(scene);
});

/** What ssh is asked on a terminal of its own is asked here by the daemon, in the same words. */
describe('a tunnel that asks, by the engine embedded', function () {
  this.timeout(60_000);
  before(function () {
    need(this, 'pty');
  });
  const scene = useVault({ engine: 'embedded' });

  it('is logged in to with a password and a code at a terminal, keeps neither, and waits again when it is lost', async () => {
    await using server = await asking(scene, { factors: [byPasswordAndCode(PASSWORD, CODE)] });
    expect(await scene.record()).to.include({ state: 'stopped', reason: 'needs_auth' });
    const terminal = scene.auth();
    await answer(terminal, /Password: /, PASSWORD);
    expect(await scene.record()).to.include({ state: 'starting' });
    await answer(terminal, /One-time code: /, CODE);
    expect(await terminal.ended).to.equal(0);
    expect(await allOf(terminal)).to.match(/✔ vault {2}up in .* {2}127\.0\.0\.1:\d+ → 127\.0\.0\.1:1 via rig/);
    expect(terminal.bytes()).not.to.contain(PASSWORD).and.not.contain(CODE);
    const { id } = await scene.record();
    expect(scene.home.logLines(id).join('\n')).not.to.contain(PASSWORD).and.not.contain(CODE);
    expect(await scene.listens()).to.equal(true);
    server.drop();
    const isLost = async () => (await scene.record()).state === 'stopped';
    expect(await until(isLost, { timeoutMs: 5000 })).to.equal(true);
    const lost = await scene.record();
    expect([lost.next_retry_at, await scene.listens()]).to.deep.equal([null, false]);
    expect(lost.remedy).to.equal("it waits for a person: 'tunward auth vault', or the panel");
    expect(scene.home.logLines(id).at(-1)).to.contain('Lost: it waits for a person: tunward auth vault');
  });

  it('says that the password was wrong, and is given up by Ctrl-C: nothing of it is left', async () => {
    await using server = await asking(scene, { factors: [byPassword(PASSWORD)] });
    await typeWrongly(scene);
    const second = scene.auth();
    await question(second, /password: /i);
    second.type('half of it\u0003');
    expect(await second.ended).to.equal(130);
    expect(await until(async () => (await scene.record()).state === 'stopped', { timeoutMs: 5000 })).to.equal(true);
    expect(await scene.record()).to.include({ reason: 'needs_auth' });
    expect(await until(() => server.connections() === 0, { timeoutMs: 5000 })).to.equal(true);
    expect(await scene.listens()).to.equal(false);
  });

  it('shows the fingerprint of a host that is not known, and asks for a passphrase, by a WebSocket', async () => {
    await using server = await asking(scene, { factors: [byKey], passphrase: PASSPHRASE, known: false });
    const file = join(scene.home.stateDir, 'known_hosts');
    const { id } = await scene.record();
    const refusing = await visitOpen({ at: scene.home.socket, id });
    await refusing.sees('(yes/no/[fingerprint])? ');
    expect(refusing.screen().replace(/\s+/g, '')).to.contain(server.fingerprint());
    refusing.type('no\r');
    await refusing.closed;
    expect(await scene.record()).to.include({ state: 'stopped', reason: 'host_key_unknown' });
    expect(existsSync(file)).to.equal(false);
    const visitor = await visitOpen({ at: scene.home.socket, id });
    await visitor.sees('(yes/no/[fingerprint])? ');
    visitor.type('yes\r');
    await visitor.sees(`Enter passphrase for key '${server.identityFile}': `);
    visitor.type(`${PASSPHRASE}\r`);
    await visitor.closed;
    expect(visitor.messages().at(-1)).to.include({ type: 'end', outcome: 'up' });
    expect(visitor.screen()).not.to.contain(PASSPHRASE);
    expect(await scene.record()).to.include({ state: 'up', reason: null, pid: null });
    expect(readFileSync(file, 'utf8').trim().split('\n')).to.have.lengthOf(1);
    expect(await scene.listens()).to.equal(true);
  });

  itLogsInAtSshd(scene);
});
