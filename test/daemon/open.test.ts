import { expect } from 'chai';
import { type OpenTunnelOptions, openTunnel } from '#lib/daemon/open.js';
import { isTunwardError } from '#lib/errors.js';
import { startServer } from '../support/servers.js';

describe('openTunnel()', () => {
  const options = { remoteHost: 'nobody@host.invalid', remotePort: 80, localPort: 0, env: {} };

  /** What is wrong with these options, before anything has been started. */
  async function complaintsAbout(more: Partial<OpenTunnelOptions>): Promise<readonly string[]> {
    const error: unknown = await openTunnel({ ...options, ...more }).then(
      (tunnel) => tunnel.close(),
      (thrown: unknown) => thrown,
    );
    if (!isTunwardError(error, 'ERR_CONFIG_INVALID')) throw new Error(`It was not refused: ${String(error)}`);
    return error.info.problems.map(({ path, message }) => `${path.replace('tunnels[0].', '')}: ${message}`);
  }

  it('takes the keys of a tunnel that this process carries, in the words of the configuration', async () => {
    expect(await complaintsAbout({ seamless: true, drainMs: -1, connectWaitMs: 0.5 })).to.deep.equal([
      'drain_ms: expected a whole number of milliseconds from 0 to 86400000, found -1',
      'connect_wait_ms: expected a whole number of milliseconds from 0 to 86400000, found 0.5',
    ]);
    expect(await complaintsAbout({ engine: 'ssh', share: true })).to.deep.equal([
      'share: expected share for the engine embedded, found the engine ssh',
    ]);
  });

  it('is seamless where it listens here, and asks nobody', async () => {
    expect(await complaintsAbout({ seamless: true, direction: 'local_to_remote', localPort: 1 })).to.have.length(1);
    expect(await complaintsAbout({ seamless: true, prompt: () => '' })).to.deep.equal([
      'seamless: expected seamless for a tunnel that starts by itself, found an interactive one',
    ]);
  });

  it('says of one that is late that it has been given up', async () => {
    // Somebody who is connected, and never says that it speaks SSH.
    await using silent = await startServer(() => undefined);
    const engine = 'embedded';
    const late = openTunnel({
      ...options,
      engine,
      remoteHost: 'somebody@127.0.0.1',
      sshOptions: { Port: `${silent.port}` },
    });
    const error: unknown = await late.then(
      (tunnel) => tunnel.close(),
      (thrown: unknown) => thrown,
    );
    if (!isTunwardError(error, 'ERR_TIMEOUT')) throw error;
    expect(error.message).to.equal('Tunnel unnamed was still starting after 6000 ms, and has been given up');
  });
});
