import net from 'node:net';
import { expect } from 'chai';
import { findListeners } from '#lib/port/listeners.js';
import { assertPort, probeAddress, resolveHosts } from '#lib/port/probe.js';
import { systemClock } from '#lib/time.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { createReaper } from '../support/reaper.js';
import { startPerlSocket, startScript } from '../support/sockets.js';

const probed = ['0.0.0.0', '127.0.0.1', '127.0.0.2', '::', '::1'] as const;

/** Which addresses a listener keeps from being bound: `x` where it does, in the order of `probed`. */
const matrix: readonly [string, { readonly host: string; readonly ipv6Only?: boolean }, string][] = [
  ['0.0.0.0', { host: '0.0.0.0' }, 'xxx--'],
  ['127.0.0.1', { host: '127.0.0.1' }, 'xx---'],
  ['127.0.0.2', { host: '127.0.0.2' }, 'x-x--'],
  [':: of both families', { host: '::' }, 'xxxxx'],
  [':: of IPv6 only', { host: '::', ipv6Only: true }, '---xx'],
  ['::1', { host: '::1' }, '---xx'],
  ['::ffff:127.0.0.1', { host: '::ffff:127.0.0.1' }, 'xx---'],
];

describe('probeAddress()', () => {
  const reaper = createReaper();
  afterEach(() => reaper.end());
  before(function () {
    need(this, 'ipv6');
  });

  for (const [name, options, expected] of matrix) {
    it(`beside a listener on ${name}, and the table names that listener exactly there`, async () => {
      const port = await freeLocalPort();
      const server = net.createServer();
      await new Promise<void>((resolve) => server.listen({ port, exclusive: true, ...options }, resolve));
      try {
        expect(await busyRow(port)).to.equal(expected);
        const named = await Promise.all(probed.map(async (host) => (await findListeners(port, { host })).length));
        expect(named.map((count) => (count === 1 ? 'x' : '-')).join('')).to.equal(expected);
      } finally {
        server.close();
      }
    });
  }

  it('beside a socket that is bound and does not listen', async function () {
    need(this, 'perl');
    const port = await freeLocalPort();
    const child = await startPerlSocket(reaper, { port });
    expect(await busyRow(port)).to.equal('xx---');
    expect(await findListeners(port)).to.deep.equal([]);
    child.kill('SIGKILL');
  });

  it('beside one that is bound with SO_REUSEADDR: that is in nobody’s way', async function () {
    need(this, 'perl');
    const port = await freeLocalPort();
    await startPerlSocket(reaper, { port, options: ['SO_REUSEADDR'] });
    expect(await busyRow(port)).to.equal('-----');
  });

  it('beside an outgoing connection that has the port as its own', async () => {
    const server = net.createServer();
    await new Promise<void>((resolve) => server.listen({ port: 0, host: '127.0.0.1' }, resolve));
    const { port } = server.address() as net.AddressInfo;
    const client = net.connect({ port, host: '127.0.0.1' });
    await new Promise<void>((resolve) => client.once('connect', () => resolve()));
    expect(await busyRow(client.localPort ?? 0)).to.equal('xx---');
    client.destroy();
    server.close();
  });

  it('says of an address that this host does not have that it is absent', async () => {
    for (const host of ['203.0.113.7', '2001:db8::7', 'fe80::7']) {
      expect(await probeAddress(host, 9443), host).to.equal('absent');
    }
  });

  it('is over at once under a client that connects again and again, and leaves nothing bound', async function () {
    this.timeout(60_000);
    need(this, 'perl');
    const port = await freeLocalPort();
    const client = await startScript(reaper, 'perl', ['-e', reconnecting(port)]);
    let connected = 0;
    client.stdout?.on('data', (text: string) => {
      connected += text.length;
    });
    let slowest = 0;
    const enough = (): boolean => connected > 3;
    const deadline = performance.now() + 30_000;
    for (let at = 0; at < 300 || (!enough() && performance.now() < deadline); at++) {
      const began = performance.now();
      expect(await probeAddress('127.0.0.1', port)).to.equal('free');
      slowest = Math.max(slowest, performance.now() - began);
      if (at % 10 === 0) await systemClock.sleep(0);
    }
    expect(enough(), 'or nobody disturbed it').to.equal(true);
    expect(slowest).to.be.below(1000);
  });

  it('gives one answer to all who ask at once: they are not in each other’s way', async () => {
    const port = await freeLocalPort();
    const asked = Array.from({ length: 20 }, () => probeAddress('127.0.0.1', port));
    expect(new Set(await Promise.all(asked))).to.deep.equal(new Set(['free']));
  });

  it('does not take its own probe of one address for a holder of another that contains it', async () => {
    const port = await freeLocalPort();
    const hosts = ['127.0.0.1', '0.0.0.0', '127.0.0.2', '0.0.0.0'];
    expect((await Promise.all(hosts.map((host) => probeAddress(host, port)))).join(' ')).to.equal(
      'free free free free',
    );
  });

  it('is over after a second also when the bind is never answered, and keeps nobody waiting', async () => {
    const port = await freeLocalPort();
    const { listen } = net.Server.prototype;
    net.Server.prototype.listen = function () {
      return this;
    };
    const unanswered = probeAddress('127.0.0.1', port).catch((error: unknown) => error);
    await systemClock.sleep(0);
    net.Server.prototype.listen = listen;
    const began = performance.now();
    const next = probeAddress('127.0.0.1', port);
    expect(await unanswered).to.include({ code: 'ERR_TIMEOUT' });
    expect(await next).to.equal('free');
    expect(performance.now() - began).to.be.within(900, 10_000);
  });

  it('can bind as often as one likes', async () => {
    const port = await freeLocalPort();
    for (let at = 0; at < 50; at++) expect(await probeAddress('127.0.0.1', port)).to.equal('free');
  });
});

describe('resolveHosts()', () => {
  it('knows localhost, every address, and numbers in the spelling of the kernel', async function () {
    need(this, 'ipv6');
    expect(resolveHosts('localhost')).to.deep.equal(['127.0.0.1', '::1']);
    expect(resolveHosts('*')).to.deep.equal(['0.0.0.0', '::']);
    const spellings = {
      '10.0.0.1': '10.0.0.1',
      '[::1]': '::1',
      '0:0:0:0:0:0:0:1': '::1',
      '2001:DB8::A': '2001:db8::a',
      '::ffff:127.0.0.1': '127.0.0.1',
      '::FFFF:7f00:1': '127.0.0.1',
      'FE80::1%eth0': 'fe80::1%eth0',
    };
    for (const [host, address] of Object.entries(spellings)) expect(resolveHosts(host), host).to.deep.equal([address]);
  });

  for (const host of ['example.com', '', 'localhost.', '127.1', '127.0.0.1:80', '*:80', ' 127.0.0.1', '0x7f.0.0.1']) {
    it(`refuses '${host}': a name is never probed`, () => expect(() => resolveHosts(host)).to.throw(TypeError));
  }
});

describe('assertPort()', () => {
  it('takes what can be a port', () => {
    for (const port of [1, 22, 65_535]) assertPort(port);
  });

  for (const port of [0, -1, 65_536, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    it(`throws for ${port}`, () => expect(() => assertPort(port)).to.throw(RangeError));
  }

  for (const port of ['80', '', null, undefined, [80], true] as unknown[]) {
    it(`throws for ${JSON.stringify(port)} of type ${typeof port}`, () => {
      expect(() => assertPort(port as number)).to.throw(TypeError);
    });
  }
});

/** Connects to a port without a pause; says so each time it could. */
function reconnecting(port: number): string {
  return `use Socket; $| = 1; print "ready\\n"; my $to = sockaddr_in(${port}, inet_aton('127.0.0.1'));
    while (1) { socket(my $s, PF_INET, SOCK_STREAM, 0) or die; print '.' if connect($s, $to); close $s }`;
}

/** `x` for each of `probed` that could not be bound. */
async function busyRow(port: number): Promise<string> {
  let row = '';
  for (const host of probed) row += (await probeAddress(host, port)) === 'busy' ? 'x' : '-';
  return row;
}
