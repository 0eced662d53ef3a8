// The cases of the catalogue that kill a chain of autossh and ssh: K1, K2, K3, K13, K16.
import { expect } from 'chai';
import { systemClock, until } from '#lib/time.js';
import { fault, spread } from '../../support/fault.js';
import { which } from '../../support/paths.js';
import { descendantsOf, type Ref, sendSignal, statOf } from '../../support/proc.js';
import { expectGone, expectStillGone, inParallel, killTunnel, type Rig, type TunnelChain, withChain } from './rig.js';

/** How many chains are started at once: a login is work for both cores. */
const WIDTH = 6;

export function chainCases(rig: Rig): void {
  const needs = ['ssh', 'sshd', 'autossh', 'perl'] as const;

  fault(
    { id: 'K1', title: 'kills a chain, and it is still gone a second later', times: 500, reduced: 18, needs },
    async (times) => {
      const took: number[] = [];
      await inParallel(times, WIDTH * 2, () =>
        withChain(rig, async (tunnel) => {
          took.push(await killAndCheck(tunnel, 2));
          await expectStillGone(tunnel);
        }),
      );
      return `${took.length}/${times}, 0 survivors, ${spread(took)}`;
    },
  );

  fault({ id: 'K2', title: 'kills a chain that is stopped', times: 200, needs }, async (times) => {
    const took: number[] = [];
    await inParallel(times, WIDTH, () =>
      withChain(rig, async (tunnel) => {
        const refs = tunnel.chain.refs();
        for (const ref of refs) sendSignal(ref, 'SIGSTOP');
        expect(await until(() => refs.every(isStopped), { timeoutMs: 5000 })).to.equal(true);
        took.push(await killAndCheck(tunnel, 2));
      }),
    );
    return `${took.length}/${times}, ${spread(took)}`;
  });

  fault({ id: 'K3', title: 'kills an autossh that waits for a stopped ssh', times: 100, needs }, async (times) => {
    const took: number[] = [];
    await inParallel(times, WIDTH, () =>
      withChain(rig, async (tunnel) => {
        const [autossh, ssh] = tunnel.chain.refs();
        if (!autossh || !ssh) throw new Error('The chain is not one of two');
        sendSignal(ssh, 'SIGSTOP');
        expect(await until(() => isStopped(ssh), { timeoutMs: 5000 })).to.equal(true);
        sendSignal(autossh, 'SIGTERM');
        took.push(await killAndCheck(tunnel, 2));
      }),
    );
    return `${took.length}/${times}, ${spread(took)}`;
  });

  fault({ id: 'K13', title: 'kills a ProxyCommand that ignores HUP and EOF', times: 100, needs }, async (times) => {
    const took: number[] = [];
    const command = `${which('perl')} -e '${relay(rig.sshd().port)}'`;
    await inParallel(times, WIDTH, () =>
      withChain(
        rig,
        async (tunnel) => {
          expect(descendantsOf(tunnel.chain.root.pid).map(({ comm }) => comm)).to.deep.equal(['ssh', 'perl']);
          took.push(await killAndCheck(tunnel, 3));
        },
        ['-o', `ProxyCommand=${command}`],
      ),
    );
    return `${took.length}/${times}, ${spread(took)}`;
  });

  const parallel = '20 kills of one chain and 20 of others, at once, end all of them';
  fault({ id: 'K16', title: parallel, times: 5, needs }, async (times) => {
    const took: number[] = [];
    for (let round = 0; round < times; round++) took.push(await killAllAtOnce(rig, 20));
    return `${times} rounds of 40, 0 errors, ${spread(took)}`;
  });
}

function isStopped({ pid }: Ref): boolean {
  return statOf(pid)?.state === 'T';
}

/** Kills it and looks at once. Answers how long the kill took. */
async function killAndCheck(tunnel: TunnelChain, atLeast: number): Promise<number> {
  const { killed, survivors, left, tookMs } = await killTunnel(tunnel);
  await expectGone(tunnel, 'at once');
  expect(survivors).to.deep.equal([]);
  expect(left).to.deep.equal([]);
  expect(killed.length, killed.map(({ command }) => command).join('; ')).to.be.at.least(atLeast);
  return tookMs;
}

/** Relays like nc, and stays when both ends are gone. ssh takes %% for a percent sign. */
function relay(port: number): string {
  return `use Socket; $SIG{HUP} = "IGNORE"; socket(my $s, PF_INET, SOCK_STREAM, 0);
    connect($s, sockaddr_in(${port}, INADDR_LOOPBACK)) or die; my %to = (fileno(STDIN), $s, fileno($s), *STDOUT);
    while (%to) { my $r = ""; vec($r, $_, 1) = 1 for keys %to; select($r, undef, undef, undef);
      for (grep { vec($r, $_, 1) } keys %to) { my $in = $_ ? $s : *STDIN;
        my $n = sysread($in, my $data, 65536); if ($n) { syswrite($to{$_}, $data) } else { delete $to{$_} } } }
    sleep 1 while 1`
    .replaceAll('\n', ' ')
    .replaceAll('%', '%%');
}

/** Opens `count` + 1 chains, kills the first `count` times and each other once, all at once. Answers how long all took. */
async function killAllAtOnce(rig: Rig, count: number): Promise<number> {
  let began = 0;
  let open = 0;
  const barrier = async (): Promise<void> => {
    open++;
    if (!(await until(() => open > count, { timeoutMs: 60_000 }))) throw new Error('Not all chains came up');
    began ||= systemClock.now();
  };
  await inParallel(count + 1, count + 1, (n) =>
    withChain(rig, async (tunnel) => {
      await barrier();
      const kills = Array.from({ length: n === 0 ? count : 1 }, () => killTunnel(tunnel));
      for (const { survivors } of await Promise.all(kills)) expect(survivors).to.deep.equal([]);
      await expectGone(tunnel, 'at once');
    }),
  );
  return systemClock.now() - began;
}
