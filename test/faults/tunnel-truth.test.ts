/** S1 of the fault catalogue: "up" is said of no tunnel that is not. */
import { expect } from 'chai';
import { fault, spread } from '../support/fault.js';
import { createReaper } from '../support/reaper.js';
import { inParallel } from './kill/rig.js';
import { type Counts, watchTruth } from './tunnel/oracle.js';
import { superviseHere } from './tunnel/rig.js';
import { openScene } from './tunnel/scene.js';

/** How many are started at once: a login is work for both cores, and this process looks at them, serves and judges. */
const WIDTH = 4;

describe('fault: a tunnel that is said to be up is up', () => {
  const title = 'says "up" only of what listens on every address and carries bytes';
  const needs = ['ssh', 'sshd', 'autossh', 'ipv6'] as const;
  fault({ id: 'S1', title, times: 200, reduced: 16, needs }, async (times) => {
    await using reaper = createReaper();
    await using scene = await openScene();
    const rounds = Math.ceil(times / scene.cases.length);
    const noticed: number[] = [];
    const counts: Counts = { samples: 0, ups: 0, fetches: 0 };
    await inParallel(scene.cases.length, WIDTH, async (at) => {
      const one = scene.cases[at];
      if (!one) return;
      await using supervisor = superviseHere(reaper);
      await supervisor.reconcile([one.spec]);
      await using oracle = watchTruth({ supervisor, serverPid: scene.serverPid, answers: one.answers, counts });
      for (let round = 0; round < rounds; round++) noticed.push(...((await one.start(supervisor)) ?? []));
      expect(oracle.lies).to.deep.equal([]);
    });
    const { samples, ups, fetches } = counts;
    expect(ups, 'or nothing was judged').to.be.greaterThan(rounds);
    const starts = rounds * scene.cases.length;
    return `0 false "up" in ${starts} starts of ${scene.cases.length} kinds (${samples} looks, ${ups} at an "up", ${fetches} asked through), a stopped one is noticed after ${spread(noticed)}`;
  });
});
