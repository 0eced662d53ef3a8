import net, { type AddressInfo } from 'node:net';
import { expect } from 'chai';
import { makeHome, type RunningDaemon, startUp, tunnelIn } from '../support/daemon.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive } from '../support/proc.js';
import { startListener } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { type Sshd, startSshd } from '../support/sshd.js';

describe('up is the truth', () => {
  const reaper = createReaper();
  const home = makeHome();
  let sshd: Sshd;
  let daemon: RunningDaemon;
  let ports: { taken: number; half: number; mute: number; refused: number; held: number };
  let endMuteServer: (() => void) | undefined;

  before(async function () {
    need(this, 'ssh', 'sshd');
    sshd = await startSshd();
    const mute = await startMuteServer();
    const [taken, half, held] = await Promise.all([freeLocalPort(), freeLocalPort(), freeLocalPort()]);
    ports = { taken, half, held, mute, refused: await freeLocalPort() };
    await startListener(reaper, { port: ports.taken }).ready;
    await startListener(reaper, { port: ports.half, host: '::1' }).ready;
    await startListener(reaper, { port: ports.held }).ready;
    const common = { remote_host: 'rig', ssh_config: sshd.sshConfigFile, remote_port: 22, takeover: 'tunnels' };
    home.configure({ restart_timeout_ms: 3000, backoff: { min_ms: 200, max_ms: 400 } }, [
      { ...common, name: 'taken', direction: 'local_to_remote', local_port: 22, remote_port: ports.taken },
      { ...common, name: 'half', local_port: ports.half },
      { ...common, name: 'held', local_port: ports.held },
      { ...common, name: 'mute', local_port: await freeLocalPort(), ssh_options: { Port: ports.mute } },
      { ...common, name: 'refused', local_port: await freeLocalPort(), ssh_options: { Port: ports.refused } },
      { ...common, name: 'nokey', local_port: await freeLocalPort(), ssh_options: { PubkeyAuthentication: 'no' } },
    ]);
    daemon = await startUp(reaper, home);
  });

  after(async () => {
    const code = await daemon?.end('SIGTERM');
    await reaper.end();
    await sshd?.stop();
    endMuteServer?.();
    home.remove();
    expect(code, daemon?.stderr()).to.equal(0);
  });

  /** Never up, however often it is looked at while this goes on. */
  async function neverUp(name: string, during: () => Promise<unknown>): Promise<void> {
    const states = new Set<string>();
    let over = false;
    const watching = (async () => {
      while (!over) states.add((await home.api('GET', `/v1/tunnels/${name}`)).body.state);
    })();
    await during();
    over = true;
    await watching;
    expect([...states]).to.not.include('up');
  }

  it('is never up when the remote port is taken', () =>
    neverUp('taken', async () => {
      const { status, body } = await home.api('POST', '/v1/tunnels/taken/restart');
      expect(status).to.equal(502);
      expect(body).to.include({ code: 'ERR_START_FAILED', reason: 'remote_port_busy' });
      expect(body.last_error).to.match(/remote port forwarding failed/);
      expect(new Date(body.next_retry_at).getTime()).to.be.a('number');
    }));

  it('is never up when only one of its two addresses could be bound, and names who has the other', () =>
    neverUp('half', async () => {
      const { status, body } = await home.api('POST', '/v1/tunnels/half/restart');
      expect(status).to.equal(409);
      expect(body.code).to.equal('ERR_PORT_HELD');
      expect(body.holders).to.have.lengthOf(1);
      expect(body.holders[0]).to.have.all.keys('pid', 'start_ticks', 'command', 'user', 'age_s');
    }));

  it('answers 409 with the holder for a stranger on its port, and force takes the port', async () => {
    const { status, body } = await home.api('POST', '/v1/tunnels/held/restart');
    expect(status).to.equal(409);
    const [holder] = body.holders;
    expect(isAlive(holder.pid, holder.start_ticks)).to.equal(true);
    expect((await home.api('GET', '/v1/tunnels/held')).body).to.include({ reason: 'local_port_busy', desired: 'up' });
    const forced = await home.api('POST', '/v1/tunnels/held/restart?force=true');
    expect(forced.body).to.include({ state: 'up' });
    expect(forced.body.kill.killed.map(({ pid }: { pid: number }) => pid)).to.deep.equal([holder.pid]);
    expect(isAlive(holder.pid, holder.start_ticks)).to.equal(false);
  });

  it('answers 504 in time for a server that accepts and says nothing, and goes on', () =>
    neverUp('mute', async () => {
      const { status, body } = await home.api('POST', '/v1/tunnels/mute/restart');
      expect(status).to.equal(504);
      expect(body).to.include({ code: 'ERR_TIMEOUT', timeout_ms: 3000 });
      expect(body.going).to.match(/^starting/);
    }));

  it('tells a server that refuses from a login that is refused', async () => {
    expect((await home.api('POST', '/v1/tunnels/refused/restart')).body).to.include({ reason: 'refused' });
    expect((await home.api('POST', '/v1/tunnels/nokey/restart')).body).to.include({ reason: 'auth_failed' });
  });

  it('keeps trying by itself, and says when', async () => {
    const { attempt } = await tunnelIn(home, 'refused', 'backoff');
    const later = await tunnelIn(home, 'refused', 'backoff');
    expect(later.next_retry_at).to.match(/^\d{4}-/);
    expect(later.attempt).to.be.at.least(attempt);
  });

  async function startMuteServer(): Promise<number> {
    const sockets: net.Socket[] = [];
    const server = net.createServer((socket) => sockets.push(socket.on('error', () => socket.destroy())));
    endMuteServer = () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    };
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return (server.address() as AddressInfo).port;
  }
});
