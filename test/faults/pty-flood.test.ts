/** H5 of the fault catalogue: what runs on the terminal floods it, and whoever sits there takes nothing of it. */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { systemClock, until } from '#lib/time.js';
import { byPassword, startAsking } from '../support/asking.js';
import { fault } from '../support/fault.js';
import { type Lobby, openLobby } from '../support/lobby.js';
import { repoRoot, which } from '../support/paths.js';
import { createReaper } from '../support/reaper.js';
import { rawOf, visitOpen } from '../support/visitor.js';

/**
 * What a daemon may grow by that talks to a terminal for the first time, and how large a helper may be: in 8 s a program
 * that nobody stops writes a thousand times as much. What was measured is in the title.
 */
const MOST_GROWN_MB = 48;
const MOST_HELPER_MB = 96;

describe('fault: a terminal that is flooded, and a client that stands still', () => {
  const title = 'costs the daemon and the helper no memory: the program waits';
  fault({ id: 'H5', title, times: 3, reduced: 1, needs: ['ssh', 'pty'] }, async (times) => {
    await using reaper = createReaper();
    await using server = await startAsking({ factors: [byPassword('unused')] });
    const PATH = `${flooding(server.dir)}:${process.env.PATH}`;
    await using lobby = await openLobby(reaper, server, { PATH });
    const figures: Figures[] = [];
    for (let round = 0; round < times; round++) figures.push(await flood(lobby));
    const most = (of: (figure: Figures) => number) => Math.max(...figures.map(of)).toFixed(1);
    const daemon = `daemon ${most(({ daemon }) => daemon)} MB (+${most(({ grown }) => grown)})`;
    return `${daemon}, helper ${most(({ helper }) => helper)} MB at most`;
  });
});

/** The most that they had, in MB. */
interface Figures {
  readonly daemon: number;
  readonly grown: number;
  readonly helper: number;
}

/** One who sees the beginning, takes nothing more while answering pings as if they did, then reads on, and leaves. */
async function flood(lobby: Lobby): Promise<Figures> {
  const before = rssOf(lobby.daemon.pid);
  const visitor = await visitOpen({ at: lobby.home.socket, id: lobby.id });
  await visitor.sees('yyyy');
  visitor.socket.pause();
  const helper = lobby.cast().find(({ command }) => command.includes('pty-process'));
  const program = lobby.cast().find(({ command }) => command.includes('flood.mjs') && !command.includes('pty-process'));
  if (!helper || !program) throw new Error(`Not there: ${JSON.stringify(lobby.cast())}`);
  await stands(program.pid);
  const written = writtenBy(program.pid);
  const most = { daemon: 0, helper: 0 };
  for (let look = 0; look < 80; look++) {
    rawOf(visitor).write(pong);
    await systemClock.sleep(100);
    most.daemon = Math.max(most.daemon, rssOf(lobby.daemon.pid));
    most.helper = Math.max(most.helper, rssOf(helper.pid));
  }
  expect(writtenBy(program.pid), 'it has waited').to.equal(written);
  const grown = most.daemon - before;
  expect(grown, `${before} MB, then ${most.daemon}`).to.be.lessThan(MOST_GROWN_MB);
  expect(most.helper).to.be.lessThan(MOST_HELPER_MB);
  const drawn = visitor.screen().length;
  visitor.socket.resume();
  const goesOn = () => visitor.screen().length > drawn + 4_000_000;
  expect(await until(goesOn, { timeoutMs: 20_000, everyMs: 50 }), 'it goes on').to.equal(true);
  visitor.socket.terminate();
  expect(await lobby.emptied(1000), 'emptied').to.be.a('number');
  // Before that it is being stopped, and the next one would be refused.
  const isOver = async () => (await lobby.status()).state === 'stopped';
  expect(await until(isOver, { timeoutMs: 2000 }), 'stopped').to.equal(true);
  return { ...most, grown };
}

/** Waits until it writes no more: its output is not taken. */
async function stands(pid: number): Promise<void> {
  let last = -1;
  let alike = 0;
  const isStill = () => {
    const now = writtenBy(pid);
    alike = now === last ? alike + 1 : 0;
    last = now;
    return alike >= 20;
  };
  expect(await until(isStill, { timeoutMs: 10_000, everyMs: 20 }), 'it stands still').to.equal(true);
}

/** A folder with an `ssh` in it that floods its terminal. */
function flooding(dir: string): string {
  const folder = join(dir, 'bin');
  mkdirSync(folder);
  const program = join(repoRoot, 'test/support/programs/flood.mjs');
  const file = join(folder, 'ssh');
  writeFileSync(file, `#!/bin/sh\nexec ${process.execPath} ${program} ${which('ssh')} "$@"\n`);
  chmodSync(file, 0o755);
  return folder;
}

/** An answer to a ping that nobody has read. */
const pong = Buffer.from([0x8a, 0x80, 0, 0, 0, 0]);

function rssOf(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;
}

function writtenBy(pid: number): number {
  return Number(/wchar: (\d+)/.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))?.[1] ?? 0);
}
