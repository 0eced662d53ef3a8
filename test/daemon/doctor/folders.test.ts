import { chmodSync, chownSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { checkFolders } from '#lib/daemon/doctor/folders.js';
import { findMount } from '#lib/proc/mounts.js';
import { need } from '../../support/need.js';
import { makePatient, type Patient, say } from './patient.js';

describe('tunward doctor: folders', () => {
  let patient: Patient;
  beforeEach(() => {
    patient = makePatient();
    chmodSync(patient.dir, 0o700);
  });
  afterEach(() => patient.remove());

  const look = (keys = {}) => say(checkFolders(patient.around({ config: patient.config(keys) })));
  const make = (name: string, mode = 0o700) => {
    const folder = join(patient.dir, name);
    mkdirSync(folder, { recursive: true });
    chmodSync(folder, mode);
    return folder;
  };

  it('are there, or will be made; nothing is made by looking', () => {
    const dir = patient.dir;
    const toBeMade = ['state', 'logs', 'socket'].map((name, at) => {
      return `ok ${name}: ${dir}/${['state', 'log', 'run'][at]} will be made`;
    });
    expect(look()).to.deep.equal(toBeMade);
    expect(look()).to.deep.equal(toBeMade);
    make('state');
    expect(look()[0]).to.equal(`ok state: ${dir}/state`);
  });

  it('have no room for a folder where a file is', () => {
    patient.write('log');
    expect(look()[1]).to.equal(`failed logs: ${patient.dir}/log is no folder`);
  });

  it('may be written to by everybody, unless nobody may take away what is another’s', () => {
    make('state', 0o777);
    expect(look()[0]).to.equal(`warning state: ${patient.dir}/state may be written to by everybody`);
    make('state', 0o1777);
    expect(look()[0]).to.match(/^ok state/);
  });

  it('hold a configuration into which others can write', () => {
    const config = patient.config();
    chmodSync(config.file, 0o666);
    const lines = say(checkFolders(patient.around({ config })));
    expect(lines[0]).to.equal(`warning config file: ${config.file} may be written to by everybody`);
  });

  it('belong to somebody else', function () {
    need(this, 'root');
    chownSync(make('state'), 4242, 4242);
    expect(look()[0]).to.equal(`warning state: ${patient.dir}/state belongs to uid 4242`);
  });

  for (const [type, where] of [
    ['overlay', "the container's own layer"],
    ['tmpfs', 'memory'],
  ]) {
    it(`keep no state on ${type}`, () => {
      patient.fake.write('self/mountinfo', `1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / ${patient.dir} rw - ${type} b rw\n`);
      const [line] = look();
      expect(line)
        .to.match(/^warning state: /)
        .and.contain(`on ${where} (${type})`);
      patient.fake.write('self/mountinfo', `1 0 0:1 / / rw - ${type} a rw\n2 1 0:2 / ${patient.dir} rw - ext4 b rw\n`);
      expect(look()[0], 'a volume in such a container').to.match(/^ok state/);
    });
  }
});

describe('findMount()', () => {
  let patient: Patient;
  beforeEach(() => {
    patient = makePatient();
  });
  afterEach(() => patient.remove());

  it('finds the nearest above a path, the last on one place, and reads names with blanks', () => {
    const rows = ['/ rw - ext4', '/a rw shared:1 - xfs', '/a rw master:2 - tmpfs', '/ab rw - nfs', '/c\\040d rw - zfs'];
    patient.fake.write('self/mountinfo', rows.map((row, at) => `${at} 0 0:${at} / ${row} source rw\n`).join(''));
    const type = (path: string) => findMount(patient.fake.proc, path)?.type;
    expect(['/', '/x', '/a', '/a/b', '/ab/c', '/abc', '/c d/e'].map(type)).to.deep.equal([
      ...['ext4', 'ext4', 'tmpfs', 'tmpfs', 'nfs', 'ext4', 'zfs'],
    ]);
  });

  it('knows nothing where nothing is told', () => {
    expect(findMount(patient.fake.proc, '/a')).to.equal(undefined);
  });
});
