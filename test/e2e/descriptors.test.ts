import { once } from 'node:events';
import net from 'node:net';
import { expect } from 'chai';
import { startSshServer, type TestSshServer } from '#lib/testing.js';
import { until } from '#lib/time.js';
import { type Home, makeHome, type RunningDaemon, startUp, tunnelIn } from '../support/daemon.js';
import { freeLocalPort } from '../support/port.js';
import { createReaper, type Reaper } from '../support/reaper.js';

describe('a daemon with few descriptors, and a tunnel with many clients', () => {
  let reaper: Reaper;
  let home: Home;
  let server: TestSshServer;
  let daemon: RunningDaemon;
  const clients: net.Socket[] = [];
  const ends: string[] = [];

  beforeEach(async () => {
    reaper = createReaper();
    home = { ...makeHome(), through: ['prlimit', '--nofile=200'] };
    server = await startSshServer();
    // One whose connections stay: it says nothing.
    const target = net.createServer((socket) => socket.on('error', () => undefined));
    target.listen(0, '127.0.0.1');
    await once(target, 'listening');
    const { port: far } = target.address() as net.AddressInfo;
    const port = await freeLocalPort();
    const remote = { remote_host: server.tunnelOptions.remoteHost, remote_port: `127.0.0.1:${far}` };
    home.configure({ ssh_config: server.sshConfigFile }, [
      { ...remote, name: 'front', engine: 'embedded', local_port: port, seamless: true },
    ]);
    daemon = await startUp(reaper, home);
    await tunnelIn(home, 'front', 'up');
    ends.length = 0;
    for (let count = 0; count < 400; count++) {
      let end = 'a clean end';
      const socket = net.connect(port, '127.0.0.1').on('error', (error: NodeJS.ErrnoException) => {
        end = String(error.code);
      });
      socket.resume().once('close', () => ends.push(end));
      clients.push(socket);
    }
    await until(() => ends.length > 150, { timeoutMs: 10_000 });
    target.unref();
    target.close();
  });

  afterEach(async () => {
    for (const socket of clients.splice(0)) socket.destroy();
    await daemon.end('SIGTERM');
    await reaper.end();
    await server.close();
    home.remove();
  });

  // A tunnel that is restarted or stopped would give them back; nobody can ask for that any more.
  it('answers its API', async () => {
    const answer = await home.api('GET', '/v1/tunnels').catch((error: Error) => error);
    expect(answer).to.have.property('status', 200);
  });

  // libuv accepts and closes: an end without an answer, which a client may take for an empty one; `refused` is 0.
  it('resets whom it has no descriptor for, as it says of all it turns away', () => {
    expect(new Set(ends)).to.deep.equal(new Set(['ECONNRESET']));
  });
});
