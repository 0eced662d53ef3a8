import { readdirSync } from 'node:fs';
import { expect } from 'chai';
import { denied, known, openProc } from '#lib/proc/read.js';
import { readPinned } from '#lib/proc/stat.js';
import { until } from '#lib/time.js';
import { createFakeProc } from '../support/fakeproc.js';
import { startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';

const proc = openProc();
const openDescriptors = (): number => readdirSync('/proc/self/fd').length;

describe('openProc()', () => {
  it('reads whole files whose size says 0', () => {
    expect(proc.text('self/environ')).to.include('PATH=');
    expect(proc.text('self/smaps')).to.be.a('string').with.length.greaterThan(100_000);
  });

  it('answers undefined for what is not there, in every way of reading', () => {
    const gone = String(2 ** 22 + 1);
    expect([proc.text(`${gone}/stat`), proc.list(gone), proc.link(`${gone}/exe`), proc.owner(gone)]).to.deep.equal(
      Array(4).fill(undefined),
    );
    expect([...proc.pages(`${gone}/net/tcp`)]).to.deep.equal([undefined]);
    expect([...proc.pieces(`${gone}/fd`, 9)]).to.deep.equal([undefined]);
    expect(proc.has(gone)).to.equal(false);
    expect(proc.links(`${gone}/fd`, ['0', '1'], 0, 2)).to.deep.equal([]);
    expect(proc.pin(2 ** 22 + 1)).to.equal(undefined);
  });

  it('throws what is neither gone nor denied', () => {
    expect(() => proc.text('self')).to.throw('EISDIR');
  });

  it('hands a file out page by page and stops when told to', () => {
    using fake = createFakeProc();
    fake.write('big', 'x'.repeat(200_000));
    const before = openDescriptors();
    const sizes: (number | undefined)[] = [];
    for (const page of fake.proc.pages('big')) {
      sizes.push(known(page)?.length);
      if (sizes.length === 2) break;
    }
    expect(sizes).to.deep.equal([65_536, 65_536]);
    expect(openDescriptors()).to.equal(before);
  });

  it('hands a folder out in pieces, each name once, and stops when told to', () => {
    using fake = createFakeProc();
    for (let n = 0; n < 25; n++) fake.write(`many/${n}`, '');
    const before = openDescriptors();
    const pieces = [...fake.proc.pieces('many', 10)].map((names) => known(names) ?? []);
    expect(pieces.map((names) => names.length)).to.deep.equal([10, 10, 5]);
    expect(new Set(pieces.flat()).size).to.equal(25);
    for (const _names of fake.proc.pieces('many', 10)) break;
    expect(openDescriptors()).to.equal(before);
  });

  it('says what links lead to, and leaves out what is none', () => {
    using fake = createFakeProc();
    fake.add({ pid: 10, sockets: [5, 6] });
    const names = ['0', 'gone', '1', '100000'];
    expect(fake.proc.links('10/fd', names, 0, 9)).to.deep.equal(['socket:[5]', 'socket:[6]', '/dev/null']);
    expect(fake.proc.links('10/fd', names, 2, 3)).to.deep.equal(['socket:[6]']);
    expect(fake.proc.links('11/fd', names, 0, 9)).to.deep.equal([]);
  });

  it('knows the size of a page and of a clock tick', () => {
    expect(proc).to.include({ ticksPerSecond: 100 });
    expect([4096, 16_384, 65_536]).to.include(proc.pageSize);
    using fake = createFakeProc();
    expect(fake.proc).to.include({ ticksPerSecond: 100, pageSize: 4096 });
  });

  it('leaves no descriptor open, also when a reader throws', () => {
    const before = openDescriptors();
    proc.text('self/stat');
    proc.list('self/task');
    expect(() => {
      for (const _page of proc.pages('self/maps')) throw new Error('reader');
    }).to.throw('reader');
    expect(openDescriptors()).to.equal(before);
  });

  it('tells denied from gone, and known() does not', () => {
    expect(known(denied)).to.equal(undefined);
    expect(known('')).to.equal('');
  });
});

describe('a pin', () => {
  const reaper = createReaper();
  afterEach(() => reaper.end());

  it('reads the process as it is now, as often as it is asked', async () => {
    const { pid, ready, child } = startTree(reaper, {});
    await ready;
    const pin = proc.pin(pid);
    if (typeof pin !== 'object') throw new Error('no pin');
    expect(readPinned(proc, pin)).to.include({ pid, comm: 'node' });
    child.kill('SIGSTOP');
    expect(await until(() => readPinned(proc, pin)?.state === 'T', { timeoutMs: 5000 })).to.equal(true);
    pin.close();
  });

  it('is empty once its process is reaped', async () => {
    const { pid, kill, ready } = startTree(reaper, {});
    await ready;
    const pin = proc.pin(pid);
    if (typeof pin !== 'object') throw new Error('no pin');
    await kill();
    expect(await until(() => pin.stat() === undefined, { timeoutMs: 5000 })).to.equal(true);
    pin.close();
  });
});
