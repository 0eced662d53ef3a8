import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { killTree } from '#lib/kill.js';
import { openProc, type Proc } from '#lib/proc/read.js';
import { type Clock, systemClock, until } from '#lib/time.js';
import { need } from '../support/need.js';
import { buildRoot } from '../support/paths.js';
import { descendantsOf, isAlive, sendSignal, statOf } from '../support/proc.js';
import { type Shape, startStubborn, startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { startScript } from '../support/sockets.js';

const reaper = createReaper();

describe('a kill that is aborted, or fails in the middle', () => {
  afterEach(() => reaper.end());

  const runAgain = async (shape: Shape) => {
    const areRunning = () => everyone(shape).every(({ pid }) => 'SR'.includes(statOf(pid)?.state ?? 'gone'));
    expect(await until(areRunning, { timeoutMs: 5000 })).to.equal(true);
  };

  it('rejects with the reason and leaves nobody stopped', async () => {
    const shape = await startTree(reaper, { children: [{ children: [{}] }, {}] }).ready;
    const reason = new Error('enough');
    const control = new AbortController();
    let states: (string | undefined)[] = [];
    const proc = procThat(() => {
      // SIGSTOP was sent, and takes effect when the other core gets to it: it is looked for in this very turn.
      const limit = systemClock.now() + 2000;
      while (!states.every((state) => state === 'T') || states.length === 0) {
        states = everyone(shape).map(({ pid }) => statOf(pid)?.state);
        if (systemClock.now() > limit) break;
      }
      control.abort(reason);
    });
    const outcome = await killTree(shape, { signal: control.signal, proc }).catch((error: unknown) => error);
    expect(outcome).to.equal(reason);
    expect(states, 'while they were stopped').to.deep.equal(['T', 'T', 'T', 'T']);
    await runAgain(shape);
  });

  it('leaves all running or all dead, whichever read of /proc it comes with', async function () {
    need(this, 'perl');
    const start = async () => {
      const script = `$| = 1; print "ready\\n"; fork; fork; sleep 1 while 1`;
      const { pid: root } = await startScript(reaper, 'perl', ['-e', script]);
      expect(await until(() => descendantsOf(root).length === 3, { timeoutMs: 5000 })).to.equal(true);
      return [root, ...descendantsOf(root).map(({ pid }) => pid)];
    };
    const outcomes = { running: 0, dead: 0 };
    for (let [at, family, late] = [1, await start(), false]; !late; at++) {
      const control = new AbortController();
      const proc = countingProc((reads) => reads === at && control.abort());
      const end = await killTree(family[0] ?? 0, { signal: control.signal, proc }).catch(() => undefined);
      late = end !== undefined;
      const outcome = await until(() => outcomeOf(family), { timeoutMs: 5000 });
      expect(outcome, `aborted at read ${at}`).to.be.oneOf(['running', 'dead']);
      if (outcome === 'running') outcomes.running++;
      else outcomes.dead++;
      if (outcome === 'dead' && !late) family = await start();
    }
    expect(outcomes.running).to.be.greaterThan(20);
    expect(outcomes.dead).to.be.greaterThan(0);
  });

  it('leaves nobody stopped either when something fails in the middle', async () => {
    const shape = await startTree(reaper, { children: [{}] }).ready;
    const proc = procThat(() => {
      throw Object.assign(new Error('none left'), { code: 'EMFILE' });
    });
    const outcome = await killTree(shape, { proc }).catch((error: unknown) => error);
    expect(outcome).to.have.property('code', 'EMFILE');
    await runAgain(shape);
  });

  it('leaves nobody stopped though one of them cannot be looked at any more', async () => {
    const shape = await startTree(reaper, { children: [{}, {}] }).ready;
    let isFailing = false;
    const failing = procThat(() => {
      isFailing = true;
      throw Object.assign(new Error('none left'), { code: 'EMFILE' });
    });
    const pin: Proc['pin'] = (pid) => {
      const real = failing.pin(pid);
      if (typeof real !== 'object' || pid !== shape.pid) return real;
      // Once: as memory that was not there and is.
      const stat = () => {
        if (!isFailing) return real.stat();
        isFailing = false;
        throw Object.assign(new Error('no memory'), { code: 'ENOMEM' });
      };
      return { ...real, stat };
    };
    const outcome = await killTree(shape, { proc: { ...failing, pin } }).catch((error: unknown) => error);
    expect(outcome).to.have.property('code', 'ENOMEM');
    for (const child of shape.children) await runAgain(child);
  });

  it('leaves stopped who was stopped before', async () => {
    const shape = await startTree(reaper, { children: [{}] }).ready;
    const stopped = shape.children[0] ?? shape;
    sendSignal(stopped, 'SIGSTOP');
    await until(() => statOf(stopped.pid)?.state === 'T', { timeoutMs: 5000 });
    const control = new AbortController();
    const proc = procThat(() => control.abort());
    await killTree(shape, { signal: control.signal, proc }).catch(() => 'aborted');
    await until(() => statOf(shape.pid)?.state === 'S', { timeoutMs: 5000 });
    expect([statOf(shape.pid)?.state, statOf(stopped.pid)?.state]).to.deep.equal(['S', 'T']);
  });

  it('leaves nobody stopped, and nobody killed, when the grace is cut short', async () => {
    const shape = await startStubborn(reaper, { children: [{ ignore: ['SIGTERM'] }] }).ready;
    const control = new AbortController();
    const clock = clockThat(() => control.abort());
    const outcome = await killTree(shape, { graceMs: 5000, signal: control.signal, clock }).catch(() => 'aborted');
    expect(outcome).to.equal('aborted');
    await runAgain(shape);
  });

  it('leaves nobody stopped when the program that kills ends in the middle', async () => {
    const shape = await startTree(reaper, { children: [{}] }).ready;
    const program = promisify(execFile)(process.execPath, [join(buildRoot, 'test/kill/exiting.js'), String(shape.pid)]);
    const ended: unknown = await program.catch((error: unknown) => error);
    expect(ended).to.include({ code: 3, stdout: 'TT' });
    await runAgain(shape);
  });

  it('touches nobody when it was aborted before it began', async () => {
    const { pid } = await startTree(reaper, {}).ready;
    const reason = new Error('enough');
    expect(await killTree(pid, { signal: AbortSignal.abort(reason) }).catch((error) => error)).to.equal(reason);
    expect(statOf(pid)?.state).to.be.oneOf(['S', 'R', 'D']);
  });
});

describe('a kill when the descriptors run out', () => {
  let run: Record<string, { outcome: string; members: number; states: string[] }>;
  before(async function () {
    need(this, 'perl');
    const program = join(buildRoot, 'test/kill/starved.js');
    const argv = ['-c', 'ulimit -n 64; exec "$@"', 'sh', process.execPath, program];
    const { stdout } = await promisify(execFile)('sh', argv, { timeout: 15_000 });
    const lines = stdout.split('\n').filter((line) => line.startsWith('{"emitted":'));
    run = Object.fromEntries(lines.map((line) => [JSON.parse(line).emitted, JSON.parse(line).value]));
  });

  it('fails before anybody is stopped, when there are more to hold on to than descriptors', () => {
    expect(run.before).to.include({ outcome: 'EMFILE', members: 91, leaked: 0 });
    expect(new Set(run.before?.states)).to.not.include('T');
    expect(run.before?.states).to.not.include('gone');
  });

  it('lets all run on when it happens once they are stopped', () => {
    expect(run.middle).to.include({ outcome: 'EMFILE', members: 6, leaked: 0 });
    expect([...new Set(run.middle?.states)].join('')).to.match(/^[SR]+$/);
  });

  it('kills all the same when it happens in the burst: a pin is read without opening anything', () => {
    expect(run.burst).to.include({ outcome: 'EMFILE', members: 6, leaked: 0 });
    expect(new Set(run.burst?.states)).to.deep.equal(new Set(['gone']));
  });
});

function everyone(shape: Shape): Shape[] {
  return [shape, ...shape.children.flatMap(everyone)];
}

/** The system's clock, and something that happens in its first pause. */
function clockThat(act: () => void): Clock {
  let acted = false;
  const sleep: Clock['sleep'] = (ms, signal) => {
    if (!acted) act();
    acted = true;
    return systemClock.sleep(ms, signal);
  };
  return { ...systemClock, sleep };
}

/** The system's /proc, and something that happens when the count of forks is read again: all were sent SIGSTOP just then. */
function procThat(act: () => void): Proc {
  const proc = openProc();
  let reads = 0;
  const text: Proc['text'] = (path) => {
    if (path === 'stat' && ++reads > 1) act();
    return proc.text(path);
  };
  return { ...proc, text };
}

/** The system's /proc, and something that happens before each read of a file, also of a pinned one. */
function countingProc(act: (reads: number) => void): Proc {
  const proc = openProc();
  let reads = 0;
  const pin: Proc['pin'] = (pid) => {
    const real = proc.pin(pid);
    if (typeof real !== 'object') return real;
    const stat = () => {
      act(++reads);
      return real.stat();
    };
    return { ...real, stat };
  };
  const text: Proc['text'] = (path) => {
    act(++reads);
    return proc.text(path);
  };
  return { ...proc, text, pin };
}

/** All of them, or undefined while it is neither. */
function outcomeOf(family: readonly number[]): 'running' | 'dead' | undefined {
  const alive = family.filter((pid) => isAlive(pid));
  if (alive.length === 0) return 'dead';
  const running = alive.filter((pid) => 'SRD'.includes(statOf(pid)?.state ?? 'gone'));
  return running.length === family.length ? 'running' : undefined;
}
