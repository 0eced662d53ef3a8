import net from 'node:net';
import { expect } from 'chai';
import { type Clock, systemClock, until } from '#lib/time.js';
import type { LinkExit } from '#lib/tunnel/engine.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import { byKey, startAsking } from '../../support/asking.js';
import { createStand, localSpec, remoteSpec } from '../../support/embedded.js';
import { need } from '../../support/need.js';
import { freeLocalPort } from '../../support/port.js';
import { descendantsOf, sendSignal } from '../../support/proc.js';
import { type Behaviour, babbles, hangsUp, isMute, startServer } from '../../support/servers.js';
import { startSshd } from '../../support/sshd.js';

const soon = { sshOptions: { ConnectTimeout: '1' } };

/** A server that treats everybody like that, and how a link to it ended. */
async function endOf(behave: Behaviour, changes: Partial<TunnelSpec> = soon): Promise<LinkExit> {
  await using server = await startServer(behave);
  return await endAt(server.port, changes);
}

async function endAt(port: number, { sshOptions, ...changes }: Partial<TunnelSpec> = {}): Promise<LinkExit> {
  await using stand = createStand();
  const known = { host: 'someone@127.0.0.1', sshConfigFile: null };
  const spec = await localSpec(known, 9, { sshOptions: { Port: String(port), ...sshOptions }, ...changes });
  const exit = await (await stand.start(spec)).settled();
  if (exit === 'ready') throw new Error('it is up');
  return exit;
}

describe('why a link of the embedded engine is not up', () => {
  it('is that nobody listens', async () => {
    const port = await freeLocalPort();
    expect(await endAt(port)).to.include({
      reason: 'refused',
      lastError: `connect to host 127.0.0.1 port ${port}: Connection refused`,
    });
  });

  it('is that the name is not known', async () => {
    const exit = await endAt(22, { remoteHost: 'someone@no-such-host.invalid' });
    expect(exit).to.include({ reason: 'unreachable' });
    expect(exit.lastError).to.match(/^Could not resolve hostname no-such-host\.invalid: /);
  });

  it('is that the network cannot be reached', async () => {
    const exit = await endAt(22, { remoteHost: 'someone@240.0.0.1', ...soon });
    expect(exit.reason).to.be.oneOf(['unreachable', 'timeout']);
  });

  it('is a server that says nothing', async () => {
    const exit = await endOf(isMute);
    expect(exit).to.include({ reason: 'timeout' });
    expect(exit.lastError).to.include('did not say within 1000 ms that it speaks SSH');
  });

  it('is a server that talks on and on and never says who it is', async () => {
    expect(await endOf(babbles)).to.include({ reason: 'timeout' });
    const flood: Behaviour = (socket) => {
      const line = Buffer.from(`${'x'.repeat(60)}\r\n`.repeat(1000));
      const pour = () => {
        while (!socket.destroyed && socket.write(line));
      };
      socket.on('drain', pour).resume();
      pour();
    };
    const exit = await endOf(flood);
    expect(exit).to.include({ reason: 'refused' });
    expect(exit.lastError).to.match(/does not speak SSH; it says: x+$/);
  });

  it('is a server that hangs up at once', async () => {
    const exit = await endOf(hangsUp);
    expect(exit).to.include({ reason: 'refused' });
    expect(exit.lastError).to.match(/^Connection (closed|reset) by 127\.0\.0\.1 port \d+, before it said anything$/);
  });

  it('is a server that turns away for a while whoever has failed before', async () => {
    const exit = await endOf((socket) => socket.end('Not allowed at this time\r\n'));
    expect(exit).to.include({ reason: 'refused', retryAfterMs: 30_000 });
    expect(exit.lastError).to.include('Not allowed at this time');
  });

  it('is a server that speaks HTTP', async () => {
    const exit = await endOf((socket) => {
      socket.once('data', () => socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n'));
    });
    expect(exit).to.include({ reason: 'refused' });
    expect(exit.lastError).to.include('it says: HTTP/1.1 400 Bad Request');
  });

  it('is a server that hangs up in the middle of the key exchange, resets, or says nothing more', async () => {
    const version = 'SSH-2.0-test\r\n';
    const closed = await endOf((socket) => socket.end(version));
    expect(closed).to.include({ reason: 'refused' });
    expect(closed.lastError).to.include('in the middle of the key exchange');
    const reset = await endOf((socket) => {
      socket.write(version);
      socket.once('data', () => socket.resetAndDestroy());
    });
    expect(reset).to.include({ reason: 'refused' });
    const silent = await endOf((socket) => socket.resume().write(version));
    expect(silent).to.include({ reason: 'timeout' });
    const nonsense = await endOf((socket) => socket.resume().end(`${version}\0\0\0\x0c\x0aabcdefghijklmnop`));
    expect(nonsense).to.include({ reason: 'refused' });
  });

  it('is a server with which no algorithm is in common, and whose doing that is', async () => {
    await using sshd = await startSshd({ extra: ['Ciphers aes256-ctr'] });
    await using stand = createStand();
    const spec = await localSpec(sshd, 9, { sshOptions: { Ciphers: 'aes128-gcm@openssh.com' } });
    expect(await (await stand.start(spec)).settled()).to.include({
      reason: 'bad_spec',
      lastError: `Unable to negotiate with 127.0.0.1 port ${sshd.port}: no matching cipher found (Ciphers aes128-gcm@openssh.com): their offer is aes256-ctr`,
    });
    await using old = await startSshd({ extra: ['Ciphers aes256-cbc'] });
    expect(await (await stand.start(await localSpec(old, 9))).settled()).to.include({
      reason: 'refused',
      lastError: `Unable to negotiate with 127.0.0.1 port ${old.port}: no matching cipher found: their offer is aes256-cbc`,
    });
    // Whoever asks for it by name has it.
    const asked = await stand.start(await localSpec(old, 9, { sshOptions: { Ciphers: '+aes256-cbc' } }));
    expect(await asked.settled(), asked.lines.join()).to.equal('ready');
  });

  it('is a server that is lost: gone, or frozen', async () => {
    await using server = await startAsking({ factors: [byKey] });
    await using stand = createStand();
    const gone = await stand.start(await localSpec(server, 9));
    expect(await gone.settled(), gone.lines.join()).to.equal('ready');
    server.drop();
    const lost = await gone.exited;
    expect(lost).to.include({ reason: 'exited' });
    expect(lost.lastError).to.match(/^Connection (reset|closed) by 127\.0\.0\.1 port \d+$/);
    const alive = { ServerAliveInterval: '1', ServerAliveCountMax: '1' };
    const frozen = await stand.start(await localSpec(server, 9, { sshOptions: alive }));
    expect(await frozen.settled(), frozen.lines.join()).to.equal('ready');
    server.silence();
    expect(await frozen.exited).to.include({
      reason: 'timeout',
      lastError: `Timeout, server 127.0.0.1 port ${server.port} not responding.`,
    });
    server.speak();
  });

  it('is an sshd that is stopped by a signal, and says nothing more', async () => {
    await using sshd = await startSshd();
    await using stand = createStand();
    const alive = { ServerAliveInterval: '1', ServerAliveCountMax: '1' };
    const link = await stand.start(await localSpec(sshd, 9, { sshOptions: alive }));
    expect(await link.settled(), link.lines.join()).to.equal('ready');
    for (const ref of descendantsOf(sshd.pid)) sendSignal(ref, 'SIGSTOP');
    expect(await link.exited).to.include({ reason: 'timeout' });
    const report = await link.stop();
    expect(report.tookMs).to.be.below(2000);
  });

  for (const who of ['the last of its connection', 'one of two that share it']) {
    it(`is waited for once, and not for each address that it listens at, by a stop of ${who}`, async function () {
      need(this, 'ipv6');
      await using sshd = await startSshd();
      // Four times as slow as a clock is: what is waited for one after the other would be seconds.
      const clock: Clock = {
        ...systemClock,
        now: () => systemClock.now() / 4,
        sleep: (ms, signal) => systemClock.sleep(4 * ms, signal),
      };
      await using stand = createStand({ clock });
      const spec = await remoteSpec(sshd, 9);
      const listen = { host: 'localhost', port: await freeLocalPort() };
      const link = await stand.start({ ...spec, forward: { ...spec.forward, listen } });
      const beside = who.startsWith('one') ? [await stand.start(await localSpec(sshd, 9))] : [];
      for (const each of [link, ...beside]) expect(await each.settled(), each.lines.join()).to.equal('ready');
      for (const ref of descendantsOf(sshd.pid)) sendSignal(ref, 'SIGSTOP');
      // It is given 500 ms.
      expect((await link.stop()).tookMs).to.be.below(900);
    });
  }

  it('is not that a server which answers has nothing to say', async () => {
    await using sshd = await startSshd();
    await using stand = createStand();
    const alive = { ServerAliveInterval: '1', ServerAliveCountMax: '1' };
    const link = await stand.start(await localSpec(sshd, 9, { sshOptions: alive }));
    expect(await link.settled()).to.equal('ready');
    let isOver = false;
    void link.exited.then(() => {
      isOver = true;
    });
    expect(await until(() => isOver, { timeoutMs: 5000, everyMs: 100 })).to.equal(undefined);
  });

  it('is that the local port is taken', async () => {
    await using sshd = await startSshd();
    await using stand = createStand();
    await using taken = await startServer(isMute);
    const listen = { host: '127.0.0.1', port: taken.port };
    const spec = await localSpec(sshd, 9);
    const link = await stand.start({ ...spec, forward: { ...spec.forward, listen } });
    const exit = await link.settled();
    expect(exit).to.include({ reason: 'local_port_busy' });
    expect(exit).to.have.property('lastError').that.includes(`127.0.0.1:${taken.port}`);
  });

  it('leaves no socket and no timer, whenever it is called off', async () => {
    await using mute = await startServer(isMute);
    await using half = await startServer((socket) => socket.resume().write('SSH-2.0-test\r\n'));
    await using server = await startAsking({ held: true });
    const before = count();
    for (const port of [mute.port, half.port, server.port]) {
      for (const how of ['stop', 'abort'] as const) {
        await using stand = createStand();
        const known = { host: 'person@127.0.0.1', sshConfigFile: null };
        const options = {
          Port: String(port),
          StrictHostKeyChecking: 'accept-new',
          UserKnownHostsFile: server.knownHostsFile,
        };
        const spec = await localSpec(known, 9, { sshOptions: options });
        const over = new AbortController();
        const link = await stand.start(spec, { signal: over.signal, asking: nobodyAnswers });
        await until(() => socketsTo(port) > 0, { timeoutMs: 5000 });
        if (how === 'stop') await link.stop();
        else over.abort(new Error('called off'));
        expect(await link.exited, `${how} ${port}`).to.include({ reason: 'killed' });
        expect(await until(() => socketsTo(port) === 0, { timeoutMs: 5000 })).to.equal(true);
      }
    }
    expect(
      await until(() => count() <= before, { timeoutMs: 5000 }),
      `${before} ${process.getActiveResourcesInfo()}`,
    ).to.equal(true);
  });
});

describe('the end of a link of the embedded engine', () => {
  it('leaves no socket, no listener and no timer, whatever goes through it', async () => {
    await using sshd = await startSshd();
    await using echo = await startServer((socket) => socket.pipe(socket));
    const before = count();
    await using stand = createStand();
    const specs = [await localSpec(sshd, echo.port), await remoteSpec(sshd, echo.port)];
    const visitors: net.Socket[] = [];
    for (const spec of specs) {
      const link = await stand.start(spec);
      expect(await link.settled(), link.lines.join()).to.equal('ready');
      const visitor = net.connect(spec.forward.listen.port, '127.0.0.1').on('error', () => undefined);
      visitors.push(visitor);
      visitor.write('hello');
      expect(String(await new Promise((resolve) => visitor.once('data', resolve)))).to.equal('hello');
    }
    await stand[Symbol.asyncDispose]();
    expect(await until(() => visitors.every(({ closed }) => closed), { timeoutMs: 5000 })).to.equal(true);
    expect(await until(() => count() <= before, { timeoutMs: 5000 }), `${process.getActiveResourcesInfo()}`).to.equal(
      true,
    );
  });

  it('does not wait for a client that does not read', async () => {
    await using sshd = await startSshd();
    const poured: net.Socket[] = [];
    await using source = await startServer((socket) => {
      poured.push(socket);
      const pour = () => {
        while (!socket.destroyed && socket.write(Buffer.alloc(65_536)));
      };
      socket.on('drain', pour);
      pour();
    });
    await using stand = createStand();
    const spec = await localSpec(sshd, source.port);
    const link = await stand.start(spec, { isBehindFront: true });
    expect(await link.settled(), link.lines.join()).to.equal('ready');
    const client = { address: '127.0.0.1', port: 1 };
    await open();
    const other = await open();
    let read = 0;
    other?.on('data', (chunk: Buffer) => {
      read += chunk.length;
    });
    expect(await until(() => read > 50_000_000, { timeoutMs: 20_000 })).to.equal(true);
    // The window of a channel has 2 MiB, and the rest is what the kernel and the server have in hand.
    expect(poured[0]?.bytesWritten).to.be.below(32_000_000);
    expect((await link.stop()).tookMs).to.be.below(2000);

    function open() {
      return link.carrier?.open(client, new AbortController().signal);
    }
  });
});

const nobodyAnswers = {
  person: { prompt: () => new Promise<string>(() => undefined) },
  idleMs: 60_000,
  onOpen: () => undefined,
  onGivenUp: () => undefined,
};

function count(): number {
  return process.getActiveResourcesInfo().filter((type) => /TCPSocketWrap|Timeout|TCPServer/.test(type)).length;
}

/** Connections of this process to that port, as the kernel has them. */
function socketsTo(port: number): number {
  return handles().filter((handle) => handle instanceof net.Socket && handle.remotePort === port).length;
}

function handles(): readonly unknown[] {
  return (process as unknown as { _getActiveHandles(): unknown[] })._getActiveHandles();
}
