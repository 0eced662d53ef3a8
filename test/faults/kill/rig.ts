import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { isPortFree } from '#lib/index.js';
import { type KillReport, killChains } from '#lib/kill.js';
import type { Marker } from '#lib/proc/marker.js';
import { readListeners } from '#lib/proc/net.js';
import { openProc } from '#lib/proc/read.js';
import { systemClock } from '#lib/time.js';
import { type Chain, startChain } from '../../support/chains.js';
import { freeLocalPort } from '../../support/port.js';
import { processesWithEnv } from '../../support/proc.js';
import { createReaper, type Reaper } from '../../support/reaper.js';
import { type Sshd, startSshd } from '../../support/sshd.js';
import { type Crowd, startCrowd } from './crowd.js';

/** What the cases of one group share: a server, and a crowd of look-alikes that must outlive them all. */
export interface Rig {
  readonly sshd: () => Sshd;
  readonly crowd: () => Crowd;
  /** A port of its own for as long as `act` takes; the crowd listens on the same one in another network. */
  withPort<T>(act: (port: number) => Promise<T>): Promise<T>;
  open(): Promise<void>;
  close(): Promise<void>;
}

export function createRig(): Rig {
  const reaper = createReaper();
  let sshd: Sshd | undefined;
  let crowd: Crowd | undefined;
  const ports: number[] = [];
  const withPort: Rig['withPort'] = async (act) => {
    const port = ports.shift();
    if (port === undefined) throw new Error('More ports at once than there are');
    try {
      return await act(port);
    } finally {
      ports.push(port);
    }
  };
  return {
    withPort,
    sshd: () => opened(sshd),
    crowd: () => opened(crowd),
    open: async () => {
      sshd = await startSshd();
      while (ports.length < PORTS) {
        const port = await freeLocalPort();
        if (!ports.includes(port)) ports.push(port);
      }
      crowd = await startCrowd(reaper, { host: sshd.host, ports });
    },
    close: async () => {
      await reaper.end();
      await sshd?.stop();
    },
  };
}

/** Those that are tried, and those that rest for the second until they are looked at again. */
const PORTS = 60;

function opened<T>(thing: T | undefined): T {
  if (!thing) throw new Error('The rig is not open');
  return thing;
}

/** One tunnel: its port, its marker, and who ends what is left of it when a case fails. */
export interface Tunnel {
  readonly port: number;
  readonly env: Readonly<Record<string, string>>;
  readonly marker: Marker;
  readonly reaper: Reaper;
}

export interface TunnelChain extends Tunnel {
  readonly chain: Chain;
}

/** A tunnel that is not yet up, for `act`, which starts it and ends it. Nothing of it is left afterwards. */
export function withTunnel(rig: Rig, act: (tunnel: Tunnel) => Promise<void>): Promise<void> {
  return rig.withPort(async (port) => {
    await using reaper = createReaper();
    // No other test knows this id, so whoever carries it is of this tunnel.
    const env = { TUNNEL_ID: randomBytes(6).toString('hex'), TUNWARD_INSTANCE: 'faults' };
    await act({ port, env, marker: Object.entries(env).map(([name, value]) => `${name}=${value}`), reaper });
  });
}

/** The same with autossh → ssh -L up, and a client of the crowd connected to it. `words` go to ssh beside the forward. */
export function withChain(
  rig: Rig,
  act: (tunnel: TunnelChain) => Promise<void>,
  words: readonly string[] = [],
): Promise<void> {
  return withTunnel(rig, async (tunnel) => {
    const { port, env, reaper } = tunnel;
    const sshd = rig.sshd();
    const forward = ['-S', 'none', '-L', `127.0.0.1:${port}:127.0.0.1:${sshd.port}`];
    const chain = await startChain(reaper, sshd, {
      words: [...words, ...forward],
      env,
      ready: () => isListening(port),
    });
    await rig.crowd().connect(port);
    await act({ ...tunnel, chain });
  });
}

export function isListening(port: number): boolean {
  return readListeners(openProc(), port).length > 0;
}

/** As a tunnel is stopped: its root with all below it, and whoever carries its marker. */
export function killTunnel({ chain, marker }: TunnelChain): Promise<KillReport> {
  return killChains([{ ref: chain.root, why: 'tunnel', below: 'all' }], { marker });
}

/** Nobody survived, nobody carries the marker, and the port can be bound. */
export async function expectGone({ port, env, reaper }: Tunnel, when: string): Promise<void> {
  const carriers = [...processesWithEnv(`TUNNEL_ID=${env.TUNNEL_ID}`)];
  expect(carriers, `carriers of the marker ${when}`).to.deep.equal([]);
  expect(reaper.living(), `survivors ${when}`).to.deep.equal([]);
  expect(await isPortFree(port, { host: '127.0.0.1' }), `port ${port} is free ${when}`).to.equal(true);
}

/** The check that a probe right after the kill cannot replace: an orphaned ssh takes the port a third of a second later. */
export async function expectStillGone(tunnel: Tunnel): Promise<void> {
  await systemClock.sleep(1000);
  await expectGone(tunnel, 'one second later');
}

/** Does it `times` times, `width` at once; the first failure is thrown when all that was under way has ended. */
export async function inParallel(times: number, width: number, act: (n: number) => Promise<void>): Promise<void> {
  let next = 0;
  const failures: unknown[] = [];
  const work = async (): Promise<void> => {
    while (next < times && failures.length === 0) await act(next++).catch((error) => failures.push(error));
  };
  await Promise.all(Array.from({ length: width }, work));
  if (failures.length > 0) throw failures[0];
}
