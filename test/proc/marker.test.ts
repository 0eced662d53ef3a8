import { expect } from 'chai';
import { checkMarker, createMarkerMemory, createMarkerSearch, readMarker, readVariable } from '#lib/proc/marker.js';
import { openProc, type Proc } from '#lib/proc/read.js';
import { createFakeClock } from '../support/fakeclock.js';
import { createFakeProc } from '../support/fakeproc.js';
import { startDaemonized } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';

const marker = ['TUNNEL_ID=a1', 'TUNWARD_INSTANCE=x'];
const noSlice = (): undefined => undefined;

describe('checkMarker()', () => {
  const cases: readonly [string, readonly string[], string][] = [
    ['both entries, wherever they stand', ['TUNWARD_INSTANCE=x', 'PATH=/bin', 'TUNNEL_ID=a1'], 'carries'],
    ['one entry of two', ['TUNNEL_ID=a1'], 'lacks'],
    ['another name that ends the same', ['OTHER_TUNNEL_ID=a1', 'TUNWARD_INSTANCE=x'], 'lacks'],
    ['a longer value', ['TUNNEL_ID=a1b', 'TUNWARD_INSTANCE=x'], 'lacks'],
    ['a value that quotes it', ['NOTE=\nTUNNEL_ID=a1\n', 'TUNWARD_INSTANCE=x'], 'lacks'],
    ['no environment at all', [], 'lacks'],
  ];
  for (const [what, environ, answer] of cases) {
    it(`says '${answer}' of ${what}`, () => {
      using fake = createFakeProc();
      fake.add({ pid: 7, environ });
      expect(checkMarker(fake.proc, 7, marker)).to.equal(answer);
    });
  }

  it(`says 'empty' inside execve, where there is no command line either, and 'lacks' of who is gone`, () => {
    using fake = createFakeProc();
    fake.add({ pid: 7, environ: [], command: [] });
    expect(checkMarker(fake.proc, 7, marker)).to.equal('empty');
    expect(checkMarker(fake.proc, 8, marker)).to.equal('lacks');
  });

  it('reads again what was empty because the program was just replaced', () => {
    using fake = createFakeProc();
    fake.add({ pid: 7, environ: marker });
    let reads = 0;
    const text: Proc['text'] = (path) => (path === '7/environ' && ++reads === 1 ? '' : fake.proc.text(path));
    expect(checkMarker({ ...fake.proc, text }, 7, marker)).to.equal('carries');
  });

  it('finds it in the threads of a process whose leader has ended', () => {
    using fake = createFakeProc();
    fake.add({ pid: 7, state: 'Z', threads: 2, environ: [], thread: { sockets: [], environ: marker } });
    expect(checkMarker(fake.proc, 7, marker)).to.equal('carries');
  });
});

describe('readMarker() and readVariable()', () => {
  it('read the entries of a process, and nothing by halves', () => {
    using fake = createFakeProc();
    fake.add({ pid: 7, environ: ['TUNNEL_ID=a=1', 'TUNNEL_ID_2=b', 'EMPTY='] });
    expect(readVariable(fake.proc, 7, 'TUNNEL_ID')).to.equal('a=1');
    expect(readVariable(fake.proc, 7, 'EMPTY')).to.equal('');
    expect(readVariable(fake.proc, 7, 'TUNNEL')).to.equal(undefined);
    expect(readMarker(fake.proc, 7, ['TUNNEL_ID', 'EMPTY'])).to.deep.equal(['TUNNEL_ID=a=1', 'EMPTY=']);
    expect(readMarker(fake.proc, 7, ['TUNNEL_ID', 'MISSING'])).to.equal(undefined);
    expect(readMarker(fake.proc, 8, ['TUNNEL_ID'])).to.equal(undefined);
  });
});

describe('createMarkerSearch()', () => {
  it('hands over each carrier as it is found, the newest first, and no kernel thread or zombie', async () => {
    using fake = createFakeProc();
    fake.write('loadavg', '0 0 0 1/9 900\n');
    fake.add({ pid: 10, environ: marker }, { pid: 20 }, { pid: 30, environ: marker });
    fake.add({ pid: 40, environ: marker, flags: 0x0020_0000 }, { pid: 50, environ: marker, state: 'Z' });
    const met: number[] = [];
    const found = await createMarkerSearch(fake.proc, marker).look(noSlice, undefined, ({ pid }) => met.push(pid));
    expect(met).to.deep.equal([30, 10]);
    expect(found.map(({ pid }) => pid)).to.deep.equal(met);
  });

  it('asks the old once, and the young again: until they exec they show the environment of their parent', async () => {
    using fake = createFakeProc();
    fake.write('uptime', '100.00 50.00\n');
    fake.add({ pid: 10, startTicks: 9000 }, { pid: 20, startTicks: 9990 });
    const search = createMarkerSearch(fake.proc, marker);
    expect(await search.look(noSlice)).to.deep.equal([]);
    for (const pid of [10, 20]) fake.write(`${pid}/environ`, `${marker.join('\0')}\0`);
    expect((await search.look(noSlice)).map(({ pid }) => pid)).to.deep.equal([20]);
  });

  it('is pending while a process is inside execve, and not for ever', async () => {
    using fake = createFakeProc();
    const clock = createFakeClock();
    fake.add({ pid: 10, environ: [], command: [] });
    const search = createMarkerSearch(fake.proc, marker, { clock });
    expect(search.isPending()).to.equal(false);
    await search.look(noSlice);
    expect(search.isPending()).to.equal(true);
    await clock.advance(150);
    await search.look(noSlice);
    expect(search.isPending()).to.equal(true);
    await clock.advance(150);
    await search.look(noSlice);
    expect(search.isPending()).to.equal(false);
    fake.write('10/environ', `${marker.join('\0')}\0`);
    expect((await search.look(noSlice)).map(({ pid }) => pid)).to.deep.equal([10]);
  });

  it('finds a real daemon that has left its tree', async () => {
    await using reaper = createReaper();
    const env = { TUNNEL_ID: `test-${process.pid}`, TUNWARD_INSTANCE: 'marker.test' };
    const { pid } = await startDaemonized(reaper, { env }).ready;
    const entries = Object.entries(env).map(([name, value]) => `${name}=${value}`);
    const found = await createMarkerSearch(openProc(), entries).look(noSlice);
    expect(found.map((stat) => stat.pid)).to.deep.equal([pid]);
  });
});

describe('createMarkerMemory()', () => {
  const names = ['TUNNEL_ID', 'TUNWARD_INSTANCE'];
  const ref = { pid: 7, startTicks: 100 };

  it('recalls of a process what it carried, all of it or not', () => {
    const memory = createMarkerMemory(names);
    expect(memory.recall(ref, marker)).to.equal(undefined);
    memory.note(ref, `PATH=/bin\0${marker.join('\0')}\0OTHER_TUNNEL_ID=b2\0`);
    expect(memory.recall(ref, marker)).to.equal('carries');
    expect(memory.recall(ref, [marker[1] ?? ''])).to.equal('carries');
    expect(memory.recall(ref, ['TUNNEL_ID=a', marker[1] ?? ''])).to.equal('lacks');
    expect(memory.recall(ref, ['TUNNEL_ID=b2'])).to.equal('lacks');
  });

  it('recalls nothing of another process with the number, nor of one that is gone', () => {
    const memory = createMarkerMemory(names);
    memory.note(ref, 'PATH=/bin');
    expect(memory.recall({ ...ref, startTicks: 101 }, marker)).to.equal(undefined);
    memory.keep(new Set([8]));
    expect(memory.recall(ref, marker)).to.equal(undefined);
  });

  /** A /proc with a process that lacks the marker, one of another tunnel, a young one and a carrier; and who was asked. */
  function open() {
    const fake = createFakeProc();
    fake.write('uptime', '100.00 50.00\n');
    const other = ['TUNNEL_ID=b2', 'TUNWARD_INSTANCE=x'];
    fake.add({ pid: 10, startTicks: 9000 }, { pid: 20, startTicks: 9000, environ: other });
    fake.add({ pid: 30, startTicks: 9990 }, { pid: 40, startTicks: 9000, environ: marker });
    const asked: number[] = [];
    const text: Proc['text'] = (path) => {
      if (path.endsWith('/environ')) asked.push(Number.parseInt(path, 10));
      return fake.proc.text(path);
    };
    return { ...fake, asked, proc: { ...fake.proc, text }, [Symbol.dispose]: () => fake[Symbol.dispose]() };
  }

  it('spares later searches those who lack what they look for, not the young, and not the carriers', async () => {
    using fake = open();
    const memory = createMarkerMemory(names);
    const find = async (wanted: readonly string[]) => {
      fake.asked.length = 0;
      const found = await createMarkerSearch(fake.proc, wanted, { memory }).look(noSlice);
      return { found: found.map(({ pid }) => pid), asked: [...fake.asked].sort() };
    };
    expect(await find(marker)).to.deep.equal({ found: [40], asked: [10, 20, 30, 40] });
    expect(await find(marker)).to.deep.equal({ found: [40], asked: [30, 40] });
    expect(await find(['TUNNEL_ID=b2', 'TUNWARD_INSTANCE=x'])).to.deep.equal({ found: [20], asked: [20, 30] });
  });

  it('believes no carrier that no longer carries it, and asks who has come with the number of another', async () => {
    using fake = open();
    const memory = createMarkerMemory(names);
    const find = async () =>
      (await createMarkerSearch(fake.proc, marker, { memory }).look(noSlice)).map(({ pid }) => pid);
    expect(await find()).to.deep.equal([40]);
    fake.write('40/environ', 'PATH=/bin\0');
    fake.remove('10');
    fake.add({ pid: 10, startTicks: 9100, environ: marker });
    expect(await find()).to.deep.equal([10]);
  });

  it('does not take what a process shows inside execve for what it carries', async () => {
    using fake = createFakeProc();
    fake.write('uptime', '100.00 50.00\n');
    fake.add({ pid: 10, startTicks: 9000, environ: [], command: [] });
    const memory = createMarkerMemory(names);
    const search = createMarkerSearch(fake.proc, marker, { memory });
    expect(await search.look(noSlice)).to.deep.equal([]);
    fake.write('10/environ', `${marker.join('\0')}\0`);
    expect((await search.look(noSlice)).map(({ pid }) => pid)).to.deep.equal([10]);
  });
});
