import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { which } from './paths.js';
import { isAlive, type Ref, statOf } from './proc.js';
import { createReaper, type Reaper } from './reaper.js';

/** Processes that look like a target and are none. */
export interface Bystanders {
  /** Those that are dead or stopped by now: there must be none, ever. */
  harmed(): string[];
}

interface Kind {
  /** What comm shows: the name of the file that was executed. */
  readonly name: string;
  readonly argv0: string;
  readonly env?: Readonly<Record<string, string>>;
}

const kinds: readonly Kind[] = [
  { name: 'ssh', argv0: 'ssh -N -L 9443:localhost:443 user@host' },
  { name: 'autossh', argv0: 'autossh -M 0 -N -L 9443:localhost:443 user@host' },
  { name: 'ssh', argv0: 'ssh', env: { OTHER_TUNNEL_ID: 'test', TUNNEL_ID: 'test2', TUNWARD_INSTANCE: 'other' } },
  { name: 'node', argv0: 'node actor.mjs', env: { NOTE: 'x\nTUNNEL_ID=test\n' } },
];

/** Starts some of each kind, half of them in the caller's session and group, half in sessions of their own. */
export function startBystanders(reaper: Reaper, count = 20): Bystanders {
  const dir = mkdtempSync(join(tmpdir(), 'tunward-bystanders-'));
  for (const name of ['ssh', 'autossh', 'node']) symlinkSync(which('sleep') ?? '/bin/sleep', join(dir, name));
  const started = Array.from({ length: count }, (_, at) => kinds[at % kinds.length])
    .flatMap((kind) => kind ?? [])
    .map((kind, at) => ({ ...startSleep(reaper, dir, { ...kind, detached: at >= count / 2 }), kind }));
  rmSync(dir, { recursive: true });
  const isHarmed = (ref: Ref) => !isAlive(ref.pid, ref.startTicks) || statOf(ref.pid)?.state === 'T';
  return { harmed: () => started.filter(isHarmed).map(({ pid, kind }) => `${pid} ${kind.argv0}`) };
}

function startSleep(reaper: Reaper, dir: string, { name, argv0, env, detached }: Kind & { detached: boolean }): Ref {
  const child = spawn(join(dir, name), ['600'], {
    argv0,
    env: { ...process.env, ...reaper.env, ...env },
    detached,
    stdio: 'ignore',
  });
  reaper.own(child);
  const pid = child.pid ?? 0;
  return { pid, startTicks: statOf(pid)?.startTicks ?? 0 };
}

/**
 * Has bystanders there for a suite, which none of its tests may harm; what `reaper` has is ended after each. Answers the
 * reaper of theirs, for whoever else is to be there to the end of the suite.
 */
export function guardBystanders(reaper: Reaper): Reaper {
  const crowd = createReaper();
  let bystanders: Bystanders;
  before(() => {
    bystanders = startBystanders(crowd);
  });
  afterEach(async () => {
    // Asked after every test, so that the one that harmed somebody is the one that fails.
    const harmed = bystanders.harmed();
    await reaper.end();
    expect(harmed, 'bystanders that were killed or stopped').to.deep.equal([]);
  });
  after(async () => {
    await crowd.end();
  });
  return crowd;
}
