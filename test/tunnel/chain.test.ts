import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { isTunwardError } from '#lib/errors.js';
import { openProc } from '#lib/proc/read.js';
import { systemClock, until } from '#lib/time.js';
import { createChains, findProgram, readSshFacts } from '#lib/tunnel/chain.js';
import type { Link } from '#lib/tunnel/engine.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import { createFakeClock } from '../support/fakeclock.js';
import { need } from '../support/need.js';
import { which } from '../support/paths.js';
import { freeLocalPort } from '../support/port.js';
import { environOf, sendSignal, statOf } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';
import { makeSpec } from '../support/specs.js';

const instance = 'f'.repeat(32);
const facts = 'printf "user me\\nhostname web\\nport 22\\nstricthostkeychecking true\\n"';

describe('chains', () => {
  const reaper = createReaper();
  let dir: string;
  let env: Record<string, string>;

  beforeEach(() => {
    dir = mkdtempSync(path.join(tmpdir(), 'tunward-test-'));
    env = { PATH: `${dir}:/usr/bin:/bin`, ...reaper.env };
  });

  afterEach(async () => {
    await reaper.end();
    rmSync(dir, { recursive: true });
  });

  /** A program in the folder that PATH names first. */
  function program(name: string, text: string, mode = 0o755): string {
    const file = path.join(dir, name);
    writeFileSync(file, text);
    chmodSync(file, mode);
    return file;
  }

  /** An ssh that answers -G, and else does what a test says. */
  function fakeSsh(does: string, answersWith = facts): string {
    return program('ssh', `#!/bin/sh\nif [ "$1" = -G ]; then ${answersWith}; exit; fi\n${does}\n`);
  }

  /** Starts a chain of the engine that the spec names; what it says, line by line, in `output`. */
  async function start(spec: TunnelSpec, signal = new AbortController().signal) {
    const output: string[] = [];
    const chains = createChains({ instance, env, knownHosts: null, proc: openProc(), clock: systemClock });
    const link = await chains.engineFor(spec).start(spec, { signal, onOutput: (line) => output.push(line) });
    if (link.root) reaper.ownPid(link.root.pid, link.root.startTicks);
    return { link, output };
  }

  async function becomes(link: Link, state: string): Promise<boolean> {
    return (await until(async () => (await link.check()) === state, { timeoutMs: 5000 })) === true;
  }

  async function failureOf(promise: Promise<unknown>) {
    const error = await promise.catch((reason: unknown) => reason);
    if (!isTunwardError(error, 'ERR_SPAWN_FAILED')) throw error;
    return { message: error.message, reason: error.info.reason };
  }

  describe('findProgram()', () => {
    it('finds the first that can be run, on the absolute folders of PATH alone', () => {
      const [one, two, three] = ['one', 'two', 'three'].map((name) => path.join(dir, name));
      for (const folder of [one, two, three]) mkdirSync(folder ?? '');
      mkdirSync(path.join(one ?? '', 'ssh'));
      program('two/ssh', 'not to be run', 0o644);
      const ssh = program('three/ssh', '#!/bin/sh\n');
      expect(findProgram('ssh', { PATH: `.:${one}::${two}:/nowhere:${three}:/usr/bin` })).to.equal(ssh);
      expect(findProgram('ssh', { PATH: path.relative(process.cwd(), three ?? '') })).to.equal(undefined);
      expect(findProgram('ssh', {})).to.equal(undefined);
    });

    it('takes autossh itself where a shell script is wrapped around it', function () {
      if (!existsSync('/usr/lib/autossh/autossh')) return need(this, 'autossh');
      program('autossh', '#!/bin/sh\nexec /usr/lib/autossh/autossh "$@"\n');
      expect(findProgram('autossh', env)).to.equal('/usr/lib/autossh/autossh');
      const binary = program('autossh', '\x7fELF');
      expect(findProgram('autossh', env)).to.equal(binary);
    });
  });

  describe('readSshFacts()', () => {
    it('says what ssh says of its configuration, which no retry can mend', async () => {
      const ssh = fakeSsh('', 'echo "cfg line 2: Bad port." >&2; echo "cfg: terminating, 1 bad" >&2; exit 255');
      expect(await failureOf(readSshFacts(ssh, ['--', 'web'], env))).to.deep.equal({
        message: 'ssh cannot use its configuration: cfg line 2: Bad port.',
        reason: 'bad_spec',
      });
    });

    it('does not take a name that cannot be resolved now for a bad configuration', async () => {
      const ssh = fakeSsh('', 'echo "ssh: Could not resolve hostname web: Temporary failure" >&2; exit 255');
      expect((await failureOf(readSshFacts(ssh, ['--', 'web'], env))).reason).to.equal('unreachable');
    });

    it('does not wait for what a Match exec leaves running', async () => {
      const ssh = fakeSsh('', `sleep 100 & ${facts}`);
      expect(await readSshFacts(ssh, ['--', 'web'], env)).to.include({ user: 'me', hostname: 'web' });
    });

    describe('with the real ssh', () => {
      before(function () {
        need(this, 'ssh');
      });

      const real = () => which('ssh') ?? '';

      it('reads where it goes and whom it trusts', async () => {
        const words = ['-F', '/dev/null', '-p', '2222', '--', 'me@web.example'];
        expect(await readSshFacts(real(), words, env)).to.include({
          user: 'me',
          hostname: 'web.example',
          port: '2222',
          strictHostKeyChecking: 'ask',
        });
      });

      it('applies the person’s own configuration', async () => {
        const file = program(
          'config',
          'Host web\n HostName 10.0.0.1\n StrictHostKeyChecking yes\n ForkAfterAuthentication yes\n',
          0o600,
        );
        const read = await readSshFacts(real(), ['-F', file, '--', 'web'], env);
        expect(read).to.include({ hostname: '10.0.0.1' });
        expect(read.strictHostKeyChecking).not.to.equal('ask');
      });

      it('tells a bad configuration by what ssh says of it', async () => {
        const file = program('config', 'Host web\n Bogus yes\n', 0o600);
        const failure = await failureOf(readSshFacts(real(), ['-F', file, '--', 'web'], env));
        expect(failure.reason).to.equal('bad_spec');
        expect(failure.message).to.match(/line 2: Bad configuration option: bogus/);
      });

      it('cannot be made to run a command by its destination', async () => {
        const canary = path.join(dir, 'canary');
        const words = ['-F', '/dev/null', '--', `-oProxyCommand=touch ${canary}`];
        await failureOf(readSshFacts(real(), words, env));
        expect(existsSync(canary)).to.equal(false);
      });
    });
  });

  describe('a start', () => {
    it('says what is missing and how to get it', async () => {
      env.PATH = dir;
      const { message } = await failureOf(start(makeSpec()));
      expect(message).to.equal(`Cannot find ssh on PATH (${dir}): install openssh-client`);
    });

    it('leaves a ProxyJump to ssh that it could not give to ssh itself, and says so', async () => {
      fakeSsh('exec sleep 100', facts.replace('user me', 'proxyjump a+b@c\\nuser me'));
      const { link, output } = await start(makeSpec());
      expect(output).to.deep.equal([
        'ProxyJump a+b@c of ssh_config is left to ssh: its hops are given none of our options',
      ]);
      expect(readFileSync(`/proc/${link.root?.pid}/cmdline`, 'utf8')).not.to.contain('Proxy');
      await link.stop();
    });

    it('fails with the kernel’s word where the program cannot be run, and leaves no timer', async () => {
      const timers = () => process.getActiveResourcesInfo().filter((type) => type === 'Timeout').length;
      await new Promise(setImmediate); // from now on mocha has one for this test
      const before = timers();
      program('ssh', '#!/nowhere/sh\n');
      expect(await failureOf(start(makeSpec()))).to.deep.equal({
        message: `Cannot run ${dir}/ssh: spawn ${dir}/ssh ENOENT`,
        reason: undefined,
      });
      fakeSsh('exec sleep 100');
      const tooLong = makeSpec({ sshOptions: { User: 'x'.repeat(200_000) } });
      expect((await failureOf(start(tooLong))).message).to.match(/^Cannot run .*: spawn E2BIG/);
      expect(timers()).to.equal(before);
    });

    it('asks ssh where it goes once for all with the same words, and again after a failure', async () => {
      const count = path.join(dir, 'count');
      const spec = makeSpec();
      const other = makeSpec({ name: 'other', side: 'local', listen: { host: 'localhost', port: 9444 } });
      const chains = createChains({ instance, env, knownHosts: null, proc: openProc(), clock: systemClock });
      fakeSsh('', `echo >>${count}; exit 255`);
      expect(await chains.resolveSpec(spec)).to.equal(undefined);
      fakeSsh('', `echo >>${count}; ${facts}`);
      expect(await Promise.all([chains.resolveSpec(spec), chains.resolveSpec(other)])).to.deep.equal([
        'me@web:22',
        'me@web:22',
      ]);
      expect(readFileSync(count, 'utf8')).to.equal('\n\n');
      await chains.resolveSpec(makeSpec({ sshOptions: { Port: '2222' } }));
      expect(readFileSync(count, 'utf8')).to.equal('\n\n\n');
    });

    it('asks ssh anew for a start that somebody asks for, and after a minute', async () => {
      const count = path.join(dir, 'count');
      const spec = makeSpec();
      const clock = createFakeClock();
      const chains = createChains({ instance, env, knownHosts: null, proc: openProc(), clock });
      fakeSsh('', `echo >>${count}; ${facts}`);
      expect(await chains.resolveSpec(spec)).to.equal('me@web:22');
      fakeSsh('', `echo >>${count}; ${facts.replace('web', 'moved')}`);
      expect(await chains.resolveSpec(spec)).to.equal('me@web:22');
      chains.refresh(spec);
      // Whoever asks while the answer is under way gets that one.
      chains.refresh(spec);
      expect(await chains.resolveSpec(spec)).to.equal('me@moved:22');
      expect(readFileSync(count, 'utf8')).to.equal('\n\n');
      fakeSsh('', `echo >>${count}; ${facts}`);
      await clock.advance(59_999);
      expect(await chains.resolveSpec(spec)).to.equal('me@moved:22');
      await clock.advance(1);
      expect(await chains.resolveSpec(spec)).to.equal('me@web:22');
    });

    it('that is called off is over at once, and starts nobody', async () => {
      const started = path.join(dir, 'started');
      fakeSsh(`touch ${started}; exec sleep 100`, `touch ${started}.asked; sleep 100; ${facts}`);
      const off = new AbortController();
      const starting = start(makeSpec(), off.signal).catch((error: unknown) => error);
      expect(await until(() => existsSync(`${started}.asked`), { timeoutMs: 5000 })).to.equal(true);
      off.abort(new Error('called off'));
      expect(await starting).to.have.property('message', 'called off');
      expect(existsSync(started)).to.equal(false);
    });

    for (const engine of ['ssh', 'autossh'] as const) {
      it(`hands ${engine} its marker and nothing of the environment that could harm`, async function () {
        if (engine === 'autossh' && !existsSync('/usr/lib/autossh/autossh')) return need(this, 'autossh');
        if (engine === 'autossh') program('autossh', '#!/bin/sh\n');
        const seen = path.join(dir, 'seen');
        fakeSsh(`env >${seen}.tmp; mv ${seen}.tmp ${seen}; exec sleep 100`);
        const kept = { HOME: '/root', LANG: 'C', LC_ALL: 'C', SSH_AUTH_SOCK: '/run/agent', TZ: 'UTC', USER: 'me' };
        const canary = path.join(dir, 'canary');
        const dangerous = {
          ...{ AUTOSSH_LOGFILE: canary, AUTOSSH_PIDFILE: canary, AUTOSSH_PORT: '0', AUTOSSH_DEBUG: '1' },
          ...{ AUTOSSH_PATH: '/bin/false', AUTOSSH_GATETIME: '30', LD_PRELOAD: '/nowhere.so', LD_LIBRARY_PATH: '/x' },
          ...{
            SSH_ASKPASS: '/x',
            SSH_ASKPASS_REQUIRE: 'force',
            NODE_OPTIONS: '--inspect',
            DISPLAY: ':0',
            BASH_ENV: '/x',
          },
          ...{ TUNNEL_ID: 'somebody else', TUNWARD_INSTANCE: 'other', MY_PATH: '/x', SECRET: 'x', PATHX: '/x' },
        };
        Object.assign(env, kept, dangerous);
        const spec = makeSpec({ engine });
        const { link } = await start(spec);
        expect(await until(() => existsSync(seen), { timeoutMs: 5000 })).to.equal(true);
        // It is on its way into sleep: inside execve an environment reads empty.
        const shown = () => environOf(link.root?.pid ?? 0);
        await until(() => shown().length > 0, { timeoutMs: 5000 });
        const root = shown();
        const ssh = readFileSync(seen, 'utf8').split('\n');
        for (const environ of [root, ssh]) {
          expect(environ).to.include.members(Object.entries(kept).map(([name, value]) => `${name}=${value}`));
          expect(environ).to.include.members([`TUNNEL_ID=${spec.id}`, `TUNWARD_INSTANCE=${instance}`]);
          const names = environ.map((entry) => entry.split('=')[0] ?? '');
          const passed = Object.keys(dangerous).filter((name) => !/^(TUN|AUTOSSH_(PATH|GATETIME)$)/.test(name));
          expect(names).not.to.include.members(passed);
          expect(names.filter((name) => passed.includes(name))).to.deep.equal([]);
        }
        const ours = root.filter((entry) => entry.startsWith('AUTOSSH_')).sort();
        const autossh = ['AUTOSSH_GATETIME=0', 'AUTOSSH_MAXSTART=1', `AUTOSSH_PATH=${path.join(dir, 'ssh')}`];
        expect(ours).to.deep.equal(engine === 'autossh' ? autossh : []);
        expect(existsSync(canary)).to.equal(false);
        expect((await link.stop()).survivors).to.deep.equal([]);
      });
    }

    it('puts the chain in a session of its own', async () => {
      fakeSsh('exec sleep 100');
      const { link } = await start(makeSpec());
      const { pid = 0 } = link.root ?? {};
      expect(statOf(pid)).to.include({ sid: pid, pgid: pid });
    });
  });

  describe('a link', () => {
    // Listens on as many of the -L addresses as it is told to.
    const listening = (addresses: number) => `exec ${process.execPath} -e '
      const binds = process.argv.filter((_word, at) => process.argv[at - 1] === "-L");
      for (const bind of binds.slice(0, ${addresses})) {
        const [, host, port] = /^\\[?([^\\]]+?)\\]?:(\\d+):localhost:443$/.exec(bind);
        require("net").createServer().listen({ port, host, ipv6Only: true });
      }' -- "$@"`;

    it('is ready when its own processes listen on every address, not on some', async function () {
      need(this, 'ipv6');
      const listen = { host: 'localhost', port: await freeLocalPort() };
      fakeSsh(listening(1));
      const half = (await start(makeSpec({ side: 'local', listen }))).link;
      expect(await until(() => accepts(listen.port), { timeoutMs: 5000 })).to.equal(true);
      expect(await half.check()).to.equal('waiting');
      await half.stop();
      fakeSsh(listening(2));
      const whole = (await start(makeSpec({ side: 'local', listen }))).link;
      expect(await becomes(whole, 'ready')).to.equal(true);
      await whole.stop();
      expect(await whole.check()).to.equal('waiting');
    });

    it('is ready also on an address that is written in another way', async function () {
      need(this, 'ipv6');
      fakeSsh(listening(1));
      const listen = { host: '0:0:0:0:0:0:0:1', port: await freeLocalPort() };
      const { link } = await start(makeSpec({ side: 'local', listen }));
      expect(await becomes(link, 'ready')).to.equal(true);
    });

    it('is not ready by a stranger who listens there', async () => {
      const listen = { host: '127.0.0.1', port: await freeLocalPort() };
      const stranger = net.createServer();
      await new Promise<void>((resolve) => stranger.listen(listen, resolve));
      fakeSsh('exec sleep 100');
      const { link } = await start(makeSpec({ side: 'local', listen }));
      expect(await link.check()).to.equal('waiting');
      await new Promise((resolve) => stranger.close(resolve));
    });

    it('is ready when ssh says that the remote forward was granted', async () => {
      fakeSsh('echo "debug1: remote forward success for: listen 127.0.0.1:9443" >&2; echo Welcome >&2; exec sleep 100');
      const { link, output } = await start(makeSpec({ side: 'remote' }));
      expect(await becomes(link, 'ready')).to.equal(true);
      expect(await until(() => link.lastLine(), { timeoutMs: 5000 })).to.equal('Welcome');
      expect(output).to.deep.equal(['Welcome']);
    });

    it('is frozen while a process of it is stopped by a signal', async () => {
      fakeSsh('exec sleep 100');
      const { link } = await start(makeSpec({ side: 'remote' }));
      if (!link.root) throw new Error('no root');
      sendSignal(link.root, 'SIGSTOP');
      expect(await becomes(link, 'frozen')).to.equal(true);
      sendSignal(link.root, 'SIGCONT');
      expect(await becomes(link, 'waiting')).to.equal(true);
      sendSignal(link.root, 'SIGSTOP');
      const { killed, survivors } = await link.stop();
      expect([killed.map(({ pid }) => pid), survivors]).to.deep.equal([[link.root.pid], []]);
      expect(await link.exited).to.include({ signal: 'SIGKILL', reason: 'killed' });
    });

    it('tells how it ended, with the last words, though an orphan keeps the pipe open', async () => {
      fakeSsh(
        'sleep 100 & echo first >&2; printf "ssh: connect to host web port 22: Connection refused" >&2; exit 255',
      );
      const { link, output } = await start(makeSpec());
      const lastError = 'ssh: connect to host web port 22: Connection refused';
      expect(await link.exited).to.deep.equal({ code: 255, signal: null, reason: 'refused', lastError });
      expect(output).to.deep.equal(['first', lastError]);
      // The orphan is its leftover: a stop finds it by the marker.
      const { killed } = await link.stop();
      expect(killed.map(({ command }) => command)).to.deep.equal(['sleep 100']);
      expect(await link.stop()).to.deep.include({ killed: [], survivors: [] });
    });

    it('hears all of one who talks too much, and hands on what a person can read, in one life as in two', async () => {
      const flood = '{ seq 3000; echo "debug1: remote forward success for: listen 127.0.0.1:9443"; seq 2000; } >&2';
      fakeSsh(`${flood}; sleep 0.2; echo "ssh: connect to host web port 22: Connection refused" >&2; exit 255`);
      const chains = createChains({ instance, env, knownHosts: null, proc: openProc(), clock: systemClock });
      const spec = makeSpec();
      const output: string[] = [];
      for (const life of [1, 2]) {
        const signal = new AbortController().signal;
        const link = await chains.engineFor(spec).start(spec, { signal, onOutput: (line) => output.push(line) });
        if (link.root) reaper.ownPid(link.root.pid, link.root.startTicks);
        expect(await becomes(link, 'ready'), 'it has heard of the grant').to.equal(true);
        expect(await link.exited, `life ${life}`).to.include({ code: 255, reason: 'refused' });
      }
      expect(output.slice(0, 50)).to.deep.equal(Array.from({ length: 50 }, (_none, at) => String(at + 1)));
      expect(output.length, 'both lives together').to.be.lessThan(100);
      for (const line of [output[50], output.at(-1)]) expect(line).to.match(/^… [45],\d{3} lines not shown$/);
    });

    it('is heard in slices, so that everybody else has a turn while it talks without end', async () => {
      fakeSsh('yes | dd bs=1M iflag=fullblock count=20 >&2 2>/dev/null; echo over >&2; exec sleep 100');
      const { link } = await start(makeSpec());
      const turns: number[] = [];
      while (link.lastLine() !== 'over') {
        // Time on the processor, of which a busy machine gives us no more than it did before.
        const before = process.cpuUsage();
        await systemClock.sleep(0);
        const { user, system } = process.cpuUsage(before);
        turns.push((user + system) / 1000);
      }
      // Half of the work or more is done in turns of that length: one in which garbage is collected says nothing.
      const busy = turns.sort((one, other) => other - one);
      const half = busy.reduce((sum, ms) => sum + ms, 0) / 2;
      let done = 0;
      const typical = busy.find((ms) => {
        done += ms;
        return done >= half;
      });
      // A slice is 4 ms and what is left of a chunk: 15 to 33 ms here. All that Node brings in one turn were 64 to 95.
      expect(typical, 'ms of work in a turn of the event loop').to.be.lessThan(50);
    });

    it('is stopped once by all who ask at the same time', async () => {
      fakeSsh('exec sleep 100');
      const { link } = await start(makeSpec());
      const [one, two] = await Promise.all([link.stop(), link.stop()]);
      expect(one).to.equal(two);
    });
  });
});

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ port, host: '127.0.0.1' });
    socket.once('error', () => resolve(false));
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
  });
}
