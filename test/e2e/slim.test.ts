import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { need } from '../support/need.js';
import { repoRoot } from '../support/paths.js';
import { makeRootfs, runInRootfs } from '../support/rootfs.js';
import { startSshd } from '../support/sshd.js';

/** Whatever else it wanted to execute is not there to be executed: not even a shell. */
describe('in a root file system that holds node, ssh, autossh and nothing else', () => {
  const values = new Map<string, unknown>();

  before(async function () {
    this.timeout(90_000);
    need(this, 'ssh', 'sshd', 'autossh', 'root', 'unshare');
    await using sshd = await startSshd();
    const root = mkdtempSync(join(tmpdir(), 'tunward-root-'));
    try {
      makeRootfs(root, ['ssh', 'autossh']);
      const argv = ['node', '/app/.build/test/e2e/programs/slim.js', sshd.sshConfigFile, String(sshd.port)];
      const bind = [
        [repoRoot, '/app'],
        [sshd.dir, sshd.dir],
      ] as const;
      const { stdout } = await runInRootfs(root, argv, { bind, network: 'shared', timeoutMs: 60_000 });
      for (const line of stdout.split('\n').filter((text) => text.startsWith('{'))) {
        const { emitted, value } = JSON.parse(line);
        values.set(emitted, value);
      }
    } finally {
      rmSync(root, { recursive: true, force: true });
    }
  });

  it('has no other program', () => {
    expect(values.get('programs')).to.deep.equal(['autossh', 'node', 'ssh']);
  });

  it('boots over stale chains, by marker, by forward and by port, and spares who is none of them', () => {
    expect(values.get('leftovers that live')).to.deep.equal([]);
    expect(values.get('spared that died')).to.deep.equal([]);
  });

  it('leaves the clients of a port alone through its restarts', () => {
    expect(values.get('clients that live')).to.equal(2);
  });

  it('restarts a chain that is stopped by a signal, in time', () => {
    expect(values.get('frozen')).to.deep.equal({ status: 200, inTime: true, gone: true });
  });

  it('is never up when the remote port is taken, or one of two addresses', () => {
    expect(values.get('never up')).to.deep.equal([
      [502, 'ERR_START_FAILED', 'remote_port_busy'],
      [409, 'ERR_PORT_HELD', null],
    ]);
  });

  it('restarts ssh, autossh and a remote forward, and leaves nobody', () => {
    expect(values.get('restarts')).to.deep.equal(Array(15).fill({ status: 200, survivors: 0, gone: true }));
  });

  it('names a stranger on its port, and takes it by force alone', () => {
    expect(values.get('stranger')).to.deep.equal({ status: 409, holder: true, lives: true });
    expect(values.get('forced')).to.deep.equal({ state: 'up', lives: false });
  });

  it('comes back after a SIGKILL of the daemon, without its old chains', () => {
    expect(values.get('outlived the daemon')).to.equal(true);
    expect(values.get('after the next boot')).to.deep.equal({ old: 0, attempts: [0, 0, 0] });
  });

  it('never meets an address in use, and ends clean', () => {
    expect(values.get('in use')).to.deep.equal([]);
    expect(values.get('exit code')).to.equal(0);
    expect(values.get('left')).to.deep.equal([]);
  });
});
