/** S7 of the fault catalogue: the wall clock is what people read, and no bound depends on it. */
import { expect } from 'chai';
import { until } from '#lib/time.js';
import type { Supervisor } from '#lib/tunnel/supervisor.js';
import { fault, spread } from '../support/fault.js';
import { freeLocalPort } from '../support/port.js';
import { createReaper } from '../support/reaper.js';
import { hangsUp, isMute, startServer } from '../support/servers.js';
import { startSshd } from '../support/sshd.js';
import { refusalOf, superviseHere, tunnelTo } from './tunnel/rig.js';

const HOUR_MS = 3_600_000;
const BOUND_MS = 500;
const RETRY_MS = 400;
/** What a busy machine may take in addition. */
const LATE_MS = 3000;

describe('fault: the wall clock jumps by an hour, on or back, in the middle of a restart', () => {
  const title = 'is restarted, answered and tried again in the time that it takes otherwise';
  fault({ id: 'S7', title, times: 10, reduced: 2, needs: ['ssh', 'sshd'] }, async (times) => {
    await using reaper = createReaper();
    await using sshd = await startSshd();
    await using mute = await startServer(isMute);
    await using closing = await startServer(hangsUp);
    const at = async (name: string, port: number) =>
      tunnelTo(sshd, {
        name,
        port: await freeLocalPort(),
        target: sshd.port,
        sshOptions: { Port: String(port) },
        backoff: { minMs: RETRY_MS, maxMs: RETRY_MS, stableMs: 30_000 },
        restartTimeoutMs: name === 'silent' ? BOUND_MS : 20_000,
      });
    const [well, silent, failing] = [
      await at('well', sshd.port),
      await at('silent', mute.port),
      await at('failing', closing.port),
    ];
    await using supervisor = superviseHere(reaper);
    await supervisor.reconcile([well, silent, failing]);
    const took: number[] = [];
    const over: number[] = [];
    for (let round = 0; round < times; round++) {
      const jumpMs = round % 2 === 0 ? HOUR_MS : -HOUR_MS;
      took.push(await withJump(jumpMs, () => restartWell(supervisor, well.id)));
      // Or the next one would join a start that is under way, and fails with it.
      await supervisor.stop(silent.id);
      over.push(await withJump(jumpMs, () => restartSilent(supervisor, silent.id)));
      over.push(await withJump(jumpMs, () => waitForRetry(supervisor, failing.id)));
    }
    expect(Math.max(...over)).to.be.below(LATE_MS);
    return `${took.length}/${times} restarts ${spread(took)}, ${over.length} bounds overrun by ${spread(over)}`;
  });
});

/** Does it while the wall clock jumps within its first 200 ms, and back when it is done. */
async function withJump<T>(jumpMs: number, act: () => Promise<T>): Promise<T> {
  const { now } = Date;
  const jumpAt = performance.now() + Math.random() * 200;
  Date.now = () => now() + (performance.now() < jumpAt ? 0 : jumpMs);
  try {
    return await act();
  } finally {
    Date.now = now;
  }
}

async function restartWell(supervisor: Supervisor, id: string): Promise<number> {
  const began = performance.now();
  const { state, tookMs, phases } = await supervisor.restart(id);
  const measuredMs = performance.now() - began;
  expect(state).to.equal('up');
  for (const ms of [tookMs, ...Object.values(phases)]) expect(ms).to.be.within(0, measuredMs + 1);
  return measuredMs;
}

/** Answers by how much the bound was overrun. */
async function restartSilent(supervisor: Supervisor, id: string): Promise<number> {
  const began = performance.now();
  expect(await refusalOf(supervisor.restart(id))).to.include({ code: 'ERR_TIMEOUT' });
  const overMs = performance.now() - began - BOUND_MS;
  expect(overMs).to.be.at.least(-2);
  return Math.max(0, overMs);
}

/** Answers how late it was tried again. */
async function waitForRetry(supervisor: Supervisor, id: string): Promise<number> {
  await refusalOf(supervisor.restart(id));
  const began = performance.now();
  const isTried = () => supervisor.status(id).state === 'starting';
  expect(await until(isTried, { timeoutMs: RETRY_MS + LATE_MS }), 'tried again').to.equal(true);
  const overMs = performance.now() - began - RETRY_MS;
  expect(overMs).to.be.at.least(-20);
  return Math.max(0, overMs);
}
