import { expect } from 'chai';
import { checkLimits } from '#lib/daemon/doctor/limits.js';
import { readCgroupLimit, readLimit } from '#lib/proc/limits.js';
import { openProc } from '#lib/proc/read.js';
import { makePatient, type Patient, say, tunnel } from './patient.js';

describe('tunward doctor: limits', () => {
  let patient: Patient;
  beforeEach(() => {
    patient = makePatient();
  });
  afterEach(() => patient.remove());

  const limits = (files: string, processes: string) =>
    `Limit                     Soft Limit           Hard Limit           Units     \n` +
    `Max processes             ${processes.padEnd(20)} 96365                processes \n` +
    `Max open files            ${files.padEnd(20)} 20000                files     \n`;
  /** Of 100 tunnels. */
  const look = (changes = {}) => {
    const config = patient.config({
      tunnels: Array.from({ length: 100 }, (_, at) => tunnel(20_000 + at, { engine: 'ssh' })),
    });
    return say(checkLimits(patient.around({ config, ...changes }), `${patient.dir}/cgroup`));
  };

  it('are enough, or there are none', () => {
    expect(look()).to.deep.equal(['ok descriptors: no limit', 'ok processes: no limit', 'ok memory: no limit']);
    patient.fake.write('self/limits', limits('264', 'unlimited'));
    expect(look()[0]).to.equal('ok descriptors: 264 at most, and 100 tunnels take about 264');
  });

  it('are too low for so many tunnels', () => {
    patient.fake.write('self/limits', limits('256', '100'));
    patient.fake.write('self/cgroup', '0::/a/b\n');
    patient.write('cgroup/a/memory.max', '134217728\n');
    expect(look({ uid: 1000 })).to.deep.equal([
      'warning descriptors: 256 at most, and 100 tunnels take about 264',
      'warning processes: 100 at most, and 100 tunnels take about 132',
      'warning memory: 134 MB at most, and 100 tunnels take about 300 MB',
    ]);
    expect(look({ uid: 0 })[1], 'root is not counted').to.equal('ok processes: no limit');
  });

  it('are those of the daemon, where one runs', () => {
    patient.fake.write('self/limits', limits('20000', 'unlimited'));
    patient.fake.write('812/limits', limits('128', 'unlimited'));
    patient.fake.add({ pid: 812, command: ['node', 'main.js', 'up'] }, { pid: 813, command: ['postgres'] });
    expect(look({ daemon: { pid: 812, zombies: 0, blocked: [] } })[0]).to.match(/^warning descriptors: 128 at most/);
    // A daemon elsewhere, whose number another process bears here.
    expect(look({ daemon: { pid: 813, zombies: 0, blocked: [] } })[0]).to.match(/^ok descriptors: 20000 at most/);
  });

  it('count two processes for an autossh, and none for a tunnel that waits for a person', () => {
    patient.fake.write('self/cgroup', '0::/\n');
    patient.write('cgroup/pids.max', '34\n');
    const processes = (keys: object) => {
      const config = patient.config({ tunnels: [tunnel(20_000, keys as Record<string, unknown>)] });
      return say(checkLimits(patient.around({ config }), `${patient.dir}/cgroup`))[1];
    };
    expect(processes({ engine: 'ssh' })).to.match(/take about 33$/);
    expect(processes({ engine: 'autossh' })).to.match(/take about 34$/);
    expect(processes({ interactive: true })).to.match(/0 tunnels take about 32$/);
  });

  it('count no process for one that is embedded, and descriptors for what passes through the daemon', () => {
    patient.fake.write('self/cgroup', '0::/\n');
    patient.fake.write('self/limits', limits('100', 'unlimited'));
    patient.write('cgroup/pids.max', '34\n');
    const lookAt = (keys: object) => {
      const config = patient.config({ tunnels: [tunnel(20_000, keys as Record<string, unknown>)] });
      return say(checkLimits(patient.around({ config }), `${patient.dir}/cgroup`)).map((line) =>
        line.replace(/.* take about /, ''),
      );
    };
    const through = ', with 16 connections through each that passes through the daemon';
    expect(lookAt({ engine: 'ssh' }).slice(0, 2)).to.deep.equal(['66', '33']);
    expect(lookAt({ engine: 'ssh', seamless: true }).slice(0, 2)).to.deep.equal([`98${through}`, '33']);
    expect(lookAt({ engine: 'embedded' }).slice(0, 2)).to.deep.equal([`98${through}`, '32']);
  });

  describe('readCgroupLimit()', () => {
    const read = () => readCgroupLimit(patient.fake.proc, 'pids', `${patient.dir}/cgroup`);

    it('is the least of the group and of those above it', () => {
      patient.fake.write('self/cgroup', '0::/a/b\n');
      expect(read()).to.equal(undefined);
      patient.write('cgroup/a/b/pids.max', 'max\n');
      expect(read()).to.equal(undefined);
      patient.write('cgroup/a/pids.max', '50\n');
      patient.write('cgroup/pids.max', '70\n');
      expect(read()).to.equal(50);
      patient.write('cgroup/a/b/pids.max', '40\n');
      expect(read()).to.equal(40);
    });

    it('is found in version 1 too, where a container sees the top alone', () => {
      patient.fake.write('self/cgroup', '9:cpu,cpuacct:/docker/1\n8:pids:/docker/1\n1:name=systemd:/\n');
      patient.write('cgroup/pids/pids.max', '512\n');
      expect(read()).to.equal(512);
      const memory = () => readCgroupLimit(patient.fake.proc, 'memory', `${patient.dir}/cgroup`);
      patient.fake.write('self/cgroup', '4:memory:/\n');
      patient.write('cgroup/memory/memory.limit_in_bytes', '9223372036854771712\n');
      expect(memory(), 'no limit').to.equal(undefined);
    });

    it('is of a path with colons in it', () => {
      patient.fake.write('self/cgroup', '0::/a:b/c\n');
      patient.write('cgroup/a:b/pids.max', '5\n');
      expect(read()).to.equal(5);
    });
  });

  it('readLimit() reads what this very process has', () => {
    const files = readLimit(openProc(), 'self', 'Max open files');
    expect(files).to.be.greaterThan(100);
    expect(readLimit(openProc(), 'self', 'Max processes')).to.be.greaterThan(100);
  });
});
