// The cases of the catalogue in which a port is hard to free: K10, K11, K12, K14.
import { spawnSync } from 'node:child_process';
import { expect } from 'chai';
import { freePort, isPortFree } from '#lib/index.js';
import { openProc } from '#lib/proc/read.js';
import { readThreadStates } from '#lib/proc/stat.js';
import { systemClock, until } from '#lib/time.js';
import { type Disk, lacksDisk, makeDisk } from '../../support/disk.js';
import { fault, spread } from '../../support/fault.js';
import { which } from '../../support/paths.js';
import { freeLocalPort } from '../../support/port.js';
import { statOf } from '../../support/proc.js';
import { startListener } from '../../support/processes.js';
import { createReaper, type Reaper } from '../../support/reaper.js';
import { startLeaderless, startPerlSocket, startScript } from '../../support/sockets.js';

export function holderCases(): void {
  stuckCase();

  const leaderless = 'frees a port that a thread holds, whose process shows no descriptors';
  fault({ id: 'K11', title: leaderless, times: 50, needs: ['python3'] }, async (times) => {
    const took: number[] = [];
    let seenByLsof = 0;
    for (let round = 0; round < times; round++) {
      await using reaper = createReaper();
      const port = await freeLocalPort();
      const { pid } = await startLeaderless(reaper, port);
      expect(statOf(pid)?.state).to.equal('Z');
      if (lsofSees(port)) seenByLsof++;
      const report = await freePort(port, { host: '127.0.0.1' });
      expect(report, report.explanation).to.include({ free: true });
      expect(report.kill?.killed.map((killed) => killed.pid)).to.deep.equal([pid]);
      took.push(report.tookMs);
    }
    const baseline = which('lsof') ? `lsof sees ${seenByLsof}/${times}` : 'lsof is not installed';
    return `${took.length}/${times}, ${spread(took)}; ${baseline}`;
  });

  fault(
    { id: 'K12', title: 'kills all four who share a listening socket', times: 100, needs: ['perl'] },
    async (times) => {
      const took: number[] = [];
      for (let round = 0; round < times; round++) {
        await using reaper = createReaper();
        const port = await freeLocalPort();
        await startPerlSocket(reaper, { port, options: ['SO_REUSEADDR'], script: 'listen($s, 5); fork; fork' });
        expect(await until(() => reaper.living().length === 4, { timeoutMs: 5000 })).to.equal(true);
        const report = await freePort(port, { host: '127.0.0.1' });
        expect(report, report.explanation).to.include({ free: true });
        expect(report.kill?.killed).to.have.length(4);
        expect(reaper.living()).to.deep.equal([]);
        took.push(report.tookMs);
      }
      return `${took.length}/${times}, ${spread(took)}`;
    },
  );

  const big = 'answers free only when a port can be bound, also when 800 MB must be torn down first';
  fault({ id: 'K14', title: big, times: 20 }, async (times) => {
    const took: number[] = [];
    for (let round = 0; round < times; round++) {
      await using reaper = createReaper();
      const { ports } = await startListener(reaper, { memoryMb: 800 }).ready;
      const port = ports[0]?.port ?? 0;
      const report = await freePort(port, { host: '127.0.0.1' });
      expect(await isPortFree(port, { host: '127.0.0.1' }), report.explanation).to.equal(true);
      expect(report).to.include({ free: true, verdict: 'free' });
      took.push(report.tookMs);
    }
    return `${took.length}/${times}, ${spread(took)}`;
  });
}

function lsofSees(port: number): boolean {
  const lsof = which('lsof');
  return lsof !== undefined && spawnSync(lsof, ['-t', '-nP', `-iTCP:${port}`, '-sTCP:LISTEN']).stdout.length > 0;
}

/** A holder that waits for a frozen file system cannot die before that thaws, whoever sends what. */
function stuckCase(): void {
  const title = 'calls who waits for a frozen disk stuck, in time and without trying again and again';
  fault({ id: 'K10', title, times: 20, needs: ['perl'], impossible: lacksDisk }, async (times) => {
    const disk = makeDisk();
    try {
      const over: number[] = [];
      for (let round = 0; round < times; round++) {
        const start = writers[round % writers.length];
        if (start) over.push(await freeStuck(disk, start));
      }
      return `${over.length}/${times}, over the bound by ${spread(over)}`;
    } finally {
      disk.unmake();
    }
  });
}

const BOUND_MS = 300;

/** Holders that write to the disk when they get SIGUSR2: as a process, and as one thread of several. */
const writers: readonly ((reaper: Reaper, port: number, file: string) => Promise<{ readonly pid: number }>)[] = [
  (reaper, port, file) => {
    const write = `open(my $f, '>', '${file}') or die; syswrite($f, 'x' x 8192)`;
    return startPerlSocket(reaper, {
      port,
      options: ['SO_REUSEADDR'],
      script: `listen($s, 5); $SIG{USR2} = sub { ${write} }`,
    });
  },
  (reaper, port, file) => {
    const write = `process.on('SIGUSR2', () => fs.writeFile('${file}', 'x', () => {}))`;
    const script = `${write}; net.createServer().listen(${port}, '127.0.0.1', () => console.log('ready'))`;
    return startScript(reaper, process.execPath, ['-e', script]);
  },
];

/** Answers by how much the bound was overrun. */
async function freeStuck(disk: Disk, start: (typeof writers)[number]): Promise<number> {
  await using reaper = createReaper();
  const port = await freeLocalPort();
  const { pid } = await start(reaper, port, `${disk.dir}/file`);
  let signals = 0;
  const kill = process.kill;
  disk.freeze();
  try {
    process.kill(pid, 'SIGUSR2');
    const isWaiting = () => readThreadStates(openProc(), pid).includes('D');
    expect(await until(isWaiting, { timeoutMs: 5000 }), 'waits for the disk').to.equal(true);
    process.kill = (...args) => {
      signals++;
      return kill(...args);
    };
    const began = systemClock.now();
    const report = await freePort(port, { host: '127.0.0.1', timeoutMs: BOUND_MS });
    const took = systemClock.now() - began;
    expect(report, report.explanation).to.include({ free: false, verdict: 'stuck' });
    expect(report.kill?.survivors.map(({ why }) => why)).to.deep.equal([
      'stuck in uninterruptible sleep (D), SIGKILL is pending',
    ]);
    expect(signals, 'SIGSTOP until it stops, and one SIGKILL').to.be.at.most(20);
    return Math.max(0, took - BOUND_MS);
  } finally {
    process.kill = kill;
    disk.thaw();
    expect(await until(() => isPortFree(port, { host: '127.0.0.1' }), { timeoutMs: 5000 }), 'thawed').to.equal(true);
  }
}
