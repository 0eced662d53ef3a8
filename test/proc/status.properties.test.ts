/** /proc/<pid>/status, whatever a process calls itself: by its numbers a thread is told from a process. */
import { expect } from 'chai';
import fc from 'fast-check';
import { known, openProc, type Proc } from '#lib/proc/read.js';
import { readDescriptorSlots, readLeader, readTracer } from '#lib/proc/stat.js';

const number = fc.integer({ min: 0, max: 2 ** 22 });
/** A name as the kernel writes it there: newlines and backslashes are escaped (proc_task_name() of fs/proc/array.c). */
const name = fc
  .oneof(
    fc.constantFrom('Tgid:\t1', '\nTgid:\t1\n', 'x\nTracerPid:\t7', '\\n', 'FDSize:\t9'),
    fc.string({ unit: 'binary', maxLength: 15 }),
  )
  .map((text) => text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('\0', ''));
interface Shown {
  readonly name: string;
  readonly tgid: number;
  readonly pid: number;
  readonly ppid: number;
  readonly tracer: number;
  readonly slots: number;
}

const fields: fc.Arbitrary<Shown> = fc.record({
  name,
  tgid: number,
  pid: number,
  ppid: number,
  tracer: number,
  slots: number,
});

describe('the status of a process', () => {
  it('tells its numbers, whatever its name is', () => {
    fc.assert(
      fc.property(fields, (shown) => {
        const proc = procOf(textOf(shown));
        expect(readLeader(proc, 7)).to.equal(shown.tgid);
        expect(readTracer(proc, 7)).to.equal(shown.tracer || undefined);
        expect(readDescriptorSlots(proc, 7)).to.equal(shown.slots);
      }),
      { numRuns: 500 },
    );
  });

  it('tells no number by half where it is cut off', () => {
    fc.assert(
      fc.property(fields, (shown) => {
        const text = textOf(shown);
        for (let size = 0; size < text.length; size++) {
          const proc = procOf(text.slice(0, size));
          expect(readLeader(proc, 7)).to.be.oneOf([undefined, shown.tgid]);
          expect(readTracer(proc, 7)).to.be.oneOf([undefined, shown.tracer]);
          expect(readDescriptorSlots(proc, 7)).to.be.oneOf([undefined, shown.slots]);
        }
      }),
      { numRuns: 40 },
    );
  });

  it('of this very process is that of a leader with descriptors, whom nobody traces', () => {
    const proc = openProc();
    expect(readLeader(proc, process.pid)).to.equal(process.pid);
    expect(readDescriptorSlots(proc, process.pid)).to.be.at.least(known(proc.list('self/fd'))?.length ?? 1);
    const threads = known(proc.list('self/task')) ?? [];
    expect(threads).to.include(String(process.pid)).and.to.have.length.greaterThan(1);
    for (const thread of threads) expect(readLeader(proc, Number(thread)), thread).to.equal(process.pid);
  });

  it('is nothing where there is none', () => {
    expect(readLeader(procOf(undefined), 7)).to.equal(undefined);
    expect(readLeader(procOf(''), 7)).to.equal(undefined);
  });
});

function textOf({ name: comm, tgid, pid, ppid, tracer, slots }: Shown): string {
  const lines = [
    `Name:\t${comm}`,
    'Umask:\t0022',
    'State:\tS (sleeping)',
    `Tgid:\t${tgid}`,
    'Ngid:\t0',
    `Pid:\t${pid}`,
  ];
  const more = [`PPid:\t${ppid}`, `TracerPid:\t${tracer}`, 'Uid:\t0\t0\t0\t0', `FDSize:\t${slots}`, 'NStgid:\t7'];
  return [...lines, ...more].map((line) => `${line}\n`).join('');
}

function procOf(status: string | undefined): Proc {
  return { ...openProc('/nowhere'), text: (path) => (path === '7/status' ? status : undefined) };
}
