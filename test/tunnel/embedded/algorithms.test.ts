import { expect } from 'chai';
import { isTunwardError } from '#lib/errors.js';
import { chooseAlgorithms, findMismatch } from '#lib/tunnel/embedded/algorithms.js';
import type { HostFacts } from '#lib/tunnel/embedded/facts.js';
import { createGreeting } from '#lib/tunnel/embedded/greeting.js';
import { loadSsh2 } from '#lib/tunnel/embedded/ssh2.js';

const facts: HostFacts = {
  user: 'me',
  host: 'web',
  port: 22,
  hostKeyAlias: null,
  strictHostKeyChecking: 'ask',
  knownHostsFiles: [],
  newKeysFile: null,
  hashKnownHosts: false,
  identityFiles: [],
  areIdentitiesNamed: false,
  identitiesOnly: false,
  identityAgent: null,
  methods: ['publickey'],
  passwordPrompts: 3,
  ciphers: null,
  macs: null,
  kexAlgorithms: null,
  hostKeyAlgorithms: null,
  pubkeyAlgorithms: null,
  leastRsaBits: 1024,
  tcpKeepAlive: true,
  compression: false,
  connectTimeoutMs: 1000,
  aliveIntervalMs: 0,
  aliveCountMax: 3,
  family: 0,
  bindAddress: null,
  jump: [],
};

describe('chooseAlgorithms()', () => {
  it('offers nothing with SHA-1, nothing in CBC mode, and an authenticated cipher first', () => {
    const { kex, hostKey, cipher, mac } = chooseAlgorithms(facts, []);
    const all = [...kex, ...hostKey, ...cipher, ...mac];
    expect(all.filter((name) => /sha1($|-|@)|cbc|^ssh-rsa$|md5|3des/.test(name))).to.deep.equal([]);
    expect(cipher[0]).to.match(/gcm/);
  });

  it('asks for the keys first that are known', () => {
    expect(chooseAlgorithms(facts, ['ssh-rsa']).hostKey.slice(0, 2)).to.deep.equal(['rsa-sha2-512', 'rsa-sha2-256']);
    expect(chooseAlgorithms(facts, ['ecdsa-sha2-nistp256']).hostKey[0]).to.equal('ecdsa-sha2-nistp256');
    const theirs = { ...facts, hostKeyAlgorithms: 'ssh-ed25519,ecdsa-*' };
    expect(chooseAlgorithms(theirs, ['ecdsa-sha2-nistp256']).hostKey[0]).to.equal('ssh-ed25519');
  });

  it('reads lists as ssh_config has them', () => {
    const usual = chooseAlgorithms(facts, []).cipher;
    const cipherOf = (ciphers: string) => chooseAlgorithms({ ...facts, ciphers }, []).cipher;
    expect(cipherOf('aes256-ctr,3des-cbc,no-such-thing')).to.deep.equal(['aes256-ctr', '3des-cbc']);
    expect(cipherOf('+aes128-cbc')).to.deep.equal([...usual, 'aes128-cbc']);
    expect(cipherOf('^aes256-ctr')).to.deep.equal(['aes256-ctr', ...usual.filter((name) => name !== 'aes256-ctr')]);
    expect(cipherOf('-*gcm*')).to.deep.equal(usual.filter((name) => !name.includes('gcm')));
    expect(cipherOf('aes???-ctr')).to.deep.equal(['aes128-ctr', 'aes192-ctr', 'aes256-ctr']);
  });

  it('refuses a list of which nothing is left', () => {
    for (const ciphers of ['no-such-thing', '-*']) {
      let caught: unknown;
      try {
        chooseAlgorithms({ ...facts, ciphers }, []);
      } catch (error) {
        caught = error;
      }
      expect(isTunwardError(caught, 'ERR_SPAWN_FAILED')).to.equal(true);
      expect(String(caught)).to.include(`Ciphers ${ciphers}`);
    }
  });

  it('names nothing that ssh2 does not have', () => {
    const everything = { ...facts, ciphers: '*', macs: '*', kexAlgorithms: '*', hostKeyAlgorithms: '*' };
    const { kex, hostKey, cipher, mac } = chooseAlgorithms(everything, []);
    const client = new (loadSsh2().Client)();
    client.on('error', () => undefined);
    const algorithms = { kex, serverHostKey: hostKey, cipher, hmac: mac, compress: ['none', 'zlib@openssh.com'] };
    // It throws at once for a name that it does not know.
    const config = { host: '127.0.0.1', port: 1, username: 'me', algorithms } as Parameters<typeof client.connect>[0];
    expect(() => client.connect(config)).not.to.throw();
    client.destroy();
  });
});

describe('findMismatch()', () => {
  const ours = chooseAlgorithms(facts, []);

  it('says of which kind there is nothing in common, and what is offered', () => {
    const theirs = { ...ours, mac: ['hmac-md5'], cipher: ['aes128-ctr'] };
    expect(findMismatch(facts, ours, theirs)?.sentence).to.equal('no matching MAC found: their offer is hmac-md5');
    // An authenticated cipher needs none.
    expect(findMismatch(facts, ours, { ...ours, mac: ['hmac-md5'] })).to.equal(undefined);
  });
});

describe('createGreeting()', () => {
  const lists = ['kex1,kex2', 'ssh-rsa', 'c1', 'c2', 'm1', 'm2', 'none', 'none', '', ''];
  const body = Buffer.concat(
    lists.map((list) => {
      const size = Buffer.alloc(4);
      size.writeUInt32BE(list.length);
      return Buffer.concat([size, Buffer.from(list)]);
    }),
  );
  const payload = Buffer.concat([Buffer.from([4, 20]), Buffer.alloc(16), body, Buffer.alloc(9)]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(payload.length);
  const whole = Buffer.concat([Buffer.from('hello\r\nSSH-2.0-test comment\r\n'), length, payload, Buffer.from('more')]);

  it('reads what a server offers, in whatever pieces it comes', () => {
    for (const size of [1, 7, whole.length]) {
      const greeting = createGreeting();
      for (let at = 0; at < whole.length; at += size) greeting.take(whole.subarray(at, at + size));
      expect(greeting.preamble()).to.deep.equal(['hello']);
      expect(greeting.hasVersion()).to.equal(true);
      expect(greeting.offer()).to.deep.equal({
        kex: ['kex1', 'kex2'],
        hostKey: ['ssh-rsa'],
        cipher: ['c1'],
        mac: ['m1'],
      });
    }
  });

  it('is bounded, and understands nothing that is none', () => {
    const greeting = createGreeting();
    expect(greeting.take(Buffer.alloc(100_000, 'x'))).to.equal(false);
    expect([greeting.hasVersion(), greeting.offer()]).to.deep.equal([false, undefined]);
    const cut = createGreeting();
    cut.take(Buffer.concat([Buffer.from('SSH-2.0-x\r\n'), Buffer.from([0, 0, 0, 30, 4, 20]), Buffer.alloc(40, 0xff)]));
    expect(cut.offer()).to.equal(undefined);
  });
});
