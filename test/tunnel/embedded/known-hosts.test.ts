import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { isTunwardError } from '#lib/errors.js';
import { addKnownHost, fingerprintOf, type HostKey, readKnownHosts } from '#lib/tunnel/embedded/known-hosts.js';
import { fingerprintOf as fingerprintOfFile } from '../../support/keys.js';
import { need } from '../../support/need.js';
import { which } from '../../support/paths.js';
import { type Sshd, startSshd } from '../../support/sshd.js';

const keygen = which('ssh-keygen') ?? 'ssh-keygen';

let dir: string;
let file: string;

function useFolder(): void {
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunward-known-'));
    file = join(dir, 'known_hosts');
  });
  afterEach(() => rmSync(dir, { recursive: true }));
}

/** A key that nobody has the other half of: what known_hosts says of it is the same. */
function madeKey(fill: number, type = 'ssh-ed25519'): HostKey {
  const blob = Buffer.concat([word(type), word(Buffer.alloc(32, fill))]);
  return { type, blob };
}

function word(content: string | Buffer): Buffer {
  const bytes = Buffer.from(content);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

function text({ type, blob }: HostKey): string {
  return `${type} ${blob.toString('base64')}`;
}

function check(lines: readonly string[], host: string, port: number, key: HostKey) {
  writeFileSync(file, `${lines.join('\n')}\n`);
  return readKnownHosts([file]).check(host, port, key);
}

const key = madeKey(1);
const other = madeKey(2);
const rsa = madeKey(3, 'ssh-rsa');

describe('readKnownHosts()', () => {
  useFolder();
  const known = { kind: 'known' };
  const unknown = { kind: 'unknown' };

  const cases: [what: string, lines: string[], host: string, port: number, verdict: string][] = [
    ['knows a name', [`web ${text(key)}`], 'web', 22, 'known'],
    ['knows one of several names', [`a,web,10.0.0.1 ${text(key)} me@home`], '10.0.0.1', 22, 'known'],
    ['knows a name in whatever case', [`WEB ${text(key)}`], 'wEb', 22, 'known'],
    ['does not know another name', [`web ${text(key)}`], 'we', 22, 'unknown'],
    ['knows a name and a port', [`[web]:2222 ${text(key)}`], 'web', 2222, 'known'],
    ['takes a name with a port for that port alone', [`[web]:2222 ${text(key)}`], 'web', 22, 'unknown'],
    ['does not read port 22 in brackets', [`[web]:22 ${text(key)}`], 'web', 22, 'unknown'],
    ['knows a host at another port by its plain name', [`web ${text(key)}`], 'web', 2222, 'known'],
    ['is not contradicted by a plain name at another port', [`web ${text(other)}`], 'web', 2222, 'unknown'],
    [
      'is contradicted at the port, whatever the plain name says',
      [`[web]:22022 ${text(other)}`, `web ${text(other)}`],
      'web',
      22022,
      'changed 1',
    ],
    ['knows an IPv6 address', [`fe80::1 ${text(key)}`], 'fe80::1', 22, 'known'],
    ['knows an IPv6 address and a port', [`[fe80::1]:2 ${text(key)}`], 'fe80::1', 2, 'known'],
    ['has patterns', [`*.example.or? ${text(key)}`], 'a.example.org', 22, 'known'],
    ['has patterns for the whole name', [`*.example ${text(key)}`], 'a.example.org', 22, 'unknown'],
    ['has exceptions', [`*.example,!web.example ${text(key)}`], 'web.example', 22, 'unknown'],
    ['has exceptions in any order', [`!web.example,*.example ${text(key)}`], 'web.example', 22, 'unknown'],
    ['has patterns of names and ports', [`[*.example]:* ${text(key)}`], 'a.example', 2222, 'known'],
    ['says changed for another key of the type', [`web ${text(other)}`], 'web', 22, 'changed 1'],
    ['says changed for a key of another type', [`web ${text(rsa)}`], 'web', 22, 'changed 1'],
    ['names the entry of the same type', [`# c`, `web ${text(other)}`, `web ${text(rsa)}`], 'web', 22, 'changed 2'],
    ['is content with one of several keys', [`web ${text(other)}`, `web ${text(key)}`], 'web', 22, 'known'],
    ['says revoked', [`@revoked web ${text(key)}`], 'web', 22, 'revoked 1'],
    ['says revoked, known or not', [`web ${text(key)}`, `@revoked * ${text(key)}`], 'web', 22, 'revoked 2'],
    [
      'says revoked also where the plain name is',
      [`[web]:2 ${text(key)}`, `@revoked web ${text(key)}`],
      'web',
      2,
      'revoked 2',
    ],
    ['takes another key that is revoked for nothing', [`@revoked web ${text(other)}`], 'web', 22, 'unknown'],
    ['takes an authority for no key of a host', [`@cert-authority web ${text(key)}`], 'web', 22, 'unknown'],
    ['takes an authority for no contradiction', [`@cert-authority web ${text(other)}`], 'web', 22, 'unknown'],
    ['passes over a marker that it does not know', [`@trusted web ${text(key)}`], 'web', 22, 'unknown'],
    ['passes over comments', [`# web ${text(key)}`, `#web ${text(key)}`, '', '   '], 'web', 22, 'unknown'],
    [
      'reads tabs, leading blanks and line ends of Windows',
      [`\t web\t ${key.type}  ${key.blob.toString('base64')}\r`],
      'web',
      22,
      'known',
    ],
    [
      'passes over a type that the key does not have',
      [`web ssh-rsa ${key.blob.toString('base64')}`],
      'web',
      22,
      'unknown',
    ],
    [
      'passes over a key that is cut off',
      [`web ssh-ed25519 ${key.blob.toString('base64').slice(0, 10)}`],
      'web',
      22,
      'unknown',
    ],
    [
      'passes over a key with something in it',
      [`web ssh-ed25519 !${key.blob.toString('base64')}`],
      'web',
      22,
      'unknown',
    ],
    ['passes over a line that is too long', [`${'x,'.repeat(40_000)}web ${text(key)}`], 'web', 22, 'unknown'],
    ['passes over a hash of another kind', [`|2|AAAA|AAAA ${text(key)}`], 'web', 22, 'unknown'],
    ['is not kept busy by stars', [`${'*a'.repeat(2000)} ${text(key)}`], `${'a'.repeat(250)}b`, 22, 'unknown'],
  ];
  for (const [what, lines, host, port, verdict] of cases) {
    it(what, () => {
      const found = check(lines, host, port, key);
      expect('line' in found ? `${found.kind} ${found.line}` : found.kind).to.equal(verdict);
    });
  }

  it('reads one file after another, and names the one that contradicts', () => {
    const second = join(dir, 'second');
    writeFileSync(file, `web ${text(key)}`);
    writeFileSync(second, `\nweb ${text(other)}\ndb ${text(other)}\n`);
    const hosts = readKnownHosts([join(dir, 'absent'), file, dir, second]);
    expect(hosts.check('web', 22, key)).to.deep.equal(known);
    expect(hosts.check('db', 22, key)).to.deep.equal({ kind: 'changed', file: second, line: 3 });
  });

  it('passes over what is no file, and waits for none', () => {
    execFileSync('mkfifo', [file]);
    expect(readKnownHosts([file, '/dev/zero', join(file, 'below')]).check('web', 22, key)).to.deep.equal(unknown);
  });

  it('passes over a file that this user may not read', () => {
    writeFileSync(file, `web ${text(key)}`);
    chmodSync(file, 0o000);
    const isRoot = process.geteuid?.() === 0;
    // root may read whatever there is.
    if (isRoot) process.seteuid?.(65_534);
    try {
      expect(readKnownHosts([file]).check('web', 22, key)).to.deep.equal(unknown);
    } finally {
      if (isRoot) process.seteuid?.(0);
    }
  });

  it('refuses a file that is too large, since it might contradict', () => {
    execFileSync('truncate', ['-s', '65M', file]);
    expect(() => readKnownHosts([file])).to.throw(/^Cannot read .*known_hosts: it has 68157440 bytes/);
  });

  it('tells the types that are known, at the port before the plain name', () => {
    const lines = [`web ${text(rsa)}`, `[web]:2 ${text(key)}`, `[web]:2 ${text(other)}`, `@revoked web ${text(other)}`];
    writeFileSync(file, [...lines, `@cert-authority web ${text(other)}`].join('\n'));
    const hosts = readKnownHosts([file]);
    expect(hosts.typesOf('web', 22)).to.deep.equal(['ssh-rsa']);
    expect(hosts.typesOf('web', 2)).to.deep.equal(['ssh-ed25519']);
    expect(hosts.typesOf('web', 3)).to.deep.equal(['ssh-rsa']);
    expect(hosts.typesOf('db', 22)).to.deep.equal([]);
  });

  it('reads the names that ssh-keygen has hashed', function () {
    need(this, 'ssh');
    writeFileSync(file, `web,10.0.0.1 ${text(key)}\n[web]:2222 ${text(other)}\n`);
    execFileSync(keygen, ['-q', '-H', '-f', file], { stdio: 'ignore' });
    expect(readFileSync(file, 'utf8'))
      .to.match(/^\|1\|/)
      .and.not.to.contain('web');
    const hosts = readKnownHosts([file]);
    expect(hosts.check('WEB', 22, key)).to.deep.equal(known);
    expect(hosts.check('10.0.0.1', 22, key)).to.deep.equal(known);
    expect(hosts.check('web', 2222, other)).to.deep.equal(known);
    expect(hosts.check('web', 2222, madeKey(9)).kind).to.equal('changed');
    expect(hosts.check('db', 22, key)).to.deep.equal(unknown);
  });

  it('finds for a name what ssh-keygen -F finds', function () {
    need(this, 'ssh');
    this.timeout(60_000);
    const piece = fc.stringMatching(/^[ab*?.!]{1,4}$/);
    const names = fc.array(piece, { minLength: 1, maxLength: 3 }).map((pieces) => pieces.join(','));
    const host = fc.stringMatching(/^[ab][ab.]{0,3}$/);
    fc.assert(
      fc.property(fc.array(names, { minLength: 1, maxLength: 4 }), host, (lines, name) => {
        writeFileSync(file, lines.map((each) => `${each} ${text(key)}\n`).join(''));
        const { status } = spawnSync(keygen, ['-F', name, '-f', file]);
        expect(readKnownHosts([file]).check(name, 22, key).kind, lines.join('\n')).to.equal(
          status === 0 ? 'known' : 'unknown',
        );
      }),
      { numRuns: 150 },
    );
  });
});

describe('readKnownHosts() beside the real ssh', () => {
  useFolder();
  let sshd: Sshd;
  before(async function () {
    need(this, 'sshd', 'ssh');
    sshd = await startSshd();
  });
  after(() => sshd?.stop());

  /** What ssh does with a server that is not to be asked about: lets it be, or not. */
  function askSsh(lines: readonly string[]): string {
    writeFileSync(file, lines.map((line) => `${line}\n`).join(''));
    const options = ['StrictHostKeyChecking=yes', `UserKnownHostsFile=${file}`, 'GlobalKnownHostsFile=none'];
    const words = ['-F', sshd.sshConfigFile, ...['BatchMode=yes', ...options].flatMap((each) => ['-o', each])];
    const { status, stderr } = spawnSync('ssh', [...words, sshd.host, 'true'], { encoding: 'utf8' });
    if (status === 0) return 'known';
    if (/marked as revoked/.test(stderr)) return 'revoked';
    if (/IDENTIFICATION HAS CHANGED/.test(stderr)) return 'changed';
    return /host key is known for/.test(stderr) ? 'unknown' : stderr;
  }

  it('says of a key what ssh says of it', () => {
    const [type = '', encoded = ''] = readFileSync(`${sshd.hostKeyFile}.pub`, 'utf8').split(' ');
    const theirs: HostKey = { type, blob: Buffer.from(encoded, 'base64') };
    const ecdsa = join(dir, 'ecdsa');
    execFileSync(keygen, ['-q', '-t', 'ecdsa', '-N', '', '-f', ecdsa]);
    const ofOtherType = readFileSync(`${ecdsa}.pub`, 'utf8').split(' ').slice(0, 2).join(' ');
    const name = `[127.0.0.1]:${sshd.port}`;
    const files = [
      [`${name} ${text(theirs)}`],
      [`127.0.0.1 ${text(theirs)}`],
      [`127.0.0.1 ${text(other)}`],
      [`${name} ${text(other)}`],
      [`${name} ${ofOtherType}`],
      [`${name} ${text(other)}`, `${name} ${text(theirs)}`],
      [`${name} ${text(theirs)}`, `@revoked ${name} ${text(theirs)}`],
      [`@revoked ${name} ${text(other)}`],
      [`@cert-authority ${name} ${text(theirs)}`],
      [`@cert-authority ${name} ${text(other)}`],
      [`*,!${name} ${text(other)}`],
      [`[127.0.0.?]:* ${text(theirs)}`],
      [`* ${text(other)}`],
      [`${name} ssh-rsa ${encoded}`],
      [`\t${name}\t${text(theirs)}\r`],
      [`@nonsense ${name} ${text(theirs)}`],
    ];
    const said = files.map((lines) => {
      const ssh = askSsh(lines);
      return `${lines.join('; ')}: ${ssh}`;
    });
    const ours = files.map((lines) => `${lines.join('; ')}: ${check(lines, '127.0.0.1', sshd.port, theirs).kind}`);
    expect(ours).to.deep.equal(said);
  }).timeout(60_000);

  it('writes what ssh reads', () => {
    const [type = '', encoded = ''] = readFileSync(`${sshd.hostKeyFile}.pub`, 'utf8').split(' ');
    const theirs = { type, blob: Buffer.from(encoded, 'base64') };
    for (const isHashed of [false, true]) {
      rmSync(file, { force: true });
      addKnownHost(file, '127.0.0.1', sshd.port, theirs, { isHashed });
      expect(askSsh(readFileSync(file, 'utf8').trimEnd().split('\n'))).to.equal('known');
    }
  });
});

describe('addKnownHost()', () => {
  useFolder();
  it('makes the file and its folder, for this user alone', () => {
    const inner = join(dir, 'fresh', 'known_hosts');
    addKnownHost(inner, 'Web.Example', 22, key);
    addKnownHost(inner, 'fe80::1', 2222, other);
    expect(readFileSync(inner, 'utf8')).to.equal(`web.example ${text(key)}\n[fe80::1]:2222 ${text(other)}\n`);
    expect(statSync(inner).mode & 0o777).to.equal(0o600);
    expect(statSync(join(dir, 'fresh')).mode & 0o777).to.equal(0o700);
  });

  it('begins a line of its own behind one that has no end', () => {
    writeFileSync(file, `web ${text(key)}`, { mode: 0o644 });
    addKnownHost(file, 'db', 22, other);
    expect(readFileSync(file, 'utf8')).to.equal(`web ${text(key)}\ndb ${text(other)}\n`);
    expect(statSync(file).mode & 0o777).to.equal(0o644);
  });

  it('hides the name where that is wanted, as ssh-keygen -F finds it', function () {
    need(this, 'ssh');
    addKnownHost(file, 'web.example', 2222, key, { isHashed: true });
    expect(readFileSync(file, 'utf8')).not.to.contain('web');
    expect(spawnSync(keygen, ['-F', '[web.example]:2222', '-f', file]).status).to.equal(0);
    expect(readKnownHosts([file]).check('web.example', 2222, key).kind).to.equal('known');
  });

  it('follows a link of this user, and makes no file of one that leads nowhere', () => {
    const target = join(dir, 'dotfiles');
    writeFileSync(target, '');
    symlinkSync(target, file);
    addKnownHost(file, 'web', 22, key);
    expect(readFileSync(target, 'utf8')).to.equal(`web ${text(key)}\n`);
    const lost = join(dir, 'lost');
    symlinkSync(join(dir, 'nowhere'), lost);
    expect(() => addKnownHost(lost, 'web', 22, key)).to.throw(/^Cannot write the host's key into .*lost: ENOENT/);
  });

  it("refuses somebody else's link, and somebody else's file", function () {
    need(this, 'root');
    const target = join(dir, 'mine');
    writeFileSync(target, '');
    symlinkSync(target, file);
    lchownSync(file, 1234, 1234);
    expect(() => addKnownHost(file, 'web', 22, key)).to.throw(/it is a symbolic link of uid 1234/);
    const theirs = join(dir, 'theirs');
    writeFileSync(theirs, '');
    lchownSync(theirs, 1234, 1234);
    expect(() => addKnownHost(theirs, 'web', 22, key)).to.throw(/it belongs to uid 1234/);
  });

  it('refuses what is no file, and waits for none', () => {
    execFileSync('mkfifo', [file]);
    mkdirSync(join(dir, 'folder'));
    for (const each of [file, join(dir, 'folder'), join(file, 'below')]) {
      const attempt = () => addKnownHost(each, 'web', 22, key);
      expect(attempt).to.throw(/^Cannot write the host's key into /);
      try {
        attempt();
      } catch (error) {
        expect(isTunwardError(error, 'ERR_ACCESS_DENIED')).to.equal(true);
      }
    }
  });

  it('takes no name that would be more than one', () => {
    for (const host of ['a,b', 'a b', 'a\nb', '*', '!a', '|1|a|b', '#a', '', '@revoked'])
      expect(() => addKnownHost(file, host, 22, key), host).to.throw(TypeError);
    expect(() => addKnownHost(file, 'web', 22, { ...key, type: 'ssh-rsa' })).to.throw(TypeError);
  });
});

describe('fingerprintOf()', () => {
  useFolder();
  it('is what ssh-keygen -l shows', function () {
    need(this, 'ssh');
    for (const type of ['ed25519', 'ecdsa', 'rsa']) {
      const each = join(dir, type);
      execFileSync(keygen, ['-q', '-t', type, '-N', '', '-f', each]);
      const [name = '', encoded = ''] = readFileSync(`${each}.pub`, 'utf8').split(' ');
      const ours = fingerprintOf({ type: name, blob: Buffer.from(encoded, 'base64') });
      expect(execFileSync(keygen, ['-l', '-f', each], { encoding: 'utf8' })).to.contain(` ${ours} `);
      expect(ours).to.equal(fingerprintOfFile(each));
    }
  });
});
