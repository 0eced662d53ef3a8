import { expect } from 'chai';
import { inNamespace, type NamespaceResult } from '../support/namespace.js';
import { need } from '../support/need.js';

/** The server has lost sight of us, and still holds the port: the one "in use" that nobody on this side can clear away. */
describe('a network partition between two network namespaces shows -R recovery end to end', () => {
  let run: NamespaceResult;

  before(async function () {
    this.timeout(60_000);
    need(this, 'root', 'unshare', 'ip', 'ssh', 'sshd');
    run = await inNamespace('test/e2e/programs/partition.js', ['alive'], { timeoutMs: 50_000 });
  });

  it('forwards to this side before', () => {
    expect(run.get('before')).to.deep.equal({ said: 'from the near side', listens: true });
  });

  it('says that the server still holds the port, what to set there, and tries again after five seconds', () => {
    const busy = run.get<{ reason: string; remedy: string; lastError: string; waitMs: number }>('busy');
    expect(busy.reason).to.equal('remote_port_busy');
    expect(busy.remedy).to.match(/ClientAliveInterval 15/);
    expect(busy.lastError).to.match(/remote port forwarding failed for listen port/);
    expect(busy.waitMs).to.be.within(5000, 5600);
  });

  it('is up by itself within one such step after the server has let go, and forwards again', () => {
    expect(run.get('after')).to.deep.equal({
      state: 'up',
      remedy: null,
      lastError: null,
      said: 'from the near side',
      isNew: true,
    });
    expect(run.get<{ afterFreedMs: number }>('times').afterFreedMs).to.be.below(8000);
  });

  it('has it all in the log of the tunnel', () => {
    expect(run.get<string[]>('log').join('\n')).to.match(/Not up: remote_port_busy[\s\S]*Reconnecting[\s\S]*Up: pid/);
    expect(run.get('exit')).to.equal(0);
  });
});
