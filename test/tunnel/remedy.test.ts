import { expect } from 'chai';
import type { Reason } from '#lib/tunnel/engine.js';
import { describeHolders } from '#lib/tunnel/proof.js';
import { remedyOf, whichOf } from '#lib/tunnel/remedy.js';
import { makeSpec } from '../support/specs.js';

describe('remedyOf() a tunnel that its server does not allow', () => {
  it('is not to wait for a port that the server would have chosen itself', () => {
    const of = (port: number) =>
      remedyOf('remote_port_busy', { spec: makeSpec({ listen: { host: 'localhost', port } }), lastError: null });
    expect(of(0)).to.contain('AllowTcpForwarding and PermitListen').and.not.contain('still has the port');
    expect(of(9443)).to.contain('still has the port').and.contain('PermitListen');
  });

  it('is not to look for what nobody has asked', () => {
    const of = (lastError: string) => remedyOf('target_refused', { spec: makeSpec(), lastError });
    expect(of('channel 1: open failed: administratively prohibited: open failed')).to.contain('PermitOpen');
    expect(of('channel 1: open failed: connect failed: Connection refused')).to.contain('see why nothing answers');
  });
});

describe('remedyOf() an interactive tunnel', () => {
  const remedy = (reason: 'needs_auth' | 'auth_failed' | 'frozen' | 'local_port_busy', interactive: boolean) =>
    remedyOf(reason, { spec: { ...makeSpec(), name: 'vault', interactive }, lastError: null });

  it('is a person, by the command or by the page', () => {
    expect(remedy('needs_auth', true)).to.equal("it waits for a person: 'tunward auth vault', or the panel");
    expect(remedy('auth_failed', true)).to.equal("try again: 'tunward auth vault', or the panel");
    expect(remedy('frozen', true)).to.contain('kill -CONT').and.contain("'tunward auth vault'");
    expect(remedy('local_port_busy', true)).not.to.contain('--force');
    expect(remedy('local_port_busy', false)).to.contain('--force');
    expect(remedy('needs_auth', false)).to.contain('ssh-add');
    expect(remedy('auth_failed', false)).to.contain('ssh-copy-id');
  });

  it('is no takeover of the port that another daemon listens on', () => {
    const holder = { pid: 8, startTicks: 1, command: 'node up', user: 'root', ageS: 3 };
    const remedy = (isDaemons: boolean) => {
      const lastError = describeHolders(9443, { holders: [holder], isDaemons });
      return remedyOf('local_port_busy', { spec: makeSpec(), lastError });
    };
    expect(remedy(true)).to.match(/^'tunward stop NAME'/);
    expect(remedy(false)).to.contain('takeover: any');
  });

  it('is an answer to the question of its host key, where ssh has asked', () => {
    const spec = { ...makeSpec(), name: 'vault', interactive: true };
    const unknown = (lastError: string) => remedyOf('host_key_unknown', { spec, lastError });
    expect(unknown('Host key verification failed.')).to.match(/^answer yes .*'tunward auth vault'/);
    expect(unknown('No ED25519 host key is known for web and you have requested strict checking.')).to.contain(
      'by hand',
    );
    expect(remedyOf('host_key_changed', { spec, lastError: null })).to.match(/, then 'tunward auth vault'$/);
  });

  it('can be had without a program: in an image with no ssh there is none', () => {
    const spec = makeSpec();
    const remedy = (reason: Reason, lastError: string | null = null) => remedyOf(reason, { spec, lastError });
    const changed = 'Host key for [db]:22 has changed; Offending ED25519 key in /home/me/known hosts:12';
    expect(remedy('host_key_changed', changed)).to.equal(
      "if the server was really set up anew, remove its old key, line 12 of /home/me/known hosts (ssh-keygen -f '/home/me/known hosts' -R '[db]:22'), then start the tunnel",
    );
    const revoked = 'Host key for db is marked as revoked; Offending ED25519 key in /etc/known_hosts:3';
    expect(remedy('host_key_changed', revoked)).to.equal(
      'somebody has marked this key as revoked, line 3 of /etc/known_hosts: the server needs another one',
    );
    expect(remedy('host_key_unknown', 'No RSA host key is known for db')).to.contain('ssh_host_*_key.pub');
    expect(
      remedy(
        'host_key_unknown',
        'Host key verification failed: the RSA key of db has 512 bits, and 1024 are the least',
      ),
    ).to.equal(null);
    expect(remedy('auth_failed')).to.contain('authorized_keys');
    expect(remedy('needs_auth'))
      .to.contain("'interactive: true'")
      .and.contain(`'tunward auth ${whichOf(spec)}'`);
  });

  it('quotes what a shell would take apart', () => {
    const changed = "Host key for db has changed; Offending RSA key in /home/o'hara/known_hosts:1";
    expect(remedyOf('host_key_changed', { spec: makeSpec(), lastError: changed })).to.contain(
      `-f '/home/o'\\''hara/known_hosts' -R 'db'`,
    );
  });

  it('names it as a shell takes it: by its id where the name is none, or more than one plain word', () => {
    const id = '0123456789abcdef'.repeat(2);
    const names = ['db-1.eu', 'unnamed', 'my db', "x'; rm", '-f', ''];
    expect(names.map((name) => whichOf({ id, name }))).to.deep.equal(['db-1.eu', ...Array(5).fill('01234567')]);
  });
});
