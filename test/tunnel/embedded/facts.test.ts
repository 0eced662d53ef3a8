import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir, userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { isTunwardError } from '#lib/errors.js';
import { type FactsOptions, type HostFacts, readHostFacts, whyNotEmbedded } from '#lib/tunnel/embedded/facts.js';
import { allowedSshOptions, type Hop, type TunnelSpec } from '#lib/tunnel/spec.js';
import { need } from '../../support/need.js';
import { makeSpec } from '../../support/specs.js';

const { username, homedir } = userInfo();

let dir: string;
let file: string;

/** A home of its own, so that nothing that is read is a person's. */
function useHome(): void {
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-facts-'));
    file = join(dir, '.ssh/config');
    mkdirSync(dirname(file), { mode: 0o700 });
  });
  afterEach(() => rmSync(dir, { recursive: true }));
}

interface Given {
  readonly spec?: Partial<TunnelSpec>;
  readonly hop?: Hop | null;
  readonly options?: Partial<FactsOptions>;
}

/** What is read of `lines` as the person's own configuration. */
function read(
  lines: string | readonly string[],
  { spec = {}, hop = null, options = {} }: Given = {},
): Promise<HostFacts> {
  writeFileSync(file, typeof lines === 'string' ? lines : `${lines.join('\n')}\n`, { mode: 0o600 });
  const env = { HOME: dir, ...options.env };
  return readHostFacts(makeSpec({ remoteHost: 'web', ...spec }), hop, { knownHosts: null, ...options, env });
}

/** `NAME` as ssh_config has variables. */
function variable(name: string): string {
  return `$\{${name}}`;
}

async function complaintOf(reading: Promise<HostFacts>): Promise<string> {
  try {
    await reading;
  } catch (error) {
    if (!isTunwardError(error, 'ERR_SPAWN_FAILED')) throw error;
    expect(error.info).to.deep.equal({ reason: 'bad_spec' });
    return error.message;
  }
  throw new Error('nothing was wrong with it');
}

describe('readHostFacts()', () => {
  useHome();

  it('has a default for everything where there is no file', async () => {
    const facts = await readHostFacts(makeSpec({ remoteHost: 'Web.Example' }), null, {
      env: { HOME: dir, SSH_AUTH_SOCK: '/run/agent' },
      knownHosts: null,
    });
    expect(facts).to.deep.equal({
      user: username,
      host: 'web.example',
      port: 22,
      hostKeyAlias: null,
      strictHostKeyChecking: 'ask',
      knownHostsFiles: [
        join(dir, '.ssh/known_hosts'),
        join(dir, '.ssh/known_hosts2'),
        '/etc/ssh/ssh_known_hosts',
        '/etc/ssh/ssh_known_hosts2',
      ],
      newKeysFile: join(dir, '.ssh/known_hosts'),
      hashKnownHosts: false,
      identityFiles: ['id_rsa', 'id_ecdsa', 'id_ed25519'].map((name) => join(dir, '.ssh', name)),
      areIdentitiesNamed: false,
      identitiesOnly: false,
      identityAgent: '/run/agent',
      methods: ['publickey', 'keyboard-interactive', 'password'],
      passwordPrompts: 3,
      ciphers: null,
      macs: null,
      kexAlgorithms: null,
      hostKeyAlgorithms: null,
      pubkeyAlgorithms: null,
      leastRsaBits: 1024,
      compression: false,
      connectTimeoutMs: 10_000,
      tcpKeepAlive: true,
      aliveIntervalMs: 15_000,
      aliveCountMax: 3,
      family: 0,
      bindAddress: null,
      jump: [],
    });
  });

  it("takes the spec's own first, then the user before the host, then the file", async () => {
    const lines = ['User file', 'Port 1', 'HostName elsewhere', 'IdentityFile ~/.ssh/own', 'Compression yes'];
    const spec = { remoteHost: 'me@web', sshOptions: { Port: '2' }, identityFile: '/k%d' };
    const facts = await read(lines, { spec });
    expect([facts.user, facts.port, facts.host, facts.compression]).to.deep.equal(['me', 2, 'elsewhere', true]);
    expect(facts.identityFiles).to.deep.equal(['/k%d', join(dir, '.ssh/own')]);
    const named = await read(lines, { spec: { ...spec, sshOptions: { User: 'option' } } });
    expect(named.user).to.equal('option');
  });

  it('takes the timeouts of the spec or of ours, as ssh is given them before its file', async () => {
    const lines = ['ConnectTimeout 77', 'ServerAliveInterval 77', 'ServerAliveCountMax 77'];
    const ours = await read(lines);
    expect([ours.connectTimeoutMs, ours.aliveIntervalMs, ours.aliveCountMax]).to.deep.equal([10_000, 15_000, 3]);
    const sshOptions = { ConnectTimeout: '1m30s', ServerAliveInterval: '0', ServerAliveCountMax: '9' };
    const theirs = await read(lines, { spec: { sshOptions } });
    expect([theirs.connectTimeoutMs, theirs.aliveIntervalMs, theirs.aliveCountMax]).to.deep.equal([90_000, 0, 9]);
    const check = { http: null, everyMs: 1000, timeoutMs: 1000 };
    expect((await read(lines, { spec: { check } })).aliveIntervalMs).to.equal(5000);
  });

  it('puts a file of ours first where ssh would ask somebody, and nowhere else', async () => {
    const options = { knownHosts: '/ours' };
    const theirs = [join(dir, 'kh'), '/etc/kh'];
    const both = ['UserKnownHostsFile ~/kh', 'GlobalKnownHostsFile /etc/kh'];
    const asked = await read(both, { options });
    expect([asked.newKeysFile, asked.knownHostsFiles]).to.deep.equal(['/ours', ['/ours', ...theirs]]);
    for (const [word, newKeysFile] of [
      ['accept-new', theirs[0]],
      ['no', theirs[0]],
      ['off', theirs[0]],
      ['yes', null],
    ] as const) {
      const facts = await read([`StrictHostKeyChecking ${word}`, ...both], { options });
      expect([facts.newKeysFile, facts.knownHostsFiles], word).to.deep.equal([newKeysFile, theirs]);
    }
    const none = await read(['UserKnownHostsFile none', 'GlobalKnownHostsFile none', 'StrictHostKeyChecking no']);
    expect([none.newKeysFile, none.knownHostsFiles]).to.deep.equal([null, []]);
  });

  it('expands what is meant by ~ and % and names of variables', async () => {
    const lines = [
      'HostName %h.example',
      'Port 2222',
      'User me',
      'HostKeyAlias Key',
      'IdentityFile ~/%h_%n_%p_%r_%u_%k_%%_%i',
    ];
    const more = [
      'IdentityFile %d/x',
      `IdentityFile ${variable('KEYS')}/k`,
      'IdentityFile %l',
      `UserKnownHostsFile ~/kh_%h "${variable('KEYS')}/k h"`,
    ];
    const facts = await read([...lines, ...more], { options: { env: { KEYS: '/keys' } } });
    expect(facts.identityFiles).to.deep.equal([
      join(dir, `web.example_web_2222_me_${username}_key_%_${process.getuid?.()}`),
      join(dir, 'x'),
      '/keys/k',
      join(process.cwd(), hostname()),
    ]);
    expect(facts.knownHostsFiles.slice(0, 2)).to.deep.equal([join(dir, 'kh_web.example'), '/keys/k h']);
  });

  it('finds the agent', async () => {
    const env = { SSH_AUTH_SOCK: '/a', OTHER: '/o' };
    const agents: [string, string | null][] = [
      ['SSH_AUTH_SOCK', '/a'],
      ['none', null],
      ['$OTHER', '/o'],
      ['$ABSENT', null],
      ['$constructor', null],
      ['~/agent.%h', join(dir, 'agent.web')],
    ];
    for (const [word, path] of agents)
      expect((await read(`IdentityAgent ${word}`, { options: { env } })).identityAgent, word).to.equal(path);
  });

  it('says which methods there are, in their order', async () => {
    expect((await read('PreferredAuthentications password,gssapi-with-mic,publickey')).methods).to.deep.equal([
      'password',
      'publickey',
    ]);
    const lines = ['PasswordAuthentication no', 'ChallengeResponseAuthentication no', 'PubkeyAuthentication unbound'];
    expect((await read(lines)).methods).to.deep.equal(['publickey']);
    expect(await complaintOf(read(['PubkeyAuthentication no', ...lines]))).to.match(
      /^The engine embedded has no way left/,
    );
  });

  it('goes through the hosts of the spec, or of ProxyJump', async () => {
    const lines = ['ProxyJump ssh://a@b:2200,[::1]:22,%h', 'ProxyCommand nc %h %p'];
    expect((await read(lines)).jump).to.deep.equal([
      { destination: 'a@b', port: 2200 },
      { destination: '::1', port: 22 },
      { destination: 'web', port: null },
    ]);
    const jump = [{ destination: 'own', port: null }];
    expect((await read('ProxyCommand nc', { spec: { jump } })).jump).to.deep.equal(jump);
    expect((await read(['ProxyJump none', 'ProxyCommand nc'])).jump).to.deep.equal([]);
    expect((await read(['ProxyCommand none', 'ProxyJump b'])).jump).to.deep.equal([]);
    expect((await read('ProxyCommand nc', { options: { isBehind: true } })).jump).to.deep.equal([]);
    expect(await complaintOf(read(['HostName w', 'ProxyCommand nc']))).to.equal(
      "The engine embedded cannot use ProxyCommand, which ~/.ssh/config line 2 asks for: use 'engine: ssh', or name the hosts on the way by 'jump'",
    );
    expect(await complaintOf(read('ProxyJump b:99999'))).to.match(
      /^~\/.ssh\/config line 1: ProxyJump: expected a port/,
    );
  });

  it('gives a hop those options of the spec that are about hops as well', async () => {
    const jump = [{ destination: 'me@gate', port: 2200 }];
    const sshOptions = { Port: '1', User: 'x', Ciphers: 'aes128-ctr', IdentitiesOnly: 'yes', ConnectTimeout: '3' };
    const spec = { jump, sshOptions, identityFile: '/k' };
    const [hop = null] = jump;
    const facts = await read(['Host gate', 'ProxyJump far', 'IdentitiesOnly no'], { spec, hop });
    expect([facts.host, facts.port, facts.user, facts.ciphers]).to.deep.equal(['gate', 2200, 'me', null]);
    expect([facts.identitiesOnly, facts.connectTimeoutMs, facts.identityFiles]).to.deep.equal([true, 3000, ['/k']]);
    expect(facts.jump).to.deep.equal([{ destination: 'far', port: null }]);
  });

  it('gives a hop of ssh_config nothing of the spec', async () => {
    const spec = { sshOptions: { IdentitiesOnly: 'yes' }, identityFile: '/k' };
    const facts = await read('Host gate', { spec, hop: { destination: 'gate', port: null } });
    expect([facts.identitiesOnly, facts.areIdentitiesNamed]).to.deep.equal([false, false]);
  });

  const refused: [what: string, lines: string, complaint: RegExp][] = [
    [
      'CertificateFile',
      'CertificateFile ~/c',
      /cannot use CertificateFile, which .* line 1 asks for: use 'engine: ssh'$/,
    ],
    [
      'a certificate as identity',
      'IdentityFile ~/.ssh/id_rsa-cert.pub',
      /cannot use the certificate .*id_rsa-cert\.pub, which/,
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
    ['a token that it does not know', 'IdentityFile ~/%C', /cannot use '%C'/],
    [
      'a variable that is not there',
      `IdentityFile ${variable('NONE')}/x`,
      /line 1 has \$\{NONE\}, and there is no such variable/,
    ],
    ["somebody else's home", 'IdentityFile ~nobody/x', /does not know the home of nobody/],
    ['two values', 'User a b', /line 1: expected one value of User, found 2/],
    ['no value', 'User', /cannot be understood|says nothing/],
    ['a quote without end', 'User "a', /line 1 cannot be understood/],
    ['a port that is none', 'Port 0', /line 1: expected a number from 1 to 65535 as Port, found '0'/],
    [
      'a word that is neither yes nor no',
      'Compression maybe',
      /line 1: expected yes, true, no, false as Compression, found 'maybe'/,
    ],
    ['a host that is none', 'HostName "a b"', /line 1: expected a host, found 'a b'/],
    ["'none' among files", 'UserKnownHostsFile none /x', /'none' to stand alone/],
    ['a condition without a value', 'Match host', /line 1 cannot be understood/],
    ['Include without end', 'Include config', /Include leads from file to file without end/],
    ['classes of characters in Include', 'Include [ab]', /cannot use '\['/],
  ];
  for (const [what, lines, complaint] of refused) {
    it(`refuses ${what}`, async () => {
      expect(await complaintOf(read(lines))).to.match(complaint);
    });
  }

  it('refuses nothing that is not in force', async () => {
    const lines = [
      ...[
        'CertificateFile none',
        'ProxyCommand none',
        'RevokedHostKeys none',
        'VerifyHostKeyDNS ask',
        'RekeyLimit default none',
      ],
      ...[
        'GSSAPIAuthentication no',
        'GSSAPIAuthentication yes',
        'SendEnv LANG',
        'LocalForward 1 a:2',
        'IgnoreUnknown Use*,X',
      ],
      ...[
        'UseKeychain yes',
        'x y',
        'Host other',
        'ProxyCommand nc',
        'Nonsense yes',
        'Match host other exec "touch /tmp/x"',
      ],
      ...['Match exec "touch /tmp/x" host other', 'User x', 'Match all', 'Port 2222'],
    ];
    expect((await read(lines)).port).to.equal(2222);
  });

  it('runs nothing', async () => {
    const witness = join(dir, 'witness');
    const lines = [
      `Match host other exec "touch ${witness}"`,
      'Match all',
      'CanonicalDomains example',
      `LocalCommand touch ${witness}`,
    ];
    await read(lines);
    await complaintOf(read(`Match exec "touch ${witness}"`));
    expect(existsSync(witness)).to.equal(false);
  });

  it('refuses a file that others could write, unless it is named', async () => {
    writeFileSync(file, 'Port 2');
    chmodSync(file, 0o660);
    const options = { env: { HOME: dir }, knownHosts: null };
    expect(await complaintOf(readHostFacts(makeSpec(), null, options))).to.match(
      /^~\/\.ssh\/config is not read, since others/,
    );
    expect((await readHostFacts(makeSpec({ sshConfig: file }), null, options)).port).to.equal(2);
    chmodSync(file, 0o600);
    const inner = join(dir, 'inner');
    writeFileSync(inner, 'Port 3');
    chmodSync(inner, 0o666);
    expect(await complaintOf(read(`Include ${inner}`))).to.match(/inner is not read/);
  });

  it('refuses a file that is named and is not there, or is none', async () => {
    const options = { env: { HOME: dir }, knownHosts: null };
    const named = (sshConfig: string) => readHostFacts(makeSpec({ sshConfig }), null, options);
    expect(await complaintOf(named(join(dir, 'absent')))).to.equal('~/absent cannot be read: it is not there');
    expect(await complaintOf(named(dir))).to.match(/cannot be read: it is no plain file/);
    execFileSync('mkfifo', [join(dir, 'fifo')]);
    expect(await complaintOf(named(join(dir, 'fifo')))).to.match(/it is no plain file/);
    for (const nothing of ['none', '/dev/null']) expect((await named(nothing)).port, nothing).to.equal(22);
  });
});

describe('whyNotEmbedded()', () => {
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
    const dir = mkdtempSync(join(tmpdir(), 'tunward-facts-'));
    const values: Record<string, string> = {
      Port: '1',
      StrictHostKeyChecking: 'no',
      AddressFamily: 'inet',
      PreferredAuthentications: 'password',
    };
    const numbers = /Timeout|Attempts|Count|Interval|Number|Size/;
    try {
      for (const name of allowedSshOptions) {
        const value = values[name] ?? (numbers.test(name) ? '1' : 'no');
        if (whyNotEmbedded({ [name]: value })) continue;
        await readHostFacts(makeSpec({ sshOptions: { [name]: value } }), null, {
          env: { HOME: dir },
          knownHosts: null,
        });
      }
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});

describe('readHostFacts() beside ssh -G', () => {
  useHome();
  before(function () {
    need(this, 'ssh');
  });

  const ours = ['ServerAliveInterval=15', 'ServerAliveCountMax=3', 'ConnectTimeout=10'];

  /** What ssh makes of it, in our words; undefined where it refuses. */
  function askSsh(lines: string, host: string, sshOptions: Readonly<Record<string, string>> = {}) {
    writeFileSync(file, lines, { mode: 0o600 });
    const options = [...Object.entries(sshOptions).map(([name, value]) => `${name}=${value}`), ...ours];
    const words = ['-G', '-F', file, ...options.flatMap((each) => ['-o', each]), '--', host];
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
    writeFileSync(file, lines, { mode: 0o600 });
    const spec = makeSpec({ remoteHost: host, sshConfig: file, sshOptions });
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
      else expect(await complaintOf(askUs(lines, host, sshOptions) as Promise<never>)).to.be.a('string');
    });
  }

  it('includes files as ssh does: in the order of their names, in the section that they are in', async () => {
    const parts: Record<string, string> = {
      '10.conf': 'Host web\nPort 10\n',
      '20.conf': 'Port 20\nUser twenty\n',
      '.hidden.conf': 'User hidden\n',
      'inner/30.conf': 'HostName thirty\n',
    };
    const folder = join(dir, 'conf.d');
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
      ...[
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
      ],
      ...[
        'host=web',
        'host web,!other',
        'host "*,!web"',
        'localuser nobody',
        '!localuser nobody',
        'host web.b',
        'all all',
      ],
    );
    const section = fc.oneof(
      fc.array(name, { minLength: 1, maxLength: 3 }).map((names) => `Host ${names.join(' ')}`),
      fc.array(condition, { minLength: 1, maxLength: 2 }).map((conditions) => `Match ${conditions.join(' ')}`),
    );
    const line = fc.constantFrom(
      ...[
        'Port 1',
        'Port=2',
        'port "3"',
        'User me',
        'User you',
        'user="me"',
        'HostName other',
        'HostName %h.b',
        'hostname WEB',
      ],
      ...[
        'IdentityFile ~/a',
        'IdentityFile "~/b c"',
        'IdentityFile none',
        'ProxyJump j',
        'ProxyJump none',
        'ProxyJump k@l:3',
      ],
      ...[
        'StrictHostKeyChecking no',
        'StrictHostKeyChecking yes',
        'Compression yes',
        'Compression no # no',
        '# User x',
        '',
      ],
      ...['UserKnownHostsFile /a /b', 'HostKeyAlias Al', 'IdentitiesOnly yes', '  Port  4  ', 'AddressFamily inet'],
      ...['PreferredAuthentications password', "User 'a b'", 'User a\\"b'],
    );
    const text = fc.array(fc.oneof({ weight: 1, arbitrary: section }, { weight: 2, arbitrary: line }), {
      maxLength: 12,
    });
    await fc.assert(
      fc.asyncProperty(text, fc.constantFrom('web', 'me@web', 'WEB', 'other'), async (lines, host) => {
        const theirs = askSsh(lines.join('\n'), host);
        const reading = askUs(lines.join('\n'), host);
        if (theirs) expect(await reading, lines.join('\n')).to.deep.equal(theirs);
        else await complaintOf(reading as Promise<never>);
      }),
      { numRuns: 300 },
    );
  });
});
