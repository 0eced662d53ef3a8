import { expect } from 'chai';
import { CAP_NET_BIND_SERVICE, CAP_SYS_PTRACE, hasCapability, hidesOthers } from '#lib/proc/rights.js';
import { createFakeProc, type FakeProc } from '../support/fakeproc.js';
import { inNamespace, type NamespaceResult } from '../support/namespace.js';
import { need } from '../support/need.js';

describe('hidesOthers()', () => {
  let fake: FakeProc;
  beforeEach(() => {
    fake = createFakeProc();
  });
  afterEach(() => fake[Symbol.dispose]());

  function hides(options: string, groups: string): boolean {
    fake.write('self/mountinfo', `22 1 0:21 / ${fake.root} rw - proc proc rw,${options}\n`);
    fake.write('self/status', `Gid:\t1000\t1000\t1000\t1000\nGroups:\t${groups} \nCapEff:\t0000000000000000\n`);
    return hidesOthers(fake.proc);
  }

  it('spares the members of the group that gid names, and where it names none, of root’s', () => {
    expect(hides('hidepid=2', '4 20')).to.equal(true);
    expect(hides('hidepid=2', '4 0 20')).to.equal(false);
    expect(hides('hidepid=2', '')).to.equal(true);
    expect(hides('hidepid=invisible,gid=1000', '')).to.equal(false);
    expect(hides('gid=20,hidepid=1', '4 20')).to.equal(false);
    expect(hides('gid=20,hidepid=1', '4 200')).to.equal(true);
  });

  it('spares no member of it where the right to trace counts', () => {
    for (const level of ['4', 'ptraceable']) expect(hides(`hidepid=${level},gid=20`, '20')).to.equal(true);
  });

  describe('of a real /proc', () => {
    let run: NamespaceResult;
    before(async function () {
      this.timeout(60_000);
      need(this, 'root', 'unshare');
      run = await inNamespace('test/proc/hidepid.js');
    });

    for (const level of ['1', '2', '4']) {
      it(`with hidepid=${level} is what a member of the group and another one see`, () => {
        const { member, other } = run.get<Record<string, { hides: boolean; sees: boolean }>>(level);
        expect(member?.hides).to.equal(!member?.sees);
        expect(other?.hides).to.equal(!other?.sees);
        expect(other?.hides).to.equal(true);
        expect(member?.hides).to.equal(level === '4');
      });
    }
  });
});

describe('hasCapability()', () => {
  it('reads one bit of a set, and says when the kernel does not tell', () => {
    using fake = createFakeProc();
    expect(hasCapability(fake.proc, CAP_SYS_PTRACE)).to.equal(undefined);
    fake.write('self/status', 'CapEff:\t0000000000080000\nCapAmb:\t0000000000000400\n');
    expect(hasCapability(fake.proc, CAP_SYS_PTRACE)).to.equal(true);
    expect(hasCapability(fake.proc, CAP_SYS_PTRACE, 'CapAmb')).to.equal(false);
    expect(hasCapability(fake.proc, CAP_NET_BIND_SERVICE, 'CapAmb')).to.equal(true);
  });
});
