import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect } from 'chai';
import { createSupervisor } from '#lib/index.js';
import { fault, spread } from '../../support/fault.js';
import { programsDir, which } from '../../support/paths.js';
import { environOf, isAlive, type Ref, statOf } from '../../support/proc.js';
import { createReaper, type Reaper } from '../../support/reaper.js';

export function sweepCases(): void {
  const title =
    'overlooks nobody who becomes another program all the time, with an environment that is empty meanwhile';
  fault({ id: 'B5', title, times: 200, needs: ['perl'] }, async (times) => {
    await using reaper = createReaper();
    const instance = randomBytes(16).toString('hex');
    await using supervisor = createSupervisor({ env: process.env, instance });
    const samples: number[] = [];
    let missed = 0;
    let empty = 0;
    for (let n = 0; n < times; n++) {
      const storm = await startExecs(reaper, instance);
      if (environOf(storm.pid).length === 0) empty++;
      expect(isAlive(storm.pid, storm.startTicks), 'or it was over by itself').to.equal(true);
      const { killed, survivors, tookMs } = await supervisor.sweep([]);
      samples.push(tookMs);
      if (isAlive(storm.pid, storm.startTicks) || !killed.some(({ pid }) => pid === storm.pid)) missed++;
      expect(survivors).to.deep.equal([]);
    }
    expect(missed).to.equal(0);
    expect(empty, 'met inside execve, or the storm is none').to.be.greaterThan(times / 100);
    return `${missed} missed / ${times}, ${empty} of them inside execve at a look just before, ${spread(samples)}`;
  });
}

async function startExecs(reaper: Reaper, instance: string): Promise<Ref> {
  const child = spawn(which('perl') ?? 'perl', [join(programsDir, 'execs.pl'), '10000'], {
    env: { ...process.env, ...reaper.env, TUNNEL_ID: 'f'.repeat(32), TUNWARD_INSTANCE: instance },
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  });
  reaper.own(child);
  await once(child.stdout, 'data');
  const pid = child.pid ?? 0;
  return { pid, startTicks: statOf(pid)?.startTicks ?? 0 };
}
