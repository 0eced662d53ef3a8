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
  readonly gone_ms: number | null;
  readonly free_ms: number | null;
  readonly up_ms: number;
  readonly served: number;
  readonly lost: number;
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

  /** What holds of every tunnel, whichever engine it has. */
  function expectKept({ acts, promises }: Outcome): void {
    expect(promises.filter(({ kept }) => !kept)).to.deep.equal([]);
    expect(promises).to.have.length(6);
    for (const { gone_ms, free_ms, up_ms, served, lost, what } of acts) {
      if (what === 'checkout') expect([gone_ms, free_ms, lost]).to.deep.equal([null, null, 0]);
      else if (what === 'webhook') expect(free_ms).to.equal(null);
      else expect(free_ms).to.be.at.least(gone_ms ?? Number.NaN);
      expect(up_ms).to.be.above(gone_ms ?? 0);
      expect(served).to.be.above(what === 'checkout' ? 10 : 0);
    }
  }

  function expectNothingLeft(): void {
    expect(reaper.living()).to.deep.equal([]);
    expect(readdirSync(tmp)).to.deep.equal([]);
  }

  describe('with ssh and autossh', () => {
    before(function () {
      need(this, 'ssh', 'autossh');
    });

    it('restarts each tunnel, one of them unnoticed, takes over a stale chain, and removes a stranger only by force', async () => {
      const outcome: Outcome = await tunwardJson(reaper, ['demo', '--once'], { env: { TMPDIR: tmp } });
      expectNothingLeft();
      expect(outcome.acts.map(({ what, held_by, killed }) => [what, held_by, killed.map(programOf)])).to.deep.equal([
        ['orders', 'own ssh', ['ssh']],
        ['reports', 'own autossh → ssh', ['autossh', 'ssh']],
        ['webhook', 'own ssh', ['ssh']],
        ['checkout', 'own ssh, seamless', ['ssh']],
        ['reports', 'stale autossh → ssh', ['autossh', 'ssh']],
        ['orders', 'stranger (node)', ['node']],
      ]);
      expectKept(outcome);
    });

    it('tells the story in words, in 80 columns', async () => {
      const { code, stdout, stderr } = await tunward(reaper, ['demo', '--once'], { env: { TMPDIR: tmp } });
      expect(stderr).to.equal('');
      expect(code).to.equal(0);
      expect(stdout).to.match(/bind \[127\.0\.0\.1\]:\d+: Address (already )?in use/);
      expect(stdout).to.match(/autossh \d+ .*\n +└─ ssh \d+ +holds it/);
      const flat = stdout.replaceAll(/\s+/g, ' ');
      expect(flat).to.include('The engine is ssh, with an autossh above it for one of the tunnels: both are on PATH.');
      expect(flat).to.match(
        /✖ Tunnel orders \(\w+\) cannot start: port \d+ is held by pid \d+ \(node actor\.js stranger/,
      );
      expect(stdout).to.match(/TUNNEL +HELD BY +KILLED +GONE +FREE +UP +SERVED +LOST\n/);
      expect(stdout).to.match(/requests served; none lost by a tunnel that was up/);
      expect(stdout).not.to.include('\u001b');
      // All but the command lines of others, which are cut in a terminal.
      const told = stdout.split('\n').filter((line) => !/-L \d+:|actor\.js/.test(line));
      expect(told.filter((line) => line.length > 80)).to.deep.equal([]);
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
      const outcome: Outcome = await tunwardJson(reaper, ['demo', '--once'], { env });
      expectNothingLeft();
      expectKept(outcome);
      expect(outcome.acts.map(({ held_by, killed }) => [held_by, killed.map(programOf)])).to.deep.equal([
        ['own ssh', ['ssh']],
        ['own ssh', ['ssh']],
        ['own ssh', ['ssh']],
        ['own ssh, seamless', ['ssh']],
        ['stale ssh', ['ssh']],
        ['stranger (node)', ['node']],
      ]);
    });
  });

  describe('without ssh', () => {
    it('plays the same with the engine that is in this process, and says so', async () => {
      const env = { TMPDIR: tmp, PATH: empty };
      const { code, stdout, stderr } = await tunward(reaper, ['demo', '--once', '--json'], { env });
      expect(code, stderr).to.equal(0);
      expectNothingLeft();
      const outcome: Outcome = JSON.parse(stdout);
      expectKept(outcome);
      expect(outcome.acts.map(({ what, held_by, killed }) => [what, held_by, killed.map(partOf).sort()])).to.deep.equal(
        [
          ['orders', 'own link', []],
          ['reports', 'own link', []],
          ['webhook', 'own link', []],
          ['checkout', 'own link, seamless', []],
          ['reports', 'played autossh → ssh', ['keeper', 'worker']],
          ['orders', 'stranger (node)', ['stranger']],
        ],
      );
      const flat = stderr.replaceAll(/\s+/g, ' ');
      expect(flat).to.include(
        'There is no ssh on PATH: the engine is embedded, an SSH client inside this process. Opening',
      );
      expect(stderr.match(/held again after/g)).to.have.length(2);
      expect(stderr).to.match(/listen EADDRINUSE: address already in use 127/);
      expect(stderr).not.to.include('Warning');
      expect(stderr.split('\n').filter((line) => line.length > 80 && !line.includes('actor.js'))).to.deep.equal([]);
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

    it('stays up without --once, to be played with, until Ctrl-C', async () => {
      const demo = startTunward(reaper, ['demo'], { env: { TMPDIR: tmp, PATH: empty } });
      await told(demo, 'Ctrl-C ends the demo');
      const [, line] = /^ +\$ node \S*main\.js (restart .*)$/m.exec(demo.stdout()) ?? [];
      const restarted = await tunward(reaper, line?.split(' ') ?? []);
      expect(restarted.stdout, restarted.stderr).to.match(/reports +up in/);
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
