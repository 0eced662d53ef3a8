/** The fault of time: what a restart leaves behind is nothing, however often it is done. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { type Home, makeHome, type RunningDaemon, startUp, tunnelIn } from '../support/daemon.js';
import { fault, isFull, spread } from '../support/fault.js';
import { need } from '../support/need.js';
import { freeLocalPort } from '../support/port.js';
import { descendantsOf, statOf } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';
import { type Sshd, startSshd } from '../support/sshd.js';

/** One of each kind: a local forward by either engine, and a remote one. */
const names = ['ssh', 'autossh', 'back'];

/** What a daemon has, when nothing is under way. */
interface Stock {
  readonly descriptors: number;
  readonly processes: number;
  readonly zombies: number;
  readonly listeners: number;
  /** Chains in the ledger. */
  readonly recorded: number;
}

describe('fault: a soak', () => {
  const reaper = createReaper();
  let home: Home;
  let sshd: Sshd;

  before(async function () {
    need(this, 'ssh', 'sshd', 'autossh');
    sshd = await startSshd();
    home = makeHome();
    const common = { remote_host: 'rig', ssh_config: sshd.sshConfigFile, remote_port: `127.0.0.1:${sshd.port}` };
    home.configure({}, [
      { ...common, name: 'ssh', local_port: await freeLocalPort() },
      { ...common, name: 'autossh', engine: 'autossh', local_port: await freeLocalPort() },
      {
        ...{ ...common, name: 'back', direction: 'local_to_remote', local_port: sshd.port },
        remote_port: `127.0.0.1:${await freeLocalPort()}`,
      },
    ]);
  });

  after(async () => {
    await reaper.end();
    await sshd?.stop();
    home?.remove();
  });

  const title = 'is what it was after any number of restarts: descriptors, processes, zombies, listeners, memory';
  fault({ id: 'S10', title, times: 1000, reduced: 30, timeoutMs: 1_200_000 }, async (times) => {
    const daemon = await startUp(reaper, home);
    for (const name of names) await tunnelIn(home, name, 'up');
    // The first ones compile, and fill what is kept: the last files of each log, the last events.
    await restart(daemon, isFull ? 100 : 6);
    const first = await settled(daemon);
    const took: number[] = [];
    const memory = [rssMb(daemon)];
    for (let part = 0; part < 10; part++) {
      took.push(...(await restart(daemon, times / 10)));
      expect(await settled(daemon, first), `after ${took.length} restarts`).to.deep.equal(first);
      memory.push(rssMb(daemon));
    }
    expect(await daemon.end('SIGTERM'), daemon.stderr()).to.equal(0);
    // The heap breathes. What grows without end is in every one of the later samples.
    const grown = Math.min(...memory.slice(-5)) - Math.max(...memory.slice(0, 6));
    expect(grown, memory.join(', ')).to.be.below(isFull ? 0 : 20);
    const { descriptors, processes, zombies, listeners } = first;
    const flat = `each ${times / 10}: ${descriptors} descriptors, ${processes} processes, ${listeners} listeners, ${zombies} zombies`;
    return `${times} restarts, ${spread(took)}; ${flat}; RSS ${memory.map(Math.round).join(' ')} MB`;
  });

  /** What there is when the last connection to the API, the last session of sshd and the last dead have gone. */
  async function settled(daemon: RunningDaemon, like?: Stock): Promise<Stock> {
    let seen = takeStock(daemon);
    let same = 0;
    const isStill = () => {
      const before = seen;
      seen = takeStock(daemon);
      same = isDeepStrictEqual(seen, like ?? before) ? same + 1 : 0;
      // Without something to compare with: when it has been the same for a second.
      return same >= (like ? 1 : 20);
    };
    await until(isStill, { timeoutMs: 15_000, everyMs: 50 });
    return seen;
  }

  function takeStock({ pid }: RunningDaemon): Stock {
    const below = descendantsOf(pid);
    const tables = ['tcp', 'tcp6'].flatMap((table) => readFileSync(`/proc/net/${table}`, 'utf8').split('\n'));
    return {
      descriptors: readdirSync(`/proc/${pid}/fd`).length,
      processes: below.length,
      zombies: readdirSync('/proc').filter((name) => isZombieOf(Number(name), pid)).length,
      listeners: tables.filter((row) => /^ *\d+: \S+ \S+ 0A /.test(row)).length,
      recorded: readFileSync(join(home.stateDir, 'ledger.json'), 'utf8').split('"pid"').length - 1,
    };
  }

  /** Restarts the tunnels in turn, each as soon as the one before it is up. */
  async function restart(daemon: RunningDaemon, times: number): Promise<number[]> {
    const took: number[] = [];
    for (let number = 0; number < times; number++) {
      const name = names[number % names.length];
      const { status, body } = await home.api('POST', `/v1/tunnels/${name}/restart`);
      expect([status, body.state], `${JSON.stringify(body)}\n${daemon.stderr()}`).to.deep.equal([200, 'up']);
      took.push(body.took_ms);
    }
    return took;
  }
});

function rssMb({ pid }: RunningDaemon): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

function isZombieOf(pid: number, parent: number): boolean {
  const stat = statOf(pid);
  return stat?.state === 'Z' && stat.ppid === parent;
}
