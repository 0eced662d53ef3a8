import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { need } from '../../support/need.js';
import { buildRoot } from '../../support/paths.js';
import { freeLocalPort } from '../../support/port.js';
import { allPids, isAlive, type Ref, sendSignal, statOf } from '../../support/proc.js';
import { createReaper, type Reaper } from '../../support/reaper.js';
import { type Sshd, startSshd } from '../../support/sshd.js';

const PASSPHRASE = 'correct horse battery';

interface Cast {
  readonly chain: readonly (Ref & { readonly command: string })[];
  readonly other: number;
}

describe('the end of whoever keeps a tunnel that asks', function () {
  this.timeout(60_000);
  let sshd: Sshd;
  let reaper: Reaper;

  before(async function () {
    need(this, 'sshd', 'pty');
    sshd = await startSshd();
    execFileSync('ssh-keygen', ['-q', '-p', '-N', PASSPHRASE, '-P', '', '-f', sshd.identityFile]);
  });
  after(() => sshd?.stop());
  beforeEach(() => {
    reaper = createReaper();
  });
  afterEach(() => reaper.end());

  for (const stage of ['prompt', 'up'] as const) {
    for (const others of ['', 'with others'] as const) {
      const where = `${stage === 'up' ? 'while it is up' : 'during a prompt'}${others && ', beside a child of another kind'}`;
      it(`by SIGKILL, ${where}, leaves no ssh, no helper and no terminal`, async () => {
        const before = new Set(terminals());
        const asker = join(buildRoot, 'test/tunnel/asking/asker.js');
        const words = [sshd.sshConfigFile, String(await freeLocalPort()), stage, PASSPHRASE, others];
        const child = spawn(process.execPath, [asker, ...words], {
          env: { ...process.env, ...reaper.env },
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        reaper.own(child);
        const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
        const { chain, other } = JSON.parse(line) as Cast;
        expect(chain.map(({ command }) => /pty-process|ssh -N/.exec(command)?.[0])).to.deep.equal([
          'pty-process',
          'ssh -N',
        ]);
        const mine = terminals().filter((holder) => !before.has(holder));
        expect(mine.map((holder) => holder.split(' ')[0])).to.deep.equal([String(chain[0]?.pid)]);
        child.kill('SIGKILL');
        const isGone = () => chain.every(({ pid, startTicks }) => !isAlive(pid, startTicks));
        expect(await until(isGone, { timeoutMs: 2000 })).to.equal(true);
        expect(terminals().filter((holder) => !before.has(holder))).to.deep.equal([]);
        expect(isAlive(other)).to.equal(others !== '');
        expect(reaper.living().map(({ pid }) => pid)).to.deep.equal(others ? [other] : []);
      });
    }
  }

  it('leaves no ssh either when the helper alone is killed', async () => {
    const asker = join(buildRoot, 'test/tunnel/asking/asker.js');
    const words = [sshd.sshConfigFile, String(await freeLocalPort()), 'prompt', PASSPHRASE];
    const child = spawn(process.execPath, [asker, ...words], {
      env: { ...process.env, ...reaper.env },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    reaper.own(child);
    const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
    const [helper, ssh] = (JSON.parse(line) as Cast).chain;
    // Nobody sees to it but the kernel.
    const keeper = { pid: child.pid ?? 0, startTicks: statOf(child.pid ?? 0)?.startTicks ?? 0 };
    sendSignal(keeper, 'SIGSTOP');
    sendSignal(helper as Ref, 'SIGKILL');
    expect(await until(() => !isAlive(ssh?.pid ?? 0, ssh?.startTicks), { timeoutMs: 2000 })).to.equal(true);
    sendSignal(keeper, 'SIGCONT');
  });
});

/** Every descriptor of a terminal's master, as `pid fd`. */
function terminals(): string[] {
  return allPids().flatMap((pid) => {
    try {
      const fds = readdirSync(`/proc/${pid}/fd`);
      return fds.filter((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === '/dev/ptmx').map((fd) => `${pid} ${fd}`);
    } catch {
      return [];
    }
  });
}
