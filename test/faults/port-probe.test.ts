import { expect } from 'chai';
import { inspectPort } from '#lib/port/inspect.js';
import { findListeners } from '#lib/port/listeners.js';
import { probeAddress, probeAll, probeEverywhere, resolveHosts } from '#lib/port/probe.js';
import { startChain } from '../support/chains.js';
import { fault } from '../support/fault.js';
import { startAccepted, startHolder, startOutgoing, startTimeWait } from '../support/holders.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';
import { type Sshd, startSshd } from '../support/sshd.js';

const reaper = createReaper();

/** The columns: a bind of every address, then one of each, then of what localhost stands for. */
const columns = ['every address', '0.0.0.0', '127.0.0.1', '127.0.0.2', '::', '::1', 'localhost'] as const;

interface Row {
  readonly holder: string;
  /** `x` for each column that cannot be bound beside it. */
  readonly busy: string;
  readonly verdict: 'listening' | 'client_holds' | 'time_wait' | 'hidden_bind' | 'free';
  readonly start: (port: number, away: number) => Promise<unknown>;
}

const listening = (holder: string, busy: string, options: { address: string; ipv6Only?: boolean }): Row => ({
  holder,
  busy,
  verdict: 'listening',
  start: (port) => startHolder(reaper, { port, ...options }),
});
const local = { address: '127.0.0.1' };
const strict = { ...local, reuseAddress: false };

const rows: readonly Row[] = [
  listening('0.0.0.0', 'xxxx--x', { address: '0.0.0.0' }),
  listening('127.0.0.1', 'xxx---x', local),
  listening('127.0.0.2', 'xx-x---', { address: '127.0.0.2' }),
  listening(':: of both families', 'xxxxxxx', { address: '::' }),
  listening(':: of IPv6 only', 'x---xxx', { address: '::', ipv6Only: true }),
  listening('::1', 'x---xxx', { address: '::1', ipv6Only: true }),
  listening('::ffff:127.0.0.1', 'xxx---x', { address: '::ffff:127.0.0.1' }),
  {
    holder: 'bound, not listening',
    busy: 'xxx---x',
    verdict: 'hidden_bind',
    start: (port) => startHolder(reaper, { port, ...strict, script: '1' }),
  },
  {
    holder: 'bound with SO_REUSEADDR, not listening',
    busy: '-------',
    verdict: 'free',
    start: (port) => startHolder(reaper, { port, ...local, script: '1' }),
  },
  {
    holder: 'connected from it, by a bind',
    busy: 'xxx---x',
    verdict: 'client_holds',
    start: (port, to) => startOutgoing(reaper, { port, ...strict, to }),
  },
  {
    holder: 'TIME_WAIT of such a one',
    busy: 'xxx---x',
    verdict: 'time_wait',
    start: (port) => startTimeWait(reaper, { port, ...strict }),
  },
  {
    holder: 'a connection that its listener has left',
    busy: '-------',
    verdict: 'free',
    start: (port) => startAccepted(reaper, { port, ...local, left: 'ESTABLISHED' }),
  },
  {
    holder: 'TIME_WAIT of such a one',
    busy: '-------',
    verdict: 'free',
    start: (port) => startAccepted(reaper, { port, ...local, left: 'TIME_WAIT' }),
  },
  {
    holder: 'a connection that its listener without SO_REUSEADDR has left',
    busy: 'xxx---x',
    verdict: 'client_holds',
    start: (port) => startAccepted(reaper, { port, ...strict, left: 'ESTABLISHED' }),
  },
  {
    holder: 'TIME_WAIT of such a one',
    busy: 'xxx---x',
    verdict: 'time_wait',
    start: (port) => startAccepted(reaper, { port, ...strict, left: 'TIME_WAIT' }),
  },
];

describe('fault: which probe meets which holder', () => {
  before(function () {
    need(this, 'ipv6', 'perl');
  });
  afterEach(() => reaper.end());

  const title = 'agrees with the table in every cell, bind, verdict and rows';
  fault({ id: 'P1', title, times: 10, reduced: 1, needs: ['ipv6', 'perl'] }, async (times) => {
    let cells = 0;
    for (let n = 0; n < times; n++) {
      const away = await freeLocalPort();
      await startHolder(reaper, { port: away, address: '127.0.0.1' });
      for (const row of rows) {
        const port = await freeLocalPort();
        await row.start(port, away);
        cells += await expectRow(port, row);
      }
      await reaper.end();
    }
    return `${cells}/${times * rows.length * columns.length} cells`;
  });

  fault({ id: 'P1', title: 'meets an ephemeral port of a connection too', times: 20, reduced: 2 }, async (times) => {
    for (let n = 0; n < times; n++) {
      const away = await freeLocalPort();
      const script = `my $c = newSocket('127.0.0.1'); listen($s, 5) or die; connect($c, at('127.0.0.1', ${away})) or die;
        print((unpack_sockaddr_in(getsockname($c)))[0], "\\n")`;
      const client = await startHolder(reaper, { port: away, address: '127.0.0.1', script });
      const port = Number(client.firstLine);
      await expectRow(port, { busy: 'xxx---x', verdict: 'client_holds', holder: 'ephemeral' });
      expect(isAlive(client.pid)).to.equal(true);
    }
    return `${times * columns.length}/${times * columns.length} cells`;
  });

  describe('of ssh', () => {
    let sshd: Sshd;
    before(async function () {
      need(this, 'sshd', 'ssh');
      sshd = await startSshd();
    });
    after(async () => {
      await sshd?.stop();
    });

    fault({ id: 'P1', title: 'meets ssh -L, and ssh -g', times: 10, reduced: 1, needs: ['ipv6'] }, async (times) => {
      let cells = 0;
      for (let n = 0; n < times; n++) {
        for (const [flags, busy] of [
          [[], 'xxx-xxx'],
          [['-g'], 'xxxxxxx'],
        ] as const) {
          const port = await freeLocalPort();
          const ready = async () => (await findListeners(port)).length === 2;
          await startChain(reaper, sshd, { program: 'ssh', words: [...flags, '-L', `${port}:127.0.0.1:1`], ready });
          cells += await expectRow(port, { busy, verdict: 'listening', holder: `ssh ${flags.join()}` });
        }
        await reaper.end();
      }
      return `${cells}/${times * 2 * columns.length} cells`;
    });
  });
});

/** Each cell by a bind, by the verdict, and by the rows that are named. Answers how many cells were right. */
async function expectRow(port: number, { holder, busy, verdict }: Omit<Row, 'start'>): Promise<number> {
  const binds = await Promise.all(columns.map((column) => bindOf(column, port)));
  expect(binds.join(''), `binds beside ${holder}`).to.equal(busy);
  for (const [at, column] of columns.entries()) {
    const host = column === 'every address' ? '*' : column;
    // Of `*` the bind is of 0.0.0.0 and of ::, each by itself: together they meet what every address meets.
    const expected = busy[at] === 'x' ? verdict : 'free';
    const report = await inspectPort(port, { host });
    expect(report.verdict, `${column} beside ${holder}: ${report.explanation}`).to.equal(expected);
    const named = (await findListeners(port, { host })).length > 0;
    expect(named, `a listener is named for ${column} beside ${holder}`).to.equal(expected === 'listening');
  }
  return columns.length;
}

async function bindOf(column: (typeof columns)[number], port: number): Promise<string> {
  if (column === 'every address') return (await probeEverywhere(port)) === 'busy' ? 'x' : '-';
  if (column !== 'localhost') return (await probeAddress(column, port)) === 'busy' ? 'x' : '-';
  return (await probeAll(resolveHosts(column), port)).some(({ probe }) => probe === 'busy') ? 'x' : '-';
}
