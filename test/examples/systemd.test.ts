import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect } from 'chai';
import { type Config, loadConfig } from '#lib/daemon/config.js';
import { errorCodes } from '#lib/errors.js';
import { repoRoot, which } from '../support/paths.js';

const folder = join(repoRoot, 'examples/systemd');
const text = readFileSync(join(folder, 'tunward.service'), 'utf8');

/** A unit as it is read: `[Section]`, `Key=value`, lines that begin with # or ; are comments. No key stands twice here. */
function parseUnit(unit: string): Record<string, Record<string, string>> {
  const sections: Record<string, Record<string, string>> = {};
  let section = '';
  for (const line of unit.split('\n').filter((each) => !/^\s*([#;]|$)/.test(each))) {
    const [, head] = /^\[(\w+)\]$/.exec(line) ?? [];
    const [, key = '', value = ''] = /^(\w+)=(.*)$/.exec(line) ?? [];
    if (head === undefined && key === '') throw new Error(`No line of a unit: ${line}`);
    section = head ?? section;
    const keys = sections[section] ?? {};
    if (key in keys) throw new Error(`${key} stands there twice`);
    sections[section] = head === undefined ? { ...keys, [key]: value } : keys;
  }
  return sections;
}

describe('examples/systemd', () => {
  const { Service: service = {} } = parseUnit(text);
  let config: Config;
  before(async () => {
    config = await loadConfig({ file: join(folder, 'tunward.yaml'), env: {}, uid: 999 });
  });

  it('starts the command with the configuration that is beside it', () => {
    expect(service.ExecStart).to.equal('/usr/bin/env tunward up -c /etc/tunward/tunward.yaml');
    expect(service.ExecReload).to.equal('/bin/kill -HUP $MAINPID');
    expect(config.warnings).to.deep.equal([]);
  });

  it('makes the folders that the configuration names, and no others are written to', () => {
    expect(service).to.include({ ProtectSystem: 'strict', ProtectHome: 'yes' });
    expect(config.stateDir).to.equal(`/var/lib/${service.StateDirectory}`);
    expect(config.logDir).to.equal(`/var/log/${service.LogsDirectory}`);
    expect(dirname(config.api.socket)).to.equal(`/run/${service.RuntimeDirectory}`);
    for (const name of ['State', 'Logs', 'Runtime']) expect(service[`${name}DirectoryMode`]).to.equal('0700');
  });

  it('leaves the shutdown its time, signals tunward alone, and starts again only what can get better', () => {
    expect(Number(service.TimeoutStopSec) * 1000).to.be.at.least(config.stopTimeoutMs + 1000);
    expect(service).to.include({ KillMode: 'mixed', Restart: 'on-failure' });
    expect(service.RestartPreventExitStatus).to.equal(String(errorCodes.ERR_CONFIG_INVALID.exit));
  });

  it('leaves what tunward lives on: the /proc of others, its own addresses, a compiler that writes code', () => {
    for (const key of ['ProtectProc', 'ProcSubset', 'MemoryDenyWriteExecute'])
      expect(service).not.to.have.property(key);
    expect(service.RestrictAddressFamilies?.split(' ')).to.have.members([
      ...['AF_UNIX', 'AF_INET', 'AF_INET6', 'AF_NETLINK'],
    ]);
  });

  describe('as systemd reads it', () => {
    const analyze = which('systemd-analyze');
    let dir: string;
    before(function () {
      if (analyze === undefined) {
        process.stderr.write('\n*** SKIPPED *** examples/systemd: needs systemd-analyze (apt-get install systemd)\n');
        this.skip();
      }
      dir = mkdtempSync(join(tmpdir(), 'tunward-unit-'));
      // What is called has to be there.
      writeFileSync(join(dir, 'tunward.service'), text.replace('/usr/bin/env tunward', process.execPath));
    });
    after(() => dir && rmSync(dir, { recursive: true }));

    function run(...args: string[]) {
      const { status, stdout, stderr } = spawnSync(analyze ?? '', args, { encoding: 'utf8', cwd: dir });
      return { status, said: `${stdout}${stderr}` };
    }

    it('has no word in it that it does not know', () => {
      expect(run('verify', './tunward.service')).to.deep.equal({ status: 0, said: '' });
    });

    it('is exposed as little as it can be: 1.9 of 10', function () {
      const { said } = run('security', '--offline=yes', '--no-pager', './tunward.service');
      const level = /Overall exposure level for tunward.service: (\d+\.\d)/.exec(said)?.[1];
      // Before version 250 it looks at units of a running manager alone.
      if (level === undefined) this.skip();
      expect(Number(level)).to.be.at.most(2);
    });
  });
});
