import { expect } from 'chai';
import { whyNotEmbedded } from '#lib/tunnel/embedded/ssh-config/keywords.js';
import { allowedSshOptions } from '#lib/tunnel/spec.js';
import { itRefuses, useConfigHome } from '../../../support/ssh-config.js';

describe('the keywords of ssh_config', () => {
  const home = useConfigHome();

  itRefuses(home, [
    [
      'CertificateFile',
      'CertificateFile ~/c',
      /cannot use CertificateFile, which .* line 1 asks for: use 'engine: ssh'$/,
    ],
    ['GSSAPIAuthentication', 'gssapiauthentication YES', /cannot use gssapiauthentication/],
    ['PKCS11Provider', 'PKCS11Provider /lib/p.so', /cannot use PKCS11Provider.*or let ssh-agent have the key/],
    ['SecurityKeyProvider', 'SecurityKeyProvider /lib/s.so', /cannot use SecurityKeyProvider/],
    ['VerifyHostKeyDNS', 'VerifyHostKeyDNS yes', /cannot use VerifyHostKeyDNS/],
    ['RevokedHostKeys', 'RevokedHostKeys /etc/r', /cannot use RevokedHostKeys.*@revoked/],
    ['KnownHostsCommand', 'KnownHostsCommand /bin/x', /cannot use KnownHostsCommand/],
    ['CanonicalizeHostname', 'CanonicalizeHostname always', /cannot use CanonicalizeHostname/],
    ['BindInterface', 'BindInterface eth0', /cannot use BindInterface/],
    ['methods of which none is ours', 'PreferredAuthentications hostbased', /cannot use PreferredAuthentications/],
    ['RekeyLimit', 'RekeyLimit 1G 1h', /cannot use RekeyLimit/],
    ['CheckHostIP', 'CheckHostIP yes', /cannot use CheckHostIP/],
    [
      'HostbasedAuthentication',
      'Host web\n  HostbasedAuthentication yes',
      /cannot use HostbasedAuthentication.* line 2/,
    ],
  ]);
});

describe('whyNotEmbedded()', () => {
  const home = useConfigHome();

  it('names the option and the remedy', () => {
    expect(whyNotEmbedded({ Port: '22', CertificateFile: '/c' })).to.deep.equal([
      'CertificateFile',
      "The engine embedded cannot use CertificateFile: use 'engine: ssh'",
    ]);
    expect(whyNotEmbedded({ GSSAPIAuthentication: 'no', RekeyLimit: 'default none', VerifyHostKeyDNS: 'no' })).to.equal(
      undefined,
    );
  });

  it('knows every option that a configuration may set', async () => {
    const values: Record<string, string> = {
      Port: '1',
      StrictHostKeyChecking: 'no',
      AddressFamily: 'inet',
      PreferredAuthentications: 'password',
    };
    const numbers = /Timeout|Attempts|Count|Interval|Number|Size/;
    for (const name of allowedSshOptions) {
      const sshOptions = { [name]: values[name] ?? (numbers.test(name) ? '1' : 'no') };
      if (!whyNotEmbedded(sshOptions)) await home.read('', { spec: { sshOptions } });
    }
  });
});
