/** S6 of the fault catalogue: a connection that a person shares among their sessions is theirs alone. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { expect } from 'chai';
import { until } from '#lib/time.js';
import type { TunnelSpec } from '#lib/tunnel/spec.js';
import type { Supervisor } from '#lib/tunnel/supervisor.js';
import { fetchText } from '../support/daemon.js';
import { fault, spread } from '../support/fault.js';
import { isListenedTo } from '../support/listening.js';
import { which } from '../support/paths.js';
import { freeLocalPort } from '../support/port.js';
import { isAlive, type Ref, statOf } from '../support/proc.js';
import { createReaper, type Reaper } from '../support/reaper.js';
import { startService } from '../support/servers.js';
import { startSshd } from '../support/sshd.js';
import { processesByTunnel, superviseHere, tunnelTo, writeConfig } from './tunnel/rig.js';

describe('fault: a person whose ssh_config shares connections', () => {
  const title = 'keeps their master and its session, while our own process holds the port';
  const needs = ['ssh', 'sshd', 'autossh'] as const;
  fault({ id: 'S6', title, times: 30, reduced: 4, needs }, async (times) => {
    await using reaper = createReaper();
    await using sshd = await startSshd();
    await using service = await startService();
    const socket = join(sshd.dir, 'master');
    const config = writeConfig(sshd, 'mux', ['ControlMaster auto', `ControlPath ${socket}`, 'ControlPersist yes']);
    const master = await startMaster(reaper, { config, socket });
    const session = startSession(reaper, config);
    expect(await session.echoes('at first')).to.equal(true);

    const common = { target: service.port, sshConfig: config };
    const specs = [
      tunnelTo(sshd, { name: 'ssh', engine: 'ssh', port: await freeLocalPort(), ...common }),
      tunnelTo(sshd, { name: 'autossh', engine: 'autossh', port: await freeLocalPort(), ...common }),
    ];
    await using supervisor = superviseHere(reaper);
    await supervisor.reconcile(specs);
    const took: number[] = [];
    for (let round = 0; round < times; round++) {
      const spec = specs[round % specs.length];
      if (spec) took.push(await restartBeside(master, supervisor, spec));
      expect(isAlive(master.pid, master.startTicks), 'the master lives').to.equal(true);
      expect(await session.echoes(`round ${round}`), 'its session lives').to.equal(true);
    }
    return `${took.length}/${times}, ${spread(took)}`;
  });
});

async function startMaster(reaper: Reaper, { config, socket }: { config: string; socket: string }): Promise<Ref> {
  const { pid = 0 } = startSsh(reaper, ['-F', config, '-o', 'ControlPersist=no', '-M', '-N', 'rig']);
  expect(await until(() => existsSync(socket), { timeoutMs: 20_000 }), 'there is a master').to.equal(true);
  return { pid, startTicks: statOf(pid)?.startTicks ?? 0 };
}

/** A session of the person's through their master, that says again what it is told. */
function startSession(reaper: Reaper, config: string) {
  const { stdin, stdout } = startSsh(reaper, ['-F', config, 'rig', 'cat']);
  let said = '';
  stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  return {
    async echoes(line: string): Promise<boolean> {
      stdin.write(`${line}\n`);
      return (await until(() => said.includes(`${line}\n`), { timeoutMs: 20_000 })) === true;
    },
  };
}

function startSsh(reaper: Reaper, words: readonly string[]): ChildProcess & { stdin: Writable; stdout: Readable } {
  const env = { ...process.env, ...reaper.env };
  const child = spawn(which('ssh') ?? 'ssh', [...words], { env, stdio: ['pipe', 'pipe', 'ignore'] });
  reaper.own(child);
  return child;
}

/** Answers how long the restart took. */
async function restartBeside(master: Ref, supervisor: Supervisor, { id, forward }: TunnelSpec): Promise<number> {
  const { state, tookMs, tunnel } = await supervisor.restart(id);
  expect(state).to.equal('up');
  const ours = (processesByTunnel().get(id) ?? []).map(({ pid }) => pid);
  for (const { host, port } of tunnel.listen) {
    expect(isListenedTo(host, port, ours), `ours listens on ${host}`).to.equal(true);
    expect(isListenedTo(host, port, [master.pid]), `the master listens on ${host}`).to.equal(false);
  }
  expect(await fetchText(forward.listen.port)).to.equal('served');
  return tookMs;
}
