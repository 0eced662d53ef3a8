import { execFileSync } from 'node:child_process';
import { createHash, createHmac, generateKeyPairSync } from 'node:crypto';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { type KeyFile, readKeyFile } from '#lib/tunnel/embedded/keys.js';
import { loadSsh2 } from '#lib/tunnel/embedded/ssh2.js';
import { need } from '../../support/need.js';
import { which } from '../../support/paths.js';

const keygen = which('ssh-keygen') ?? 'ssh-keygen';
const ssh2 = loadSsh2();

describe('readKeyFile()', () => {
  let dir: string;
  let count = 0;
  before(function () {
    need(this, 'ssh');
    dir = mkdtempSync(join(tmpdir(), 'tunward-keys-'));
  });
  after(() => dir && rmSync(dir, { recursive: true }));

  /** A file that ssh-keygen has made. One round: more are only slower. */
  function make(type: string, passphrase = '', ...more: string[]): string {
    const file = join(dir, `key${count++}`);
    execFileSync(keygen, ['-q', '-t', type, '-N', passphrase, '-a', '1', '-C', 'c', ...more, '-f', file]);
    return file;
  }

  function write(text: string | Buffer, mode = 0o600): string {
    const file = join(dir, `text${count++}`);
    writeFileSync(file, text, { mode });
    return file;
  }

  const read = (file: string) => readKeyFile(ssh2, file);

  /** Of the key that was opened, as ssh-keygen has written it beside. */
  function expectKey(found: KeyFile, publicFile: string, passphrase = ''): void {
    const key =
      found.kind === 'locked' ? found.open(Buffer.from(passphrase)) : found.kind === 'key' ? found.key : undefined;
    expect(key, 'why' in found ? found.why : found.kind).not.to.equal(undefined);
    const shown = key?.getPublicSSH().toString('base64');
    expect(readFileSync(publicFile, 'utf8').split(' ').slice(0, 2)).to.deep.equal([key?.type, shown]);
  }

  function whyOf(file: string): string {
    const found = read(file);
    expect(found.kind).to.equal('unusable');
    const why = 'why' in found ? found.why : '';
    expect(why).to.contain(`The key ${file} `);
    return why.slice(`The key ${file} `.length);
  }

  const types: [type: string, bits?: string][] = [
    ['ed25519'],
    ['rsa', '1024'],
    ['rsa', '3072'],
    ['ecdsa', '256'],
    ['ecdsa', '384'],
    ['ecdsa', '521'],
  ];
  for (const [type, bits] of types) {
    for (const format of type === 'ed25519' ? ['RFC4716'] : ['RFC4716', 'PEM', 'PKCS8']) {
      const size = bits ? ['-b', bits] : [];
      it(`reads ${type} ${bits ?? ''} as ${format}`, () => {
        const file = make(type, '', ...size, '-m', format);
        expect(read(file).kind).to.equal('key');
        expectKey(read(file), `${file}.pub`);
      });

      it(`unlocks ${type} ${bits ?? ''} as ${format}, by its passphrase alone`, () => {
        const file = make(type, 'geheim', ...size, '-m', format);
        const found = read(file);
        expect(found.kind).to.equal('locked');
        if (found.kind !== 'locked') return;
        for (const wrong of ['', 'Geheim', 'geheim '])
          expect(found.open(Buffer.from(wrong)), wrong).to.equal(undefined);
        expectKey(found, `${file}.pub`, 'geheim');
      });
    }
  }

  for (const cipher of [
    '3des-cbc',
    'aes128-cbc',
    'aes256-cbc',
    'aes128-ctr',
    'aes192-ctr',
    'aes256-ctr',
    'aes128-gcm@openssh.com',
    'aes256-gcm@openssh.com',
  ]) {
    it(`unlocks what is locked by ${cipher}`, () => {
      const file = make('ed25519', 'geheim', '-Z', cipher);
      expectKey(read(file), `${file}.pub`, 'geheim');
    });
  }

  it('says of a cipher that it cannot open how to lock the key otherwise', () => {
    const file = make('ed25519', 'geheim', '-Z', 'chacha20-poly1305@openssh.com');
    expect(whyOf(file)).to.match(/^is locked by chacha20-poly1305@openssh\.com.*'ssh-keygen -p -Z aes256-ctr -f /);
    execFileSync(keygen, ['-q', '-p', '-Z', 'aes256-ctr', '-a', '1', '-P', 'geheim', '-N', 'geheim', '-f', file]);
    expectKey(read(file), `${file}.pub`, 'geheim');
  });

  it('never takes a wrong passphrase of PEM for a right one', () => {
    for (const type of ['rsa', 'ecdsa']) {
      const found = read(make(type, 'geheim', '-m', 'PEM'));
      if (found.kind !== 'locked') throw new Error(found.kind);
      for (let at = 0; at < 600; at++) expect(found.open(Buffer.from(`wrong${at}`))).to.equal(undefined);
    }
  }).timeout(60_000);

  it('reads Ed25519 as PKCS#8, with a passphrase or without', () => {
    const { privateKey } = generateKeyPairSync('ed25519');
    const plain = write(String(privateKey.export({ type: 'pkcs8', format: 'pem' })));
    const locked = write(
      String(privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'p' })),
    );
    const found = [read(plain), read(locked)];
    expect(found.map(({ kind }) => kind)).to.deep.equal(['key', 'locked']);
    const [one, other] = found.map((each) =>
      each.kind === 'key' ? each.key : each.kind === 'locked' ? each.open(Buffer.from('p')) : undefined,
    );
    expect(one?.getPublicSSH()).to.deep.equal(other?.getPublicSSH());
    const { x = '' } = privateKey.export({ format: 'jwk' });
    expect(one?.getPublicSSH().subarray(-32)).to.deep.equal(Buffer.from(x, 'base64url'));
  });

  it('reads Ed25519 whose public half begins with a zero', () => {
    for (;;) {
      const { privateKey } = generateKeyPairSync('ed25519');
      if (Buffer.from(privateKey.export({ format: 'jwk' }).x ?? '', 'base64url')[0] !== 0) continue;
      expect(read(write(String(privateKey.export({ type: 'pkcs8', format: 'pem' })))).kind).to.equal('key');
      return;
    }
  });

  it('reads line ends of Windows', () => {
    for (const format of ['RFC4716', 'PEM', 'PKCS8']) {
      const file = make('ecdsa', '', '-m', format);
      expectKey(read(write(readFileSync(file, 'utf8').replaceAll('\n', '\r\n'))), `${file}.pub`);
    }
  });

  it('reads version 2 of PuTTY, and says of version 3 what to do', () => {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 1024 });
    const plain = write(putty(privateKey.export({ format: 'jwk' })));
    expect(read(plain).kind).to.equal('key');
    const newer = write(readFileSync(plain, 'utf8').replace('File-2', 'File-3'));
    expect(whyOf(newer)).to.equal(
      `is one of PuTTY's that cannot be read here: make one of OpenSSH's of it by 'puttygen ${newer} -O private-openssh -o …'`,
    );
    expect(whyOf(write(readFileSync(plain, 'utf8').replace(/Private-MAC: ./, 'Private-MAC: x')))).to.match(
      /^is one of PuTTY's/,
    );
  });

  it('shows the public half of a locked one of PuTTY, by which a server can be asked first', () => {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 1024 });
    const plain = putty(privateKey.export({ format: 'jwk' }));
    const open = read(write(plain));
    const locked = read(write(plain.replace('Encryption: none', 'Encryption: aes256-cbc').replaceAll('\n', '\r\n')));
    expect([open.kind, locked.kind]).to.deep.equal(['key', 'locked']);
    const shown = open.kind === 'key' ? open.key.getPublicSSH() : undefined;
    expect(locked).to.have.deep.property('publicHalf', shown);
  });

  it('says that there is none', () => {
    expect(read(join(dir, 'absent'))).to.deep.equal({ kind: 'absent', file: join(dir, 'absent') });
  });

  it('wants nobody else to read it, as ssh does', () => {
    const file = make('ed25519');
    chmodSync(file, 0o640);
    expect(whyOf(file)).to.equal(
      "has permissions that are too open (0640), and ssh would ignore it too: 'chmod 600' it",
    );
    chmodSync(file, 0o400);
    expect(read(file).kind).to.equal('key');
  });

  it('waits for nothing, and reads nothing that is no file', () => {
    const fifo = join(dir, 'fifo');
    execFileSync('mkfifo', [fifo]);
    expect(whyOf(fifo)).to.equal('cannot be read: it is no plain file');
    expect(whyOf(dir)).to.equal('cannot be read: it is no plain file');
    expect(whyOf('/dev/zero')).to.equal('cannot be read: it is no plain file');
    expect(whyOf(write(Buffer.alloc(1024 * 1024 + 1)))).to.match(/^cannot be read: it has 1048577 bytes/);
  });

  it('tells a certificate and a public key from a private one', () => {
    const [authority, file] = [make('ed25519'), make('ed25519')];
    execFileSync(keygen, ['-q', '-s', authority, '-I', 'i', `${file}.pub`]);
    expect(whyOf(`${file}-cert.pub`)).to.equal(
      "is a certificate, which the engine embedded cannot use: use 'engine: ssh'",
    );
    expect(whyOf(`${file}.pub`)).to.match(/^is a public one: name the file of the private key/);
    const { publicKey } = generateKeyPairSync('ed25519');
    expect(whyOf(write(String(publicKey.export({ type: 'spki', format: 'pem' }))))).to.match(/^is a public one/);
    expect(whyOf(write('nothing of the kind'))).to.match(/^is none: expected a private key/);
    expect(whyOf(write(''))).to.match(/^is none/);
  });

  it('refuses DSA, whatever it is written in', () => {
    const { privateKey } = generateKeyPairSync('dsa', { modulusLength: 1024, divisorLength: 160 });
    expect(whyOf(write(String(privateKey.export({ type: 'pkcs8', format: 'pem' }))))).to.match(
      /^is of DSA.*ssh-keygen -t ed25519/,
    );
    expect(whyOf(write(head('none', 0, 'ssh-dss')))).to.match(/^is of DSA/);
  });

  it('refuses the keys of security keys, and types that it does not know', () => {
    for (const type of ['sk-ssh-ed25519@openssh.com', 'sk-ecdsa-sha2-nistp256@openssh.com'])
      expect(whyOf(write(head('none', 0, type)))).to.match(/^is that of a security key.*use 'engine: ssh'$/);
    expect(whyOf(write(head('none', 0, 'ssh-xmss@openssh.com')))).to.match(/^is of the type ssh-xmss@openssh\.com/);
    const { privateKey } = generateKeyPairSync('ed448');
    expect(whyOf(write(String(privateKey.export({ type: 'pkcs8', format: 'pem' }))))).to.match(
      /^is damaged, or of a kind/,
    );
  });

  it('refuses ciphers that it does not know, and rounds that would take too long', () => {
    expect(whyOf(write(head('rot13', 16, 'ssh-ed25519')))).to.match(
      /^is locked by rot13.*'ssh-keygen -p -Z aes256-ctr -f /,
    );
    expect(whyOf(write(head('aes256-ctr', 100_000, 'ssh-ed25519')))).to.match(
      /^takes 100000 rounds.*'ssh-keygen -p -a 16 -f /,
    );
  });

  it('refuses a key whose halves do not belong together', () => {
    const [one, other] = [make('ed25519'), make('ed25519')].map((file) => {
      const body = readFileSync(file, 'latin1').replace(/-----[^-]+-----/g, '');
      return Buffer.from(body, 'base64').toString('latin1');
    });
    const halfOf = (text = '') => text.slice(text.indexOf('\0\0\0\x20') + 4).slice(0, 32);
    const mixed = Buffer.from((one ?? '').replaceAll(halfOf(one), halfOf(other)), 'latin1').toString('base64');
    const file = write(`-----BEGIN OPENSSH PRIVATE KEY-----\n${mixed}\n-----END OPENSSH PRIVATE KEY-----\n`);
    expect(whyOf(file)).to.equal(
      `is damaged, or of a kind that cannot be read here: see what 'ssh-keygen -y -f ${file}' says of it`,
    );
  });

  it('never throws for what is in a file', function () {
    this.timeout(120_000);
    const formats = ['RFC4716', 'PEM', 'PKCS8'];
    const files = [
      ...formats.map((format) => make('ecdsa', '', '-m', format)),
      ...formats.map((format) => make('rsa', 'geheim', '-b', '1024', '-m', format)),
      make('ed25519'),
    ];
    const texts = files.map((file) => readFileSync(file, 'latin1'));
    const file = write('');
    const change = fc.record({
      text: fc.constantFrom(...texts),
      at: fc.nat(2000),
      cut: fc.nat(40),
      put: fc.string({ maxLength: 8 }),
    });
    fc.assert(
      fc.property(
        fc.oneof(
          change.map(({ text, at, cut, put }) => text.slice(0, at) + put + text.slice(at + cut)),
          fc.string(),
        ),
        (text) => {
          writeFileSync(file, text, 'latin1');
          const found = read(file);
          if (found.kind === 'locked') found.open(Buffer.from('geheim'));
        },
      ),
      { numRuns: 400 },
    );
  });
});

/** What stands before a key of OpenSSH's format, and nothing of use behind it. */
function head(cipher: string, rounds: number, type: string): string {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(rounds);
  const options = rounds === 0 ? '' : Buffer.concat([word(Buffer.alloc(16)), count]);
  const parts = [
    word(cipher),
    word(rounds === 0 ? 'none' : 'bcrypt'),
    word(options),
    Buffer.from([0, 0, 0, 1]),
    word(word(type)),
    word(Buffer.alloc(64)),
  ];
  const body = Buffer.concat([Buffer.from('openssh-key-v1\0'), ...parts]).toString('base64');
  return `-----BEGIN OPENSSH PRIVATE KEY-----\n${body}\n-----END OPENSSH PRIVATE KEY-----\n`;
}

function word(content: string | Buffer): Buffer {
  const bytes = Buffer.from(content);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** A key of RSA as PuTTY 0.70 wrote it, without a passphrase. */
function putty(key: Readonly<Record<string, unknown>>): string {
  const number = (text: unknown) => {
    const bytes = Buffer.from(String(text), 'base64url');
    return word((bytes[0] ?? 0) > 127 ? Buffer.concat([Buffer.alloc(1), bytes]) : bytes);
  };
  const shown = Buffer.concat([word('ssh-rsa'), number(key.e), number(key.n)]);
  const hidden = Buffer.concat([number(key.d), number(key.p), number(key.q), number(key.qi)]);
  const signed = Buffer.concat(['ssh-rsa', 'none', 'c', shown, hidden].map(word));
  const secret = createHash('sha1').update('putty-private-key-file-mac-key').digest();
  const mac = createHmac('sha1', secret).update(signed).digest('hex');
  const lines = (bytes: Buffer) => bytes.toString('base64').match(/.{1,64}/g) ?? [];
  return [
    'PuTTY-User-Key-File-2: ssh-rsa',
    'Encryption: none',
    'Comment: c',
    `Public-Lines: ${lines(shown).length}`,
    ...lines(shown),
    `Private-Lines: ${lines(hidden).length}`,
    ...lines(hidden),
    `Private-MAC: ${mac}`,
    '',
  ].join('\n');
}
