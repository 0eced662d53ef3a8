import { killChains, killTree } from '../../kill.js';
import { freePort } from '../../port/free.js';
import type { PortReport } from '../../port/inspect.js';
import { findListeners } from '../../port/listeners.js';
import { isPortFree, waitForPort } from '../../port/wait.js';
import { openProc } from '../../proc/read.js';
import { type ProcessRef, type ProcessStat, readStat } from '../../proc/stat.js';
import { systemClock, until } from '../../time.js';
import { renderFreed } from '../port-view.js';
import { styled } from '../render.js';
import { formatMs } from '../units.js';
import { CUE_MS, connectClient, mistakes, type Outcome, promise, type Scene, showClient, showHolder } from './scene.js';
import type { Act } from './table.js';

/** The two processes of a chain that keeps itself alive. */
interface Pair {
  readonly keeper: ProcessStat;
  readonly worker: ProcessStat;
}

/** A port that was freed, and what is checked of it. */
interface Freed {
  readonly act: Act;
  readonly report: PortReport;
  /** Killed, and should not have been; or the other way round. */
  readonly mistaken: readonly string[];
  readonly client: ProcessRef;
  readonly clientLived: boolean;
}

/** The acts without a tunnel: a chain that comes back, then a stranger; each found, explained, killed, proved. */
export async function playPorts(scene: Scene, [chainPort = 0, strangerPort = 0]: readonly number[]): Promise<Outcome> {
  const chain = await freeFromChain(scene, chainPort);
  const stranger = await freeFromStranger(scene, strangerPort);
  const stayedFree = await isPortFree(chainPort);
  const freed = [chain, stranger];
  const mistaken = freed.flatMap((one) => one.mistaken);
  const clients = freed.map(({ client }) => client.pid).join(' and ');
  const promises = [
    promise(
      freed.every(({ report }) => report.free) && stayedFree,
      'Both ports are free, proved by binding them; nothing came back',
      [...freed.map(({ report }) => report.explanation), stayedFree ? '' : 'the chain came back'].join('; '),
    ),
    promise(
      mistaken.length === 0,
      'What held a port was killed to the last process, and nobody else',
      mistaken.join('; '),
    ),
    promise(stranger.spared, 'A dry run said what would be killed, and touched nobody', 'A dry run killed somebody'),
    promise(
      freed.every(({ clientLived }) => clientLived),
      `The clients of both ports live (pids ${clients})`,
      `A client of a port (pids ${clients}) did not live through it`,
    ),
  ];
  return { acts: freed.map(({ act }) => act), promises };
}

/** Starts a chain that keeps itself alive; resolves when it holds the port. */
export async function openChain({ actors, signal }: Scene, port: number): Promise<Pair> {
  actors.play('keeper', port);
  return waitForPair(port, () => true, signal);
}

async function freeFromChain(scene: Scene, port: number): Promise<Freed> {
  const { tell, signal } = scene;
  tell.chapter(`A chain that keeps itself alive holds port ${port}`);
  tell.prose(
    'Two processes, named autossh and ssh after those they stand in for. When the one that listens dies, the other ' +
      'starts it again; when that one dies, the first starts it again. A client is connected, as your application is.',
  );
  const first = await openChain(scene, port);
  const client = await connectClient(scene, port);
  await showHolder(scene, port);
  tell.gap();
  tell.prose('To kill one of the two, as people do, is of no use:');
  const second = await killOne(scene, { port, pair: first, who: 'worker' });
  const third = await killOne(scene, { port, pair: second, who: 'keeper' });
  tell.command(`tunward free ${port}`);
  const report = await freePort(port, { signal });
  const { head, details } = renderFreed(report, { dryRun: false });
  tell.answer(head);
  tell.columns(...details);
  const clientLived = await showClient(scene, { client, port });
  tell.answer(styled('dim', `  lsof -ti :${port} | xargs kill -9 would have killed it too`));
  const act = actOf(report, port, 'autossh → ssh (played)');
  return { act, report, client, clientLived, mistaken: mistakes(act.killed, [third.keeper, third.worker]) };
}

/** Kills one of the two, as a person would, and waits until the other has replaced it. */
async function killOne(
  { tell, signal }: Scene,
  { port, pair, who }: { port: number; pair: Pair; who: keyof Pair },
): Promise<Pair> {
  const began = systemClock.now();
  if (who === 'worker') await killTree(pair.worker, { signal });
  // Without the worker below it, which has a session of its own.
  else await killChains([{ ref: pair.keeper, why: 'for show', below: 'session' }], { signal });
  const isAnother = ({ keeper, worker }: Pair) => (who === 'keeper' ? keeper : worker).pid !== pair[who].pid;
  const next = await waitForPair(port, isAnother, signal);
  const role = who === 'worker' ? 'which listens:   ' : 'which starts it: ';
  const again = `held again after ${formatMs(systemClock.now() - began)}`;
  tell.answer([`kill -9 ${pair[who].pid}, ${role}`, styled('red', again), `, by pid ${next.worker.pid}`]);
  return next;
}

async function waitForPair(port: number, isIt: (pair: Pair) => boolean, signal: AbortSignal): Promise<Pair> {
  const look = async () => {
    const pair = await findPair(port, signal);
    return pair && isIt(pair) ? pair : undefined;
  };
  const pair = await until(look, { timeoutMs: CUE_MS, signal });
  if (!pair) throw new Error(`The demo's chain does not hold port ${port}`);
  return pair;
}

async function findPair(port: number, signal: AbortSignal): Promise<Pair | undefined> {
  const proc = openProc();
  const [listener] = await findListeners(port, { host: '127.0.0.1', signal });
  const worker = readStat(proc, listener?.holders[0]?.pid ?? 0);
  const keeper = worker && readStat(proc, worker.ppid);
  return worker?.comm === 'ssh' && keeper?.comm === 'autossh' ? { keeper, worker } : undefined;
}

async function freeFromStranger(scene: Scene, port: number): Promise<Freed & { readonly spared: boolean }> {
  const { tell, actors, signal } = scene;
  tell.chapter(`A stranger holds port ${port}`);
  tell.prose('A program that is no tunnel: a development server that somebody forgot. Look first, then free the port.');
  const stranger = actors.play('stranger', port);
  await waitForPort(port, { state: 'listening', signal });
  const client = await connectClient(scene, port);
  tell.command(`tunward free ${port} --dry-run`);
  const plan = renderFreed(await freePort(port, { dryRun: true, signal }), { dryRun: true });
  tell.answer(plan.head);
  tell.columns(...plan.details);
  const spared = actors.isAlive(stranger);
  tell.command(`tunward free ${port}`);
  const report = await freePort(port, { signal });
  const { head, details } = renderFreed(report, { dryRun: false });
  tell.answer(head);
  tell.columns(...details);
  const clientLived = await showClient(scene, { client, port });
  const act = actOf(report, port, 'stranger (node)');
  return { act, report, client, clientLived, mistaken: mistakes(act.killed, [stranger]), spared };
}

function actOf({ kill, tookMs }: PortReport, port: number, heldBy: string): Act {
  return {
    what: String(port),
    heldBy,
    killed: kill?.killed ?? [],
    goneMs: kill?.tookMs ?? 0,
    freeMs: tookMs,
    upMs: null,
    served: null,
    lost: null,
  };
}
