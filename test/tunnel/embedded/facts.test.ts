import { userInfo } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { readHostFacts } from '#lib/tunnel/embedded/facts.js';
import { makeSpec } from '../../support/specs.js';
import { complaintOf, itRefuses, useConfigHome } from '../../support/ssh-config.js';

const { username } = userInfo();

describe('readHostFacts()', () => {
  const home = useConfigHome();

  it('has a default for everything where there is no file', async () => {
    const facts = await readHostFacts(makeSpec({ remoteHost: 'Web.Example' }), null, {
      env: { HOME: home.dir, SSH_AUTH_SOCK: '/run/agent' },
      knownHosts: null,
    });
    expect(facts).to.deep.equal({
      user: username,
      host: 'web.example',
      port: 22,
      hostKeyAlias: null,
      strictHostKeyChecking: 'ask',
      knownHostsFiles: [
        join(home.dir, '.ssh/known_hosts'),
        join(home.dir, '.ssh/known_hosts2'),
        '/etc/ssh/ssh_known_hosts',
        '/etc/ssh/ssh_known_hosts2',
      ],
      newKeysFile: join(home.dir, '.ssh/known_hosts'),
      hashKnownHosts: false,
      identityFiles: ['id_rsa', 'id_ecdsa', 'id_ed25519'].map((name) => join(home.dir, '.ssh', name)),
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

  it("takes the spec's own first, then the user before the host, then the home.file", async () => {
    const lines = ['User file', 'Port 1', 'HostName elsewhere', 'IdentityFile ~/.ssh/own', 'Compression yes'];
    const spec = { remoteHost: 'me@web', sshOptions: { Port: '2' }, identityFile: '/k%d' };
    const facts = await home.read(lines, { spec });
    expect([facts.user, facts.port, facts.host, facts.compression]).to.deep.equal(['me', 2, 'elsewhere', true]);
    expect(facts.identityFiles).to.deep.equal(['/k%d', join(home.dir, '.ssh/own')]);
    const named = await home.read(lines, { spec: { ...spec, sshOptions: { User: 'option' } } });
    expect(named.user).to.equal('option');
  });

  it('takes the timeouts of the spec or of ours, as ssh is given them before its file', async () => {
    const lines = ['ConnectTimeout 77', 'ServerAliveInterval 77', 'ServerAliveCountMax 77'];
    const ours = await home.read(lines);
    expect([ours.connectTimeoutMs, ours.aliveIntervalMs, ours.aliveCountMax]).to.deep.equal([10_000, 15_000, 3]);
    const sshOptions = { ConnectTimeout: '1m30s', ServerAliveInterval: '0', ServerAliveCountMax: '9' };
    const theirs = await home.read(lines, { spec: { sshOptions } });
    expect([theirs.connectTimeoutMs, theirs.aliveIntervalMs, theirs.aliveCountMax]).to.deep.equal([90_000, 0, 9]);
    const check = { http: null, everyMs: 1000, timeoutMs: 1000 };
    expect((await home.read(lines, { spec: { check } })).aliveIntervalMs).to.equal(5000);
  });

  it('puts a home.file of ours first where ssh would ask somebody, and nowhere else', async () => {
    const options = { knownHosts: '/ours' };
    const theirs = [join(home.dir, 'kh'), '/etc/kh'];
    const both = ['UserKnownHostsFile ~/kh', 'GlobalKnownHostsFile /etc/kh'];
    const asked = await home.read(both, { options });
    expect([asked.newKeysFile, asked.knownHostsFiles]).to.deep.equal(['/ours', ['/ours', ...theirs]]);
    for (const [word, newKeysFile] of [
      ['accept-new', theirs[0]],
      ['no', theirs[0]],
      ['off', theirs[0]],
      ['yes', null],
    ] as const) {
      const facts = await home.read([`StrictHostKeyChecking ${word}`, ...both], { options });
      expect([facts.newKeysFile, facts.knownHostsFiles], word).to.deep.equal([newKeysFile, theirs]);
    }
    const none = await home.read(['UserKnownHostsFile none', 'GlobalKnownHostsFile none', 'StrictHostKeyChecking no']);
    expect([none.newKeysFile, none.knownHostsFiles]).to.deep.equal([null, []]);
  });

  it('finds the agent', async () => {
    const env = { SSH_AUTH_SOCK: '/a', OTHER: '/o' };
    const agents: [string, string | null][] = [
      ['SSH_AUTH_SOCK', '/a'],
      ['none', null],
      ['$OTHER', '/o'],
      ['$ABSENT', null],
      ['$constructor', null],
      ['~/agent.%h', join(home.dir, 'agent.web')],
    ];
    for (const [word, path] of agents)
      expect((await home.read(`IdentityAgent ${word}`, { options: { env } })).identityAgent, word).to.equal(path);
  });

  it('says which methods there are, in their order', async () => {
    expect((await home.read('PreferredAuthentications password,gssapi-with-mic,publickey')).methods).to.deep.equal([
      'password',
      'publickey',
    ]);
    const lines = ['PasswordAuthentication no', 'ChallengeResponseAuthentication no', 'PubkeyAuthentication unbound'];
    expect((await home.read(lines)).methods).to.deep.equal(['publickey']);
    expect(await complaintOf(home.read(['PubkeyAuthentication no', ...lines]))).to.match(
      /^The engine embedded has no way left/,
    );
  });

  it('goes through the hosts of the spec, or of ProxyJump', async () => {
    const lines = ['ProxyJump ssh://a@b:2200,[::1]:22,%h', 'ProxyCommand nc %h %p'];
    expect((await home.read(lines)).jump).to.deep.equal([
      { destination: 'a@b', port: 2200 },
      { destination: '::1', port: 22 },
      { destination: 'web', port: null },
    ]);
    const jump = [{ destination: 'own', port: null }];
    expect((await home.read('ProxyCommand nc', { spec: { jump } })).jump).to.deep.equal(jump);
    expect((await home.read(['ProxyJump none', 'ProxyCommand nc'])).jump).to.deep.equal([]);
    expect((await home.read(['ProxyCommand none', 'ProxyJump b'])).jump).to.deep.equal([]);
    expect((await home.read('ProxyCommand nc', { options: { isBehind: true } })).jump).to.deep.equal([]);
    expect(await complaintOf(home.read(['HostName w', 'ProxyCommand nc']))).to.equal(
      "The engine embedded cannot use ProxyCommand, which ~/.ssh/config line 2 asks for: use 'engine: ssh', or name the hosts on the way by 'jump'",
    );
    expect(await complaintOf(home.read('ProxyJump b:99999'))).to.match(
      /^~\/.ssh\/config line 1: ProxyJump: expected a port/,
    );
  });

  it('gives a hop those options of the spec that are about hops as well', async () => {
    const jump = [{ destination: 'me@gate', port: 2200 }];
    const sshOptions = { Port: '1', User: 'x', Ciphers: 'aes128-ctr', IdentitiesOnly: 'yes', ConnectTimeout: '3' };
    const spec = { jump, sshOptions, identityFile: '/k' };
    const [hop = null] = jump;
    const facts = await home.read(['Host gate', 'ProxyJump far', 'IdentitiesOnly no'], { spec, hop });
    expect([facts.host, facts.port, facts.user, facts.ciphers]).to.deep.equal(['gate', 2200, 'me', null]);
    expect([facts.identitiesOnly, facts.connectTimeoutMs, facts.identityFiles]).to.deep.equal([true, 3000, ['/k']]);
    expect(facts.jump).to.deep.equal([{ destination: 'far', port: null }]);
  });

  it('gives a hop of ssh_config nothing of the spec', async () => {
    const spec = { sshOptions: { IdentitiesOnly: 'yes' }, identityFile: '/k' };
    const facts = await home.read('Host gate', { spec, hop: { destination: 'gate', port: null } });
    expect([facts.identitiesOnly, facts.areIdentitiesNamed]).to.deep.equal([false, false]);
  });

  itRefuses(home, [
    [
      'a certificate as identity',
      'IdentityFile ~/.ssh/id_rsa-cert.pub',
      /cannot use the certificate .*id_rsa-cert\.pub, which/,
    ],
    ['a host that is none', 'HostName "a b"', /line 1: expected a host, found 'a b'/],
  ]);
});
