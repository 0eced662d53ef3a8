import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { expect } from 'chai';
import { type OpenTunnelOptions, openTunnel } from '#lib/daemon/open.js';
import { isTunwardError } from '#lib/errors.js';
import { until } from '#lib/time.js';
import type { Prompt } from '#lib/tunnel/asking/person.js';
import { createSupervisor, type SupervisorEvent } from '#lib/tunnel/supervisor.js';
import {
  type AskingOptions,
  type AskingServer,
  byPassword,
  byPasswordAndCode,
  startAsking,
} from '../../support/asking.js';
import { need } from '../../support/need.js';
import { buildRoot } from '../../support/paths.js';
import { createTestPrompt } from '../../support/person.js';
import { freeLocalPort } from '../../support/port.js';
import { createReaper, type Reaper } from '../../support/reaper.js';
import { makeSpec } from '../../support/specs.js';
import { startSshd } from '../../support/sshd.js';

describe('a tunnel whose questions a function answers', function () {
  this.timeout(60_000);
  let folder: string;
  let reaper: Reaper;
  let events: SupervisorEvent[];

  before(function () {
    need(this, 'ssh');
  });
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'tunward-prompt-'));
    reaper = createReaper();
    events = [];
  });
  afterEach(async () => {
    expect(await reaper.end()).to.deep.equal([]);
    expect(readdirSync(folder)).to.deep.equal([]);
    rmSync(folder, { recursive: true });
  });

  const env = () => ({ ...process.env, ...reaper.env, SSH_AUTH_SOCK: undefined, TMPDIR: folder });

  function open(
    { host, sshConfigFile }: Pick<AskingServer, 'host' | 'sshConfigFile'>,
    prompt: Prompt,
    changes: Partial<OpenTunnelOptions> = {},
  ) {
    return openTunnel({
      ...{ remoteHost: host, remotePort: 80, localPort: 0, sshConfig: sshConfigFile },
      ...{ env: env(), prompt, onEvent: (event) => events.push(event), ...changes },
    });
  }

  const types = () => events.map(({ type }) => type).filter((type) => type !== 'tunnel.output');
  const serve = (options: AskingOptions = {}) => startAsking(options);
  const failureOf = (opening: Promise<unknown>) =>
    opening.then(
      () => undefined,
      (error: unknown) => error,
    );
  /** Nothing runs, and nothing is on disk. */
  const left = () => [...reaper.living(), ...readdirSync(folder)];

  it('comes up by a password and a code, and leaves nothing to ask with', async () => {
    await using server = await serve({ factors: [byPasswordAndCode('secret', '123456')] });
    const code = Buffer.from('123456');
    const { prompt, questions } = createTestPrompt(['secret', code]);
    await using tunnel = await open(server, prompt);
    const { state, interactive, chain } = tunnel.status();
    expect({ state, interactive }).to.deep.equal({ state: 'up', interactive: true });
    expect(chain).to.have.length(1);
    expect(questions).to.deep.equal(['(person@127.0.0.1) Password: ', '(person@127.0.0.1) One-time code: ']);
    expect(types()).to.deep.equal(['tunnel.starting', 'tunnel.up']);
    expect([...new Set(code)]).to.deep.equal([0]);
    expect(readdirSync(folder)).to.deep.equal([]);
    await tunnel.close();
    expect(left()).to.deep.equal([]);
  });

  it('is asked again after a wrong answer', async () => {
    await using server = await serve();
    const { prompt, questions } = createTestPrompt(['wrong', 'secret']);
    await using tunnel = await open(server, prompt);
    expect(tunnel.status().state).to.equal('up');
    expect(questions).to.deep.equal(Array(2).fill("person@127.0.0.1's password: "));
  });

  it('fails after three, and is not tried again', async () => {
    await using server = await serve();
    const { prompt, questions } = createTestPrompt(['1', '2', '3', '4']);
    const error = await failureOf(open(server, prompt));
    expect(isTunwardError(error, 'ERR_START_FAILED') && error.info.reason).to.equal('auth_failed');
    expect(questions).to.have.length(3);
    expect(left()).to.deep.equal([]);
    expect(server.attempts()).to.equal(3);
  });

  it('ends with what the function has thrown', async () => {
    await using server = await serve();
    const why = new Error('no such secret');
    const error = await failureOf(
      open(server, () => {
        throw why;
      }),
    );
    expect(error).to.equal(why);
    expect(left()).to.deep.equal([]);
    // Not an empty one either, which ssh would send.
    expect(server.attempts()).to.equal(0);
  });

  it('ends when the function does not answer', async () => {
    await using server = await serve();
    await using supervisor = createSupervisor({ env: env(), publish: (event) => events.push(event) });
    const spec = makeSpec({
      ...{ side: 'local', interactive: true, remoteHost: server.host, sshConfig: server.sshConfigFile },
      listen: { host: '127.0.0.1', port: await freeLocalPort() },
    });
    await supervisor.reconcile([spec]);
    let aborted = false;
    const prompt: Prompt = ({ signal }) =>
      new Promise(() => {
        signal.addEventListener('abort', () => {
          aborted = true;
        });
      });
    const patience = { totalMs: 30_000, idleMs: 100 };
    const error = await failureOf(supervisor.authenticate(spec.id, { prompt }, { patience }));
    expect(isTunwardError(error, 'ERR_TIMEOUT') && error.info.timeoutMs).to.equal(100);
    expect(aborted).to.equal(true);
    await until(() => supervisor.status(spec.id).state === 'stopped', { timeoutMs: 10_000 });
    expect(left()).to.deep.equal([]);
    const { state, reason, desired } = supervisor.status(spec.id);
    expect({ state, reason, desired }).to.deep.equal({ state: 'stopped', reason: 'needs_auth', desired: 'down' });
  });

  it('ends in the middle of a question, when it is called off', async () => {
    await using server = await serve();
    const over = new AbortController();
    let seen: AbortSignal | undefined;
    const prompt: Prompt = ({ signal }) => {
      seen = signal;
      return new Promise(() => undefined);
    };
    const opening = failureOf(open(server, prompt, { signal: over.signal }));
    await until(() => seen, { timeoutMs: 15_000 });
    expect(left()).not.to.deep.equal([]);
    const why = new Error('changed my mind');
    over.abort(why);
    expect(await opening).to.equal(why);
    expect(seen?.aborted).to.equal(true);
    expect(left()).to.deep.equal([]);
  });

  describe('about a host key', () => {
    const asked =
      /^The authenticity of host[\s\S]*fingerprint is SHA256:\S+\.\n[\s\S]*\(yes\/no\/\[fingerprint\]\)\? $/;

    for (const [what, answer] of [
      ['yes', () => 'yes'],
      ['its fingerprint', (server: AskingServer) => server.fingerprint()],
    ] as const) {
      it(`takes it into known_hosts by ${what}`, async () => {
        await using server = await serve({ known: false });
        const { prompt, questions } = createTestPrompt([answer(server), 'secret']);
        await using tunnel = await open(server, prompt);
        expect(tunnel.status().state).to.equal('up');
        expect(questions[0]).to.match(asked).and.include(server.fingerprint());
        expect(readFileSync(server.knownHostsFile, 'utf8')).to.include(`:${server.port} ssh-ed25519 `);
      });
    }

    it('goes no further by no', async () => {
      await using server = await serve({ known: false });
      const { prompt, questions } = createTestPrompt(['no']);
      const error = await failureOf(open(server, prompt));
      expect(isTunwardError(error, 'ERR_START_FAILED')).to.equal(true);
      expect([questions.length, server.asked()]).to.deep.equal([1, 0]);
      expect(readFileSync(server.knownHostsFile, 'utf8')).to.equal('');
    });

    it('is asked again where the answer is neither', async () => {
      await using server = await serve({ known: false });
      const { prompt, questions } = createTestPrompt(['perhaps', 'SHA256:another', 'yes', 'secret']);
      await using tunnel = await open(server, prompt);
      expect(tunnel.status().state).to.equal('up');
      expect(questions[1]).to.equal("Please type 'yes', 'no' or the fingerprint: ");
      expect(questions).to.have.length(4);
    });
  });

  it('unlocks a key for a real sshd', async function () {
    need(this, 'sshd');
    await using sshd = await startSshd({ passphrase: 'correct horse' });
    const { prompt, questions } = createTestPrompt(['wrong horse', Buffer.from('correct horse')]);
    await using tunnel = await open(sshd, prompt, { remotePort: sshd.port });
    expect(tunnel.status().state).to.equal('up');
    expect(questions).to.deep.equal(Array(2).fill(`Enter passphrase for key '${sshd.identityFile}': `));
  });

  it('answers PAM with a password and a code', async function () {
    need(this, 'sshd', 'pam');
    const login = { password: 'secret', code: '123456', methods: 'keyboard-interactive' };
    await using sshd = await startSshd({ login, known: false });
    const { prompt, questions } = createTestPrompt([sshd.fingerprint, 'secret', '123456']);
    await using tunnel = await open(sshd, prompt, { remotePort: sshd.port });
    expect(tunnel.status().state).to.equal('up');
    expect(questions.slice(1).map((text) => text.replace(/^\(.*\) /, ''))).to.deep.equal([
      'Password: ',
      'One-time code: ',
    ]);
  });

  it('goes through a host that asks as well', async () => {
    await using jump = await serve({ user: 'porter', factors: [byPassword('one')] });
    await using server = await serve({ factors: [byPassword('two')] });
    const config = join(server.dir, 'both');
    const texts = [readFileSync(jump.sshConfigFile, 'utf8').replace('Host rig', 'Host hop')];
    writeFileSync(
      config,
      ['IgnoreUnknown WarnWeakCrypto', ...texts, readFileSync(server.sshConfigFile, 'utf8')].join('\n'),
    );
    const answers: Record<string, string> = {
      "porter@127.0.0.1's password: ": 'one',
      "person@127.0.0.1's password: ": 'two',
    };
    const questions: string[] = [];
    const prompt: Prompt = ({ text }) => {
      questions.push(text);
      return answers[text] ?? '';
    };
    await using tunnel = await open({ ...server, sshConfigFile: config }, prompt, { jump: 'hop' });
    expect(tunnel.status().state).to.equal('up');
    expect(questions).to.deep.equal(Object.keys(answers));
    await tunnel.close();
    expect(left()).to.deep.equal([]);
  });

  it('asks nothing by itself when it was lost, and again when it is restarted', async () => {
    await using server = await serve();
    const { prompt, questions } = createTestPrompt(['secret', 'secret', 'secret']);
    await using tunnel = await open(server, prompt);
    server.drop();
    const lost = () => events.find((event) => event.type === 'tunnel.needs_auth');
    const event = await until(lost, { timeoutMs: 15_000 });
    expect(event).to.include({ why: 'lost' });
    const { state, reason, desired } = tunnel.status();
    expect({ state, reason, desired }).to.deep.equal({ state: 'stopped', reason: 'needs_auth', desired: 'down' });
    expect(questions).to.have.length(1);
    // The first one after a loss, the second one of a tunnel that is up; two at once are one.
    const [first, same] = await Promise.all([tunnel.restart(), tunnel.restart()]);
    expect([first.state, first === same, questions.length]).to.deep.equal(['up', true, 2]);
    expect((await tunnel.restart()).state).to.equal('up');
    expect(questions).to.have.length(3);
  });

  it('can be closed in the middle of a restart', async () => {
    await using server = await serve();
    let asked = 0;
    const prompt: Prompt = () => (++asked === 1 ? 'secret' : new Promise(() => undefined));
    await using tunnel = await open(server, prompt);
    const restarting = failureOf(tunnel.restart());
    await until(() => asked === 2, { timeoutMs: 15_000 });
    await tunnel.close();
    expect(await restarting).to.have.property('code', 'ERR_TUNNEL_CONFLICT');
    expect(left()).to.deep.equal([]);
  });

  it('leaves no ssh when it is killed in the middle of a question, and its folder to the next one', async () => {
    await using server = await serve();
    const child = spawn(process.execPath, [join(buildRoot, 'test/tunnel/asking/holder.js')], {
      env: env(),
      stdio: ['pipe', 'ignore', 'inherit', 'pipe', 'pipe'],
    });
    reaper.own(child);
    const [, , , secrets, settings] = child.stdio as unknown as Writable[];
    const options = { remoteHost: server.host, remotePort: 80, localPort: await freeLocalPort() };
    settings?.end(JSON.stringify({ ...options, sshConfig: server.sshConfigFile, env: env() }));
    secrets?.write(Buffer.alloc(32));
    const isAsking = () => reaper.living().some(({ command }) => command.includes('askpass.cjs'));
    expect(await until(isAsking, { timeoutMs: 20_000 })).to.equal(true);
    const gone = once(child, 'exit');
    process.kill(child.pid ?? 0, 'SIGKILL');
    await gone;
    // ssh has no answer, tries what it may without one, and ends.
    expect(await until(() => reaper.living().length === 0, { timeoutMs: 20_000 })).to.equal(true);
    expect(readdirSync(folder)).to.have.length(1);
    const { prompt } = createTestPrompt(['secret']);
    await using tunnel = await open(server, prompt);
    expect(tunnel.status().state).to.equal('up');
    expect(readdirSync(folder)).to.deep.equal([]);
  });
});
