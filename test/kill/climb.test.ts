import { expect } from 'chai';
import { climb } from '#lib/kill.js';
import type { ProcessStat } from '#lib/proc/stat.js';

describe('climb()', () => {
  const never = () => false;
  const always = () => true;

  it('goes from an ssh to the autossh above it, and no further', () => {
    const table = tableOf([1, 0, 'init'], [4, 1, 'autossh'], [5, 4, 'autossh'], [6, 5, 'ssh']);
    expect(climb(table, rowOf(table, 6), never).pid).to.equal(5);
  });

  it('does not take an autossh above something else for its starter', () => {
    const table = tableOf([1, 0, 'init'], [5, 1, 'autossh'], [6, 5, 'node']);
    expect(climb(table, rowOf(table, 6), never).pid).to.equal(6);
  });

  it('goes up while the parent is part of the same, never past pid 1', () => {
    const table = tableOf([1, 0, 'node'], [4, 1, 'node'], [5, 4, 'node'], [6, 5, 'node']);
    expect(climb(table, rowOf(table, 6), always).pid).to.equal(4);
    expect(climb(table, rowOf(table, 6), ({ pid }) => pid !== 4).pid).to.equal(5);
  });

  for (const seat of ['bash', 'sh', 'sshd', 'login', 'sudo', 'tmux', 'systemd']) {
    it(`stops below ${seat}, where somebody sits`, () => {
      const table = tableOf([1, 0, 'init'], [4, 1, 'node'], [5, 4, seat], [6, 5, 'node']);
      expect(climb(table, rowOf(table, 6), always).pid).to.equal(6);
    });
  }

  it('stops below this process and those above it', () => {
    const table = tableOf(
      [1, 0, 'init'],
      [4, 1, 'node'],
      [process.pid, 4, 'node'],
      [6, process.pid, 'node'],
      [7, 4, 'x'],
    );
    expect(climb(table, rowOf(table, 6), always).pid).to.equal(6);
    expect(climb(table, rowOf(table, 7), always).pid).to.equal(7);
  });

  it('answers the process itself when its number is another one in the table', () => {
    const table = tableOf([1, 0, 'init'], [5, 1, 'autossh'], [6, 5, 'ssh']);
    const former = { ...rowOf(table, 6), startTicks: 1 };
    expect(climb(table, former, always)).to.equal(former);
  });
});

function tableOf(...rows: readonly (readonly [number, number, string])[]): Map<number, ProcessStat> {
  const rest = {
    startTicks: 100,
    pgid: 1,
    sid: 1,
    state: 'S',
    kernelThread: false,
    threads: 1,
    rssBytes: 0,
    cpuTicks: 0,
  };
  return new Map(rows.map(([pid, ppid, comm]) => [pid, { pid, ppid, comm, ...rest }]));
}

function rowOf(table: ReadonlyMap<number, ProcessStat>, pid: number): ProcessStat {
  const row = table.get(pid);
  if (!row) throw new Error(`no row ${pid}`);
  return row;
}
