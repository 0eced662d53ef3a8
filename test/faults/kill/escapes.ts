// The cases of the catalogue in which somebody has left the tree: K6 keeps its marker, K7 has lost that too.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect } from 'chai';
import { freePort } from '#lib/index.js';
import { killChains } from '#lib/kill.js';
import { until } from '#lib/time.js';
import { fault, spread } from '../../support/fault.js';
import { which } from '../../support/paths.js';
import { processesWithEnv } from '../../support/proc.js';
import { startScript } from '../../support/sockets.js';
import { expectGone, inParallel, isListening, type Rig, type Tunnel, withTunnel } from './rig.js';

export function escapeCases(rig: Rig): void {
  const needs = ['ssh', 'sshd', 'autossh', 'perl'] as const;

  const escapes = 'kills by its marker what has left its tree: a daemon, autossh -f, ssh -f';
  fault({ id: 'K6', title: escapes, times: 100, reduced: 4, needs }, async (times) => {
    const figures: string[] = [];
    for (const [name, start] of [
      ['daemon', startDaemon],
      ['autossh -f', (tunnel: Tunnel) => startInBackground(rig, tunnel, ['autossh', '-M', '0', '-f', '-N'])],
      ['ssh -f', (tunnel: Tunnel) => startInBackground(rig, tunnel, ['ssh', '-f', '-N', '-S', 'none'])],
    ] as const) {
      const took: number[] = [];
      await inParallel(times, 6, () =>
        withTunnel(rig, async (tunnel) => {
          await start(tunnel);
          await rig.crowd().connect(tunnel.port);
          const { survivors, killed, tookMs } = await killChains([], { marker: tunnel.marker });
          await expectGone(tunnel, 'at once');
          expect(survivors).to.deep.equal([]);
          expect(killed.length).to.be.greaterThan(0);
          took.push(tookMs);
        }),
      );
      figures.push(`${name} ${took.length}/${times}, ${spread(took)}`);
    }
    return figures.join('; ');
  });

  const master = 'frees a port that a ControlPersist master holds, whose environment and arguments are wiped';
  fault({ id: 'K7', title: master, times: 50, reduced: 4, needs }, async (times) => {
    const took: number[] = [];
    await inParallel(times, 4, () =>
      withTunnel(rig, async (tunnel) => {
        const path = join(rig.sshd().dir, `mux-${tunnel.port}`);
        const control = ['-o', 'ControlMaster=auto', '-o', 'ControlPersist=600', '-o', `ControlPath=${path}`];
        await startInBackground(rig, tunnel, ['ssh', ...control], ['true']);
        expect([...processesWithEnv(`TUNNEL_ID=${tunnel.env.TUNNEL_ID}`)], 'the marker is lost').to.deep.equal([]);
        await rig.crowd().connect(tunnel.port);
        const report = await freePort(tunnel.port, { host: '127.0.0.1' });
        expect(report, report.explanation).to.include({ free: true, verdict: 'free' });
        const [holder] = report.listeners.flatMap(({ holders }) => holders);
        expect(holder?.command, 'the title of a master').to.match(/^ssh: .* \[mux\]/);
        await expectGone(tunnel, 'at once');
        took.push(report.tookMs);
      }),
    );
    return `${took.length}/${times} found by inode, ${spread(took)}`;
  });
}

/** Forked twice, in a session of its own, listening; its starter is gone. */
async function startDaemon({ port, env, reaper }: Tunnel): Promise<void> {
  const script = `use Socket; use POSIX (); $| = 1; if (fork) { wait; print "ready\\n"; sleep 1 while !$done; }
    POSIX::setsid(); exit if fork; $SIG{$_} = 'IGNORE' for qw(HUP TERM INT);
    socket(my $s, PF_INET, SOCK_STREAM, 0); setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1);
    bind($s, sockaddr_in(${port}, INADDR_LOOPBACK)) or die; listen($s, 5); sleep 1 while 1`;
  const starter = await startScript({ ...reaper, env: { ...reaper.env, ...env } }, 'perl', ['-e', script]);
  starter.kill('SIGKILL');
  if (!(await until(() => isListening(port), { timeoutMs: 10_000 }))) throw new Error('The daemon does not listen');
}

/** Runs `ssh … -L … host`, waits until it has left for the background and listens. */
async function startInBackground(
  rig: Rig,
  { port, env, reaper }: Tunnel,
  [program = '', ...words]: readonly string[],
  command: readonly string[] = [],
): Promise<void> {
  const { sshConfigFile, port: target, host } = rig.sshd();
  const forward = ['-L', `127.0.0.1:${port}:127.0.0.1:${target}`];
  const argv = [...words, '-F', sshConfigFile, '-o', 'ExitOnForwardFailure=yes', ...forward, host, ...command];
  const child = spawn(which(program) ?? program, argv, {
    env: { ...process.env, ...reaper.env, ...env },
    stdio: 'ignore',
    detached: true,
  });
  reaper.own(child);
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`${program} ended with ${code}`);
  if (!(await until(() => isListening(port), { timeoutMs: 10_000 }))) throw new Error(`${program} does not listen`);
}
