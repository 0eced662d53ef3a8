import { utimesSync } from 'node:fs';
import { expect } from 'chai';
import { checkKernel, watchClock } from '#lib/daemon/doctor/kernel.js';
import { createFakeClock, epoch } from '../../support/fakeclock.js';
import { makePatient, type Patient, say } from './patient.js';

describe('tunward doctor: the kernel', () => {
  let patient: Patient;
  beforeEach(() => {
    patient = makePatient();
  });
  afterEach(() => patient.remove());

  const of = (check: string, changes = {}) =>
    checkKernel(patient.around(changes)).find((each) => each.check === check) ?? { status: 'none', finding: '' };

  it('fails without a /proc, and says so once', () => {
    patient.fake.remove(String(process.pid));
    const checks = checkKernel(patient.around());
    expect(say(checks)).to.deep.equal([`failed proc: ${patient.fake.root} does not show this process`]);
  });

  it('says what hidepid hides, and from whom it does not', () => {
    const mount = (options: string) =>
      patient.fake.write('self/mountinfo', `22 1 0:21 / ${patient.fake.root} rw - proc proc rw,${options}\n`);
    const status = (groups: string) =>
      patient.fake.write('self/status', `Gid:\t9\t9\t9\t9\nGroups:\t${groups} \nCapEff:\t0000000000000000\n`);
    status('9');
    mount('hidepid=invisible');
    expect(of('proc', { uid: 1000 }))
      .to.include({ status: 'warning' })
      .and.property('finding')
      .contain('(hidepid=invisible)');
    mount('hidepid=invisible,gid=9');
    expect(of('proc', { uid: 1000 }).status).to.equal('ok');
    mount('');
    expect(of('proc', { uid: 1000 }).finding).to.contain('shown to root alone');
  });

  it('says of a root without CAP_SYS_PTRACE, as a container has it, what it may not', () => {
    patient.fake.write('self/status', 'CapEff:\t00000000a80425fb\n');
    expect(of('proc', { uid: 0 }))
      .to.include({ status: 'warning' })
      .and.property('finding')
      .contain('CAP_SYS_PTRACE');
    patient.fake.write('self/status', 'CapEff:\t000001ffffffffff\n');
    expect(of('proc', { uid: 0 }).status).to.equal('ok');
  });

  describe('pid 1', () => {
    const dead = (count: number, ppid: number) => {
      for (let at = 0; at < count; at++) patient.fake.add({ pid: 5000 + at, ppid, state: 'Z' });
    };

    it('is an init, and that is well', () => {
      dead(1, 1);
      expect(of('pid 1')).to.include({ status: 'ok', finding: 'pid 1 is tini -- node; 1 zombie' });
    });

    it('is Node, or takes nobody away', () => {
      dead(10, 1);
      expect(of('pid 1').status).to.equal('warning');
      for (let at = 0; at < 10; at++) patient.fake.remove(String(5000 + at));
      patient.fake.remove('1');
      patient.fake.add({ pid: 1, comm: 'node', command: ['tunward', 'up'] });
      expect(of('pid 1')).to.include({ status: 'warning', finding: 'pid 1 is tunward up' });
      expect(of('pid 1')).to.have.property('remedy').contain('docker run --init');
      patient.fake.remove('1');
      patient.fake.add({ pid: 1, comm: 'MainThread', command: ['/usr/local/bin/node', 'main.js', 'up'] });
      expect(of('pid 1').status, 'as newer ones call themselves').to.equal('warning');
    });

    it('is the daemon that answers, wherever that runs', () => {
      expect(of('pid 1', { daemon: { pid: 1, zombies: 3, blocked: [] } }).status).to.equal('warning');
    });
  });

  it('tells a container from a host', () => {
    patient.fake.write('self/cgroup', '0::/system.slice/docker-1.scope\n');
    expect(of('container').status).to.equal('ok');
    expect(of('container').finding).to.contain('control group /system.slice/docker-1.scope');
  });

  describe('the clock', () => {
    it('is well when it says a year in which tunward is used', () => {
      expect(watchClock(null, createFakeClock())()).to.include({
        status: 'ok',
        finding: new Date(epoch).toISOString(),
      });
    });

    it('was never set', () => {
      const clock = createFakeClock();
      clock.shiftWall(-epoch);
      expect(watchClock(null, clock)()).to.include({ status: 'warning', finding: 'it says 1970-01-01T00:00:00.000Z' });
    });

    it('is moved meanwhile', async () => {
      const clock = createFakeClock();
      const look = watchClock(null, clock);
      await clock.advance(500);
      clock.shiftWall(-2000);
      expect(look()).to.include({ status: 'warning', finding: 'it was moved by -2000 ms while it was looked at' });
    });

    it('is behind the configuration, which was written in its future', () => {
      const config = patient.config();
      utimesSync(config.file, new Date(epoch), new Date(epoch + 3_600_000));
      const { status, finding } = watchClock(config, createFakeClock())();
      expect(status).to.equal('warning');
      expect(finding).to.contain(`it is behind: ${config.file} is from ${new Date(epoch + 3_600_000).toISOString()}`);
    });
  });
});
