/** H4 of the fault catalogue: whoever types a password is cut off in the middle of it. */
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { byPassword, startAsking } from '../support/asking.js';
import { fault, spread } from '../support/fault.js';
import { openLobby } from '../support/lobby.js';
import { createReaper } from '../support/reaper.js';
import { type Visitor, visitOpen } from '../support/visitor.js';

const PASSWORD = 'hunter2-is-secret';

/** How a connection ends that nobody wanted to end, or that somebody did. */
const ways: readonly ((visitor: Visitor, type: (text: string) => void) => void)[] = [
  ({ socket }) => socket.terminate(),
  ({ socket }) => socket.close(),
  // With more on its way: the kernel resets what is closed with something unread.
  ({ socket }, type) => {
    type(PASSWORD.slice(4));
    socket.terminate();
  },
  // The last key with the end behind it: whoever is gone is not let in any more.
  ({ socket }, type) => {
    type(PASSWORD.slice(4, -1));
    socket.close();
  },
];

describe('fault: a person is cut off in the middle of a password', () => {
  const title = 'leaves no ssh, no helper and a free port within a second, and a tunnel that can be begun anew';
  fault({ id: 'H4', title, times: 50, reduced: 4, needs: ['ssh', 'pty'] }, async (times) => {
    await using reaper = createReaper();
    await using server = await startAsking({ factors: [byPassword(PASSWORD)] });
    await using lobby = await openLobby(reaper, server);
    const ats = [{ at: lobby.home.socket }, { at: lobby.port, headers: { authorization: `Bearer ${lobby.token}` } }];
    const took: number[] = [];
    for (let round = 0; round < times; round++) {
      const visitor = await visitOpen({ id: lobby.id, ...(ats[round % 2] ?? { at: lobby.home.socket }) });
      await visitor.sees('password: ');
      visitor.type(PASSWORD.slice(0, 4));
      expect(lobby.cast(), 'a helper and its ssh').to.have.length(2);
      ways[round % ways.length]?.(visitor, (text) => visitor.type(text));
      const ms = await lobby.emptied(1000);
      expect(ms, `round ${round}: ${JSON.stringify(lobby.cast())}`).to.be.a('number');
      took.push(ms ?? 0);
      const isOver = async () => (await lobby.status()).state === 'stopped';
      expect(await until(isOver, { timeoutMs: 2000 })).to.equal(true);
      expect(await lobby.status()).to.include({ reason: 'needs_auth', desired: 'down', next_retry_at: null });
    }
    expect(server.attempts(), 'passwords that were sent').to.equal(0);
    const visitor = await visitOpen({ at: lobby.home.socket, id: lobby.id });
    await visitor.sees('password: ');
    visitor.type(`${PASSWORD}\r`);
    await visitor.closed;
    expect(visitor.messages().at(-1)).to.include({ outcome: 'up' });
    return `${took.length}/${times}, ${spread(took)}`;
  });
});
