import { expect } from 'chai';
import { until } from '#lib/time.js';
import type { Person } from '#lib/tunnel/asking/person.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import { createSupervisor, type Supervisor } from '#lib/tunnel/supervisor.js';
import { type AskingOptions, type AskingServer, byPasswordAndCode, startAsking } from '../../support/asking.js';
import { need } from '../../support/need.js';
import { createTestTerminal } from '../../support/person.js';
import { freeLocalPort } from '../../support/port.js';
import { createReaper, type Reaper } from '../../support/reaper.js';
import { makeSpec } from '../../support/specs.js';

/** Somebody who is asked by either way, and whether they are. */
interface Somebody {
  readonly person: Person;
  answer(question: RegExp, text: string): Promise<void>;
}

function atTerminal(): Somebody {
  const screen = createTestTerminal();
  return { person: screen, answer: (question, text) => screen.answer(question, `${text}\r`) };
}

function byFunction(): Somebody {
  const asked: { text: string; resolve: (answer: string) => void }[] = [];
  const prompt = ({ text }: { text: string }) => new Promise<string>((resolve) => asked.push({ text, resolve }));
  return {
    person: { prompt },
    async answer(question, text) {
      const isAsked = () => asked[0] !== undefined && question.test(asked[0].text);
      if (!(await until(isAsked, { timeoutMs: 15_000 }))) throw new Error(`not asked ${question}: ${asked[0]?.text}`);
      asked.shift()?.resolve(text);
    },
  };
}

for (const [way, sit] of [
  ['at a terminal', atTerminal],
  ['by a function', byFunction],
] as const) {
  describe(`a server that asks somebody ${way}`, function () {
    this.timeout(60_000);
    let server: AskingServer;
    let reaper: Reaper;
    let supervisor: Supervisor;
    let spec: TunnelSpec;
    let somebody: Somebody;

    before(function () {
      need(this, 'ssh', ...(sit === atTerminal ? (['pty'] as const) : []));
    });

    async function begin(options: AskingOptions = {}): Promise<void> {
      server = await startAsking({ factors: [byPasswordAndCode('secret', '123456')], ...options });
      reaper = createReaper();
      supervisor = createSupervisor({ env: { ...process.env, ...reaper.env, SSH_AUTH_SOCK: undefined } });
      spec = makeSpec({
        ...{ side: 'local', interactive: true, remoteHost: server.host, sshConfig: server.sshConfigFile },
        listen: { host: '127.0.0.1', port: await freeLocalPort() },
      });
      await supervisor.reconcile([spec]);
      somebody = sit();
    }
    afterEach(async () => {
      await supervisor.close();
      await server[Symbol.asyncDispose]();
      expect(await reaper.end()).to.deep.equal([]);
    });

    const logIn = () => supervisor.authenticate(spec.id, somebody.person).catch((error: unknown) => error);

    it('late, and is answered', async () => {
      await begin({ held: true });
      const login = logIn();
      await until(() => server.connections() > 0, { timeoutMs: 15_000 });
      expect(supervisor.status(spec.id).state).to.equal('starting');
      server.release();
      await somebody.answer(/Password: $/, 'secret');
      await somebody.answer(/code: $/, '123456');
      expect(await login).to.have.property('state', 'up');
    });

    it('and hangs up in the middle of it: that is said, and tried by nobody again', async () => {
      await begin();
      const login = logIn();
      await somebody.answer(/Password: $/, 'secret');
      await until(() => server.asked() > 0, { timeoutMs: 15_000 });
      server.hangUp();
      await somebody.answer(/code: $/, '123456');
      expect(await login).to.have.property('code', 'ERR_START_FAILED');
      const { state, reason, lastError } = supervisor.status(spec.id);
      expect({ state, reason }).to.deep.equal({ state: 'stopped', reason: 'refused' });
      expect(lastError).to.match(/^Connection (closed|reset) by /);
      expect(server.logins()).to.equal(0);
    });

    it('and is another one than before: nobody is asked anything, and it says what to do', async () => {
      await begin();
      server.changeHostKey();
      expect(await logIn()).to.have.property('code', 'ERR_START_FAILED');
      const { state, reason, remedy } = supervisor.status(spec.id);
      expect({ state, reason }).to.deep.equal({ state: 'stopped', reason: 'host_key_changed' });
      expect(remedy).to.match(/ssh-keygen .+ -R .+ 'tunward auth web'/);
      expect(server.asked()).to.equal(0);
    });

    it('again where an answer was wrong, and lets them in by the right one', async () => {
      await begin();
      const login = logIn();
      await somebody.answer(/Password: $/, 'wrong');
      await somebody.answer(/code: $/, '1');
      await somebody.answer(/Password: $/, 'secret');
      await somebody.answer(/code: $/, '123456');
      expect(await login).to.have.property('state', 'up');
      expect([server.wrong(), server.logins()]).to.deep.equal([1, 1]);
    });
  });
}
