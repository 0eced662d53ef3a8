// The judge of S1: is what a status says of a tunnel so? By the tests' own reading of /proc, and by asking through it.

import { systemClock } from '#lib/time.js';
import type { TunnelStatus } from '#lib/tunnel/runner.js';
import type { Supervisor } from '#lib/tunnel/supervisor.js';
import { fetchText } from '../../support/daemon.js';
import { isListenedTo } from '../../support/listening.js';
import { descendantsOf, type Stat } from '../../support/proc.js';
import { processesByTunnel } from './rig.js';

export interface Oracle {
  /** Each untrue "up", in words. */
  readonly lies: readonly string[];
  [Symbol.asyncDispose](): Promise<void>;
}

/** How often a tunnel was looked at, how often it was said to be up then, and how often it was asked through. */
export interface Counts {
  samples: number;
  ups: number;
  fetches: number;
}

export interface OracleOptions {
  /** Of one tunnel. */
  readonly supervisor: Supervisor;
  /** The process at whose side remote forwards listen. */
  readonly serverPid: number;
  /** Does somebody answer behind it? */
  readonly answers: boolean;
  readonly counts: Counts;
}

/** A chain that is stopped by a signal is looked at once in a second; on a busy machine the look comes late. */
const FROZEN_MS = 2000;

/**
 * Looks at a tunnel every 15 ms. A status and the reading of /proc that judges it are of one turn of the event loop, in
 * which the supervisor does nothing: what is said then must be so then.
 */
export function watchTruth({ supervisor, serverPid, answers, counts }: OracleOptions): Oracle {
  const lies: string[] = [];
  const ended = new AbortController();
  let frozenLife = '';
  let frozenAt = 0;
  const work = [look(), ...(answers ? [ask()] : [])];
  return {
    lies,
    [Symbol.asyncDispose]: async () => {
      ended.abort();
      await Promise.all(work);
    },
  };

  async function look(): Promise<void> {
    while (!ended.signal.aborted) {
      for (const status of supervisor.list()) {
        counts.samples++;
        if (status.state !== 'up') continue;
        counts.ups++;
        const lie = judge(status);
        if (lie !== undefined) lies.push(`${status.name} is "up", and ${lie}`);
      }
      await systemClock.sleep(15);
    }
  }

  function judge(status: TunnelStatus): string | undefined {
    const chain = processesByTunnel().get(status.id) ?? [];
    if (chain.length === 0) return 'has no process';
    const frozenMs = timeFrozen(status, chain);
    if (frozenMs > FROZEN_MS) return `has been stopped for ${frozenMs.toFixed()} ms`;
    for (const { side, host, port } of status.listen) {
      const pids = (side === 'local' ? chain : descendantsOf(serverPid)).map(({ pid }) => pid);
      if (!isListenedTo(host, port, pids)) return `nobody of ours listens on ${host} port ${port}`;
    }
    return undefined;
  }

  /** For how long it has been said to be up while its chain was stopped. */
  function timeFrozen({ since }: TunnelStatus, chain: readonly Stat[]): number {
    const life = chain.some(({ state }) => state === 'T') ? since : '';
    if (life !== frozenLife) frozenAt = systemClock.now();
    frozenLife = life;
    return life === '' ? 0 : systemClock.now() - frozenAt;
  }

  /** No answer within 5 s is a lie where it was up and well all the time. */
  async function ask(): Promise<void> {
    while (!ended.signal.aborted) {
      const [before] = supervisor.list();
      if (before?.state === 'up') {
        counts.fetches++;
        const text = await fetchText(before.listen[0]?.port ?? 0);
        const [now] = supervisor.list();
        const isSame = now?.state === 'up' && now.since === before.since && now.health !== 'degraded';
        if (text !== 'served' && isSame) lies.push(`${now.name} is "up", and nothing comes through`);
      }
      await systemClock.sleep(20);
    }
  }
}
