import { generateKeyPairSync } from 'node:crypto';
import { chmodSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { checkPerson } from '#lib/daemon/doctor/person.js';
import { until } from '#lib/time.js';
import { need } from '../../support/need.js';
import { which } from '../../support/paths.js';
import { makePatient, type Patient, say, tunnel } from './patient.js';

const { homedir, username, uid } = userInfo();
/** Some host's. */
const KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN8Qf08DWg5tUII52jxk8PhWSEFLTtKs+zBScTiHkXyk';

describe('tunward doctor: the person', () => {
  let patient: Patient;
  const servers: Server[] = [];
  beforeEach(function () {
    need(this, 'ssh');
    patient = makePatient();
  });
  afterEach(() => {
    for (const server of servers.splice(0)) server.close();
    patient?.remove();
  });

  /** With a key and an ssh_config of its own, so that nothing of this machine's user counts. */
  function configure(keys: Readonly<Record<string, unknown>> = {}, sshConfig = '') {
    const ssh_config = patient.write('ssh_config', `${sshConfig}\nIdentityFile ${patient.dir}/none\n`);
    return patient.config({ tunnels: [tunnel(20_000, { ssh_config, ...keys })] });
  }
  const look = async (changes = {}, env = {}) => {
    const around = patient.around(changes);
    return say(await checkPerson({ ...around, env: { ...around.env, HOME: homedir, ...env } }));
  };
  const of = (lines: readonly string[], check: string) =>
    lines.filter((line) => new RegExp(`^\\S+ ${check}: `).test(line));

  describe('home', () => {
    it('is the one that ssh looks in', async () => {
      expect((await look())[0]).to.equal(`ok home: ${username} (uid ${uid}), home ${homedir}`);
      expect((await look({}, { HOME: undefined }))[0]).to.match(/^warning home: .*HOME is not set/);
      expect((await look({}, { HOME: patient.dir }))[0]).to.match(/^warning home: .*, and HOME is /);
    });
  });

  it('has nothing to do with ssh where every tunnel is embedded', async () => {
    const asked = patient.write('asked');
    patient.write('ssh', `#!/bin/sh\necho "$@" >> ${asked}\nexit 1\n`, 0o755);
    const config = configure({ engine: 'embedded' });
    const lines = await look({ config }, { HOME: patient.dir, PATH: `${patient.dir}:/bin` });
    expect(lines).to.deep.equal([
      `ok home: ${username} (uid ${uid}), home ${homedir}, and HOME is ${patient.dir}`,
      'ok agent: none (SSH_AUTH_SOCK is not set): keys come from files',
      `failed keys: ${patient.dir}/none is not there`,
      `ok host keys: 0 of 1 server known; 1 to be met, whose keys go into ${patient.dir}/state/known_hosts`,
    ]);
    expect(readFileSync(asked, 'utf8'), 'ssh was asked nothing').to.equal('');
  });

  describe('of embedded tunnels', () => {
    const checks = async (keys: Readonly<Record<string, unknown>>, sshConfig = '', env = {}) =>
      (await look({ config: configure({ engine: 'embedded', ...keys }, sshConfig) }, env)).slice(2);
    const key = () => generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();

    it('finds the keys that this client can use, and says of the others why not', async () => {
      const identity_file = patient.write('id', key());
      expect((await checks({ identity_file }))[0]).to.match(/^warning keys: \S+none is not there$/);
      chmodSync(identity_file, 0o644);
      expect(await checks({ identity_file }).then(([first]) => first)).to.match(
        /^failed keys: .*\/id.*too open \(0644\)/,
      );
      const locked = generateKeyPairSync('ed25519').privateKey.export({
        ...{ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'secret' },
      });
      const other = patient.write('locked', locked.toString());
      expect(await checks({ identity_file: other })).to.include(
        `failed keys: ${other} has a passphrase, and nobody is there to type it`,
      );
    });

    it('knows who was met before, and who never will be', async () => {
      const known = patient.write('known', `doctor.invalid ${KEY}\n`);
      const file = `UserKnownHostsFile ${known}\nStrictHostKeyChecking yes`;
      expect(await checks({}, file)).to.include('ok host keys: 1 of 1 server known');
      patient.write('known', '');
      expect((await checks({}, file)).find((line) => line.includes('host keys'))).to.match(
        /^failed host keys: no key of doctor\.invalid in .*known.*, and StrictHostKeyChecking is yes$/,
      );
    });

    it('says what is its own where tunnels of ssh are looked at beside', async () => {
      const own = { ssh_config: patient.write('own', `IdentityFile ${patient.write('id', key())}`) };
      const tunnels = [tunnel(20_000, { ...own, engine: 'ssh' }), tunnel(20_001, { ...own, engine: 'embedded' })];
      const lines = await look({ config: patient.config({ tunnels }) });
      expect(of(lines, 'keys')).to.deep.equal([
        'ok keys: 1 key file for 1 destination',
        'ok keys: engine embedded: 1 key file for 1 destination',
      ]);
      expect(of(lines, 'host keys').map((line) => line.includes(': engine embedded: '))).to.deep.equal([false, true]);
    });

    it('looks at the jump hosts on the way as well: whom they are, and what would log in there', async () => {
      const known = patient.write('known', `doctor.invalid ${KEY}\n`);
      const identity_file = patient.write('id', key());
      const file = `UserKnownHostsFile ${known}\nIdentityFile ${identity_file}`;
      const gate = patient.write('gate', 'no key');
      const strict = `Host gate\n  HostName gate.invalid\n  Port 2222\n  StrictHostKeyChecking yes\n  IdentityFile ${gate}\nHost *\n${file}`;
      const without = `Host none\nHost *\n${file}`;
      const only = (lines: string[]) => lines.map((line) => line.replaceAll(patient.dir, ''));
      expect(only(await checks({ jump: 'gate' }, without)).at(-1)).to.match(
        /^ok host keys: 1 of 2 servers known; 1 to be met/,
      );
      for (const config of [{ jump: 'gate' }, {}]) {
        const found = only(
          await checks(config, config.jump ? strict : `Host doctor.invalid\n  ProxyJump gate\n${strict}`),
        );
        expect(found).to.include(
          'failed host keys: no key of gate.invalid port 2222 in /known, /etc/ssh/ssh_known_hosts, /etc/ssh/ssh_known_hosts2, and StrictHostKeyChecking is yes',
        );
        expect(found.join()).to.match(/warning keys: The key \/gate is none: expected a private key/);
        expect(found.at(-1)).to.equal('ok host keys: 1 of 2 servers known');
      }
    });

    it('counts a jump host that many go through once', async () => {
      const identity_file = patient.write('id', key());
      const ssh_config = patient.write('ssh_config', `IdentityFile ${identity_file}\n`);
      const engine = 'embedded';
      const tunnels = ['a.invalid', 'b.invalid'].map((remote_host, at) =>
        tunnel(20_000 + at, { engine, remote_host, jump: 'gate', ssh_config }),
      );
      const lines = (await look({ config: patient.config({ tunnels }) })).slice(2);
      expect(lines[0]).to.equal('ok keys: 1 key file for 2 destinations and 1 jump host');
      expect(lines[1]).to.match(/^ok host keys: 0 of 3 servers known; 3 to be met/);
    });

    it('says of a jump host what of the ssh_config this client cannot do', async () => {
      const [first] = await checks({ jump: 'gate' }, 'Host gate\n  GSSAPIAuthentication yes\nHost *');
      expect(first).to.match(/^failed ssh config: doctor\.invalid: .*GSSAPIAuthentication/);
    });

    it('says what of the ssh_config this client cannot do', async () => {
      const [first, ...rest] = await checks({}, 'ProxyCommand nc %h %p');
      expect(first).to.match(/^failed ssh config: doctor\.invalid: .*ProxyCommand/);
      expect(rest).to.deep.equal([]);
    });
  });

  describe('agent', () => {
    const agent = async (path: string | undefined) => of(await look({}, { SSH_AUTH_SOCK: path }), 'agent')[0];

    it('is none, or one that answers', async () => {
      expect(await agent(undefined)).to.match(/^ok agent: none/);
      const socket = join(patient.dir, 'agent.sock');
      const server = createServer((caller) => caller.destroy()).listen(socket);
      servers.push(server);
      await until(() => server.listening, { timeoutMs: 1000 });
      expect(await agent(socket)).to.equal(`ok agent: one answers at ${socket}`);
    });

    it('is named and not there, or does not answer', async () => {
      expect(await agent(join(patient.dir, 'gone'))).to.match(/^warning agent: .*not there$/);
      const file = patient.write('stale.sock');
      expect(await agent(file)).to.equal(`warning agent: nobody answers at ${file}`);
    });
  });

  describe('keys', () => {
    const keys = async (config: ReturnType<typeof configure>, env = {}) => of(await look({ config }, env), 'keys');

    it('are there, and ssh takes them', async () => {
      const identity_file = patient.write('id', 'key');
      expect(await keys(configure({ identity_file }))).to.deep.equal(['ok keys: 1 key file for 1 destination']);
    });

    it('may be read by others, and then ssh does not take them', async () => {
      const identity_file = patient.write('id', 'key', 0o644);
      expect(await keys(configure({ identity_file }))).to.deep.equal([
        `failed keys: ${identity_file} has mode 0644, and ssh takes no key that others may read`,
      ]);
      chmodSync(identity_file, 0o400);
      expect((await keys(configure({ identity_file })))[0]).to.match(/^ok/);
    });

    it('are named and not there', async () => {
      const identity_file = join(patient.dir, 'gone');
      expect(await keys(configure({ identity_file }))).to.deep.equal([`failed keys: ${identity_file} is not there`]);
    });

    it('of the ssh_config count as well; where another is good, a bad one is a warning', async () => {
      const open = patient.write('open', 'key', 0o640);
      expect(await keys(configure({}, `IdentityFile ${open}`))).to.deep.equal([
        `failed keys: ${open} has mode 0640, and ssh takes no key that others may read`,
      ]);
      const good = patient.write('good', 'key');
      const both = await keys(configure({}, `IdentityFile ${open}\nIdentityFile ${good}`));
      expect(both[0]).to.match(/^warning keys: /);
    });

    it('are none, and there is no agent either', async () => {
      expect(await keys(configure())).to.deep.equal(['warning keys: no key for 1 of 1 destination, and no agent']);
    });
  });

  describe('host keys', () => {
    const hostKeys = async (sshConfig: string) => of(await look({ config: configure({}, sshConfig) }), 'host keys');

    it('are taken at the first meeting where ssh would ask', async () => {
      const [line] = await hostKeys('StrictHostKeyChecking ask');
      expect(line).to.equal(
        `ok host keys: new ones are taken at the first meeting, into ${patient.dir}/state/known_hosts`,
      );
      expect((await hostKeys('StrictHostKeyChecking yes'))[0]).to.match(/^ok .*as the ssh_config says$/);
    });

    it('are not checked at all', async () => {
      const [line] = await hostKeys('StrictHostKeyChecking no');
      expect(line).to.equal('warning host keys: of doctor.invalid any key is taken, also one that changed');
    });
  });

  it('says what ssh has against its configuration', async () => {
    const [line] = of(await look({ config: configure({}, 'NoSuchWord yes') }), 'ssh config');
    expect(line).to.match(/^failed ssh config: doctor.invalid: ssh cannot use its configuration: .*nosuchword/i);
  });

  it('asks once for each destination', async () => {
    const identity_file = patient.write('id', 'key');
    const asked = join(patient.dir, 'asked');
    patient.write('bin/ssh', `#!/bin/sh\necho "$@" >> ${asked}\nexec ${which('ssh')} "$@"\n`, 0o755);
    const ssh_config = patient.write('ssh_config');
    const tunnels = [1, 2, 3].map((at) => tunnel(20_000 + at, { ssh_config, identity_file }));
    await look({ config: patient.config({ tunnels }) }, { PATH: `${patient.dir}/bin:/bin:/usr/bin` });
    expect(readFileSync(asked, 'utf8').trim().split('\n')).to.have.length(1);
  });
});
