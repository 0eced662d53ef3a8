import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import { fault, spread } from '../../support/fault.js';
import { repoRoot } from '../../support/paths.js';
import { isAlive, statOf } from '../../support/proc.js';
import type { Sshd } from '../../support/sshd.js';
import { allUp, bootAll, expectClean, type Site, tunnelTo, withSite } from './site.js';

export function daemonCases(sshd: () => Sshd): void {
  const sweeps = 'has all ten tunnels up again after SIGKILL, and nothing of its former life';
  fault({ id: 'B1', title: sweeps, times: 50, reduced: 2 }, async (times) => {
    const server = sshd();
    const samples: number[] = [];
    await withSite(server, 10, async (site) => {
      site.configure(site.ports.map((_, at) => tunnelTo(server, site, at)));
      let { daemon } = await bootAll(site);
      for (let n = 0; n < times; n++) {
        await daemon.end('SIGKILL');
        const next = await bootAll(site);
        daemon = next.daemon;
        samples.push(next.tookMs);
        await expectClean(site, daemon);
      }
      expect(await daemon.end('SIGTERM'), daemon.stderr()).to.equal(0);
      expect(site.reaper.living()).to.deep.equal([]);
    });
    return `${samples.length}/${times}, all up after ${spread(samples)}`;
  });

  const marked = 'harms neither itself nor its parents when it is started with the mark of a tunnel of its own';
  fault({ id: 'B4', title: marked, times: 20 }, async (times) => {
    const server = sshd();
    await withSite(server, 2, async (site) => {
      site.configure([0, 1].map((at) => tunnelTo(server, site, at)));
      const { daemon } = await bootAll(site);
      const [tunnel] = (await allUp(site)) ?? [];
      // So that the chains are there, and are to be cleared, each time.
      await daemon.end('SIGKILL');
      const mark = { TUNNEL_ID: tunnel.id, TUNWARD_INSTANCE: readState(site, 'instance').trim() };
      for (let n = 0; n < times; n++) await liveMarked(site, mark, n % 2 === 0 ? 'SIGKILL' : 'SIGTERM');
    });
    return `${times}/${times}`;
  });

  const second = 'refuses to be the second one on a state folder, and harms nothing';
  fault({ id: 'B8', title: second, times: 20 }, async (times) => {
    const server = sshd();
    await withSite(server, 3, async (site) => {
      site.configure([0, 1, 2].map((at) => tunnelTo(server, site, at)));
      const { daemon } = await bootAll(site);
      const chains = (await allUp(site))?.map(({ chain }) => chain);
      const state = readStates(site);
      for (let n = 0; n < times; n++) {
        // Two of them at once, so that they meet each other as well.
        const others = [site.up(), site.up()];
        expect(await Promise.all(others.map(({ exited }) => exited))).to.deep.equal([1, 1]);
        for (const other of others)
          expect(other.stderr()).to.match(/another tunward daemon runs on this state folder/i);
        expect((await allUp(site))?.map(({ chain }) => chain)).to.deep.equal(chains);
        expect(readStates(site)).to.deep.equal(state);
      }
      await expectClean(site, daemon);
      expect(await daemon.end('SIGTERM')).to.equal(0);
    });
    return `${times}/${times}, each time two of them at once`;
  });
}

/** A life below two parents, all with the mark: boot over what was left, a restart or a stop and a start, and its end. */
async function liveMarked(site: Site, mark: Readonly<Record<string, string>>, end: NodeJS.Signals): Promise<void> {
  const { home, reaper } = site;
  const script = '/bin/sh -c \'"$@" & echo $!; wait $!\' sh "$@" & wait $!';
  const argv = [process.execPath, join(repoRoot, 'lib/cli/main.js'), 'up', '-c', home.configFile];
  const parent = spawn('/bin/sh', ['-c', script, 'sh', ...argv], {
    env: { ...process.env, ...reaper.env, ...mark },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  reaper.own(parent);
  const [line] = (await new Promise<Buffer>((resolve) => parent.stdout.once('data', resolve))).toString().split('\n');
  const daemonPid = Number(line);
  const pids = [daemonPid, statOf(daemonPid)?.ppid ?? 0, parent.pid ?? 0];
  const family = pids.map((pid) => ({ pid, startTicks: statOf(pid)?.startTicks }));
  const harmed = () => family.filter(({ pid, startTicks }) => !isAlive(pid, startTicks) || statOf(pid)?.state === 'T');
  const isUp = async () => harmed().length > 0 || (await allUp(site)) !== undefined;
  expect(await until(isUp, { timeoutMs: 20_000, everyMs: 20 }), 'all up').to.equal(true);
  for (const act of end === 'SIGKILL' ? ['restart'] : ['stop', 'start']) {
    const { status, body } = await home.api('POST', `/v1/tunnels/${mark.TUNNEL_ID}/${act}`);
    expect([status, body.kill?.survivors ?? []], act).to.deep.equal([200, []]);
    expect(harmed(), act).to.deep.equal([]);
  }
  const over = new Promise((resolve) => parent.once('exit', resolve));
  process.kill(daemonPid, end);
  await over;
}

function readState({ home }: Site, name: string): string {
  return readFileSync(join(home.stateDir, name), 'utf8');
}

/** Every file of the state folder, by name. */
function readStates(site: Site): Readonly<Record<string, string>> {
  const names = readdirSync(site.home.stateDir).sort();
  return Object.fromEntries(names.map((name) => [name, readState(site, name)]));
}
