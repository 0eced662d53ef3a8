/** S3 and S4 of the fault catalogue: how often what fails is tried again, and what is left of it. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { isPortFree } from '#lib/index.js';
import { systemClock, until } from '#lib/time.js';
import type { Reason } from '#lib/tunnel/engine.js';
import type { Supervisor } from '#lib/tunnel/supervisor.js';
import { fault, isFull } from '../support/fault.js';
import { freeLocalPort } from '../support/port.js';
import { sendSignal } from '../support/proc.js';
import { createReaper } from '../support/reaper.js';
import { type Behaviour, startServer } from '../support/servers.js';
import { type Sshd, startSshd } from '../support/sshd.js';
import { createBench, watch } from '../support/tunnel.js';
import { processesByTunnel, refusalOf, rootsOf, superviseHere, tunnelTo } from './tunnel/rig.js';

describe('fault: a tunnel that fails again and again', () => {
  const planned = 'is tried again by its schedule, and from its first step when somebody has asked';
  fault({ id: 'S3', title: planned, times: 8, reduced: 8 }, async (times) => {
    const network = await readWaits('refused', times);
    expect(network).to.deep.equal([1, 2, 4, 8, 16, 32, 60, 60, 'asked', 1]);
    const login = await readWaits('auth_failed', times);
    // Up to a tenth more, which a random number of 1 makes of it.
    const minutes = [1, 5, 15, 30, 30, 30, 30, 30].map((step) => step * 66);
    expect(login).to.deep.equal([...minutes, 'asked', 66]);
    return `a network after ${network.slice(0, times).join(', ')} s, a login after ${login.slice(0, 5).join(', ')} s`;
  });

  const counted = 'is started as often as its schedule says, by the count of its server';
  const needs = ['ssh', 'sshd', 'autossh'] as const;
  // In seconds: the first step of a login is a minute.
  fault({ id: 'S3', title: counted, times: 70, reduced: 4, needs }, async (durationS) => {
    await using reaper = createReaper();
    await using sshd = await startSshd();
    writeFileSync(join(sshd.dir, 'authorized_keys'), '');
    const guests: number[] = [];
    await using refusing = await startServer(turnsAway(guests));
    const changes = { target: sshd.port, backoff: { minMs: 100, maxMs: 1600, stableMs: 30_000 } };
    const sshOptions = { Port: String(refusing.port) };
    const crash = tunnelTo(sshd, { name: 'crash', port: await freeLocalPort(), ...changes, sshOptions });
    const login = tunnelTo(sshd, { name: 'login', port: await freeLocalPort(), ...changes });
    await using supervisor = superviseHere(reaper);
    await supervisor.reconcile([login, crash]);
    expectLoginWait(await whenWaiting(supervisor, login.id), 1);
    await systemClock.sleep(durationS * 1000);

    const [starts, elapsedMs] = [guests.length, systemClock.now() - (guests[0] ?? 0)];
    const pauses = guests.slice(1).map((at, index) => at - (guests[index] ?? 0));
    const planned = pauses.map((_pause, index) => Math.min(1600, 100 * 2 ** index));
    const early = pauses.filter((pause, index) => pause < (planned[index] ?? 0));
    expect(early, 'starts before their time').to.deep.equal([]);
    expect(pauses.length, 'starts again').to.be.at.least(isFull ? 15 : 2);
    expect(countLogins(sshd), 'logins').to.equal(isFull ? 2 : 1);
    if (isFull) expectLoginWait(await whenWaiting(supervisor, login.id), 5);
    await refusalOf(supervisor.restart(login.id));
    expectLoginWait(await whenWaiting(supervisor, login.id), 1);
    // The server's line may come after the answer.
    await until(() => countLogins(sshd) > (isFull ? 2 : 1), { timeoutMs: 2000 });
    expect(countLogins(sshd), 'logins').to.equal(isFull ? 3 : 2);

    const perMinute = (count: number) => ((count / elapsedMs) * 60_000).toFixed(1);
    const most = countPlanned(elapsedMs);
    expect(starts).to.be.at.most(most);
    return `${perMinute(starts)} starts/min of at most ${perMinute(most)} by schedule, and a login again after 66 s`;
  });

  const flapping = 'has never two chains while it is killed every 0 to 300 ms, and none at the end';
  fault({ id: 'S4', title: flapping, times: 60, reduced: 5, needs }, async (durationS) => {
    await using reaper = createReaper();
    await using sshd = await startSshd();
    const backoff = { minMs: 1, maxMs: 100, stableMs: 30_000 };
    const common = { target: sshd.port, backoff };
    const specs = [
      tunnelTo(sshd, { name: 'ssh', engine: 'ssh', port: await freeLocalPort(), ...common }),
      tunnelTo(sshd, { name: 'autossh', engine: 'autossh', port: await freeLocalPort(), ...common }),
    ];
    const ids = specs.map(({ id }) => id);
    const supervisor = superviseHere(reaper, { random: Math.random });
    const over = AbortSignal.timeout(durationS * 1000);
    await supervisor.reconcile(specs);
    const [most, ...kills] = await Promise.all([
      watchChains(ids, over),
      ...ids.map((id) => killAgain(supervisor, id, over)),
    ]);
    const restarts = supervisor.list().map((status) => status.restarts);
    await supervisor.close();

    expect(most.chains, 'chains of one tunnel at once').to.equal(1);
    const left = processesByTunnel();
    expect(ids.flatMap((id) => left.get(id) ?? [])).to.deep.equal([]);
    for (const { forward } of specs) expect(await isPortFree(forward.listen.port)).to.equal(true);
    expect(Math.min(...kills), 'kills').to.be.greaterThan(durationS);
    return `${kills.join(' + ')} kills, up again ${restarts.join(' + ')} times, at most ${most.chains} chain in ${most.samples} looks, 0 left`;
  });
});

/** The waits after each of so many failures, in seconds on a clock of the test's own; then one that follows a request. */
async function readWaits(reason: Reason, times: number): Promise<(number | string)[]> {
  const { clock, engine, runner } = createBench();
  engine.first = 'waiting';
  const waits: (number | string)[] = [];
  watch(runner.start());
  await clock.settle();
  const failAndWait = async () => {
    const [before, began] = [engine.links.length, clock.now()];
    engine.last().exit({ reason });
    while (engine.links.length === before) await clock.advance(1000);
    waits.push((clock.now() - began) / 1000);
  };
  for (let n = 0; n < times; n++) await failAndWait();
  waits.push('asked');
  const before = engine.links.length;
  watch(runner.restart());
  while (engine.links.length === before) await clock.advance(1);
  await failAndWait();
  await runner.close();
  return waits;
}

/** Hangs up on who says that it is an ssh, and notes when; also on who says nothing, as our own question after the reason. */
function turnsAway(guests: number[]): Behaviour {
  return (socket) => {
    socket
      .setTimeout(50, () => socket.destroy())
      .once('data', () => {
        guests.push(systemClock.now());
        socket.destroy();
      });
  };
}

/** How many starts there are at most in that time by a schedule of 100 ms, doubling to 1600. */
function countPlanned(durationMs: number): number {
  let count = 1;
  for (let at = 100; at <= durationMs; count++) at += Math.min(1600, 100 * 2 ** count);
  return count;
}

async function whenWaiting(supervisor: Supervisor, id: string) {
  const isWaiting = () => supervisor.status(id).state === 'backoff';
  expect(await until(isWaiting, { timeoutMs: 20_000 }), JSON.stringify(supervisor.status(id))).to.equal(true);
  return supervisor.status(id);
}

/** So many minutes and a tenth: the supervisor's random number is 1. */
function expectLoginWait({ reason, since, nextRetryAt }: Awaited<ReturnType<typeof whenWaiting>>, minutes: number) {
  expect(reason).to.equal('auth_failed');
  expect(Date.parse(nextRetryAt ?? '') - Date.parse(since)).to.be.within(minutes * 66_000 - 1, minutes * 66_000 + 500);
}

function countLogins(sshd: Sshd): number {
  return sshd.log().match(/^Connection closed by authenticating user/gm)?.length ?? 0;
}

/** Until it is over: the most chains that one of these tunnels had at a time. */
async function watchChains(ids: readonly string[], over: AbortSignal) {
  const most = { chains: 0, samples: 0 };
  while (!over.aborted) {
    const processes = processesByTunnel();
    for (const id of ids) most.chains = Math.max(most.chains, rootsOf(processes.get(id) ?? []).length);
    most.samples++;
    await systemClock.sleep(2);
  }
  return most;
}

/** Kills a process of a tunnel, now its ssh, now its autossh, every 0 to 300 ms, now and then once it is up. Answers how many. */
async function killAgain(supervisor: Supervisor, id: string, over: AbortSignal): Promise<number> {
  let kills = 0;
  while (!over.aborted) {
    const isUp = () => over.aborted || supervisor.status(id).state === 'up';
    if (kills % 8 === 7) await until(isUp, { timeoutMs: 5000 });
    await systemClock.sleep(Math.random() * 300);
    const chain = processesByTunnel().get(id) ?? [];
    const victim = chain[Math.floor(Math.random() * chain.length)];
    if (victim && sendSignal(victim, 'SIGKILL')) kills++;
  }
  return kills;
}
