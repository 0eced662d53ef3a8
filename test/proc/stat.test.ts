import { expect } from 'chai';
import fc from 'fast-check';
import { known, openProc } from '#lib/proc/read.js';
import {
  isGone,
  parseStat,
  readCommand,
  readForkCount,
  readLeader,
  readPids,
  readPidsNewestFirst,
  readStat,
  readTable,
  readThreadStates,
  readUserName,
  updateTable,
} from '#lib/proc/stat.js';
import { printable } from '#lib/wire.js';
import { createFakeProc, statLine } from '../support/fakeproc.js';
import { statOf } from '../support/proc.js';
import { startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';

const noSlice = (): undefined => undefined;

describe('parseStat()', () => {
  it('reads the fields of a line', () => {
    const line = '7 (x) S 1 6 5 0 -1 4194560 0 0 0 0 21 7 99 99 20 0 3 0 812 0 3 18446744073709551615';
    expect(parseStat(line, 4096)).to.deep.equal({
      pid: 7,
      startTicks: 812,
      ppid: 1,
      pgid: 6,
      sid: 5,
      comm: 'x',
      state: 'S',
      kernelThread: false,
      threads: 3,
      rssBytes: 12_288,
      cpuTicks: 28,
    });
  });

  for (const comm of [') S 1 (x y)', 'x) S 1 (y', 'a\nb', '(((', '))) R 1 1 1', '', ' ', 'tab\there']) {
    it(`is not misled by a process named ${JSON.stringify(comm)}`, () => {
      expect(parseStat(statLine({ pid: 6947, ppid: 6945, comm }), 4096)).to.include({ pid: 6947, ppid: 6945, comm });
    });
  }

  it('knows a kernel thread by its flag', () => {
    expect(parseStat(statLine({ pid: 2, flags: 0x0020_8040 }), 4096)?.kernelThread).to.equal(true);
    expect(parseStat(statLine({ pid: 2, flags: 0xffff_ffff }), 4096)?.kernelThread).to.equal(true);
  });

  it('reads a process on its way out, whose group and session are -1', () => {
    expect(parseStat(statLine({ pid: 7, state: 'X', pgid: -1, sid: -1, threads: 0 }), 4096)).to.include({ sid: -1 });
  });

  it('reads back any line that a kernel could write', () => {
    const number = fc.nat();
    const row = fc.record({ pid: fc.integer({ min: 1, max: 2 ** 22 }), ppid: number, pgid: number, sid: number });
    const rest = fc.record({ comm: fc.string({ unit: 'binary' }), threads: number, startTicks: fc.maxSafeNat() });
    fc.assert(
      fc.property(row, rest, (ids, other) => {
        expect(parseStat(statLine({ ...ids, ...other }), 4096)).to.include({ ...ids, ...other });
      }),
    );
  });

  it('answers undefined for a line that is cut off anywhere before its last field', () => {
    const line = statLine({ pid: 7, comm: 'x) S 1 (y', startTicks: 4711 }).split(' ');
    const cut = fc.integer({ min: 0, max: 25 });
    fc.assert(fc.property(cut, (words) => parseStat(line.slice(0, words).join(' '), 4096) === undefined));
  });

  it('throws for no text whatever', () => {
    const text = fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.stringMatching(/^\d+ \(.*\)( -?\w*){0,30}$/));
    fc.assert(fc.property(text, (line) => void parseStat(line, 4096)));
  });

  it('takes no forged number for one', () => {
    const line = '7 (x) S 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 812 0 3';
    for (const forged of ['812.5', 'NaN', 'Infinity', '', '--812']) {
      expect(parseStat(line.replace('812', forged), 4096), forged).to.equal(undefined);
    }
    for (const pid of ['', ' ', 'x', '1.5', '7 7']) {
      expect(parseStat(line.replace('7', pid), 4096), `pid '${pid}'`).to.equal(undefined);
    }
  });
});

describe('isGone()', () => {
  it('counts a zombie as gone, and one whose threads live on as alive', () => {
    const zombie = parseStat(statLine({ pid: 7, state: 'Z', threads: 1 }), 4096);
    const leaderless = parseStat(statLine({ pid: 7, state: 'Z', threads: 2 }), 4096);
    expect([isGone(undefined), isGone(zombie), isGone(leaderless)]).to.deep.equal([true, true, false]);
  });
});

describe('the process table', () => {
  it('leaves out what vanished, what is cut off and what is no process', async () => {
    using fake = createFakeProc();
    fake.add({ pid: 1, ppid: 0 }, { pid: 8 });
    fake.write('9/cmdline', 'gone before its stat was read');
    fake.write('10/stat', '10 (cut) S 1 10');
    fake.write('11/stat', '');
    for (const name of ['self', '0', '-1', '01', '1x', '12.5']) fake.write(`${name}/stat`, statLine({ pid: 99 }));
    expect([...(await readTable(fake.proc, noSlice)).keys()]).to.deep.equal([1, 8]);
  });

  it('is empty where there is no /proc', async () => {
    using fake = createFakeProc();
    fake.remove('.');
    expect((await readTable(fake.proc, noSlice)).size).to.equal(0);
    fake.write('gone', 'for the disposal');
  });

  it('is brought up to date: the dead go, the newborn come, the others are not read again', async () => {
    using fake = createFakeProc();
    fake.add({ pid: 3 }, { pid: 4 });
    const table = await readTable(fake.proc, noSlice);
    fake.remove('3');
    fake.remove('4/stat');
    fake.add({ pid: 5 });
    await updateTable(fake.proc, table, noSlice);
    expect([...table.keys()]).to.deep.equal([4, 5]);
  });

  it('lists the newest pid first, also after the numbers have begun again', () => {
    using fake = createFakeProc();
    for (const pid of [2, 300, 5, 32_000]) fake.write(`${pid}/stat`, '');
    fake.write('loadavg', '0.10 0.20 0.30 1/80 32001\n');
    expect(readPidsNewestFirst(fake.proc)).to.deep.equal([32_000, 300, 5, 2]);
    fake.write('loadavg', '0.10 0.20 0.30 1/80 5\n');
    expect(readPidsNewestFirst(fake.proc)).to.deep.equal([5, 2, 32_000, 300]);
    fake.remove('loadavg');
    expect(readPidsNewestFirst(fake.proc)).to.deep.equal([32_000, 300, 5, 2]);
  });

  it('counts forks where they are counted', () => {
    using fake = createFakeProc();
    expect(readForkCount(fake.proc)).to.equal(undefined);
    fake.write('stat', 'cpu 1 2\nprocesses 0\n');
    expect(readForkCount(fake.proc)).to.equal(undefined);
    fake.write('stat', 'cpu 1 2\nprocesses 4711\nprocs_running 1\n');
    expect(readForkCount(fake.proc)).to.equal(4711);
  });

  it('shows the processes of this machine as another reader does', async () => {
    await using reaper = createReaper();
    const { ready } = startTree(reaper, { comm: 'x) S 1 (\n y', setsid: true });
    const { pid } = await ready;
    const proc = openProc();
    const row = (await readTable(proc, noSlice)).get(pid);
    const { rssBytes, cpuTicks, state: _state, ...stat } = row ?? { rssBytes: 0, cpuTicks: 0 };
    expect(statOf(pid)).to.include(stat);
    expect(rssBytes).to.be.within(1e6, 1e9);
    // An actor is a program of Node: some ticks to begin.
    expect(cpuTicks).to.be.within(1, 1000);
    expect(readPids(proc)).to.include.members([1, process.pid, pid]);
    expect(readStat(proc, 2 ** 22 + 1)).to.equal(undefined);
    const forks = readForkCount(proc);
    startTree(reaper, {});
    expect(readForkCount(proc)).to.be.greaterThan(forks ?? Number.NaN);
  });
});

describe('words for a person', () => {
  it('shows a command line in one line that no stranger can break', () => {
    using fake = createFakeProc();
    fake.add({ pid: 7, command: ['sh', '-c', 'echo\n\u001b[31m\u202eevil\u2066'] });
    expect(readCommand(fake.proc, { pid: 7 })).to.equal('sh -c echo??[31m?evil?');
  });

  it('leaves out what is empty behind the name that a program gave itself', () => {
    using fake = createFakeProc();
    fake.add({ pid: 7, command: ['worker 1', '', '', ''] }, { pid: 8, command: ['', ''] });
    expect(readCommand(fake.proc, { pid: 7 })).to.equal('worker 1');
    expect(readCommand(fake.proc, { pid: 8, comm: 'x' })).to.equal('[x]');
  });

  it('names the process in brackets where there is no command line', () => {
    using fake = createFakeProc();
    fake.add({ pid: 7, command: [] });
    expect(readCommand(fake.proc, { pid: 7, comm: 'k\nworker' })).to.equal('[k?worker]');
    expect(readCommand(fake.proc, { pid: 8 })).to.equal('[?]');
  });

  it('never lets a control character through', () => {
    // Unicode's own lists, not ours: controls, what turns text around, separators of lines, half characters.
    const forbidden = /[\p{Cc}\p{Bidi_Control}\p{Zl}\p{Zp}\p{Cs}]/u;
    for (let code = 0; code <= 0x10ffff; code++) {
      const character = String.fromCodePoint(code);
      expect(printable(character), code.toString(16)).to.equal(forbidden.test(character) ? '?' : character);
    }
    fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => !forbidden.test(printable(text))));
  });

  it('leaves no half of a pair, and the pairs alone', () => {
    expect(printable('\ud83d\ude00 \ud83d \ude00\ud83d')).to.equal('\ud83d\ude00 ? ??');
  });

  it('names a user by /etc/passwd, and by number where it is not there', () => {
    using fake = createFakeProc();
    fake.write('passwd', 'root:x:0:0:root:/root:/bin/sh\nten:x:10:10::/:\n:x:11:11::/:\nbroken\n');
    const passwd = `${fake.root}/passwd`;
    expect([0, 10, 11, 1].map((uid) => readUserName(uid, passwd))).to.deep.equal(['root', 'ten', 'uid 11', 'uid 1']);
    expect(readUserName(0, `${fake.root}/missing`)).to.equal('uid 0');
  });
});

describe('readLeader() and readThreadStates()', () => {
  it('tell a thread from a process, and read the state of each thread', async () => {
    await using reaper = createReaper();
    const proc = openProc();
    const { pid } = await startTree(reaper, {}).ready;
    const threads = (known(proc.list(`${pid}/task`)) ?? []).map(Number);
    expect(threads.length).to.be.greaterThan(1);
    for (const tid of threads) expect(readLeader(proc, tid), String(tid)).to.equal(pid);
    expect(readThreadStates(proc, pid)).to.have.length(threads.length);
    expect(readThreadStates(proc, pid).join('')).to.match(/^[RSD]+$/);
    expect([readLeader(proc, 4_194_303), readThreadStates(proc, 4_194_303)]).to.deep.equal([undefined, []]);
  });
});
