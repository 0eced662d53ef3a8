import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import type { Link } from '#lib/tunnel/engine.js';
import { createMeter } from '#lib/tunnel/front/meter.js';
import { byKey, byPassword, startAsking } from '../../support/asking.js';
import { askingOf, createStand, get, localSpec, remoteSpec } from '../../support/embedded.js';
import { need } from '../../support/need.js';
import { freeLocalPort } from '../../support/port.js';
import { createReaper } from '../../support/reaper.js';
import { startServer, startService } from '../../support/servers.js';
import { startPerlSocket } from '../../support/sockets.js';
import { startSshd } from '../../support/sshd.js';
import { digestOf, noise } from '../front/scene.js';

describe('one connection for many tunnels of the embedded engine', () => {
  it('is made by one handshake, carries a hundred, and is closed with the last', async () => {
    await using server = await startAsking({ factors: [byKey] });
    await using service = await startService();
    await using stand = createStand();
    const specs = [];
    for (let tunnel = 0; tunnel < 100; tunnel++) specs.push(await localSpec(server, service.port));
    const links = await Promise.all(specs.map((spec) => stand.start(spec)));
    for (const link of links) expect(await link.settled(), link.lines.join()).to.equal('ready');
    expect([server.logins(), server.connections()]).to.deep.equal([1, 1]);
    const answers = await Promise.all(specs.map(({ forward }) => get(forward.listen.port)));
    expect(new Set(answers)).to.deep.equal(new Set(['served']));
    const [first, ...others] = links;
    await first?.stop();
    expect(
      await until(
        async () => (await Promise.all(others.map((link) => link.check()))).every((state) => state === 'ready'),
        { timeoutMs: 1000 },
      ),
    ).to.equal(true);
    expect(await get(specs[1]?.forward.listen.port ?? 0)).to.equal('served');
    await Promise.all(others.map((link) => link.stop()));
    expect(await until(() => server.connections() === 0, { timeoutMs: 5000 })).to.equal(true);
  });

  it('is another one for a tunnel that is started again, and the same one for all that are', async () => {
    await using server = await startAsking({ factors: [byKey] });
    await using stand = createStand();
    const specs = [await localSpec(server, 9), await localSpec(server, 9), await localSpec(server, 9)];
    const up = async () => {
      const links = await Promise.all(specs.map((spec) => stand.start(spec)));
      for (const link of links) expect(await link.settled(), link.lines.join()).to.equal('ready');
      return links;
    };
    const before = await up();
    expect(server.logins()).to.equal(1);
    await Promise.all(before.map((link) => link.stop()));
    const after = await up();
    expect(server.logins()).to.equal(2);
    // One alone: the others stay where they are.
    await after[0]?.stop();
    const [spec] = specs;
    const again = spec && (await stand.start(spec));
    expect(await again?.settled()).to.equal('ready');
    expect([server.logins(), server.connections()]).to.deep.equal([3, 2]);
    expect(await Promise.all(after.map((link: Link) => link.check()))).to.deep.equal(['waiting', 'ready', 'ready']);
  });

  it('ends all that it carries when it breaks off, each with the reason', async () => {
    await using server = await startAsking({ factors: [byKey] });
    await using stand = createStand();
    const links = [await stand.start(await localSpec(server, 9)), await stand.start(await remoteSpec(server, 9))];
    for (const link of links) expect(await link.settled(), link.lines.join()).to.equal('ready');
    server.drop();
    for (const link of links) {
      expect(await link.exited)
        .to.have.property('lastError')
        .that.matches(/^Connection (reset|closed) by /);
    }
  });

  it('is not touched by a forward that fails', async () => {
    await using server = await startAsking({ factors: [byKey] });
    await using service = await startService();
    await using stand = createStand();
    const good = await stand.start(await remoteSpec(server, service.port));
    expect(await good.settled()).to.equal('ready');
    const bad = await stand.start(await remoteSpec(server, 9, { listenPort: service.port }));
    expect(await bad.settled()).to.include({ reason: 'remote_port_busy' });
    expect(await good.check()).to.equal('ready');
    expect(server.connections()).to.equal(1);
  });

  it('takes the port of a remote forward back while it goes on for others', async () => {
    await using sshd = await startSshd();
    await using service = await startService();
    await using stand = createStand();
    const spec = await remoteSpec(sshd, service.port);
    const [one, other] = [await stand.start(spec), await stand.start(await remoteSpec(sshd, service.port))];
    for (const link of [one, other]) expect(await link?.settled()).to.equal('ready');
    await one?.stop();
    expect(await get(spec.forward.listen.port).catch((error: Error) => error)).to.be.instanceOf(Error);
    expect(await other?.check()).to.equal('ready');
  });

  it('leaves nobody waiting at a remote port whose target was slow, when that forward alone is stopped', async function () {
    need(this, 'perl');
    await using reaper = createReaper();
    await using sshd = await startSshd();
    await using stand = createStand();
    // Nobody takes connections from its queue, which is full by the second: the kernel lets the next ones try for minutes.
    const target = await freeLocalPort();
    await startPerlSocket(reaper, { port: target, script: 'listen($s, 0)' });
    const [busy, stays] = [await remoteSpec(sshd, target), await localSpec(sshd, 9)];
    const meter = createMeter();
    const [link, other] = [await stand.start(busy, { meter }), await stand.start(stays)];
    for (const one of [link, other]) expect(await one.settled(), one.lines.join()).to.equal('ready');
    const closed: number[] = [];
    const clients = Array.from({ length: 5 }, (_, at) => {
      const client = net.connect(busy.forward.listen.port, '127.0.0.1').on('error', () => undefined);
      return client.resume().once('close', () => closed.push(at));
    });
    expect(await until(() => meter.read().connections === 5, { timeoutMs: 5000 })).to.equal(true);
    await link.stop();
    expect(await until(() => closed.length === 5, { timeoutMs: 5000 }), closed.join()).to.equal(true);
    expect(await other.check()).to.equal('ready');
    for (const client of clients) client.destroy();
  });

  it('is its own for a tunnel that does not share', async () => {
    await using server = await startAsking({ factors: [byKey] });
    await using stand = createStand();
    for (let tunnel = 0; tunnel < 2; tunnel++) {
      const link = await stand.start(await localSpec(server, 9, { share: false }));
      expect(await link.settled(), link.lines.join()).to.equal('ready');
    }
    expect(server.connections()).to.equal(2);
  });

  it('that a person has logged in is used by other tunnels of persons, and not by those without', async () => {
    await using server = await startAsking({ factors: [byPassword('secret')] });
    await using stand = createStand();
    let asked = 0;
    const asking = () =>
      askingOf(() => {
        asked++;
        return 'secret';
      });
    for (let tunnel = 0; tunnel < 2; tunnel++) {
      const link = await stand.start(await localSpec(server, 9), { asking: asking() });
      expect(await link.settled(), link.lines.join()).to.equal('ready');
    }
    expect([asked, server.logins()]).to.deep.equal([1, 1]);
    const alone = await stand.start(await localSpec(server, 9));
    expect(await alone.settled()).to.include({ reason: 'auth_failed' });
  });

  it('is called off when the last who waited for it has gone', async () => {
    await using server = await startAsking({ held: true, factors: [byKey] });
    await using stand = createStand();
    server.silence();
    const links = [await stand.start(await localSpec(server, 9)), await stand.start(await localSpec(server, 9))];
    expect(await until(() => server.connections() === 1, { timeoutMs: 5000 })).to.equal(true);
    await links[0]?.stop();
    expect(server.connections()).to.equal(1);
    await links[1]?.stop();
    server.speak();
    expect(await until(() => server.connections() === 0, { timeoutMs: 5000 })).to.equal(true);
    expect(await links[0]?.exited).to.include({ reason: 'killed' });
  });

  it('hands a carrier to whoever listens instead, and refuses in words', async () => {
    await using sshd = await startSshd();
    await using service = await startService();
    await using stand = createStand();
    const link = await stand.start(await localSpec(sshd, service.port), { isBehindFront: true });
    expect(await link.settled()).to.equal('ready');
    const { carrier } = link;
    const client = { address: '127.0.0.1', port: 1234 };
    const stream = await carrier?.open(client, new AbortController().signal);
    stream?.end('GET / HTTP/1.0\r\n\r\n');
    let text = '';
    for await (const chunk of stream ?? []) text += String(chunk);
    expect(text).to.include('served');
    const nobody = await stand.start(await localSpec(sshd, await freeLocalPort()), { isBehindFront: true });
    expect(await nobody.settled()).to.equal('ready');
    const refused = await nobody.carrier?.open(client, new AbortController().signal).catch((error: unknown) => error);
    expect(refused).to.have.property('code', 'ERR_START_FAILED');
    expect(refused).to.have.nested.property('info.reason', 'target_refused');
    expect(nobody.refusals().last).to.equal('channel 1: open failed: connect failed: Connection refused');
    // What is open is broken off, not ended.
    const open = await carrier?.open(client, new AbortController().signal);
    const failed = new Promise((resolve) => open?.once('error', resolve));
    await link.stop();
    expect(await failed).to.be.instanceOf(Error);
    expect(carrier?.isAlive()).to.equal(false);
  });

  it('goes through other hosts, whose keys are checked as well', async () => {
    await using first = await startSshd();
    await using second = await startSshd();
    await using service = await startService();
    const config = join(first.dir, 'both');
    const text = (file: string, name: string) => readFileSync(file, 'utf8').replace('Host rig', `Host ${name}`);
    writeFileSync(
      config,
      `${text(first.sshConfigFile, 'hop')}\n${text(second.sshConfigFile, 'rig')}  ProxyJump hop\n`,
      { mode: 0o600 },
    );
    await using stand = createStand();
    const known = { host: 'rig', sshConfigFile: config };
    const spec = await localSpec(known, service.port);
    const link = await stand.start(spec);
    expect(await link.settled(), link.lines.join()).to.equal('ready');
    expect(await get(spec.forward.listen.port)).to.equal('served');
    expect(first.log()).to.include('Accepted publickey');
    expect(second.log()).to.include('Accepted publickey');
    // The hop is lost, and with it all that goes through it.
    await first.stop();
    expect(await link.exited)
      .to.have.property('lastError')
      .that.includes(`port ${first.port}`);
    expect(await link.check()).to.equal('waiting');
  });

  // What one connection writes is then a packet of another one, which is put together in the middle of it.
  for (const cipher of ['aes128-gcm@openssh.com', 'aes256-ctr', 'chacha20-poly1305@openssh.com']) {
    it(`has every byte right through two other hosts, all by ${cipher}`, async () => {
      await using sshd = await startSshd();
      await using echo = await startServer((socket) => socket.pipe(socket));
      await using stand = createStand();
      const [config, text] = [join(sshd.dir, 'all'), readFileSync(sshd.sshConfigFile, 'utf8')];
      const hosts = ['', '  ProxyJump hop0', '  ProxyJump hop1'].map((jump, at) =>
        text.replace('Host rig', `Host hop${at}`).concat(`  Ciphers ${cipher}\n`, jump),
      );
      writeFileSync(config, hosts.join('\n'), { mode: 0o600 });
      const spec = await localSpec({ host: 'hop2', sshConfigFile: config }, echo.port);
      const link = await stand.start(spec);
      expect(await link.settled(), link.lines.join()).to.equal('ready');
      const sent = noise(6_000_000, 1);
      const client = net.connect({ port: spec.forward.listen.port, host: '127.0.0.1', allowHalfOpen: true });
      client.end(sent);
      const back: Buffer[] = [];
      for await (const piece of client) back.push(piece);
      expect(digestOf(Buffer.concat(back))).to.equal(digestOf(sent));
    });
  }

  it('says which host on the way has another key, or cannot go on', async () => {
    await using hop = await startSshd();
    await using stand = createStand();
    const nowhere = await freeLocalPort();
    const user = readFileSync(hop.sshConfigFile, 'utf8').match(/User (\S+)/)?.[1];
    const known = { host: `${user}@127.0.0.1`, sshConfigFile: hop.sshConfigFile };
    const jump = [{ destination: 'rig', port: null }];
    const spec = await localSpec(known, 9, { jump, sshOptions: { Port: String(nowhere) } });
    const exit = await (await stand.start(spec)).settled();
    expect(exit).to.include({ reason: 'refused' });
    expect(exit).to.have.property('lastError').that.includes(`connect to host 127.0.0.1 port ${nowhere}`);
    const other = readdirSync(hop.dir).includes('host_key.pub');
    expect(other).to.equal(true);
    const line = readFileSync(join(hop.dir, 'id_ed25519.pub'), 'utf8').split(' ').slice(0, 2).join(' ');
    writeFileSync(hop.knownHostsFile, `[127.0.0.1]:${hop.port} ${line}\n`);
    expect(await (await stand.start({ ...spec, id: 'f'.repeat(32) })).settled()).to.include({
      reason: 'host_key_changed',
    });
  });
});
