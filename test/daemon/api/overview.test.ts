import { expect } from 'chai';
import { createOverview } from '#lib/daemon/api/overview.js';
import { createJournal, type Journal } from '#lib/daemon/events.js';
import { type Clock, systemClock } from '#lib/time.js';
import type { TunnelStatus } from '#lib/tunnel/runner.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import { makeSpec } from '../../support/specs.js';

describe('createOverview()', () => {
  let specs: TunnelSpec[];
  /** Every look at a tunnel takes so long. */
  let lookMs: number;
  let onLook: (id: string) => void;
  let now: number;
  let journal: Journal;
  const clock: Clock = {
    now: () => now,
    wallTime: () => now,
    sleep: () => new Promise((resolve) => setImmediate(resolve)),
  };
  const statusOf = ({ id, name, groups }: TunnelSpec) => ({ id, name, groups }) as unknown as TunnelStatus;
  const supervisor = {
    specs: () => [...specs],
    status: (which: string) => {
      now += lookMs;
      onLook(which);
      const spec = specs.find(({ id }) => id === which);
      if (!spec) throw new Error(`nobody is to ask for ${which}`);
      return statusOf(spec);
    },
  };

  beforeEach(() => {
    specs = ['a', 'b', 'c'].map((id) => makeSpec({ id, name: id }));
    [lookMs, now] = [0, 0];
    onLook = () => undefined;
    journal = createJournal(systemClock);
  });

  const overview = () => createOverview({ supervisor, journal, clock });
  const idsIn = (json: Buffer) => JSON.parse(json.toString('utf8')).tunnels.map(({ id }: { id: string }) => id);

  it('has another etag when the order is another, or somebody has left without a word', async () => {
    const { list } = overview();
    const before = await list();
    expect(idsIn(before.json)).to.deep.equal(['a', 'b', 'c']);
    specs.reverse();
    const turned = await list();
    expect(idsIn(turned.json)).to.deep.equal(['c', 'b', 'a']);
    specs.pop();
    const fewer = await list();
    expect(idsIn(fewer.json)).to.deep.equal(['c', 'b']);
    specs = [];
    const none = await list();
    expect(idsIn(none.json)).to.deep.equal([]);
    expect(new Set([before, turned, fewer, none].map(({ etag }) => etag)).size).to.equal(4);
    expect((await list()).etag).to.equal(none.etag);
  });

  it('shows a label at once', async () => {
    const { list, statuses } = overview();
    await list();
    specs = specs.map((spec) => ({ ...spec, groups: ['new'] }));
    expect((await statuses()).map(({ groups }) => groups)).to.deep.equal([['new'], ['new'], ['new']]);
  });

  it('has whoever came while it was looking', async () => {
    const { list } = overview();
    lookMs = 5;
    const early = list();
    specs.push(makeSpec({ id: 'd', name: 'd' }));
    const late = list();
    expect([idsIn((await early).json), idsIn((await late).json)]).to.deep.equal([
      ['a', 'b', 'c', 'd'],
      ['a', 'b', 'c', 'd'],
    ]);
  });

  it('looks once for all who ask at the same time, and is done also when that takes long', async () => {
    const { list } = overview();
    const looks: string[] = [];
    onLook = (id) => looks.push(id);
    lookMs = 3000;
    const answers = await Promise.all(Array.from({ length: 20 }, () => list()));
    expect(looks).to.deep.equal(['a', 'b', 'c']);
    expect(new Set(answers).size).to.equal(1);
  });

  it('has what happened to one that it had looked at already', async () => {
    const { statuses } = overview();
    lookMs = 5;
    const [first] = specs;
    const changed = first && { ...statusOf(first), name: 'changed' };
    onLook = (id) => {
      if (id === 'b' && changed) {
        journal.append({ type: 'tunnel.up', tunnel: 'a', from: 'starting', asked: true, status: changed });
      }
    };
    expect((await statuses()).map(({ name }) => name)).to.deep.equal(['changed', 'b', 'c']);
  });

  it('keeps nothing of who has left', async () => {
    const { list, statuses } = overview();
    await list();
    const [gone] = specs.splice(0, 1);
    await list();
    if (gone)
      journal.append({ type: 'tunnel.stopped', tunnel: 'a', from: 'stopping', asked: true, status: statusOf(gone) });
    specs.unshift(makeSpec({ id: 'a', name: 'new' }));
    expect((await statuses()).map(({ name }) => name)).to.deep.equal(['new', 'b', 'c']);
  });
});
