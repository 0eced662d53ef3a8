import net from 'node:net';
import { expect } from 'chai';
import { freePort } from '#lib/port/free.js';
import { isPortFree, waitForPort } from '#lib/port/wait.js';
import { openProc, type Proc } from '#lib/proc/read.js';
import { type Clock, systemClock } from '#lib/time.js';
import { createFakeProc, socketLine } from '../support/fakeproc.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { startPerlSocket } from '../support/sockets.js';

const reaper = createReaper();

describe('isPortFree()', () => {
  afterEach(() => reaper.end());

  it('is asked of every address of the host', async function () {
    need(this, 'ipv6');
    const { port } = await listen('::1');
    expect(await isPortFree(port)).to.equal(false);
    expect(await isPortFree(port, { host: 'localhost' })).to.equal(false);
    expect(await isPortFree(port, { host: '*' })).to.equal(false);
    expect(await isPortFree(port, { host: '127.0.0.1' })).to.equal(true);
    expect(await isPortFree(await freeLocalPort())).to.equal(true);
  });

  it('without a host also asks where somebody listens, however the address is written', async () => {
    expect(await isPortFree((await listen('127.0.0.2')).port)).to.equal(false);
    expect(await isPortFree((await listen('::ffff:127.0.0.2')).port)).to.equal(false);
  });

  it('is not kept by an address that this host does not have', async () => {
    expect(await isPortFree(await freeLocalPort(), { host: '203.0.113.7' })).to.equal(true);
  });

  it('reads no table of a port that a bind shows to be free, and neither do freePort() and a wait for it', async () => {
    const port = await freeLocalPort();
    const { proc, reads } = countReads();
    expect(await isPortFree(port, { proc })).to.equal(true);
    expect(await isPortFree(port, { proc, host: 'localhost' })).to.equal(true);
    expect(await freePort(port, { proc })).to.include({ free: true });
    await waitForPort(port, { proc, state: 'free' });
    expect(reads).to.deep.equal([]);
    const held = await listen('127.0.0.1');
    expect(await isPortFree(held.port, { proc })).to.equal(false);
    expect(reads, 'or nothing was counted').to.include('net/tcp');
  });

  it('does not read a table of sockets that are in nobody’s way', async function () {
    need(this, 'perl');
    const port = await freeLocalPort();
    await startPerlSocket(reaper, { port, options: ['SO_REUSEADDR'] });
    const { proc, reads } = countReads();
    expect(await isPortFree(port, { proc })).to.equal(true);
    expect(reads).to.deep.equal([]);
  });

  it('leaves the port free', async () => {
    const port = await freeLocalPort();
    for (let at = 0; at < 20; at++) expect(await isPortFree(port)).to.equal(true);
  });

  it('throws for what is no port or host', async () => {
    expect(await rejection(isPortFree(0))).to.be.an.instanceOf(RangeError);
    expect(await rejection(isPortFree('80' as never))).to.be.an.instanceOf(TypeError);
    expect(await rejection(isPortFree(80, { host: 'example.com' }))).to.be.an.instanceOf(TypeError);
  });
});

describe('waitForPort()', () => {
  afterEach(() => reaper.end());

  it('waits until the holder has gone', async () => {
    const { port, kill } = await listen('127.0.0.1');
    const waiting = waitForPort(port, { state: 'free', timeoutMs: 15_000 });
    await kill();
    await waiting;
    expect(await isPortFree(port)).to.equal(true);
  });

  it('waits until somebody listens, without connecting', async () => {
    const port = await freeLocalPort();
    const waiting = waitForPort(port, { state: 'listening', timeoutMs: 15_000 });
    let connections = 0;
    const server = net.createServer(() => connections++);
    await new Promise<void>((resolve) => server.listen({ port, host: '127.0.0.1' }, resolve));
    await waiting;
    expect(connections).to.equal(0);
    server.close();
  });

  it('does not take an IPv6-only listener for one of IPv4', async function () {
    need(this, 'ipv6');
    const { port } = await listen('::', true);
    const error = await rejection(waitForPort(port, { state: 'listening', host: '127.0.0.1', timeoutMs: 30 }));
    expect(error).to.have.property('code', 'ERR_TIMEOUT');
    await waitForPort(port, { state: 'listening', host: '::1', timeoutMs: 30 });
  });

  it('sees a listener also where connections come first in the table', async () => {
    using fake = createFakeProc();
    const connection = socketLine({ address: '0100007F', port: 1, remotePort: 2, state: '01' });
    fake.write('net/tcp', connection + socketLine({ address: '0100007F', port: 9443 }));
    for (const host of [undefined, '127.0.0.1']) {
      await waitForPort(9443, { state: 'listening', host, proc: fake.proc, timeoutMs: 1000 });
    }
  });

  it('reads the whole of long tables a tenth of the time, and the listeners all along', async () => {
    using fake = createFakeProc();
    fake.write('net/tcp', socketLine({ address: '0100007F', port: 1, remotePort: 2, state: '01' }));
    fake.write('net/sockstat6', 'TCP6: inuse 0\n');
    const counts = { listeners: 0, whole: 0 };
    let now = 0;
    const pages: Proc['pages'] = (path) => {
      // The second table is read by a whole reading alone.
      if (path === 'net/tcp') counts.listeners++;
      else counts.whole++;
      if (path !== 'net/tcp') now += 100;
      return fake.proc.pages(path);
    };
    const sleep = async (ms: number) => {
      now += ms;
    };
    const clock: Clock = { ...systemClock, now: () => now, sleep };
    const options = { proc: { ...fake.proc, pages }, clock, timeoutMs: 5000 };
    expect(await rejection(waitForPort(9443, { state: 'listening', ...options }))).to.have.property(
      'code',
      'ERR_TIMEOUT',
    );
    expect(counts.whole).to.be.within(3, 6);
    expect(counts.listeners).to.be.above(50);
  });

  it('ends at its bound with a message that says what, and until when', async () => {
    const { port } = await listen('127.0.0.1');
    const began = performance.now();
    const error = await rejection(waitForPort(port, { state: 'free', timeoutMs: 60 }));
    expect(performance.now() - began).to.be.within(59, 5000);
    expect(error).to.include({ code: 'ERR_TIMEOUT', message: `Port ${port} is not free after 60 ms` });
  });

  it('rejects with the reason of an abort', async () => {
    const { port } = await listen('127.0.0.1');
    const control = new AbortController();
    const waiting = rejection(waitForPort(port, { state: 'free', timeoutMs: 15_000, signal: control.signal }));
    const reason = new Error('enough');
    control.abort(reason);
    expect(await waiting).to.equal(reason);
  });

  it('throws for a state, a port or a bound that is none', async () => {
    const wrong = [
      waitForPort(80, { state: 'open' as never }),
      waitForPort(70_000, { state: 'free' }),
      waitForPort(80, { state: 'free', timeoutMs: Number.NaN }),
      waitForPort(80, { state: 'listening', host: 'example.com' }),
    ];
    for (const error of await Promise.all(wrong.map(rejection))) {
      expect(error instanceof TypeError || error instanceof RangeError, String(error)).to.equal(true);
    }
  });
});

/** The real /proc, and the paths that were asked of it. */
function countReads(): { readonly proc: Proc; readonly reads: string[] } {
  const real = openProc();
  const reads: string[] = [];
  const note = <T>(path: string, read: T): T => {
    reads.push(path);
    return read;
  };
  const proc: Proc = {
    ...real,
    text: (path) => note(path, real.text(path)),
    pages: (path) => note(path, real.pages(path)),
    list: (path) => note(path, real.list(path)),
    link: (path) => note(path, real.link(path)),
    owner: (path) => note(path, real.owner(path)),
  };
  return { proc, reads };
}

async function listen(host: string, ipv6Only = false): Promise<{ port: number; kill: () => Promise<void> }> {
  const port = await freeLocalPort();
  const started = startTree(reaper, { listen: [{ port, host, ipv6Only }] });
  await started.ready;
  return { port, kill: started.kill };
}

function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => 'it was fulfilled',
    (error: unknown) => error,
  );
}
