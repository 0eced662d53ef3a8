import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { fetchText, makeHome, type RunningDaemon, startUp, tunnelIn } from '../support/daemon.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { descendantsOf, sendSignal } from '../support/proc.js';
import { startListener } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { type Sshd, startSshd } from '../support/sshd.js';

describe('why a tunnel is not up, or up and not well', () => {
  const reaper = createReaper();
  const home = makeHome();
  let dir: string;
  let sshd: Sshd;
  let daemon: RunningDaemon | undefined;

  before(function () {
    need(this, 'ssh', 'sshd');
  });

  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-test-'));
    sshd = await startSshd({ dir });
    daemon = undefined;
  });

  afterEach(async () => {
    const code = await daemon?.end('SIGTERM');
    await reaper.end();
    await sshd.stop();
    home.remove();
    rmSync(dir, { recursive: true });
    expect(code, daemon?.stderr()).to.equal(0);
  });

  async function up(...tunnels: Readonly<Record<string, unknown>>[]): Promise<void> {
    const common = { remote_host: 'rig', ssh_config: sshd.sshConfigFile, remote_port: 22 };
    const keys = { restart_timeout_ms: 3000, backoff: { min_ms: 100, max_ms: 300 } };
    home.configure(
      keys,
      tunnels.map((tunnel) => ({ ...common, ...tunnel })),
    );
    daemon = await startUp(reaper, home);
  }

  /** Waits until a tunnel is as it should be; answers its record. */
  async function becomes(name: string, fields: Readonly<Record<string, unknown>>, timeoutMs = 10_000) {
    let now: Readonly<Record<string, unknown>> = {};
    const isSo = async () => {
      now = (await home.api('GET', `/v1/tunnels/${name}`)).body;
      return Object.entries(fields).every(([key, value]) => now[key] === value);
    };
    expect(await until(isSo, { timeoutMs, everyMs: 20 }), JSON.stringify(now)).to.equal(true);
    return now;
  }

  it('names the line of known_hosts that a changed key contradicts, and never tries again by itself', async () => {
    await up({ name: 'web', local_port: await freeLocalPort() });
    await tunnelIn(home, 'web', 'up');
    await sshd.stop();
    rmSync(sshd.hostKeyFile);
    sshd = await startSshd({ dir, port: sshd.port });
    const { status, body } = await home.api('POST', '/v1/tunnels/web/restart');
    expect([status, body.reason, body.next_retry_at]).to.deep.equal([502, 'host_key_changed', null]);
    const file = sshd.knownHostsFile;
    const key = `[127.0.0.1]:${sshd.port}`;
    expect(body.last_error).to.match(
      /^Host key for \S+ has changed and you have requested strict checking; Offending /,
    );
    expect(body.last_error).to.include(`key in ${file}:1`);
    expect(body.remedy).to.include(`(ssh-keygen -f '${file}' -R '${key}')`);
    expect(await tunnelIn(home, 'web', 'fatal')).to.include({ desired: 'up', attempt: 1, pid: null });
    execFileSync('ssh-keygen', ['-f', file, '-R', key], { stdio: 'ignore' });
    expect((await home.api('POST', '/v1/tunnels/web/start')).body).to.include({ state: 'up' });
  });

  it('waits for the server to let go of a remote port, and is up by itself when it has', async () => {
    const remotePort = await freeLocalPort();
    await using others = createReaper();
    await startListener(others, { port: remotePort }).ready;
    await up({ name: 'stale', direction: 'local_to_remote', local_port: 22, remote_port: remotePort });
    const busy = await becomes('stale', { state: 'backoff', reason: 'remote_port_busy' });
    expect(busy.last_error).to.match(/remote port forwarding failed for listen port/);
    expect(busy.remedy).to.match(/ClientAliveInterval 15/);
    const waitMs = Date.parse(String(busy.next_retry_at)) - Date.parse(String(busy.since));
    expect(waitMs).to.be.within(5000, 5600);
    await others.end();
    await becomes('stale', { state: 'up', reason: null, last_error: null, remedy: null }, 9000);
  });

  it('says which port the server has chosen, and its users come in there', async () => {
    const server = http.createServer((_request, answer) => answer.end('from here'));
    server.listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const { port } = server.address() as AddressInfo;
    try {
      await up({ name: 'any', direction: 'local_to_remote', local_port: port, remote_port: 0 });
      const { listen } = await tunnelIn(home, 'any', 'up');
      expect(listen[0].port).to.be.greaterThan(1023);
      expect(await fetchText(listen[0].port)).to.equal('from here');
      const again = await home.api('POST', '/v1/tunnels/any/restart');
      expect(await fetchText(again.body.tunnel.listen[0].port)).to.equal('from here');
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });

  it('keeps a tunnel up whose target is not well, says so, and that it is well again', async () => {
    const target = await freeLocalPort();
    const check = { http: '/', every_ms: 1000, timeout_ms: 1000 };
    await up({ name: 'web', local_port: await freeLocalPort(), remote_port: target, check });
    const unwell = await becomes('web', { state: 'up', health: 'degraded', reason: 'target_refused' });
    expect(unwell.health_reason).to.match(/open failed: connect failed: Connection refused$/);
    const server = http.createServer((_request, answer) => answer.end('well'));
    server.listen(target, '127.0.0.1');
    try {
      const well = await becomes('web', { state: 'up', health: 'ok', reason: null });
      expect(well.pid).to.equal(unwell.pid);
      expect(home.logLines(String(well.id)).join('\n')).to.match(/Degraded: channel[\s\S]*Well again/);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });

  it('replaces a tunnel through which nothing comes any more, while its ssh lives and listens', async () => {
    const check = { connect: true, every_ms: 1000, timeout_ms: 300 };
    const target = await freeLocalPort();
    await startListener(reaper, { port: target }).ready;
    await up({
      name: 'web',
      remote_port: target,
      local_port: await freeLocalPort(),
      check,
      ssh_options: { ServerAliveInterval: '0' },
    });
    const { pid } = await becomes('web', { state: 'up', health: 'ok' });
    const sessions = descendantsOf(sshd.pid);
    for (const session of sessions) sendSignal(session, 'SIGSTOP');
    await becomes('web', { state: 'up', health: 'degraded', reason: 'timeout' });
    const fresh = await becomes('web', { state: 'up', health: 'ok', restarts: 1 }, 15_000);
    expect(fresh.pid).to.not.equal(pid);
    for (const session of sessions) sendSignal(session, 'SIGCONT');
  });
});
