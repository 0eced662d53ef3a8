import { mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { need } from '../support/need.js';
import { which } from '../support/paths.js';
import { createReaper, type Reaper } from '../support/reaper.js';
import { type Ended, type Running, startTunward, tunward, tunwardJson } from './run.js';

interface Act {
  readonly what: string;
  readonly held_by: string;
  readonly killed: readonly { readonly pid: number; readonly command: string }[];
  readonly gone_ms: number;
  readonly free_ms: number | null;
  readonly up_ms: number | null;
  readonly served: number | null;
  readonly lost: number | null;
}

interface Outcome {
  readonly acts: readonly Act[];
  readonly promises: readonly { readonly kept: boolean; readonly text: string }[];
}

describe('tunward demo', function () {
  // The whole of it takes 2 s on an idle machine, and several times that on a busy one.
  this.timeout(60_000);

  let reaper: Reaper;
  /** Where the demo keeps its folder: whatever is in there afterwards was left behind. */
  let tmp: string;
  /** A folder without a program, for a PATH. */
  let empty: string;

  beforeEach(() => {
    reaper = createReaper();
    tmp = mkdtempSync(join(tmpdir(), 'td-'));
    empty = mkdtempSync(join(tmpdir(), 'td-path-'));
  });

  afterEach(async () => {
    await reaper.end();
    rmSync(tmp, { recursive: true, force: true });
    rmSync(empty, { recursive: true, force: true });
  });

  function expectNothingLeft(): void {
    expect(reaper.living()).to.deep.equal([]);
    expect(readdirSync(tmp)).to.deep.equal([]);
  }

  describe('with ssh and autossh', () => {
    before(function () {
      need(this, 'ssh', 'autossh');
    });

    it('restarts each tunnel, takes over a stale chain, and removes a stranger only by force', async () => {
      const outcome: Outcome = await tunwardJson(reaper, ['demo', '--once'], { env: { TMPDIR: tmp } });
      expectNothingLeft();
      expect(outcome.acts.map(({ what, held_by, killed }) => [what, held_by, killed.map(programOf)])).to.deep.equal([
        ['orders', 'own ssh', ['ssh']],
        ['reports', 'own autossh → ssh', ['autossh', 'ssh']],
        ['webhook', 'own ssh', ['ssh']],
        ['reports', 'stale autossh → ssh', ['autossh', 'ssh']],
        ['orders', 'stranger (node)', ['node']],
      ]);
      expect(outcome.promises.filter(({ kept }) => !kept)).to.deep.equal([]);
      expect(outcome.promises).to.have.length(5);
      for (const { gone_ms, free_ms, up_ms, served, what } of outcome.acts) {
        if (what === 'webhook') expect(free_ms).to.equal(null);
        else expect(free_ms).to.be.at.least(gone_ms);
        expect(up_ms).to.be.above(gone_ms);
        expect(served).to.be.above(0);
      }
    });

    it('tells the story in words, in 100 columns', async () => {
      const { code, stdout, stderr } = await tunward(reaper, ['demo', '--once'], { env: { TMPDIR: tmp } });
      expect(stderr).to.equal('');
      expect(code).to.equal(0);
      expect(stdout).to.match(/bind \[127\.0\.0\.1\]:\d+: Address (already )?in use/);
      expect(stdout).to.match(/autossh \d+ .*\n +└─ ssh \d+ +holds it/);
      const flat = stdout.replaceAll(/\s+/g, ' ');
      expect(flat).to.match(
        /✖ Tunnel orders \(\w+\) cannot start: port \d+ is held by pid \d+ \(node actor\.js stranger/,
      );
      expect(stdout).to.match(/TUNNEL +HELD BY +KILLED +GONE +FREE +UP +SERVED +LOST\n/);
      expect(stdout).to.match(/requests served; none lost by a tunnel that was up/);
      expect(stdout).not.to.include('\u001b');
      // All but the command lines of others, which are cut in a terminal.
      const told = stdout.split('\n').filter((line) => !/-L \d+:|actor\.js/.test(line));
      expect(told.filter((line) => line.length > 100)).to.deep.equal([]);
    });

    it('stays up without --once, to be played with, and ends in order at Ctrl-C', async () => {
      const demo = startTunward(reaper, ['demo'], { env: { TMPDIR: tmp } });
      await told(demo, 'Ctrl-C ends the demo');
      const commands = [...demo.stdout().matchAll(/^ +\$ node \S*main\.js (.*--socket.*)$/gm)].map(([, line]) => line);
      expect(commands).to.have.length(2);
      for (const line of commands) {
        const { code, stderr } = await tunward(reaper, line?.split(' ') ?? []);
        expect(code, stderr).to.equal(0);
      }
      demo.child.kill('SIGINT');
      expect((await demo.ended).code).to.equal(0);
      expectNothingLeft();
    });

    for (const moment of ['Opening an SSH server', '$ tunward start reports', 'A stranger holds the port']) {
      it(`leaves nothing when Ctrl-C comes at '${moment}'`, async () => {
        const { code } = await interrupt(startTunward(reaper, ['demo', '--once'], { env: { TMPDIR: tmp } }), moment);
        expect(code).to.equal(130);
        expectNothingLeft();
      });
    }

    it('says what failed, and leaves nothing, when a tunnel does not come up', async () => {
      symlinkSync(which('ssh') ?? '', join(empty, 'ssh'));
      symlinkSync(which('false') ?? '', join(empty, 'autossh'));
      const { code, stderr } = await tunward(reaper, ['demo', '--once'], { env: { TMPDIR: tmp, PATH: empty } });
      expect(stderr).to.match(/error: The demo's tunnel reports did not come up: backoff \(exited with code 1\)/);
      expect(code).to.equal(1);
      expectNothingLeft();
    });

    it('shows an ssh alone where there is no autossh', async () => {
      symlinkSync(which('ssh') ?? '', join(empty, 'ssh'));
      const env = { TMPDIR: tmp, PATH: empty };
      const { acts, promises }: Outcome = await tunwardJson(reaper, ['demo', '--once'], { env });
      expectNothingLeft();
      expect(promises.filter(({ kept }) => !kept)).to.deep.equal([]);
      expect(acts.map(({ held_by, killed }) => [held_by, killed.map(programOf)])).to.deep.equal([
        ['own ssh', ['ssh']],
        ['own ssh', ['ssh']],
        ['own ssh', ['ssh']],
        ['stale ssh', ['ssh']],
        ['stranger (node)', ['node']],
      ]);
    });
  });

  describe('without ssh', () => {
    it('frees the port of a chain that comes back, and of a stranger, and says how to get ssh', async () => {
      const env = { TMPDIR: tmp, PATH: empty };
      const { code, stdout, stderr } = await tunward(reaper, ['demo', '--once', '--json'], { env });
      expect(code, stderr).to.equal(0);
      expectNothingLeft();
      const { acts, promises }: Outcome = JSON.parse(stdout);
      expect(promises.filter(({ kept }) => !kept)).to.deep.equal([]);
      expect(promises).to.have.length(4);
      expect(acts.map(({ held_by, killed }) => [held_by, killed.map(partOf).sort()])).to.deep.equal([
        ['autossh → ssh (played)', ['keeper', 'worker']],
        ['stranger (node)', ['stranger']],
      ]);
      expect(stderr.match(/held again after/g)).to.have.length(2);
      expect(stderr).to.match(/would kill +node \d+ +listens on port/);
      expect(stderr).to.match(/^ {3}The other half needs ssh: apt-get install openssh-client, or apk add it$/m);
    });

    it('leaves nothing when Ctrl-C comes in the middle', async () => {
      const demo = startTunward(reaper, ['demo', '--once'], { env: { TMPDIR: tmp, PATH: empty } });
      expect((await interrupt(demo, 'kill -9')).code).to.equal(130);
      expectNothingLeft();
    });

    it('takes its actors along even when it is killed by SIGKILL', async () => {
      const demo = startTunward(reaper, ['demo'], { env: { TMPDIR: tmp, PATH: empty } });
      // Not in the middle of a kill: who is stopped by then stays stopped when the killer is killed.
      await told(demo, 'Ctrl-C ends the demo');
      expect(reaper.living()).to.have.length.above(2);
      demo.child.kill('SIGKILL');
      expect(await until(() => reaper.living().length === 0, { timeoutMs: 10_000 })).to.equal(true);
    });

    it('leaves a chain to play with without --once, until Ctrl-C', async () => {
      const demo = startTunward(reaper, ['demo'], { env: { TMPDIR: tmp, PATH: empty } });
      await told(demo, 'Ctrl-C ends the demo');
      const [, line] = /^ +\$ node \S*main\.js (free \d+)$/m.exec(demo.stdout()) ?? [];
      const freed = await tunward(reaper, line?.split(' ') ?? []);
      expect(freed.stdout).to.match(/killed +node \d+ .*keeper/);
      demo.child.kill('SIGINT');
      expect((await demo.ended).code).to.equal(0);
      expectNothingLeft();
    });
  });
});

async function told(running: Running, text: string): Promise<void> {
  const found = () => running.stdout().includes(text) || running.child.exitCode !== null;
  await until(found, { timeoutMs: 40_000, everyMs: 10 });
  if (!running.stdout().includes(text))
    throw new Error(`'${text}' was not told:\n${running.stdout()}\n${running.stderr()}`);
}

async function interrupt(running: Running, moment: string): Promise<Ended> {
  await told(running, moment);
  running.child.kill('SIGINT');
  return running.ended;
}

function programOf({ command }: { readonly command: string }): string | undefined {
  return command.split(' ')[0]?.split('/').at(-1);
}

/** What an actor of the demo plays. */
function partOf({ command }: { readonly command: string }): string | undefined {
  return /actor\.js (\w+)/.exec(command)?.[1];
}
