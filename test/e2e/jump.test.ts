import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net, { type AddressInfo } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { isTunwardError } from '#lib/errors.js';
import { openProc } from '#lib/proc/read.js';
import { systemClock, until } from '#lib/time.js';
import { parseSshCommand } from '#lib/tunnel/arguments.js';
import { createChains } from '#lib/tunnel/chain.js';
import type { TunnelStatus } from '#lib/tunnel/runner.js';
import { parseHop, type TunnelSpec } from '#lib/tunnel/spec.js';
import { createSupervisor, type Supervisor } from '#lib/tunnel/supervisor.js';
import { need } from '../support/need.js';
import { repoRoot } from '../support/paths.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive, sendSignal } from '../support/proc.js';
import { createReaper, type Reaper } from '../support/reaper.js';
import { makeRootfs, runInRootfs } from '../support/rootfs.js';
import { makeSpec } from '../support/specs.js';
import { type Sshd, startSshd } from '../support/sshd.js';

/** Two hosts on the way and one at its end, each an sshd with keys of its own, and a person's ssh_config for them. */
/** A machine that is busy with other tests takes seconds for three handshakes one in another. */
const patient = { startTimeoutMs: 60_000, restartTimeoutMs: 60_000 };

describe('a tunnel through other hosts', () => {
  const reaper = createReaper();
  const servers: Sshd[] = [];
  let dir: string;
  let echo: net.Server;
  let supervisor: Supervisor;

  before(async function () {
    this.timeout(60_000);
    need(this, 'ssh', 'sshd');
    dir = mkdtempSync(join(tmpdir(), "tunward jump's "));
    for (let at = 0; at < 3; at++) servers.push(await startSshd({ extra: ['LogLevel VERBOSE'] }));
    echo = net.createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1');
    await once(echo, 'listening');
  });

  after(async () => {
    await Promise.all(servers.map((server) => server.stop()));
    echo?.close();
    if (dir) rmSync(dir, { recursive: true });
  });

  afterEach(async () => {
    await supervisor?.close();
    expect(reaper.living(), 'what a tunnel left behind').to.deep.equal([]);
    await reaper.end();
  });

  /** A person's ssh_config: `one` and `two` are on the way to `target`; lines of a host come before its usual ones. */
  function configure(lines: Readonly<Record<string, readonly string[]>> = {}): string {
    const hosts = ['one', 'two', 'target'].map((name, at) => {
      const { port, identityFile, knownHostsFile } = servers[at] ?? fail();
      const usual = [
        ...['HostName 127.0.0.1', `Port ${port}`, `User ${userInfo().username}`, `IdentityFile ${identityFile}`],
        ...['IdentitiesOnly yes', `UserKnownHostsFile ${knownHostsFile}`],
      ];
      return `Host ${name}\n${[...(lines[name] ?? []), ...usual].map((line) => `  ${line}\n`).join('')}`;
    });
    const file = join(dir, "ssh config 100%'s");
    writeFileSync(file, hosts.join(''));
    return file;
  }

  async function specOf(
    jump: readonly string[],
    { lines = {}, ...changes }: Partial<TunnelSpec> & { lines?: Readonly<Record<string, readonly string[]>> } = {},
  ): Promise<TunnelSpec> {
    const hops = jump.map(parseHop).map((hop) => (typeof hop === 'string' ? fail(hop) : hop));
    const listen = { host: '127.0.0.1', port: await freeLocalPort() };
    const sshConfig = configure(lines);
    const spec = makeSpec({
      side: 'local',
      remoteHost: 'target',
      listen,
      jump: hops,
      sshConfig,
      ...patient,
      ...changes,
    });
    const { port } = echo.address() as AddressInfo;
    return { ...spec, forward: { ...spec.forward, target: { host: '127.0.0.1', port } } };
  }

  /** Starts it; the answer comes when it is up. */
  async function start(spec: TunnelSpec, env: NodeJS.ProcessEnv = {}): Promise<TunnelStatus> {
    supervisor = createSupervisor({
      env: { ...process.env, ...reaper.env, ...env },
      knownHosts: join(dir, 'known hosts'),
    });
    await supervisor.reconcile([spec]);
    return (await supervisor.start(spec.id)).tunnel;
  }

  async function answers(spec: TunnelSpec): Promise<string> {
    const socket = net.connect(spec.forward.listen.port, '127.0.0.1');
    socket.write('there and back');
    const [data] = await once(socket, 'data');
    socket.destroy();
    return String(data);
  }

  const logins = (server: number) => servers[server]?.log().match(/^Accepted publickey/gm)?.length ?? 0;

  it('goes the whole way, each ssh of it with the fixed options, and no shell is left in between', async () => {
    const before = [0, 1, 2].map(logins);
    const spec = await specOf(['one', 'two']);
    const { chain } = await start(spec);
    expect(await answers(spec)).to.equal('there and back');
    expect([0, 1, 2].map(logins)).to.deep.equal(before.map((count) => count + 1));
    expect(chain).to.have.length(3);
    for (const { pid } of chain) {
      const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      expect(argv[0]).to.match(/\/ssh$/);
      expect(argv).to.include.members([
        '-S',
        'ControlMaster=no',
        'ControlPersist=no',
        'PermitLocalCommand=no',
        'BatchMode=yes',
      ]);
    }
  });

  it('does so below autossh, and whatever the person’s shell is', async function () {
    need(this, 'autossh');
    const spec = await specOf(['one', 'two'], { engine: 'autossh' });
    expect((await start(spec, { SHELL: '/bin/false' })).chain).to.have.length(4);
    expect(await answers(spec)).to.equal('there and back');
  });

  it('leaves nobody behind at a restart, and at a stop', async () => {
    const spec = await specOf(['one', 'two']);
    let { chain } = await start(spec);
    for (let round = 0; round < 5; round++) {
      const { tunnel } = await supervisor.restart(spec.id);
      expect(chain.filter(({ pid, startTicks }) => isAlive(pid, startTicks))).to.deep.equal([]);
      ({ chain } = tunnel);
    }
    await supervisor.stop(spec.id);
    expect(chain.filter(({ pid, startTicks }) => isAlive(pid, startTicks))).to.deep.equal([]);
  });

  it('takes down a command of the person’s before the first hop, which ignores the end of everything', async function () {
    need(this, 'python3');
    const relay = join(dir, 'relay.py');
    writeFileSync(relay, RELAY);
    const spec = await specOf(['one', 'two'], { lines: { one: [`ProxyCommand python3 "${relay}" %h %p`] } });
    const { chain } = await start(spec);
    expect(chain.map(({ command }) => /relay\.py/.test(command))).to.include(true);
    await supervisor.restart(spec.id);
    expect(chain.filter(({ pid, startTicks }) => isAlive(pid, startTicks))).to.deep.equal([]);
    expect(await answers(spec)).to.equal('there and back');
  });

  it('is frozen with any ssh on the way, and comes back without it', async function () {
    this.timeout(30_000);
    const spec = await specOf(['one', 'two']);
    const { chain } = await start(spec);
    const hop = chain.at(-1) ?? fail();
    sendSignal(hop, 'SIGSTOP');
    const frozen = () => supervisor.status(spec.id).reason === 'frozen';
    expect(await until(frozen, { timeoutMs: 5000 })).to.equal(true);
    const back = () => supervisor.status(spec.id).state === 'up' && supervisor.status(spec.id).pid !== chain[0]?.pid;
    expect(await until(back, { timeoutMs: 15_000 })).to.equal(true);
    expect(isAlive(hop.pid, hop.startTicks)).to.equal(false);
    expect(await answers(spec)).to.equal('there and back');
  });

  it('goes through what the person’s ProxyJump names, with the same options', async () => {
    const spec = await specOf([], { lines: { target: ['ProxyJump one,two'] } });
    const { chain } = await start(spec);
    expect(await answers(spec)).to.equal('there and back');
    const commands = chain.map(({ pid }) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0'));
    expect(commands.map((argv) => argv.includes('ControlMaster=no'))).to.deep.equal([true, true, true]);
    expect(commands.map((argv) => argv.at(-2))).to.deep.equal(['target', 'two', 'one']);
  });

  it('minds nothing that the person’s configuration has for other uses of a hop', async () => {
    const taken = await freeLocalPort();
    const lines = [`LocalForward ${taken} 127.0.0.1:1`, 'RemoteCommand sleep 1000', 'RequestTTY force'];
    const spec = await specOf(['one', 'two'], {
      lines: {
        one: [...lines, 'ForkAfterAuthentication yes', 'ClearAllForwardings no'],
        two: [...lines, 'ProxyJump nowhere', 'ProxyUseFdpass yes'],
        target: ['ProxyUseFdpass yes', 'ProxyJump nowhere'],
      },
    });
    expect((await start(spec)).chain).to.have.length(3);
    expect(await answers(spec)).to.equal('there and back');
    expect(await isListening(taken)).to.equal(false);
  });

  it('learns the host key of every hop, into the file of its own', async () => {
    const unknown = ['UserKnownHostsFile /dev/null', 'StrictHostKeyChecking ask'];
    const file = join(dir, 'known hosts');
    rmSync(file, { force: true });
    const spec = await specOf(['one', 'two'], { lines: { one: unknown, two: unknown, target: unknown } });
    await start(spec);
    const learnt = readFileSync(file, 'utf8').trim().split('\n');
    expect(learnt).to.have.length(3);
  });

  it('is known again by its way: the same address behind another host is another place', async () => {
    const spec = await specOf(['one', 'two']);
    const { pid } = await start(spec);
    const chains = createChains({
      instance: '',
      env: process.env,
      knownHosts: null,
      proc: openProc(),
      clock: systemClock,
    });
    const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
    const { destinationWords = [] } = parseSshCommand(argv, 'ssh') ?? {};
    const goesTo = (...words: string[]) => chains.resolve([...words, '--', 'target']);
    const own = await chains.resolveSpec(spec);
    expect(own).to.match(/^\S+@127\.0\.0\.1:\d+ via one,two$/);
    expect(await goesTo(...destinationWords), 'our own chain').to.equal(own);
    const configFile = spec.sshConfig ?? '';
    const person = parseSshCommand(['ssh', '-F', configFile, '-J', 'one,two', '-N', '-L', '1:a:2', 'target'], 'ssh');
    expect(await goesTo(...(person?.destinationWords ?? [])), 'a person’s ssh -J').to.equal(own);
    expect(await goesTo('-F', configFile, '-J', 'one'), 'another way').not.to.equal(own);
    expect(await goesTo('-F', configFile), 'straight there').not.to.equal(own);
  });

  describe('with a hop that a person shares a connection to', () => {
    const socket = () => join(dir, 'mux');
    const sharing = () => ['ControlMaster auto', `ControlPath "${socket()}"`, 'ControlPersist yes'];

    it('neither uses nor ends the person’s master, nor the session in it', async () => {
      const sshConfig = configure({ one: sharing() });
      const person = createReaper();
      try {
        const session = startSession(person, sshConfig);
        expect(
          await until(() => existsSync(socket()) && session.said().includes('in'), { timeoutMs: 10_000 }),
        ).to.equal(true);
        const master = masterOf(sshConfig);
        const spec = await specOf(['one', 'two'], { lines: { one: sharing() } });
        const before = logins(0);
        const { chain } = await start(spec);
        expect(logins(0), 'a connection of its own').to.equal(before + 1);
        expect(chain.map(({ pid }) => pid)).not.to.include(master);
        await supervisor.restart(spec.id);
        sendSignal(supervisor.status(spec.id).chain.at(-1) ?? fail(), 'SIGKILL');
        expect(await until(() => supervisor.status(spec.id).restarts === 2, { timeoutMs: 10_000 })).to.equal(true);
        await supervisor.close();
        expect(masterOf(sshConfig), 'the master').to.equal(master);
        session.say('still here');
        expect(await until(() => session.said().includes('still here'), { timeoutMs: 5000 })).to.equal(true);
      } finally {
        execFileSync('ssh', ['-F', sshConfig, '-O', 'exit', 'one'], { stdio: 'ignore' });
        await person.end();
      }
    });

    it('makes no master that others would come to share', async () => {
      const spec = await specOf(['one', 'two'], { lines: { one: sharing() } });
      await start(spec);
      expect(existsSync(socket())).to.equal(false);
    });
  });

  describe('that does not lead there', () => {
    async function failure(spec: TunnelSpec): Promise<string> {
      const error = await start(spec).catch((reason: unknown) => reason);
      if (!isTunwardError(error, 'ERR_START_FAILED')) throw error;
      return `${error.info.reason}: ${error.info.lastError}`;
    }

    it('says which hop lets nobody in', async () => {
      const spec = await specOf(['one', 'two'], { lines: { two: ['User stranger'] } });
      expect(await failure(spec)).to.match(/^auth_failed: stranger@127\.0\.0\.1: Permission denied/);
    });

    it('says that the hop is not there', async () => {
      const spec = await specOf([`127.0.0.1:${await freeLocalPort()}`]);
      expect(await failure(spec)).to.match(/^refused: ssh: connect to host 127\.0\.0\.1 port \d+: Connection refused/);
    });

    it('says that the hop cannot go on', async () => {
      const spec = await specOf(['one'], { sshOptions: { Port: String(await freeLocalPort()) } });
      expect(await failure(spec)).to.equal('refused: channel 0: open failed: connect failed: Connection refused');
    });
  });

  /** A shell on the first hop, as a person has it: it becomes the master of its connection, or a guest of one. */
  function startSession(owner: Reaper, sshConfig: string) {
    const child = spawn('ssh', ['-F', sshConfig, 'one', 'echo in; cat'], { env: { ...process.env, ...owner.env } });
    owner.own(child);
    let said = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    return { said: () => said, say: (text: string) => child.stdin.write(`${text}\n`) };
  }

  function masterOf(sshConfig: string): number {
    const answer = execFileSync('sh', ['-c', 'exec ssh -F "$1" -O check one 2>&1', 'sh', sshConfig], {
      encoding: 'utf8',
    });
    return Number(/pid=(\d+)/.exec(answer)?.[1]);
  }
});

describe('a tunnel through other hosts where there is no shell', () => {
  let root: string;
  before(function () {
    need(this, 'ssh', 'root', 'unshare');
    root = mkdtempSync(join(tmpdir(), 'tunward-root-'));
    makeRootfs(root, ['ssh']);
  });
  after(() => {
    if (root) rmSync(root, { recursive: true });
  });

  const run = (...words: string[]) => {
    const argv = ['node', '/app/lib/cli/main.js', ...words];
    return runInRootfs(root, argv, { bind: [[repoRoot, '/app']], anyExit: true });
  };

  it('is warned of by validate', async () => {
    const tunnel = { remote_host: 'me@target', remote_port: 80, local_port: 9001, jump: 'bastion' };
    writeFileSync(join(root, 'tunward.yaml'), JSON.stringify({ tunnels: [tunnel] }));
    const { code, stderr } = await run('validate', '-c', '/tunward.yaml');
    expect(code).to.equal(0);
    expect(stderr).to.match(
      /^warning: \/tunward\.yaml:1:\d+: tunnels\[0\]\.jump: expected \/bin\/sh, by which ssh goes/,
    );
  });

  it('says so when it is started', async () => {
    const { code, stderr } = await run('open', '-J', 'bastion', '-L', '9001:127.0.0.1:1', 'me@target');
    expect(code).to.equal(1);
    expect(stderr).to.contain('Cannot go through bastion: ssh needs /bin/sh for that, found none');
  });
});

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1', () => resolve(true));
    socket.once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

function fail(message = 'missing'): never {
  throw new Error(message);
}

/** Carries bytes, and stays whatever happens: no signal but SIGKILL ends it, and no end of its input. */
const RELAY = `
import os, signal, socket, sys, threading, time
for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def back():
    while True:
        data = peer.recv(65536)
        if not data: break
        try: os.write(1, data)
        except OSError: break
threading.Thread(target=back, daemon=True).start()
while True:
    data = os.read(0, 65536)
    if data: peer.sendall(data)
    else: time.sleep(1)
`;
