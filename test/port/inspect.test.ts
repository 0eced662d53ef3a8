import net from 'node:net';
import { expect } from 'chai';
import { freePort } from '#lib/port/free.js';
import { inspectPort } from '#lib/port/inspect.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { descendantsOf, isAlive, statOf } from '../support/proc.js';
import { startClient, startListener, startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { startPerlSocket } from '../support/sockets.js';

const reaper = createReaper();

describe('inspectPort()', () => {
  afterEach(() => reaper.end());

  it('says of a free port that it is, and proves it', async () => {
    const port = await freeLocalPort();
    expect(await inspectPort(port)).to.deep.include({
      ...{ port, host: null, free: true, verdict: 'free', listeners: [], clients: [], kill: null },
      explanation: `Port ${port} is free: it was bound`,
    });
  });

  it('names holder and clients, and touches nobody', async () => {
    const listener = await startListener(reaper).ready;
    const port = listener.ports[0]?.port ?? 0;
    const client = await startClient(reaper, { port }).ready;
    const report = await inspectPort(port);
    expect(report).to.include({ free: false, verdict: 'listening', kill: null });
    expect(report.explanation).to.match(
      new RegExp(
        `^Port ${port} is held by pid ${listener.pid} \\(.*\\) of \\w+, \\d+s old: "tunward free ${port}" kills it with its chain$`,
      ),
    );
    expect(report.clients).to.have.length(1);
    expect(report.clients[0]).to.include({ pid: client.pid, state: 'ESTABLISHED' });
    for (const { pid } of [listener, client]) expect(statOf(pid)?.state).to.be.oneOf(['S', 'R']);
  });

  it('names the clients of the listeners in question alone', async () => {
    const port = await freeLocalPort();
    const near = await startTree(reaper, { listen: [{ port, host: '127.0.0.1' }] }).ready;
    await startTree(reaper, { listen: [{ port, host: '127.0.0.2' }] }).ready;
    const client = await startClient(reaper, { port, host: '127.0.0.2' }).ready;
    const report = await inspectPort(port, { host: '127.0.0.1' });
    expect(report.listeners.flatMap(({ holders }) => holders.map(({ pid }) => pid))).to.deep.equal([near.pid]);
    expect(report.clients).to.deep.equal([]);
    const other = await inspectPort(port, { host: '127.0.0.2' });
    expect(other.clients.map(({ pid }) => pid)).to.deep.equal([client.pid]);
  });

  it('says of a port that an address has which was not asked for that it is free on the others', async function () {
    need(this, 'perl');
    const port = await freeLocalPort();
    await startPerlSocket(reaper, { port, address: '127.0.0.2' });
    const report = await inspectPort(port);
    expect(report).to.include({ free: true, verdict: 'free' });
    expect(report.explanation).to.match(
      new RegExp(`^Port ${port} is free on 127\\.0\\.0\\.1.*cannot be on all addresses`),
    );
    expect(await inspectPort(port, { host: '*' })).to.include({ free: false, verdict: 'hidden_bind' });
  });

  it('does not call a client who holds the port itself, nor in a dry run who is to die below it', async function () {
    need(this, 'perl');
    const port = await freeLocalPort();
    const connect = `socket(our $c, PF_INET, SOCK_STREAM, 0); connect($c, sockaddr_in(${port}, INADDR_LOOPBACK)) or die;`;
    const child = `if (!fork) { close $s; ${connect} sleep 1 while 1 } accept(our $one, $s);`;
    const { pid } = await startPerlSocket(reaper, { port, script: `listen($s, 5); ${child} ${connect}` });
    const [below] = descendantsOf(pid).map((stat) => stat.pid);
    const pids = (clients: readonly { pid: number }[]) => clients.map((client) => client.pid);
    expect(pids((await inspectPort(port)).clients)).to.deep.equal([below]);
    const plan = await freePort(port, { dryRun: true });
    expect([pids(plan.kill?.killed ?? []), pids(plan.clients)]).to.deep.equal([[pid, below], []]);
  });

  it('names the clients of a listener on every address, over either family', async function () {
    need(this, 'ipv6');
    const port = await freeLocalPort();
    await startTree(reaper, { listen: [{ port, host: '::' }] }).ready;
    const hosts = ['127.0.0.1', '::1', '127.0.0.9'];
    const clients = await Promise.all(hosts.map((host) => startClient(reaper, { port, host }).ready));
    const report = await inspectPort(port);
    expect(report.clients.map(({ pid }) => pid)).to.have.members(clients.map(({ pid }) => pid));
  });

  it('says of a port that this process holds that it is protected', async () => {
    await using server = await listenHere('127.0.0.1');
    const report = await inspectPort(server.port);
    expect(report).to.include({ free: false, verdict: 'protected' });
    expect(report.explanation).to.include('this very process');
  });

  it('says no_address of an address that this host does not have', async () => {
    const report = await inspectPort(9443, { host: '203.0.113.7' });
    expect(report).to.include({ free: false, verdict: 'no_address', host: '203.0.113.7' });
    expect(report.explanation).to.include('203.0.113.7');
  });

  for (const host of ['127.0.0.1', '::1']) {
    it(`says client_holds of a port that is the near end of a connection (${host})`, async function () {
      if (host === '::1') need(this, 'ipv6');
      const { ports } = await startListener(reaper, { host }).ready;
      const client = net.connect({ port: ports[0]?.port ?? 0, host });
      await new Promise<void>((resolve) => client.once('connect', () => resolve()));
      const report = await inspectPort(client.localPort ?? 0, { host });
      expect(report).to.include({ free: false, verdict: 'client_holds' });
      expect(report.clients.map(({ pid }) => pid)).to.deep.equal([process.pid]);
      const far = `${host === '::1' ? '[::1]' : host}:${ports[0]?.port}`;
      expect(report.explanation).to.include(`is the near end of a connection to ${far} of pid ${process.pid} (`);
      client.destroy();
    });

    it(`says time_wait of one whose connection has ended (${host})`, async function () {
      if (host === '::1') need(this, 'ipv6');
      const port = await endedClientPort(host);
      const report = await inspectPort(port, { host });
      expect(report).to.include({ free: false, verdict: 'time_wait' });
      expect(report.explanation).to.include('TIME_WAIT');
    });
  }

  it('says hidden_bind of a socket that is bound and does not listen', async function () {
    need(this, 'perl');
    const port = await freeLocalPort();
    const { pid } = await startPerlSocket(reaper, { port });
    const report = await inspectPort(port);
    expect(report).to.include({ free: false, verdict: 'hidden_bind' });
    expect(report.listeners).to.deep.equal([]);
    expect(isAlive(pid)).to.equal(true);
  });

  it('does not blame a connection on another address for a hidden bind', async function () {
    need(this, 'perl');
    await using server = await listenHere('127.0.0.2');
    const port = await freeLocalPort();
    const to = `sockaddr_in(${server.port}, inet_aton('127.0.0.2'))`;
    const script = `connect($s, ${to}) or die "connect: $!"`;
    const client = await startPerlSocket(reaper, { port, address: '127.0.0.3', script });
    await startPerlSocket(reaper, { port });
    expect(await inspectPort(port, { host: '127.0.0.1' })).to.include({ verdict: 'hidden_bind' });
    const other = await inspectPort(port, { host: '127.0.0.3' });
    expect(other).to.include({ verdict: 'client_holds' });
    expect(other.clients.map(({ pid }) => pid)).to.deep.equal([client.pid]);
    await reaper.end();
  });
});

/** The local port of a connection that its client has ended: TIME_WAIT is on the side that ends first. */
async function endedClientPort(host: string): Promise<number> {
  await using server = await listenHere(host);
  const client = net.connect({ port: server.port, host });
  await new Promise<void>((resolve) => client.once('connect', () => resolve()));
  const port = client.localPort ?? 0;
  client.end();
  await new Promise<void>((resolve) => client.once('close', () => resolve()));
  return port;
}

async function listenHere(host: string): Promise<{ port: number; [Symbol.asyncDispose](): Promise<void> }> {
  const server = net.createServer((socket) => socket.resume());
  await new Promise<void>((resolve) => server.listen({ port: 0, host }, resolve));
  const { port } = server.address() as net.AddressInfo;
  const close = () => new Promise<void>((resolve) => server.close(() => resolve()));
  return { port, [Symbol.asyncDispose]: close };
}
