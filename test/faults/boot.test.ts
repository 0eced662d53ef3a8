/** The B group of the fault catalogue: a daemon that dies, whatever it leaves, and the next one. */
import { need } from '../support/need.js';
import { type Sshd, startSshd } from '../support/sshd.js';
import { crashCases } from './boot/crash.js';
import { daemonCases } from './boot/daemons.js';
import { forgedCases } from './boot/forged.js';
import { expectNothingInUse } from './boot/site.js';
import { sweepCases } from './boot/sweep.js';

describe('the fault catalogue: crash and boot', () => {
  let sshd: Sshd;
  before(async function () {
    need(this, 'ssh', 'sshd', 'autossh');
    sshd = await startSshd();
  });
  afterEach(() => expectNothingInUse(sshd.log()));
  after(() => sshd?.stop());

  daemonCases(() => sshd);
  crashCases(() => sshd);
  forgedCases();
  sweepCases();
});
