/** What a seamless tunnel is for: its link goes away again and again, under load, and no client is refused for it. */
import { expect } from 'chai';
import { systemClock } from '#lib/time.js';
import type { EngineName } from '#lib/tunnel/spec.js';
import type { Supervisor } from '#lib/tunnel/supervisor.js';
import { type Checked, startEcho, talkChecked } from '../support/checked.js';
import { fault, spread } from '../support/fault.js';
import { freeLocalPort } from '../support/port.js';
import { descendantsOf, sendSignal } from '../support/proc.js';
import { createReaper, type Reaper } from '../support/reaper.js';
import { type Relay, startRelay } from '../support/servers.js';
import { type Sshd, startSshd } from '../support/sshd.js';
import { knownHostsFor, superviseHere, tunnelTo } from './tunnel/rig.js';

const seamless = { drainMs: 2000, connectWaitMs: 20_000 };
/** A client waits so long for a link at most, and talks so long at most once it has one. */
const HANGS_MS = 30_000;
const CLIENTS = 20;

interface Stage {
  readonly supervisor: Supervisor;
  readonly id: string;
  readonly port: number;
  readonly relay: Relay;
}

describe('fault: a seamless tunnel whose link goes away', () => {
  for (const engine of ['embedded', 'ssh', 'autossh'] as const) {
    const needs = ['ssh', 'sshd', 'autossh'] as const;
    const killed = `is refused nobody, cuts no byte out of what goes on, and leaves nobody hanging, killed every 0 to 300 ms: ${engine}`;
    fault({ id: 'R1', title: killed, times: 60, reduced: 4, needs }, async (durationS) => {
      await using stage = await setUp(engine);
      const load = startLoad(stage.port);
      const deadline = systemClock.now() + durationS * 1000;
      let kills = 0;
      for (; systemClock.now() < deadline; kills++) {
        await systemClock.sleep(Math.random() * 300);
        killLink(stage, kills);
      }
      const found = await load.end();
      expectSound(found);
      // On a busy machine a handshake takes longer than the link lives, again and again: who is turned away has waited for all
      // of the time that he was given.
      const patient = found.filter(({ end, tookMs }) => end === 'cut' && tookMs >= seamless.connectWaitMs - 50);
      const refused = stage.supervisor.status(stage.id).traffic?.refused ?? 0;
      expect(refused, 'turned away before their time').to.be.at.most(patient.length);
      expect(found.filter(({ end }) => end === 'complete').length, 'complete').to.be.greaterThan(0);
      return describeLoad(found, `${kills} kills`, refused);
    });

    const restarted = `is refused nobody and cuts nobody by restarts in a row, when there is time to drain: ${engine}`;
    fault({ id: 'R2', title: restarted, times: 100, reduced: 5, needs }, async (times) => {
      await using stage = await setUp(engine);
      const load = startLoad(stage.port);
      for (let restart = 0; restart < times; restart++) {
        const { state } = await stage.supervisor.restart(stage.id);
        expect(state).to.equal('up');
        // A connection lasts up to a second, and at most 16 links are left to those that go through them.
        await systemClock.sleep(100);
      }
      const found = await load.end();
      expect(found.filter(({ end }) => end !== 'complete')).to.deep.equal([]);
      return describeLoad(found, `${times} restarts`);
    });
  }
});

async function setUp(engine: EngineName) {
  const reaper: Reaper = createReaper();
  const sshd: Sshd = await startSshd();
  const echo = await startEcho();
  const relay = await startRelay(sshd.port);
  const port = await freeLocalPort();
  const sshOptions = { Port: String(relay.port), UserKnownHostsFile: knownHostsFor(sshd, relay.port) };
  const spec = tunnelTo(sshd, {
    ...{ name: 'chaos', port, target: echo.port, engine, seamless, sshOptions },
    backoff: { minMs: 20, maxMs: 100, stableMs: 30_000 },
  });
  const supervisor = superviseHere(reaper);
  const tearDown = async () => {
    await supervisor.close();
    await relay[Symbol.asyncDispose]();
    await echo[Symbol.asyncDispose]();
    await sshd.stop();
    await reaper.end();
  };
  try {
    await supervisor.reconcile([spec]);
    await supervisor.start(spec.id);
  } catch (error) {
    await tearDown();
    throw error;
  }
  return { supervisor, id: spec.id, port, relay, [Symbol.asyncDispose]: tearDown };
}

/** By a reset of its connection, or by SIGKILL of any process of its chain, where there is one. */
function killLink({ supervisor, id, relay }: Stage, turn: number): void {
  const { pid } = supervisor.status(id);
  const chain = pid === null ? [] : [pid, ...descendantsOf(pid).map((stat) => stat.pid)];
  const victims = supervisor.status(id).chain.filter((process) => chain.includes(process.pid));
  const victim = victims[Math.floor(Math.random() * victims.length)];
  if (turn % 2 === 0 || !victim) relay.drop();
  else sendSignal(victim, 'SIGKILL');
}

function startLoad(port: number) {
  const found: Checked[] = [];
  let isOver = false;
  const clients = Array.from({ length: CLIENTS }, async () => {
    while (!isOver) {
      const isLong = Math.random() < 0.3;
      found.push(
        await talkChecked(port, {
          size: Math.ceil(Math.random() * (isLong ? 300_000 : 5000)),
          pieces: isLong ? 10 : 1,
          pauseMs: isLong ? 30 : 0,
          timeoutMs: HANGS_MS,
        }),
      );
      await systemClock.sleep(5);
    }
  });
  return {
    async end(): Promise<readonly Checked[]> {
      isOver = true;
      await Promise.all(clients);
      return found;
    },
  };
}

function expectSound(found: readonly Checked[]): void {
  const wrong = found.filter(({ end }) => end !== 'complete' && end !== 'cut');
  expect(wrong, 'refused, hung, truncated or garbled').to.deep.equal([]);
}

function describeLoad(found: readonly Checked[], what: string, late = 0): string {
  const count = (end: Checked['end']) => found.filter((one) => one.end === end).length;
  const times = found.filter(({ end }) => end === 'complete').map(({ tookMs }) => tookMs);
  return `${what}, ${found.length} connections: ${count('complete')} complete (${spread(times)}), ${count('cut') - late} cut with their link, ${late} turned away after ${seamless.connectWaitMs / 1000} s, 0 refused, 0 truncated, 0 garbled, 0 hung`;
}
