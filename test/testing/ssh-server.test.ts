import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import net, { type AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { Duplex, PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { expect } from 'chai';
import type { ConnectConfig } from 'ssh2';
import { startSshServer, type TestSshServer, type TestSshServerOptions } from 'tunward/testing';
import { isTunwardError } from '#lib/errors.js';
import { createFaults } from '#lib/sshd/faults.js';
import { until } from '#lib/time.js';
import { loadSsh2 } from '#lib/tunnel/embedded/ssh2.js';
import { need } from '../support/need.js';
import { repoRoot } from '../support/paths.js';
import { freeLocalPort } from '../support/port.js';
import { createReaper } from '../support/reaper.js';

const ssh2 = loadSsh2();
const isMissing = { timeoutMs: 10_000 };

describe('startSshServer()', () => {
  const reaper = createReaper();
  const opened: (() => unknown)[] = [];

  afterEach(async () => {
    for (const undo of opened.splice(0).reverse()) await undo();
    await reaper.end();
  });

  async function start(options?: TestSshServerOptions): Promise<TestSshServer> {
    const server = await startSshServer(options);
    opened.push(server.close);
    return server;
  }

  /** Says `hello`, and at the client's end how many bytes that has sent, and `bye`. */
  async function startTarget(): Promise<number> {
    const sockets = new Set<net.Socket>();
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      sockets.add(socket);
      let bytes = 0;
      socket.on('error', () => socket.destroy());
      socket.on('data', (chunk) => {
        bytes += chunk.length;
      });
      socket.write('hello ');
      socket.once('end', () => socket.end(`${bytes} bye`));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    opened.push(() => {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => server.close(resolve));
    });
    return (server.address() as AddressInfo).port;
  }

  /** The real ssh, with nothing of this machine's. */
  function ssh(server: TestSshServer, ...words: string[]) {
    const argv = ['-F', server.sshConfigFile, '-N', '-o', 'BatchMode=yes', '-o', 'ExitOnForwardFailure=yes', ...words];
    const child = spawn('ssh', [...argv, server.tunnelOptions.remoteHost], {
      env: { ...process.env, ...reaper.env },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    reaper.own(child);
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      said += chunk;
    });
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
    return { child, said: () => said, ended };
  }

  /** What comes back for so many bytes, with an end of ours after them. */
  async function ask(port: number, bytes = 5): Promise<string> {
    const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    opened.push(() => socket.destroy());
    await once(socket, 'connect');
    socket.end(Buffer.alloc(bytes));
    return text(socket);
  }

  async function listens(port: number): Promise<void> {
    const knock = () =>
      new Promise<boolean>((resolve) => {
        const socket = net.connect(port, '127.0.0.1');
        socket.once('error', () => resolve(false));
        socket.once('connect', () => resolve(true) ?? socket.destroy());
      });
    expect(await until(knock, { timeoutMs: 10_000, everyMs: 20 })).to.equal(true);
  }

  /** ssh2's own client; resolves to 'ready' or what was said against it. */
  async function login(server: TestSshServer, config: ConnectConfig & { prompts?: string[] } = {}): Promise<string> {
    const client = new ssh2.Client();
    opened.push(() => client.end());
    client.on('keyboard-interactive', (_name, _instructions, _lang, prompts, answer) => {
      config.prompts?.push(...prompts.map(({ prompt, echo }) => `${prompt}${echo ? ' (seen)' : ''}`));
      answer(['123456', 'red']);
    });
    const ended = new Promise<string>((resolve) => {
      client.once('ready', () => resolve('ready'));
      client.on('error', ({ message }) => resolve(message));
      client.once('close', () => resolve('closed'));
    });
    const { prompts: _, ...rest } = config;
    client.connect({ host: server.host, port: server.port, username: server.username, ...rest });
    const answer = await ended;
    client.end();
    return answer;
  }

  describe('with the real ssh', () => {
    before(function () {
      need(this, 'ssh');
    });

    it('lets its own key in and forwards to the target, each end of a connection on its own', async () => {
      const server = await start();
      const target = await startTarget();
      const port = await freeLocalPort();
      const { said } = ssh(server, '-L', `127.0.0.1:${port}:127.0.0.1:${target}`);
      await listens(port);
      expect(await ask(port, 3_000_000), said()).to.equal('hello 3000000 bye');
      const forward = await server.waitFor(() => server.forwards.find(({ bytesFromClient }) => bytesFromClient > 0));
      expect(forward).to.include({ kind: 'direct-tcpip', host: '127.0.0.1', port: target, accepted: true, streams: 1 });
      expect(forward).to.include({ bytesFromClient: 3_000_000, bytesToClient: 'hello 3000000 bye'.length, why: null });
      expect(forward.origin).to.have.property('host', '127.0.0.1');
      await server.waitFor(() => !forward.isOpen);
      expect(server.connections).to.have.length(1);
      expect(server.connections[0]).to.include({ username: 'tester', isOpen: true });
      expect(server.logins).to.deep.include({
        ...{ connection: 1, username: 'tester', method: 'publickey' },
        ...{ accepted: true, isPartial: false, why: null },
      });
    });

    it('takes what a client has to say to a target that has said its last word', async () => {
      const server = await start();
      let heard = 0;
      const target = net.createServer({ allowHalfOpen: true }, (socket) => {
        socket
          .on('error', () => socket.destroy())
          .on('data', (chunk) => {
            heard += chunk.length;
          });
        socket.end('bye');
      });
      await new Promise<void>((resolve) => target.listen(0, '127.0.0.1', resolve));
      opened.push(() => new Promise((resolve) => target.close(resolve)));
      const port = await freeLocalPort();
      ssh(server, '-L', `127.0.0.1:${port}:127.0.0.1:${(target.address() as AddressInfo).port}`);
      await listens(port);
      const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
      opened.push(() => socket.destroy());
      // No iteration, at whose end the socket is destroyed.
      let said = '';
      socket
        .on('error', () => undefined)
        .on('data', (chunk) => {
          said += chunk;
        });
      await once(socket, 'end');
      expect(said).to.equal('bye');
      socket.end(Buffer.alloc(100_000));
      await server.waitFor(() => heard === 100_000);
      await server.waitFor(() => server.forwards.every(({ isOpen }) => !isOpen));
    });

    it('listens for ssh -R, also on any port, until the client gives it up or goes', async () => {
      const server = await start();
      const target = await startTarget();
      const { child, said } = ssh(server, '-R', `0:127.0.0.1:${target}`);
      const forward = await server.waitFor(() => server.forwards.find(({ accepted }) => accepted), isMissing);
      expect(forward).to.include({ kind: 'tcpip-forward', host: 'localhost', isOpen: true, origin: null });
      expect(await ask(forward.port, 70_000), said()).to.equal('hello 70000 bye');
      expect(await ask(forward.port)).to.equal('hello 5 bye');
      expect(forward.streams).to.equal(2);
      expect(said()).to.include(`Allocated port ${forward.port} for remote forward`);
      child.kill('SIGKILL');
      await server.waitFor(() => !forward.isOpen && server.connections.every(({ isOpen }) => !isOpen));
      const refused = net.connect(forward.port, '127.0.0.1');
      expect(await once(refused, 'error').then(([error]) => error)).to.have.property('code', 'ECONNREFUSED');
    });

    it('refuses to listen on a port that is in use, and says why', async () => {
      const server = await start();
      const target = await startTarget();
      const { ended, said } = ssh(server, '-R', `127.0.0.1:${target}:127.0.0.1:${target}`);
      expect(await ended).to.equal(255);
      expect(said()).to.include('remote port forwarding failed');
      expect(server.forwards[0])
        .to.include({ accepted: false, isOpen: false })
        .and.property('why')
        .match(/EADDRINUSE/);
    });

    it('is told from an impostor: a changed host key is what ssh says it is', async () => {
      const server = await start();
      const before = server.knownHostsLine;
      server.changeHostKey();
      expect(server.knownHostsLine).not.to.equal(before);
      expect(readFileSync(server.knownHostsFile, 'utf8')).to.equal(`${before}\n`);
      const { ended, said } = ssh(server);
      expect(await ended).to.equal(255);
      expect(said()).to.include('HOST IDENTIFICATION HAS CHANGED');
      expect(server.logins).to.deep.equal([]);
    });

    it('refuses connections, logins and forwards until it resumes, on the same port', async () => {
      const server = await start();
      const { port } = server;
      server.refuse('connection');
      const refused = ssh(server);
      await refused.ended;
      expect(refused.said()).to.include('Connection refused');
      await server.resume();
      server.refuse('login');
      const denied = ssh(server);
      await denied.ended;
      expect(denied.said()).to.include('Permission denied (publickey)');
      expect(server.logins.at(-1)).to.include({ accepted: false, why: 'the server refuses every login' });
      await server.resume();
      server.refuse('forward');
      const forward = ssh(server, '-R', '0:127.0.0.1:1');
      await forward.ended;
      expect(forward.said()).to.match(/remote port forwarding failed/);
      expect(server.forwards.at(-1)).to.include({ accepted: false, why: 'the server refuses every forward' });
      await server.resume();
      expect(server.port).to.equal(port);
      ssh(server, '-R', '0:127.0.0.1:1');
      await server.waitFor(() => server.forwards.find(({ isOpen }) => isOpen), isMissing);
    });

    it('keeps whoever comes waiting, at each stage, and serves them when it resumes', async () => {
      const server = await start();
      for (const stage of ['connection', 'login', 'forward'] as const) {
        server.stall(stage);
        const seen = { connections: server.connections.length, forwards: server.forwards.length };
        const { child, ended } = ssh(server, '-R', '0:127.0.0.1:1');
        await server.waitFor(() => server.connections.length > seen.connections, isMissing);
        if (stage === 'forward') await server.waitFor(() => server.forwards.at(-1)?.accepted === null, isMissing);
        else expect(server.forwards).to.have.length(seen.forwards);
        if (stage === 'connection') expect(server.connections.at(-1)).to.include({ username: null, isOpen: true });
        await server.resume();
        await server.waitFor(() => server.forwards.at(-1)?.isOpen && server.forwards.length > seen.forwards, isMissing);
        child.kill('SIGKILL');
        await ended;
        await server.waitFor(() => server.forwards.every(({ isOpen }) => !isOpen));
      }
    });

    it('freezes what is there, in both directions, and nothing is lost by it', async () => {
      const server = await start();
      const target = await startTarget();
      const port = await freeLocalPort();
      ssh(server, '-L', `127.0.0.1:${port}:127.0.0.1:${target}`);
      await listens(port);
      await server.waitFor(() => server.forwards.every(({ isOpen }) => !isOpen));
      server.stall();
      const asked = ask(port);
      let answered = false;
      void asked.then(() => {
        answered = true;
      });
      const newcomer = net.connect(server.port, server.host);
      opened.push(() => newcomer.destroy());
      let said = '';
      newcomer
        .on('error', () => undefined)
        .on('data', (chunk) => {
          said += chunk;
        });
      await server.waitFor(() => server.connections.length === 2);
      expect([answered, said]).to.deep.equal([false, '']);
      await server.resume();
      expect(await asked).to.equal('hello 5 bye');
      await server.waitFor(() => said.startsWith('SSH-2.0-'));
    });

    it('drops one client or all of them, and serves new ones', async () => {
      const server = await start();
      const [one, two] = [ssh(server), ssh(server)];
      const isIn = () => server.connections.filter(({ username, isOpen }) => username && isOpen);
      await server.waitFor(() => isIn().length === 2, isMissing);
      const [first] = isIn();
      server.drop(first);
      await server.waitFor(() => isIn().length === 1);
      expect(first?.isOpen).to.equal(false);
      server.drop();
      expect(await Promise.all([one.ended, two.ended])).to.deep.equal([255, 255]);
      ssh(server);
      await server.waitFor(() => isIn().length === 1, isMissing);
    });

    it('refuses a shell, and the connection lives on', async () => {
      const server = await start();
      const words = ['-F', server.sshConfigFile, '-o', 'BatchMode=yes', server.tunnelOptions.remoteHost, 'true'];
      const child = spawn('ssh', words, { stdio: ['ignore', 'ignore', 'pipe'] });
      reaper.own(child);
      expect(await text(child.stderr)).to.match(/open failed/);
    });
  });

  describe('and who may log in', () => {
    const other = ssh2.utils.generateKeyPairSync('ecdsa', { bits: 256 });
    const rsa = ssh2.utils.generateKeyPairSync('rsa', { bits: 2048 });
    const code = { prompt: 'Code: ', answer: '123456' };
    const colour = { prompt: 'Colour? ', echo: true, answer: 'red' };
    // In the order in which ssh2's client tries what it has, each once.
    const three = ['password,publickey,keyboard-interactive'];
    const all = { publicKey: true, password: 'secret', keyboardInteractive: [code, colour] } as const;

    const cases: readonly [string, TestSshServerOptions, ConnectConfig, boolean][] = [
      ['nobody without a key', {}, { password: 'secret' }, false],
      ['no key but its own', {}, { privateKey: other.private }, false],
      ['a key of a list', { publicKey: [other.public] }, { privateKey: other.private }, true],
      ['any key', { publicKey: true }, { privateKey: rsa.private }, true],
      [
        'a key that a judge lets in',
        { publicKey: (key) => key.startsWith('ecdsa-') },
        { privateKey: other.private },
        true,
      ],
      ['no key that a judge keeps out', { publicKey: async () => false }, { privateKey: other.private }, false],
      ['a password', { password: 'secret' }, { password: 'secret' }, true],
      ['no other password', { password: 'secret' }, { password: 'Secret' }, false],
      ['who a judge of passwords lets in', { password: (user, word) => user === word }, { password: 'tester' }, true],
      ['one user alone', { password: 'secret', username: 'ann' }, { username: 'bob', password: 'secret' }, false],
      ['answers to questions', { keyboardInteractive: [code, colour] }, { tryKeyboard: true }, true],
      ['no wrong answer', { keyboardInteractive: [colour, code] }, { tryKeyboard: true }, false],
      ['anybody', { none: true }, {}, true],
      ['by two ways', { ...all }, { password: 'secret' }, true],
      ['nobody by a half of the way', { ...all, authenticationMethods: three }, { privateKey: rsa.private }, false],
      [
        'who goes all of the way',
        { ...all, authenticationMethods: three },
        { privateKey: rsa.private, password: 'secret', tryKeyboard: true },
        true,
      ],
    ];
    for (const [whom, policy, client, isIn] of cases) {
      it(`lets in ${whom}`, async () => {
        const server = await start(policy);
        const prompts: string[] = [];
        const said = await login(server, { ...client, prompts });
        expect(said).to.equal(isIn ? 'ready' : 'All configured authentication methods failed');
        expect(server.connections[0]?.username).to.equal(isIn ? (client.username ?? server.username) : null);
        if (client.tryKeyboard && isIn) expect(prompts).to.include.members(['Code: ', 'Colour?  (seen)']);
      });
    }

    it('tells a step from the whole way', async () => {
      const server = await start({ ...all, authenticationMethods: three });
      await login(server, { privateKey: rsa.private, password: 'secret', tryKeyboard: true });
      const steps = server.logins.filter(({ accepted }) => accepted);
      expect(steps.map(({ method, isPartial }) => [method, isPartial])).to.deep.equal([
        ['password', true],
        ['publickey', true],
        ['keyboard-interactive', false],
      ]);
    });

    it('takes what a policy throws for a refusal, and says so', async () => {
      const server = await start({
        password() {
          throw new Error('no database');
        },
      });
      await login(server, { password: 'secret' });
      expect(server.logins.at(-1)?.why).to.equal('the policy has thrown Error: no database');
    });

    it('refuses a policy that cannot be, and opens nothing', async () => {
      const wrong: readonly [TestSshServerOptions, RegExp][] = [
        [{ publicKey: ['ssh-ed25519 AAAA'] }, /Cannot use "ssh-ed25519 AAAA" as a public key/],
        [{ password: 'x', authenticationMethods: ['publickey'] }, /there is a policy for password$/],
        [{ alias: 'a b' }, /Cannot use a b as alias/],
      ];
      for (const [options, message] of wrong) {
        const error = await startSshServer(options).catch((thrown: unknown) => thrown);
        expect(error).to.be.instanceOf(Error).and.property('message').match(message);
      }
    });
  });

  it('gives up a port of ssh -R at once, also while a connection goes on through it', async () => {
    const server = await start({ password: 'secret' });
    const client = new ssh2.Client();
    opened.push(() => client.end());
    client.on('error', () => undefined); // what is cut by the end of the test
    client.on('tcp connection', (_details, accept) => accept().pipe(new PassThrough()));
    client.connect({ host: server.host, port: server.port, username: 'me', password: 'secret' });
    await once(client, 'ready');
    const port = await new Promise<number>((resolve, reject) =>
      client.forwardIn('127.0.0.1', 0, (error, chosen) => (error ? reject(error) : resolve(chosen))),
    );
    const visitor = net.connect(port, '127.0.0.1').on('error', () => undefined);
    opened.push(() => visitor.destroy());
    await server.waitFor(() => server.forwards.some(({ streams }) => streams === 1));
    let isGivenUp = false;
    client.unforwardIn('127.0.0.1', port, () => {
      isGivenUp = true;
    });
    await server.waitFor(() => isGivenUp);
    expect(visitor.readyState).to.equal('open');
    const late = net.connect(port, '127.0.0.1');
    expect(await once(late, 'error').then(([error]) => error)).to.have.property('code', 'ECONNREFUSED');
  });

  describe('and where a connection goes', () => {
    /** What a channel to this target says; the sentence, when there is none. */
    async function reach(server: TestSshServer, host: string, port: number): Promise<string> {
      const client = new ssh2.Client();
      opened.push(() => client.end());
      client.on('error', () => undefined); // what is cut by the end of the test
      client.connect({ host: server.host, port: server.port, username: 'me', password: 'secret' });
      await once(client, 'ready');
      return new Promise((resolve, reject) => {
        client.forwardOut('127.0.0.1', 40_000, host, port, (error, channel) => {
          if (error) resolve(error.message);
          else text(channel.end('ping')).then(resolve, reject);
        });
      });
    }

    it('is this machine alone, unless a target says otherwise', async () => {
      const server = await start({ password: 'secret' });
      expect(await reach(server, 'localhost', await startTarget())).to.equal('hello 4 bye');
      expect(await reach(server, '192.0.2.1', 80)).to.match(/open failure/);
      expect(server.forwards.at(-1)?.why).to.match(
        /^192\.0\.2\.1 is not this machine: give startSshServer\(\) a target/,
      );
      expect(await reach(server, '127.0.0.1', await freeLocalPort())).to.match(/open failure/);
      expect(server.forwards.at(-1)?.why).to.match(/ECONNREFUSED/);
    });

    it('is what the target says: an address, a server, a stream, nothing', async () => {
      const real = await startTarget();
      const local = net.createServer((socket) => socket.resume().end('local'));
      await new Promise<void>((resolve) => local.listen(0, resolve));
      opened.push(() => new Promise((resolve) => local.close(resolve)));
      const targets = {
        'db.test': () => ({ port: real }),
        'web.test': () => local,
        'pipe.test': () =>
          Duplex.from({ readable: Duplex.from(['in ', 'memory']), writable: new PassThrough().resume() }),
        'gone.test': () => undefined,
      };
      const isName = (host: string): host is keyof typeof targets => host in targets;
      const server = await start({
        password: 'secret',
        target: ({ host, port, username }) => {
          if (`${username}:${port}` !== 'me:5432' || !isName(host)) throw new Error('who?');
          return targets[host]();
        },
      });
      expect(await reach(server, 'db.test', 5432)).to.equal('hello 4 bye');
      expect(await reach(server, 'web.test', 5432)).to.equal('local');
      expect(await reach(server, 'pipe.test', 5432)).to.equal('in memory');
      expect(await reach(server, 'gone.test', 5432)).to.match(/open failure/);
      expect(server.forwards.map(({ why }) => why)).to.deep.equal([null, null, null, 'the target was refused']);
      expect(await reach(server, 'else.test', 5432)).to.match(/open failure/);
      expect(server.forwards.at(-1)?.why).to.equal('who?');
    });
  });

  it('makes files for its clients alone, and takes them away with it', async () => {
    const server = await start({ username: 'ann' });
    const folder = dirname(server.identityFile);
    for (const name of readdirSync(folder)) expect(statSync(join(folder, name)).mode & 0o777, name).to.equal(0o600);
    expect(statSync(folder).mode & 0o777).to.equal(0o700);
    expect(await login(server, { privateKey: readFileSync(server.identityFile) })).to.equal('ready');
    await Promise.all([server.close(), server.close(), server[Symbol.asyncDispose]()]);
    expect(existsSync(folder)).to.equal(false);
    expect(await login(server)).to.match(/ECONNREFUSED/);
  });

  it('is gone in the middle of anything, and leaves nobody waiting', async () => {
    const server = await start({ none: true });
    server.stall('login');
    const stalled = login(server, { readyTimeout: 15_000 });
    await server.waitFor(() => server.connections.length === 1);
    await server.close();
    expect(await stalled).not.to.equal('ready');
    await server.resume();
  });

  it('hands on all that a target has said before it closed, also to a client that is slow to read', async () => {
    const server = await start();
    const target = net.createServer({ allowHalfOpen: true }, (socket) => {
      socket.resume().once('end', () => socket.end(Buffer.alloc(3_500_000)));
    });
    await new Promise<void>((resolve) => target.listen(0, '127.0.0.1', resolve));
    opened.push(() => new Promise((resolve) => target.close(resolve)));
    const client = new ssh2.Client();
    opened.push(() => client.end());
    client.on('error', () => undefined); // the server ends before it does
    const { host, port: at, username } = server;
    client.connect({ host, port: at, username, privateKey: readFileSync(server.identityFile) });
    await once(client, 'ready');
    const { port } = target.address() as AddressInfo;
    const channel = await new Promise<Duplex>((resolve, reject) => {
      client.forwardOut('127.0.0.1', 1, '127.0.0.1', port, (error, got) => (error ? reject(error) : resolve(got)));
    });
    channel.end();
    // A client that reads nothing takes 3 MiB, by the window of a channel: what is left waits at the server.
    await server.waitFor(() => server.forwards.some(({ accepted, isOpen }) => accepted && !isOpen));
    expect(await text(channel)).to.have.lengthOf(3_500_000);
  });

  it('does not mind what its clients do', async () => {
    const server = await start();
    const rude: readonly ((socket: net.Socket) => void)[] = [
      (socket) => socket.destroy(),
      (socket) => socket.resetAndDestroy(),
      (socket) => socket.end('GET / HTTP/1.1\r\n\r\n'),
      (socket) => socket.write(`SSH-2.0-${'x'.repeat(300)}\r\n`),
      (socket) => socket.write(Buffer.concat([Buffer.from('SSH-2.0-x\r\n'), Buffer.alloc(4096, 0xff)])),
      (socket) => socket.write('SSH-2.0-x\r\n') && socket.resetAndDestroy(),
    ];
    for (const act of rude) {
      const socket = net.connect(server.port, server.host);
      opened.push(() => socket.destroy());
      socket.on('error', () => undefined).resume();
      await once(socket, 'connect');
      act(socket);
    }
    await server.waitFor(() => server.connections.length === rude.length);
    expect(await login(server, { privateKey: readFileSync(server.identityFile) })).to.equal('ready');
  });

  it('waits as long as it is told for what it is asked, and says what it has seen', async () => {
    const server = await start();
    const error = await server.waitFor(() => server.logins.length > 0, { timeoutMs: 20 }).catch((thrown) => thrown);
    expect(isTunwardError(error, 'ERR_TIMEOUT')).to.equal(true);
    expect(error.message).to.match(/in 20 ms, but 0 connections, 0 logins, 0 forwards/);
    const stop = new Error('enough');
    const waiting = server.waitFor(() => false, { signal: AbortSignal.abort(stop) });
    expect(await waiting.catch((thrown: unknown) => thrown)).to.equal(stop);
    expect(await server.waitFor(async () => server.port)).to.equal(server.port);
  });

  it('has types that name no package but those that are installed with this one', () => {
    const { dependencies } = JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8'));
    const seen = new Set(['index.d.ts', 'testing.d.ts', 'testing/mocha.d.ts']);
    const foreign: string[] = [];
    for (const name of seen) {
      const code = readFileSync(join(repoRoot, 'lib', name), 'utf8');
      for (const [, to = ''] of code.matchAll(/(?:from\s+|import\(|import\s+)['"]([^'"]+)['"]/g)) {
        if (to.startsWith('.')) seen.add(join(dirname(name), to).replace(/\.js$/, '.d.ts'));
        else if (!to.startsWith('node:') && !(to in dependencies)) foreign.push(`${name} → ${to}`);
      }
    }
    expect(seen.size).to.be.greaterThan(10);
    expect(foreign).to.deep.equal([]);
  });
});

describe('createFaults()', () => {
  it('lets nobody pass who was kept waiting when it ends', async () => {
    const faults = createFaults();
    faults.set('login', 'stall');
    const waiting = faults.admits('login');
    faults.end();
    expect(await waiting).to.equal(false);
    expect(await faults.admits('forward')).to.equal(false);
  });
});
