import { expect } from 'chai';
import { readProcessTree } from '#lib/proc/family.js';
import { openProc } from '#lib/proc/read.js';
import { readFamily } from '#lib/proc/stat.js';
import { createFakeProc } from '../support/fakeproc.js';
import { startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';

describe('readProcessTree()', () => {
  it('shows a process, its ports and all below it', async () => {
    await using reaper = createReaper();
    const child = { setsid: true, children: [{ comm: 'grandchild' }] };
    const shape = await startTree(reaper, { listen: [{ host: '127.0.0.1' }], children: [child, {}] }).ready;
    const tree = await readProcessTree(shape.pid);
    expect(tree).to.include({ pid: shape.pid, startTicks: shape.startTicks });
    expect(tree?.ports).to.deep.equal([shape.ports[0]?.port]);
    expect(tree?.command).to.include('actor.mjs');
    expect(tree?.ageS).to.be.within(0, 60);
    expect(tree?.children.map(({ pid }) => pid)).to.have.members(shape.children.map(({ pid }) => pid));
    const withChild = tree?.children.find(({ children }) => children.length > 0);
    expect(withChild?.children[0]?.pid).to.equal(shape.children[0]?.children[0]?.pid);
    const family = readFamily(openProc(), shape);
    expect(family.map(({ pid }) => pid)).to.have.members([
      shape.pid,
      ...shape.children.flatMap(({ pid, children }) => [pid, ...children.map((inner) => inner.pid)]),
    ]);
    expect(readFamily(openProc(), { ...shape, startTicks: shape.startTicks + 1 })).to.deep.equal([]);
  });

  it('is undefined for who is not there, or is a zombie', async () => {
    using fake = createFakeProc();
    fake.write('net/tcp', '');
    fake.add({ pid: 7, state: 'Z' });
    expect(await readProcessTree(7, { proc: fake.proc })).to.equal(undefined);
    expect(await readProcessTree(8, { proc: fake.proc })).to.equal(undefined);
  });

  it('ends where the table goes in a circle', async () => {
    using fake = createFakeProc();
    fake.write('net/tcp', '');
    fake.add({ pid: 7, ppid: 8 }, { pid: 8, ppid: 7 });
    const tree = await readProcessTree(7, { proc: fake.proc });
    expect(tree).to.have.nested.property('children[0].pid', 8);
    expect(tree?.children[0]?.children).to.deep.equal([]);
    expect(tree?.ageS).to.equal(null);
  });

  it('rejects with the reason of an abort', async () => {
    const reason = new Error('enough');
    const outcome = await readProcessTree(process.pid, { signal: AbortSignal.abort(reason) }).catch((error) => error);
    expect(outcome).to.equal(reason);
  });
});
