/** The K group of the fault catalogue: what must hold of a kill, each case as often as it takes to believe it. */
import { expect } from 'chai';
import { fault } from '../support/fault.js';
import { need } from '../support/need.js';
import { chainCases } from './kill/chains.js';
import { escapeCases } from './kill/escapes.js';
import { holderCases } from './kill/holders.js';
import { createRig } from './kill/rig.js';
import { treeCases } from './kill/trees.js';

describe('the fault catalogue: kill', () => {
  const rig = createRig();
  before(async function () {
    need(this, 'ssh', 'sshd', 'autossh', 'perl');
    await rig.open();
  });
  afterEach(() => {
    // After each case, so that the one that harmed somebody is the one that fails.
    expect(rig.crowd().harmed(), 'bystanders that were killed or stopped').to.deep.equal([]);
  });
  after(() => rig.close());

  chainCases(rig);
  treeCases();
  escapeCases(rig);
  holderCases();

  fault(
    { id: 'K15', title: 'harms none of those who look alike, meanwhile', times: 20, reduced: 20 },
    async (times) => {
      const { size, harmed, connections } = rig.crowd();
      expect(size).to.equal(times);
      expect(harmed()).to.deep.equal([]);
      expect(connections(), 'chains that died with one of them connected').to.be.greaterThan(10);
      return `0 killed, 0 left stopped of ${size}, with one of them connected to ${connections()} that died`;
    },
  );
});
