import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { readHostFacts } from '#lib/tunnel/embedded/facts.js';
import { need } from '../../../support/need.js';
import { makeSpec } from '../../../support/specs.js';
import { complaintOf, useConfigHome } from '../../../support/ssh-config.js';

const { username, homedir } = userInfo();

describe('readHostFacts() beside ssh -G', () => {
  const home = useConfigHome();
  before(function () {
    need(this, 'ssh');
  });

  const ours = ['ServerAliveInterval=15', 'ServerAliveCountMax=3', 'ConnectTimeout=10'];

  /** What ssh makes of it, in our words; undefined where it refuses. */
  function askSsh(lines: string, host: string, sshOptions: Readonly<Record<string, string>> = {}) {
    home.write(lines);
    const options = [...Object.entries(sshOptions).map(([name, value]) => `${name}=${value}`), ...ours];
    const words = ['-G', '-F', home.file, ...options.flatMap((each) => ['-o', each]), '--', host];
    const { status, stdout } = spawnSync('ssh', words, { encoding: 'utf8' });
    if (status !== 0) return undefined;
    const entries = stdout.split('\n').map((line) => /^(\S+) (.*)$/.exec(line)?.slice(1) ?? []);
    const all = (wanted: string) => entries.flatMap(([name, value = '']) => (name === wanted ? [value] : []));
    const one = (wanted: string) => all(wanted)[0];
    const identities = all('identityfile').filter((name) => !/_(sk|xmss|dsa)$/.test(name) && name !== 'none');
    return {
      user: one('user'),
      // In known_hosts it is in lower case in any case.
      host: one('hostname')?.toLowerCase(),
      port: one('port'),
      strict: { true: 'yes', false: 'no' }[one('stricthostkeychecking') ?? ''] ?? one('stricthostkeychecking'),
      identities: identities.map((name) => name.replace(/^~/, homedir)),
      only: one('identitiesonly'),
      alias: one('hostkeyalias'),
      known: one('userknownhostsfile'),
      times: [one('connecttimeout'), one('serveraliveinterval'), one('serveralivecountmax')],
      compression: one('compression'),
      prompts: one('numberofpasswordprompts'),
      preferred: one('preferredauthentications'),
      jump: one('proxyjump') ?? '',
      family: one('addressfamily'),
      bind: one('bindaddress'),
      hash: one('hashknownhosts'),
      alive: one('tcpkeepalive'),
    };
  }

  async function askUs(lines: string, host: string, sshOptions: Readonly<Record<string, string>> = {}) {
    home.write(lines);
    const spec = makeSpec({ remoteHost: host, sshConfig: home.file, sshOptions });
    const facts = await readHostFacts(spec, null, { env: { HOME: homedir }, knownHosts: null });
    const yesNo = (is: boolean) => (is ? 'yes' : 'no');
    const seconds = (ms: number) => String(ms / 1000);
    const defaults = facts.methods.join() === 'publickey,keyboard-interactive,password';
    return {
      user: facts.user,
      host: facts.host,
      port: String(facts.port),
      strict: facts.strictHostKeyChecking,
      identities: facts.identityFiles,
      only: yesNo(facts.identitiesOnly),
      alias: facts.hostKeyAlias ?? undefined,
      known: facts.knownHostsFiles.filter((name) => !name.startsWith('/etc/')).join(' '),
      times: [seconds(facts.connectTimeoutMs), seconds(facts.aliveIntervalMs), String(facts.aliveCountMax)],
      compression: yesNo(facts.compression),
      prompts: String(facts.passwordPrompts),
      preferred: defaults ? undefined : facts.methods.join(),
      jump: facts.jump.map(({ destination, port }) => (port === null ? destination : `${destination}:${port}`)).join(),
      family: { 0: 'any', 4: 'inet', 6: 'inet6' }[facts.family],
      bind: facts.bindAddress ?? undefined,
      hash: yesNo(facts.hashKnownHosts),
      alive: yesNo(facts.tcpKeepAlive),
    };
  }

  const table: [what: string, lines: string, host?: string, sshOptions?: Record<string, string>][] = [
    ['an empty file', ''],
    ['the first value', 'Port 1\nPort 2\nHost *\nPort 3'],
    ['sections', 'Host other\nPort 1\nHost we* !web.x\nPort 2\nHost *\nUser u'],
    ['exceptions', 'Host !web *\nPort 1\nHost * !web\nPort 2\nHost !other\nPort 3\nHost "web"\nPort 4'],
    ['names as they are written', 'Host web\nPort 1\nHost WEB\nPort 2', 'WEB'],
    ['keywords in whatever case, and =', 'pOrT=1\nUSER = me\nhostname= other\nIdentityFile =~/k\nCompression\tyes'],
    [
      'quotes',
      'IdentityFile "/a b/c"\nIdentityFile \'/d "e\'\nIdentityFile /f\\ g\nIdentityFile /h"i j"k\nUserKnownHostsFile "/x"',
    ],
    ['comments', '# Port 1\n  #Port 2\nPort 3 # three\nUser a#b\nHostName "x" #y'],
    ['line ends of Windows', 'Port 1\r\nHost *\r\nUser me\r\n\r\n'],
    ['HostName with the name in it', 'HostName %h.Example.%%\n'],
    ['several identities, twice', 'IdentityFile ~/a\nIdentityFile ~/b\nHost *\nIdentityFile ~/a\nIdentityFile ~/c'],
    ['no identity', 'IdentityFile none'],
    ['no known_hosts', 'StrictHostKeyChecking accept-new\nUserKnownHostsFile /a ~/b\n'],
    ['checking', 'StrictHostKeyChecking off'],
    ['checking, again', 'StrictHostKeyChecking no'],
    ['HostKeyAlias', 'HostKeyAlias Other'],
    ['times', '', 'web', { ConnectTimeout: '1m5', ServerAliveInterval: '1M', ServerAliveCountMax: '7' }],
    ['options before the file', 'Port 1\nUser u', 'web', { Port: '2', User: 'o' }],
    ['the user of the destination', 'User u', 'me@web'],
    ['an option before the user of the destination', '', 'me@web', { User: 'o' }],
    [
      'Match by host',
      'HostName other\nMatch host web\nPort 1\nMatch host OTHER\nPort 2\nMatch originalhost WEB\nUser x',
    ],
    [
      'Match by users',
      `Match user ${username} host web\nPort 1\nMatch localuser x*\nPort 2\nMatch !localuser x*\nUser y`,
    ],
    ['Match with lists', 'Match host a,w?b,!z\nPort 1\nMatch !host a,b\nUser u\nMatch host *,!web\nUser v'],
    ['Match all', 'Match !all\nPort 1\nMatch all\nPort 2'],
    ['Match with = and quotes', 'Match host="web" user="*"\nPort 1\n'],
    ['Match user after User', 'User me\nMatch user me\nPort 3'],
    [
      'Match final',
      'HostName Other.example\nMatch final host other.example\nPort 4\nHost other.example\nUser f\nHost web\nUser g',
    ],
    ['Match canonical', 'Match canonical\nPort 1\nMatch !canonical\nUser n'],
    ['ProxyJump', 'ProxyJump a@b:22,c'],
    ['ProxyJump none', 'ProxyJump none\nProxyJump b'],
    ['addresses', 'HostName ::1\nAddressFamily inet6\nBindAddress ::1'],
    ['methods', 'PreferredAuthentications password,publickey\nNumberOfPasswordPrompts 1'],
    ['the rest', 'HashKnownHosts yes\nTCPKeepAlive no\nIdentitiesOnly yes'],
    ['what is unknown and to be ignored', 'IgnoreUnknown Foo*\nFooBar 1\nPort 2'],
    ['what is unknown', 'FooBar 1'],
    ['a quote without an end', 'User "me'],
    ['no value', 'User\nPort 1'],
    ['no pattern', 'Host\nPort 1'],
    ['too many values', 'Port 1 2'],
    ['no port', 'Port x'],
    ['no answer', 'Compression perhaps'],
    ['Match all behind others', 'Match host a all\nPort 1'],
    ['Match all before others', 'Match all host web\nPort 1'],
    ['Match without anything', 'Match\nPort 1'],
    ['a condition without a value', 'Match host\nPort 1'],
    ['an empty word', 'User ""'],
  ];
  for (const [what, lines, host = 'web', sshOptions = {}] of table) {
    it(`reads ${what} as ssh does`, async () => {
      const theirs = askSsh(lines, host, sshOptions);
      if (theirs) expect(await askUs(lines, host, sshOptions)).to.deep.equal(theirs);
      else expect(await complaintOf(askUs(lines, host, sshOptions))).to.be.a('string');
    });
  }

  it('includes files as ssh does: in the order of their names, in the section that they are in', async () => {
    const parts: Record<string, string> = {
      '10.conf': 'Host web\nPort 10\n',
      '20.conf': 'Port 20\nUser twenty\n',
      '.hidden.conf': 'User hidden\n',
      'inner/30.conf': 'HostName thirty\n',
    };
    const folder = join(home.dir, 'conf.d');
    mkdirSync(join(folder, 'inner'), { recursive: true });
    for (const [name, text] of Object.entries(parts)) writeFileSync(join(folder, name), text, { mode: 0o600 });
    for (const lines of [
      `Include ${folder}/*.conf\nCompression yes`,
      `Host other\nInclude ${folder}/*.conf\nHost web\nUser w`,
      `Host web\nInclude ${folder}/1?.conf ${folder}/*/*.conf\nUser w`,
      `Include ${folder}/20.conf ${folder}/10.conf ${folder}/absent ${folder}/no*\nHost x\nUser y`,
      `Include "${folder}/10.conf"\nUser z`,
    ])
      expect(await askUs(lines, 'web'), lines).to.deep.equal(askSsh(lines, 'web'));
  });

  it('reads whatever is written as ssh does', async function () {
    this.timeout(120_000);
    const name = fc.constantFrom('web', 'WEB', 'other', 'w*', '*', 'we?', '!web', '!w*', '"web"', '*.b', 'web.b');
    const condition = fc.constantFrom(
      'all',
      'host web',
      'host other',
      '!host web',
      'originalhost w*',
      'user me',
      '!user me',
      'final',
      '!final',
      'canonical',
      'host=web',
      'host web,!other',
      'host "*,!web"',
      'localuser nobody',
      '!localuser nobody',
      'host web.b',
      'all all',
    );
    const section = fc.oneof(
      fc.array(name, { minLength: 1, maxLength: 3 }).map((names) => `Host ${names.join(' ')}`),
      fc.array(condition, { minLength: 1, maxLength: 2 }).map((conditions) => `Match ${conditions.join(' ')}`),
    );
    const line = fc.constantFrom(
      'Port 1',
      'Port=2',
      'port "3"',
      'User me',
      'User you',
      'user="me"',
      'HostName other',
      'HostName %h.b',
      'hostname WEB',
      'IdentityFile ~/a',
      'IdentityFile "~/b c"',
      'IdentityFile none',
      'ProxyJump j',
      'ProxyJump none',
      'ProxyJump k@l:3',
      'StrictHostKeyChecking no',
      'StrictHostKeyChecking yes',
      'Compression yes',
      'Compression no # no',
      '# User x',
      '',
      'UserKnownHostsFile /a /b',
      'HostKeyAlias Al',
      'IdentitiesOnly yes',
      '  Port  4  ',
      'AddressFamily inet',
      'PreferredAuthentications password',
      "User 'a b'",
      'User a\\"b',
    );
    const text = fc.array(fc.oneof({ weight: 1, arbitrary: section }, { weight: 2, arbitrary: line }), {
      maxLength: 12,
    });
    await fc.assert(
      fc.asyncProperty(text, fc.constantFrom('web', 'me@web', 'WEB', 'other'), async (lines, host) => {
        const theirs = askSsh(lines.join('\n'), host);
        const reading = askUs(lines.join('\n'), host);
        if (theirs) expect(await reading, lines.join('\n')).to.deep.equal(theirs);
        else await complaintOf(reading);
      }),
      { numRuns: 300 },
    );
  });
});
