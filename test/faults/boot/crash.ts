import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { fault } from '../../support/fault.js';
import { programsDir } from '../../support/paths.js';
import { processesWithEnv } from '../../support/proc.js';
import type { Sshd } from '../../support/sshd.js';
import { inParallel } from '../kill/rig.js';
import { allUp, bootAll, expectClean, type Site, tunnelTo, type Up, withSite } from './site.js';

/** What a daemon is about, in the order of its life. A `sweep` is a boot over what was left, a `boot` one over nothing. */
const phases = ['boot', 'sweep', 'restart', 'stop', 'reload', 'shutdown'] as const;
type Phase = (typeof phases)[number];

/** `reload:kill SIGSTOP:2:before`. */
interface Point {
  readonly phase: Phase;
  readonly kind: string;
  readonly number: number;
  readonly when: 'before' | 'after';
}

export function crashCases(sshd: () => Sshd): void {
  const title = 'boots clean over a daemon that was killed at any step of a start, a stop or a reload';
  fault({ id: 'B2', title, times: 30, reduced: 6 }, async (times) => {
    const points = choose(await countSteps(sshd()), times);
    const boots: number[] = [];
    let left = 0;
    await inParallel(points.length, 2, async (at) => {
      const point = points[at];
      if (!point) return;
      const { tookMs, orphans } = await crashAt(sshd(), point).catch((error: unknown) => {
        throw new Error(`killed ${nameOf(point)}: ${error instanceof Error ? error.message : error}`, { cause: error });
      });
      boots.push(tookMs);
      left += orphans;
    });
    expect(boots).to.have.length(times);
    expect(left, 'or nothing was left to clear away').to.be.greaterThan(times / 3);
    const slowest = `the slowest boot ${(Math.max(...boots) / 1000).toFixed(1)} s`;
    return `${boots.length}/${times}, ${left} processes left behind and cleared, ${slowest}; ${points.map(nameOf).join(', ')}`;
  });
}

/** Lives once through all phases, and answers every step that was taken. */
function countSteps(sshd: Sshd): Promise<string[]> {
  return withSite(sshd, 4, async (site) => {
    writeFirst(sshd, site);
    const { daemon: first } = await bootAll(site, crashEnv(site, 'boot'));
    await first.end('SIGKILL');
    const { daemon } = await bootAll(site, crashEnv(site, 'sweep'));
    for (const phase of ['restart', 'stop', 'reload', 'shutdown'] as const) {
      writePhase(site, phase);
      await act(sshd, site, daemon, phase);
    }
    const steps = readFileSync(stepsFile(site), 'utf8').split('\n').slice(0, -1);
    const seen = new Set(steps.map((step) => step.split(':')[0]));
    expect([...seen], 'phases in which something was done').to.have.members([...phases]);
    return steps;
  });
}

/** One life that ends at that point, and the one after it. */
function crashAt(sshd: Sshd, point: Point): Promise<{ tookMs: number; orphans: number }> {
  return withSite(sshd, 4, async (site) => {
    writeFirst(sshd, site);
    if (point.phase === 'sweep') await (await bootAll(site)).daemon.end('SIGKILL');
    await liveUntil(sshd, site, point);
    const before = readInstanceOf(site);
    const orphans = before === undefined ? 0 : [...processesWithEnv(`TUNWARD_INSTANCE=${before}`)].length;
    const { daemon, tookMs } = await bootAll(site);
    await expectClean(site, daemon);
    if (before !== undefined) expect(readInstanceOf(site), 'the instance').to.equal(before);
    expect(await daemon.end('SIGTERM'), daemon.stderr()).to.equal(0);
    expect(site.reaper.living(), 'left at the end').to.deep.equal([]);
    return { tookMs, orphans };
  });
}

/** One that does not come to a point so late in its life (how often it signals is a matter of time) ends at an earlier one. */
async function liveUntil(sshd: Sshd, site: Site, point: Point): Promise<void> {
  const { phase } = point;
  const isBoot = phase === 'boot' || phase === 'sweep';
  const daemon = site.up(crashEnv(site, isBoot ? phase : 'before', point));
  await until(async () => daemon.hasEnded() || (await allUp(site)) !== undefined, { timeoutMs: 30_000, everyMs: 10 });
  if (!isBoot && !daemon.hasEnded()) {
    writePhase(site, phase);
    await act(sshd, site, daemon, phase).catch(async (error: unknown) => {
      // It is dead in the middle of what it was asked for, or this is a failure of another kind.
      if (!(await until(daemon.hasEnded, { timeoutMs: 1000 }))) throw error;
    });
  }
  if (!(await until(daemon.hasEnded, { timeoutMs: 2000 }))) await daemon.end('SIGKILL');
  const last = readFileSync(stepsFile(site), 'utf8').trim().split('\n').at(-1);
  if (last === `crashed ${codeOf(point)}`) return;
  if (point.number === 1) throw new Error(`never came to it, but to ${last}: ${daemon.stderr()}`);
  await liveUntil(sshd, site, { ...point, number: Math.floor(point.number / 2) });
}

async function act(sshd: Sshd, site: Site, daemon: Up, phase: Phase): Promise<void> {
  const { home } = site;
  if (phase === 'restart') expect((await home.api('POST', '/v1/tunnels/t1/restart')).status).to.equal(200);
  if (phase === 'stop') expect((await home.api('POST', '/v1/tunnels/t0/stop')).status).to.equal(200);
  if (phase === 'shutdown') await daemon.end('SIGTERM');
  if (phase !== 'reload') return;
  // One leaves, one changes, one is new, and one is as it was.
  const changed = { ...tunnelTo(sshd, site, 1), ssh_options: { Compression: 'yes' } };
  const before = (await home.api('GET', '/v1/tunnels/t1')).body.pid;
  site.configure([changed, tunnelTo(sshd, site, 2), tunnelTo(sshd, site, 3)]);
  process.kill(daemon.pid, 'SIGHUP');
  const isDone = async () => daemon.hasEnded() || (await allUp(site))?.every(({ pid }) => pid !== before) === true;
  expect(await until(isDone, { timeoutMs: 20_000, everyMs: 20 }), 'reloaded').to.equal(true);
}

/** By local forward with ssh, with autossh, and by remote forward. */
function writeFirst(sshd: Sshd, site: Site): void {
  site.configure([0, 1, 2].map((at) => tunnelTo(sshd, site, at)));
}

function crashEnv(site: Site, phase: string, point?: Point): NodeJS.ProcessEnv {
  writePhase(site, phase);
  return {
    NODE_OPTIONS: `--import ${pathToFileURL(join(programsDir, 'crash.mjs'))}`,
    TUNWARD_CRASH_PHASE: phaseFile(site),
    TUNWARD_CRASH_STEPS: stepsFile(site),
    ...(point ? { TUNWARD_CRASH_AT: codeOf(point) } : {}),
  };
}

const stepsFile = ({ home }: Site) => join(home.dir, 'steps');
const phaseFile = ({ home }: Site) => join(home.dir, 'phase');

/** At once or not at all: the daemon reads it at any moment. */
function writePhase(site: Site, phase: string): void {
  writeFileSync(`${phaseFile(site)}.new`, phase);
  renameSync(`${phaseFile(site)}.new`, phaseFile(site));
}

function readInstanceOf({ home }: Site): string | undefined {
  try {
    return readFileSync(join(home.stateDir, 'instance'), 'utf8').trim();
  } catch (error) {
    if (/ENOENT/.test(String(error))) return undefined; // it was not so far
    throw error;
  }
}

/**
 * Points of every phase in turn, and of the kinds that came up least: signals and starts, which leave something behind,
 * more often than what is written. Of each kind the first, then one in the middle; before it and after it in turn.
 */
function choose(steps: readonly string[], count: number): Point[] {
  const groups = new Map<string, number>();
  for (const step of steps) groups.set(step.slice(0, step.lastIndexOf(':')), Number(step.split(':')[2]));
  const taken = new Map<string, number>();
  const chosen: Point[] = [];
  const costOf = (key: string, kind: string) => {
    const weight = /^(kill|spawn$)/.test(kind) ? 3 : 1;
    return ((taken.get(kind) ?? 0) + 1) / weight + (taken.get(key) ?? 0) * 2;
  };
  while (chosen.length < count) {
    const phase = phases[chosen.length % phases.length] ?? 'boot';
    const mine = [...groups].filter(([key]) => key.startsWith(`${phase}:`));
    const [key = '', last = 1] =
      mine.sort(([one], [other]) => costOf(one, kindIn(one)) - costOf(other, kindIn(other)))[0] ?? [];
    const kind = kindIn(key);
    const times = taken.get(kind) ?? 0;
    taken.set(kind, times + 1);
    taken.set(key, (taken.get(key) ?? 0) + 1);
    const number = times % 2 === 0 ? 1 : Math.ceil(last / 2);
    chosen.push({ phase, kind, number, when: chosen.length % 4 < 2 ? 'after' : 'before' });
  }
  return chosen;
}

const codeOf = ({ phase, kind, number, when }: Point) => `${phase}:${kind}:${number}:${when}`;
const kindIn = (key: string) => key.slice(key.indexOf(':') + 1);
const nameOf = ({ phase, kind, number, when }: Point) => `${when} ${phase} ${kind} ${number}`;
