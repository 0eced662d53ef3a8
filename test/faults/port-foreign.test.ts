import { join } from 'node:path';
import { expect } from 'chai';
import { freePort } from '#lib/port/free.js';
import { inspectPort, type PortReport } from '#lib/port/inspect.js';
import { fault } from '../support/fault.js';
import { parseEmitted, startContained } from '../support/namespace.js';
import { buildRoot } from '../support/paths.js';
import { isAlive } from '../support/proc.js';
import { startTree } from '../support/processes.js';
import { createReaper } from '../support/reaper.js';
import { startInFlight } from '../support/sockets.js';
import { asNobody } from '../support/stranger.js';

const reaper = createReaper();
const program = 'test/faults/foreign.js';

/** What `foreign.ts` says of one port. */
interface Seen {
  readonly who: PortReport;
  readonly free: PortReport;
  readonly isFree: boolean;
}

describe('fault: a holder that is out of reach is named for what it is, and not touched', () => {
  afterEach(() => reaper.end());

  fault({ id: 'P10', title: 'of another user', times: 25, needs: ['root'] }, async (times) => {
    const { ports, pid } = await startListeners(times);
    const seen = (await asNobody(program, ports.map(String))) as Record<string, Seen>;
    return expectAll(
      ports.map((port) => seen[port]),
      { verdict: 'other_user', pid, says: /held by a process of root.* as root$/ },
    );
  });

  fault(
    { id: 'P10', title: 'of another user, whom /proc hides', times: 25, needs: ['root', 'unshare'] },
    async (times) => {
      const { ports, pid } = await startListeners(times);
      const seen = (await asNobody(program, ports.map(String), { hidepid: 2 })) as Record<string, Seen>;
      return expectAll(
        ports.map((port) => seen[port]),
        { verdict: 'other_user', pid, says: /held by a process of root.*hidepid/ },
      );
    },
  );

  fault({ id: 'P10', title: 'outside of the PID namespace', times: 25, needs: ['root', 'unshare'] }, async (times) => {
    const { ports, pid } = await startListeners(times);
    const argv = [process.execPath, join(buildRoot, program), ...ports.map(String)];
    const { stdout } = await startContained([], ['"$@" & wait $!', ...argv], process.env).ended;
    const seen = new Map(
      stdout
        .split('\n')
        .flatMap(parseEmitted)
        .map(({ name, value }) => [name, value as Seen]),
    );
    const says = /held by a process of root .*outside of this PID namespace/;
    return expectAll(
      ports.map((port) => seen.get(String(port))),
      { verdict: 'outside_pid_namespace', pid, says },
    );
  });

  fault({ id: 'P10', title: 'on its way between two processes', times: 25, needs: ['python3'] }, async (times) => {
    let figure = '';
    for (let n = 0; n < times; n++) {
      const { port, pid } = await startInFlight(reaper);
      const seen = { who: await inspectPort(port), free: await freePort(port, { timeoutMs: 500 }), isFree: false };
      expectAll([seen], { verdict: 'in_flight_fd', pid, says: new RegExp(`waits in a message to pid ${pid} `) });
      figure = `${n + 1}/${times}`;
      await reaper.end();
    }
    return figure;
  });
});

/** One process that listens on so many ports. */
async function startListeners(count: number): Promise<{ ports: number[]; pid: number }> {
  const { ports, pid } = await startTree(reaper, {
    listen: Array.from({ length: count }, () => ({ host: '127.0.0.1' })),
  }).ready;
  return { ports: ports.map(({ port }) => port), pid };
}

function expectAll(
  all: readonly (Seen | undefined)[],
  { verdict, pid, says }: { readonly verdict: string; readonly pid: number; readonly says: RegExp },
): string {
  for (const seen of all) {
    expect(seen?.isFree).to.equal(false);
    for (const report of [seen?.who, seen?.free]) {
      expect(report).to.include({ free: false, verdict, kill: null });
      expect(report?.explanation).to.match(says);
    }
  }
  expect(isAlive(pid)).to.equal(true);
  return `${all.length}/${all.length}`;
}
