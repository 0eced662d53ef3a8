import { expect } from 'chai';
import { openTunnel } from '#lib/index.js';
import { freePort } from '#lib/port/free.js';
import { inspectPort } from '#lib/port/inspect.js';
import { isPortFree, waitForPort } from '#lib/port/wait.js';
import { until } from '#lib/time.js';
import { fault, spread } from '../support/fault.js';
import { type Held, startHolder, startTimeWait } from '../support/holders.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive, statOf } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';
import { startShellLoop } from '../support/respawners.js';
import { startPerlSocket } from '../support/sockets.js';
import { type Sshd, startSshd } from '../support/sshd.js';

const reaper = createReaper();

describe('fault: who holds a port', () => {
  afterEach(() => reaper.end());

  fault(
    { id: 'P2', title: 'two who share it are both named, and both killed', times: 100, needs: ['perl'] },
    async (times) => {
      const samples: number[] = [];
      for (let n = 0; n < times; n++) {
        const port = await freeLocalPort();
        const start = () => startPerlSocket(reaper, { port, options: ['SO_REUSEPORT'], script: 'listen($s, 5)' });
        const pids = [(await start()).pid, (await start()).pid];
        const who = await inspectPort(port);
        expect(who.listeners.flatMap(({ holders }) => holders.map(({ pid }) => pid))).to.have.members(pids);
        const report = await freePort(port);
        expect(report).to.include({ free: true, verdict: 'free' });
        expect(report.kill?.killed.map(({ pid }) => pid)).to.have.members(pids);
        expect(pids.filter((pid) => isAlive(pid))).to.deep.equal([]);
        samples.push(report.tookMs);
        await reaper.end();
      }
      return `${times}/${times}, ${spread(samples)}`;
    },
  );

  fault(
    { id: 'P3', title: 'who has bound it and does not listen is left alone', times: 50, needs: ['perl'] },
    async (times) => {
      for (let n = 0; n < times; n++) {
        const port = await freeLocalPort();
        const { pid } = await startPerlSocket(reaper, { port });
        for (const report of [await inspectPort(port), await freePort(port)]) {
          expect(report).to.include({ free: false, verdict: 'hidden_bind', kill: null });
        }
        expect(isAlive(pid)).to.equal(true);
        await reaper.end();
      }
      return `${times}/${times}`;
    },
  );

  const clients = 'clients are told apart and live: of the port, and on it';
  fault({ id: 'P4', title: clients, times: 200, reduced: 20, needs: ['perl'] }, async (times) => {
    let killed = 0;
    for (let n = 0; n < times; n++) {
      const port = await freeLocalPort();
      const server = await startHolder(reaper, { port, address: '127.0.0.1' });
      const browser = await startConnected(port);
      const near = await freePort(browser.near, { host: '127.0.0.1' });
      expect(near).to.include({ free: false, verdict: 'client_holds', kill: null });
      expect(near.clients.map(({ pid }) => pid)).to.deep.equal([browser.pid]);
      const who = await inspectPort(port);
      expect(who.clients.map(({ pid }) => pid)).to.deep.equal([browser.pid]);
      const report = await freePort(port);
      expect(report).to.include({ free: true, verdict: 'free' });
      expect(report.kill?.killed.map(({ pid }) => pid)).to.deep.equal([server.pid]);
      if (!isAlive(browser.pid) || statOf(browser.pid)?.state === 'T') killed++;
      await reaper.end();
    }
    expect(killed).to.equal(0);
    return `${killed} killed or stopped of ${times}`;
  });

  const ended = 'a connection that has ended is waited for, nobody is killed, and it is over within a minute or so';
  fault({ id: 'P5', title: ended, times: 3, needs: ['perl'], timeoutMs: 90_000 }, async (times) => {
    const waited = await Promise.all(
      Array.from({ length: times }, async () => {
        const port = await freeLocalPort();
        await startTimeWait(reaper, { port, address: '127.0.0.1', reuseAddress: false });
        const began = performance.now();
        for (const report of [await inspectPort(port), await freePort(port)]) {
          expect(report).to.include({ free: false, verdict: 'time_wait', kill: null });
          expect(report.explanation).to.include('wait, about a minute');
        }
        await waitForPort(port, { state: 'free', timeoutMs: 65_000 });
        return (performance.now() - began) / 1000;
      }),
    );
    return `${times}/${times}, free after ${waited.map((s) => s.toFixed(1)).join(', ')} s`;
  });

  const back = 'what a shell loop starts again is named with its parent, and ended when asked';
  fault({ id: 'P12', title: back, times: 100, needs: ['perl'] }, async (times) => {
    const samples: number[] = [];
    for (let n = 0; n < times; n++) {
      const port = await freeLocalPort();
      const loop = await startShellLoop(reaper, { port, pauseMs: n % 46 });
      const named = await freePort(port);
      expect(named).to.include({ free: false, verdict: 'respawned' });
      expect(named.respawner?.pid).to.equal(loop.pid);
      expect(isAlive(loop.pid)).to.equal(true);
      samples.push(named.tookMs);
      expect(await freePort(port, { respawner: true })).to.include({ free: true });
      const isBack = async () => !(await isPortFree(port));
      expect(await until(isBack, { timeoutMs: 100, everyMs: 20 }), 'it came back').to.equal(undefined);
      await reaper.end();
    }
    return `${times}/${times} named, ${times}/${times} ended, ${spread(samples)}`;
  });

  describe('of a tunnel', () => {
    let sshd: Sshd;
    before(async function () {
      need(this, 'sshd', 'ssh', 'ipv6', 'perl');
      sshd = await startSshd();
    });
    after(async () => {
      await sshd?.stop();
    });

    fault({ id: 'P11', title: 'half of its addresses is not enough: it does not start', times: 50 }, async (times) => {
      const samples: number[] = [];
      for (let n = 0; n < times; n++) {
        const port = await freeLocalPort();
        const [busy, free] = n % 2 === 0 ? ['127.0.0.1', '::1'] : ['::1', '127.0.0.1'];
        const stranger = await startHolder(reaper, { port, address: busy ?? '', ipv6Only: busy === '::1' });
        const events: string[] = [];
        const began = performance.now();
        const error = await openTunnel({
          remoteHost: 'rig',
          remotePort: `127.0.0.1:${sshd.port}`,
          localPort: port,
          sshConfig: sshd.sshConfigFile,
          env: { ...process.env, ...reaper.env },
          onEvent: ({ type }) => events.push(type),
        }).catch((thrown: unknown) => thrown);
        samples.push(performance.now() - began);
        expect(error).to.include({ code: 'ERR_PORT_HELD' });
        expect(events).not.to.include('tunnel.up');
        expect(isAlive(stranger.pid)).to.equal(true);
        expect(await isPortFree(port, { host: free }), 'half a tunnel is left').to.equal(true);
        await reaper.end();
      }
      return `${times}/${times}, refused in ${spread(samples)}`;
    });
  });
});

/** A client of the port that outlives its server, and its own end's port. */
async function startConnected(to: number): Promise<Held & { readonly near: number }> {
  const script = `connect($s, at('127.0.0.1', ${to})) or die $!; $SIG{PIPE} = 'IGNORE'; $SIG{HUP} = 'IGNORE';
    print((unpack_sockaddr_in(getsockname($s)))[0], "\\n")`;
  const client = await startHolder(reaper, { port: 0, address: '127.0.0.1', reuseAddress: false, script });
  return Object.assign(client, { near: Number(client.firstLine) });
}
