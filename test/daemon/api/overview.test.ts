import { expect } from 'chai';
import { createOverview } from '#lib/daemon/api/overview.js';
import type { JournalEntry } from '#lib/daemon/events.js';
import { systemClock, until } from '#lib/time.js';
import type { TunnelStatus } from '#lib/tunnel/runner.js';
import { makeSpec } from '../../support/specs.js';

describe('createOverview()', () => {
  const specs = Array.from({ length: 40 }, (_, at) => makeSpec({ name: `t${at}`, id: String(at) }));
  /** How often each was looked at: the answer says so. */
  let looks: number;
  let tell: (status: Partial<TunnelStatus>) => void;

  function open() {
    looks = 0;
    let laterMs = 0;
    const clock = { ...systemClock, now: () => systemClock.now() + laterMs };
    const skip = (ms: number) => {
      laterMs += ms;
    };
    const supervisor = {
      specs: () => [...specs],
      status: (id: string) => {
        looks++;
        // So long that a look is several slices.
        const began = systemClock.now();
        while (systemClock.now() - began < 1);
        return { id, restarts: looks } as TunnelStatus;
      },
    };
    const journal = {
      subscribe: (listener: (entry: JournalEntry) => void) => {
        tell = (status) => listener({ type: 'tunnel.up', status } as unknown as JournalEntry);
        return () => undefined;
      },
    };
    return { skip, overview: createOverview({ supervisor, journal, clock }) };
  }

  it('is made once for all who ask, until something has changed', async () => {
    const { overview } = open();
    const [one, other] = await Promise.all([overview.list(), overview.list()]);
    expect(other).to.equal(one);
    expect(looks).to.equal(specs.length);
    tell({ id: '3', restarts: -1 });
    const next = await overview.list();
    expect(next.etag).to.not.equal(one.etag);
    expect(JSON.parse(next.json.toString()).tunnels[3]).to.deep.equal({ id: '3', restarts: -1 });
    expect(looks).to.equal(specs.length);
  });

  it('is as it was until a look is over, but for what has been told meanwhile', async () => {
    const { overview, skip } = open();
    const before = await overview.list();
    skip(1500);
    expect(await overview.list(), 'given out while it is looked at again').to.equal(before);
    expect(await until(() => looks > specs.length + 5, { timeoutMs: 5000, everyMs: 0 })).to.equal(true);
    expect(looks, 'in the middle').to.be.below(2 * specs.length);
    expect(await overview.list()).to.equal(before);
    tell({ id: '1', restarts: -1 });
    expect(await overview.list()).to.not.equal(before);
    const isOver = async () => JSON.parse((await overview.list()).json.toString()).tunnels[0].restarts > specs.length;
    expect(await until(isOver, { timeoutMs: 5000 })).to.equal(true);
    const { tunnels } = JSON.parse((await overview.list()).json.toString());
    expect(tunnels[1], 'newer than what the look has seen').to.deep.equal({ id: '1', restarts: -1 });
  });
});
