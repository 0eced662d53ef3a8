/** H5 of the fault catalogue: what runs on the terminal floods it, and whoever sits there takes nothing of it. */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import type net from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { systemClock, until } from '#lib/time.js';
import { byPassword, startAsking } from '../support/asking.js';
import { fault } from '../support/fault.js';
import { type Lobby, openLobby } from '../support/lobby.js';
import { repoRoot, which } from '../support/paths.js';
import { createReaper } from '../support/reaper.js';
import { type Visitor, visitOpen } from '../support/visitor.js';

/** More than that must not be added by what nobody takes. What was measured is in the title. */
const MOST_MB = 24;

describe('fault: a terminal that is flooded, and a client that stands still', () => {
  const title = 'costs the daemon and the helper no memory: the program waits';
  fault({ id: 'H5', title, times: 3, reduced: 1, needs: ['ssh', 'pty'] }, async (times) => {
    await using reaper = createReaper();
    await using server = await startAsking({ factors: [byPassword('unused')] });
    const PATH = `${flooding(server.dir)}:${process.env.PATH}`;
    await using lobby = await openLobby(reaper, server, { PATH });
    const figures: number[][] = [];
    for (let round = 0; round < times; round++) figures.push(await flood(lobby));
    const most = (at: number) => Math.max(...figures.map((each) => each[at] ?? 0)).toFixed(1);
    return `daemon ${most(0)} MB, helper ${most(1)} MB, with it +${most(2)} and +${most(3)} MB, ${most(4)} MB drawn`;
  });
});

/** One who reads at first, then not at all and answers pings as if they did, then reads on, and leaves. */
async function flood(lobby: Lobby): Promise<number[]> {
  const visitor = await visitOpen({ at: lobby.home.socket, id: lobby.id });
  await visitor.sees('yyyy');
  const helper = lobby.cast().find(({ command }) => command.includes('pty-process'));
  const program = lobby.cast().find(({ command }) => command.includes('flood.mjs'));
  if (!helper || !program) throw new Error(`Not there: ${JSON.stringify(lobby.cast())}`);
  // What reading costs is not asked here, but what is kept when nobody reads.
  visitor.socket.pause();
  await stands(program.pid);
  const before = [rssOf(lobby.daemon.pid), rssOf(helper.pid)];
  const most = [...before];
  // 8 s: a time in which `yes` would have written a gigabyte, and in which the client is asked once whether it is there.
  for (let look = 0; look < 80; look++) {
    rawOf(visitor).write(pong);
    await systemClock.sleep(100);
    [lobby.daemon.pid, helper.pid].forEach((pid, at) => {
      most[at] = Math.max(most[at] ?? 0, rssOf(pid));
    });
  }
  const grown = most.map((mb, at) => mb - (before[at] ?? 0));
  for (const mb of grown) expect(mb, `of ${most} MB`).to.be.lessThan(MOST_MB);
  const drawn = visitor.screen().length;
  visitor.socket.resume();
  expect(await until(() => visitor.screen().length > drawn + 4_000_000, { timeoutMs: 20_000 }), 'goes on').to.equal(
    true,
  );
  visitor.socket.pause();
  visitor.socket.terminate();
  expect(await lobby.emptied(1000), 'emptied').to.be.a('number');
  return [...most, ...grown, visitor.screen().length / 1e6];
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

function rawOf({ socket }: Visitor): net.Socket {
  return (socket as unknown as { _socket: net.Socket })._socket;
}

function rssOf(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;
}

function writtenBy(pid: number): number {
  return Number(/wchar: (\d+)/.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))?.[1] ?? 0);
}
