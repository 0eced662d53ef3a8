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
  let twinPort: number;

  beforeEach(async () => {
    reaper = createReaper();
    home = makeHome();
    server = await startSshServer();
    port = await freeLocalPort();
    twinPort = await freeLocalPort();
    const far = { remote_host: server.tunnelOptions.remoteHost, remote_port: '127.0.0.1:9', engine: 'embedded' };
    home.configure({ ssh_config: server.sshConfigFile }, [
      { ...far, name: 'front', local_port: port, seamless: true },
      { ...far, name: 'bystander', local_port: await freeLocalPort() },
      // One that a shell takes apart, of which there are two.
      { ...far, name: 'a twin', local_port: twinPort },
      { ...far, name: 'a twin', local_port: await freeLocalPort() },
    ]);
    daemon = await startUp(reaper, home);
    await tunnelIn(home, 'front', 'up');
    await tunnelIn(home, 'a twin', 'up');
  });

  afterEach(async () => {
    await daemon.end('SIGTERM');
    await reaper.end();
    await server.close();
    home.remove();
  });

  function tunward(...words: string[]): Promise<string> {
    return tunwardWith({}, ...words);
  }

  function tunwardWith(more: Readonly<Record<string, string>>, ...words: string[]): Promise<string> {
    const args = [join(repoRoot, 'lib/cli/main.js'), ...words];
    const env = { ...process.env, TUNWARD_CONFIG: home.configFile, ...more };
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

  for (const words of [['who'], ['free'], ['free', '--dry-run']]) {
    it(`is freed by the command that 'tunward ${words.join(' ')}' says, as it stands there`, async () => {
      const said = await tunward(...words, String(twinPort));
      const [, command = ''] = /'tunward (stop [^']*)'/.exec(said) ?? [];
      expect(command, said).to.match(/^stop [0-9a-f]{8}$/);
      expect(await tunward(...command.split(' '))).to.match(/a twin +stopped/);
      expect(await tunward('who', String(twinPort))).to.match(/is free/);
    });
  }

  it('is of a daemon that this command does not know: then nobody is named', async () => {
    const elsewhere = join(home.dir, 'no.sock');
    expect(await tunwardWith({ TUNWARD_SOCKET: elsewhere }, 'who', String(port))).to.contain("'tunward stop NAME'");
  });
});
