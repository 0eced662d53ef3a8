import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { checkNode, checkPrograms, checkShell, judgeSsh } from '#lib/daemon/doctor/programs.js';
import { need } from '../../support/need.js';
import { repoRoot } from '../../support/paths.js';
import { freeLocalPort } from '../../support/port.js';
import { makePatient, type Patient, say, tunnel } from './patient.js';

describe('tunward doctor: programs', () => {
  let patient: Patient;
  beforeEach(() => {
    patient = makePatient();
  });
  afterEach(() => patient.remove());

  it('knows which Node the package wants', () => {
    const { engines } = JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8'));
    expect(engines.node, 'or the check is out of date').to.equal('^20.19 || >=22.12');
    const statuses = Object.fromEntries(
      ['18.20.0', '20.18.3', '20.19.0', '20.20.2', '21.7.3', '22.11.0', '22.12.0', '23.0.0', '24.1.0'].map(
        (version) => [version, checkNode(version).status],
      ),
    );
    expect(Object.keys(statuses).filter((version) => statuses[version] === 'failed')).to.deep.equal([
      '18.20.0',
      '20.18.3',
      '21.7.3',
      '22.11.0',
    ]);
  });

  const versions = {
    'OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19': 'ok',
    'OpenSSH_10.0p2, OpenSSL 3.5.1': 'ok',
    'OpenSSH_8.7p1, OpenSSL 3.0.7': 'ok',
    'OpenSSH_8.4p1 Debian-5': 'warning',
    'OpenSSH_7.6p1 Ubuntu-4': 'warning',
    'OpenSSH_7.4p1, OpenSSL 1.0.2k-fips': 'failed',
    'Dropbear v2022.83': 'failed',
    '': 'failed',
    'No user exists for uid 4242': 'unknown',
  };
  for (const [version, status] of Object.entries(versions)) {
    it(`calls ${version === '' ? 'an ssh that says nothing' : version} ${status}`, () => {
      const check = judgeSsh({ file: '/usr/bin/ssh', version });
      expect(check.status).to.equal(status);
      expect(check.finding).to.contain('/usr/bin/ssh');
    });
  }

  it('asks the ssh that the daemon would run', async function () {
    need(this, 'ssh');
    const [, ssh, ...rest] = await checkPrograms(patient.around());
    expect(ssh?.status).to.equal('ok');
    expect(ssh?.finding).to.match(/^OpenSSH_\d.*\(\/.*ssh\)$/);
    expect(rest, 'nobody asked for autossh').to.deep.equal([]);
  });

  it('looks for a shell where a tunnel goes through another host', async () => {
    const names = async (keys: Readonly<Record<string, unknown>>) => {
      const config = patient.config({ tunnels: [tunnel(await freeLocalPort(), keys)] });
      return (await checkPrograms(patient.around({ config }))).map(({ check }) => check);
    };
    expect(await names({})).to.not.include('shell');
    expect(await names({ jump: 'bastion' })).to.include('shell');
    expect(checkShell(true).status).to.equal('ok');
    expect(say(checkShell(false))).to.deep.equal(['failed shell: a tunnel has a jump host, and there is no /bin/sh']);
  });

  it('says which program is missing, autossh only where a tunnel wants it', async () => {
    const config = patient.config({ tunnels: [tunnel(await freeLocalPort(), { engine: 'autossh' })] });
    const checks = await checkPrograms(patient.around({ env: { PATH: patient.dir }, config }));
    expect(say(checks).slice(1)).to.deep.equal([
      `failed ssh: no ssh on PATH (${patient.dir}), and 1 tunnel asks for it`,
      'failed autossh: a tunnel asks for autossh, and it is not on PATH',
    ]);
  });

  it('has nothing against a machine without ssh, where every tunnel can do without', async () => {
    const look = async (...engines: string[]) => {
      const tunnels = await Promise.all(
        engines.map(async (engine) => tunnel(await freeLocalPort(), { engine, jump: 'bastion' })),
      );
      const config = patient.config({ tunnels });
      return say(await checkPrograms(patient.around({ env: { PATH: patient.dir }, config }))).slice(1);
    };
    const none = `no ssh on PATH (${patient.dir})`;
    expect(await look('auto', 'embedded')).to.deep.equal([`ok ssh: ${none}: the embedded engine is used`]);
    expect((await look('auto', 'ssh', 'ssh'))[0]).to.equal(`failed ssh: ${none}, and 2 tunnels ask for it`);
  });

  it('does not judge an ssh that no tunnel wants', async () => {
    patient.write('ssh', '#!/bin/sh\necho OpenSSH_5.0 >&2\n', 0o755);
    const look = async (engine: string) => {
      const config = patient.config({ tunnels: [tunnel(await freeLocalPort(), { engine })] });
      return say(await checkPrograms(patient.around({ env: { PATH: `${patient.dir}:/bin:/usr/bin` }, config })))[1];
    };
    expect(await look('auto')).to.match(/^failed ssh: OpenSSH_5\.0 .* does not know accept-new$/);
    expect(await look('embedded')).to.match(/^ok ssh: OpenSSH_5\.0 .*, and no tunnel wants it$/);
  });

  it('tells the version of autossh', async function () {
    need(this, 'autossh');
    const config = patient.config({ tunnels: [tunnel(await freeLocalPort(), { engine: 'autossh' })] });
    const checks = await checkPrograms(patient.around({ config }));
    expect(say(checks)[2]).to.match(/^ok autossh: autossh 1\.\d/);
  });
});
