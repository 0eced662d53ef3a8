import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { readHostFacts } from '#lib/tunnel/embedded/facts.js';
import { makeSpec } from '../../../support/specs.js';
import { complaintOf, itRefuses, useConfigHome } from '../../../support/ssh-config.js';

describe('readSettings()', () => {
  const home = useConfigHome();

  it('refuses nothing that is not in force', async () => {
    const lines = [
      'CertificateFile none',
      'ProxyCommand none',
      'RevokedHostKeys none',
      'VerifyHostKeyDNS ask',
      'RekeyLimit default none',
      'GSSAPIAuthentication no',
      'GSSAPIAuthentication yes',
      'SendEnv LANG',
      'LocalForward 1 a:2',
      'IgnoreUnknown Use*,X',
      'UseKeychain yes',
      'x y',
      'Host other',
      'ProxyCommand nc',
      'Nonsense yes',
      'Match host other exec "touch /tmp/x"',
      'Match exec "touch /tmp/x" host other',
      'User x',
      'Match all',
      'Port 2222',
    ];
    expect((await home.read(lines)).port).to.equal(2222);
  });

  it('runs nothing', async () => {
    const witness = join(home.dir, 'witness');
    const lines = [
      `Match host other exec "touch ${witness}"`,
      'Match all',
      'CanonicalDomains example',
      `LocalCommand touch ${witness}`,
    ];
    await home.read(lines);
    await complaintOf(home.read(`Match exec "touch ${witness}"`));
    expect(existsSync(witness)).to.equal(false);
  });

  it('refuses a file that others could write, unless it is named', async () => {
    writeFileSync(home.file, 'Port 2');
    chmodSync(home.file, 0o660);
    const options = { env: { HOME: home.dir }, knownHosts: null };
    expect(await complaintOf(readHostFacts(makeSpec(), null, options))).to.match(
      /^~\/\.ssh\/config is not read, since others/,
    );
    expect((await readHostFacts(makeSpec({ sshConfig: home.file }), null, options)).port).to.equal(2);
    chmodSync(home.file, 0o600);
    const inner = join(home.dir, 'inner');
    writeFileSync(inner, 'Port 3');
    chmodSync(inner, 0o666);
    expect(await complaintOf(home.read(`Include ${inner}`))).to.match(/inner is not read/);
  });

  it('refuses a file that is named and is not there, or is none', async () => {
    const options = { env: { HOME: home.dir }, knownHosts: null };
    const named = (sshConfig: string) => readHostFacts(makeSpec({ sshConfig }), null, options);
    expect(await complaintOf(named(join(home.dir, 'absent')))).to.equal('~/absent cannot be read: it is not there');
    expect(await complaintOf(named(home.dir))).to.match(/cannot be read: it is no plain file/);
    execFileSync('mkfifo', [join(home.dir, 'fifo')]);
    expect(await complaintOf(named(join(home.dir, 'fifo')))).to.match(/it is no plain file/);
    for (const nothing of ['none', '/dev/null']) expect((await named(nothing)).port, nothing).to.equal(22);
  });

  itRefuses(home, [
    [
      'Match exec',
      'Match host web exec "touch /tmp/x"',
      /cannot use 'Match exec', which ~\/.ssh\/config line 1 asks for/,
    ],
    ['Match tagged', 'Match !tagged x', /cannot use 'Match tagged'/],
    [
      'what it does not know',
      'Nonsense yes',
      /line 1 has the option Nonsense, which the engine embedded does not know/,
    ],
    ['no value', 'User', /cannot be understood|says nothing/],
    ['a quote without end', 'User "a', /line 1 cannot be understood/],
    ['a condition without a value', 'Match host', /line 1 cannot be understood/],
    ['Include without end', 'Include config', /Include leads from file to file without end/],
    ['classes of characters in Include', 'Include [ab]', /cannot use '\['/],
  ]);
});
