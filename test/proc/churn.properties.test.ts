/** The readers on the real /proc while processes and sockets come and go beneath them. */
import net from 'node:net';
import { expect } from 'chai';
import { readProcessTree } from '#lib/proc/family.js';
import { readSocketInodes, scanHolders } from '#lib/proc/fd.js';
import { checkMarker, createMarkerSearch } from '#lib/proc/marker.js';
import { readAllListeners, readListeners, readSockets } from '#lib/proc/net.js';
import { openProc } from '#lib/proc/read.js';
import { describeProcess, readArguments, readFamily, readStat, readTable, updateTable } from '#lib/proc/stat.js';
import { ancestors, descendants } from '#lib/proc/tree.js';
import { createSlice } from '#lib/time.js';
import { need } from '../support/need.js';
import { startComet, startListener } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';

describe('the readers, while everything changes', () => {
  const reaper = createReaper();
  const proc = openProc();
  const slice = createSlice();
  let steady: { pid: number; startTicks: number; port: number };
  let isOver = false;

  before(async function () {
    need(this, 'perl');
    const { pid, startTicks, ports } = await startListener(reaper).ready;
    steady = { pid, startTicks, port: ports[0]?.port ?? 0 };
    for (const exec of [false, true]) await startComet(reaper, { exec, everyMs: 3, generations: 1500 }).ready;
    for (let server = 0; server < 3; server++) void churnSockets();
  });

  after(async () => {
    isOver = true;
    await reaper.end();
  });

  it('never throw, lose nobody who stays, and never mix up two rows', async function () {
    this.timeout(20_000);
    const began = performance.now();
    const table = await readTable(proc, slice);
    const search = createMarkerSearch(proc, [`LC_TUNWARD_TEST_REAPER=${reaper.env.LC_TUNWARD_TEST_REAPER}`]);
    let rounds = 0;
    let met = 0;
    const seen = new Set<number>();
    const isEnough = () => performance.now() - began > 1200 && rounds >= 5 && seen.size > 20;
    while (!isEnough() && performance.now() - began < 15_000) {
      await updateTable(proc, table, slice);
      for (const [pid, stat] of table) {
        seen.add(pid);
        expect(stat.pid).to.equal(pid);
        const now = readStat(proc, pid);
        if (now) expect(now.pid).to.equal(pid);
        const { command, ageS } = describeProcess(proc, stat);
        expect(command).to.be.a('string').and.not.equal('');
        expect(ageS).to.be.at.least(0);
        for (const word of readArguments(proc, pid)) expect(word).not.to.include('\0');
        for (const inode of readSocketInodes(proc, stat)) expect(inode).to.satisfy(Number.isSafeInteger);
        expect(['carries', 'lacks', 'empty']).to.include(checkMarker(proc, pid, ['NO_SUCH=marker']));
        expect(ancestors(table, stat).map((each) => each.pid)).not.to.include(pid);
      }
      const self = table.get(process.pid);
      if (!self) throw new Error('the table has lost its reader');
      expect(descendants(table, self).map(({ pid }) => pid)).to.include(steady.pid);
      expect(readFamily(proc, self).map(({ pid }) => pid)).to.include(process.pid);
      expect((await readProcessTree(steady.pid))?.ports).to.deep.equal([steady.port]);
      const carriers = (await search.look(slice)).map(({ pid }) => pid);
      if (rounds === 0) expect(carriers).to.include(steady.pid);
      met += carriers.length;
      await expectSteady();
      rounds++;
    }
    expect(met, 'carriers that were met').to.be.greaterThan(1);
    expect(seen.size, 'processes that were met').to.be.greaterThan(20);
  });

  async function expectSteady(): Promise<void> {
    const [listener, ...others] = readListeners(proc, steady.port);
    if (!listener) throw new Error('its socket was lost');
    expect(others).to.deep.equal([]);
    expect(await readAllListeners(proc, slice)).to.deep.include(listener);
    expect(await readSockets(proc, steady.port, slice)).to.deep.include(listener);
    const holders: number[] = [];
    for await (const { stat } of scanHolders(proc, new Set([listener.inode]), { slice })) holders.push(stat.pid);
    expect(holders).to.deep.equal([steady.pid]);
  }

  async function churnSockets(): Promise<void> {
    while (!isOver) {
      const server = net.createServer((socket) => socket.destroy());
      await new Promise<void>((resolve) => server.listen({ port: 0, host: '127.0.0.1' }, resolve));
      const address = server.address() as net.AddressInfo;
      const client = net.connect(address.port, '127.0.0.1').on('error', () => undefined);
      await new Promise((resolve) => client.once('close', resolve));
      await new Promise((resolve) => server.close(resolve));
    }
  }
});
