import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { expect } from 'chai';
import { startSshServer, type TestSshServer } from '#lib/testing.js';
import { type Home, makeHome, type RunningDaemon, startUp, tunnelIn } from '../support/daemon.js';
import { repoRoot } from '../support/paths.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive } from '../support/proc.js';
import { createReaper, type Reaper } from '../support/reaper.js';

describe('a port that the daemon itself listens on', () => {
  let reaper: Reaper;
  let home: Home;
  let server: TestSshServer;
  let daemon: RunningDaemon;
  let port: number;

  beforeEach(async () => {
    reaper = createReaper();
    home = makeHome();
    server = await startSshServer();
    port = await freeLocalPort();
    const far = { remote_host: server.tunnelOptions.remoteHost, remote_port: '127.0.0.1:9', engine: 'embedded' };
    home.configure({ ssh_config: server.sshConfigFile }, [
      { ...far, name: 'front', local_port: port, seamless: true },
      { ...far, name: 'bystander', local_port: await freeLocalPort() },
    ]);
    daemon = await startUp(reaper, home);
    await tunnelIn(home, 'front', 'up');
  });

  afterEach(async () => {
    await daemon.end('SIGTERM');
    await reaper.end();
    await server.close();
    home.remove();
  });

  function tunward(...words: string[]): Promise<string> {
    const args = [join(repoRoot, 'lib/cli/main.js'), ...words];
    const env = { ...process.env, TUNWARD_CONFIG: home.configFile };
    return new Promise((resolve) => {
      execFile(process.execPath, args, { env, timeout: 20_000 }, (_error, out, err) => resolve(out + err));
    });
  }

  // SIGKILL for the daemon, and for all its tunnels with it; no word of either.
  it('is not freed by killing the daemon with all its tunnels, unasked', async () => {
    await tunward('free', String(port));
    expect(isAlive(daemon.pid), 'the daemon lives').to.equal(true);
  });

  it("is said to be the daemon's by 'tunward who' and by 'free --dry-run'", async () => {
    expect(await tunward('who', String(port))).to.match(/tunnel front|daemon/);
    expect(await tunward('free', '--dry-run', String(port))).to.match(/tunnel front|daemon/);
  });
});
