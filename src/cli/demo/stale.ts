import net from 'node:net';
import { killChains, killTree } from '../../kill.js';
import { findListeners } from '../../port/listeners.js';
import { waitForPort } from '../../port/wait.js';
import { openProc } from '../../proc/read.js';
import { type ProcessRef, type ProcessStat, readFamily, readStat } from '../../proc/stat.js';
import { systemClock, until } from '../../time.js';
import { findProgram } from '../../tunnel/chain.js';
import { styled } from '../render.js';
import { formatMs } from '../units.js';
import { CUE_MS, type Play } from './scene.js';
import { type DemoTunnel, SSH_CONFIG, SSH_HOST } from './stage.js';

/** What a crashed run leaves in a tunnel's way: a real chain, or where there is no ssh one that is played. */
export interface StaleChain {
  /** What it is, for whoever reads along. */
  readonly story: string;
  readonly heldBy: string;
  /** Whose complaint that is. */
  readonly complainer: string;
  /** Takes the port; resolves when it listens there. */
  open(): Promise<void>;
  /** Shows, where it is played, what it does about a kill of one of its processes; resolves to those it has in the end. */
  resist(): Promise<readonly ProcessRef[]>;
  /** What everybody gets who starts the next one without freeing the port, in the words of a program that has tried. */
  complain(): Promise<string>;
}

export function createStaleChain(play: Play, tunnel: DemoTunnel): StaleChain {
  return tunnel.engine === 'embedded' ? playedChain(play, tunnel) : realChain(play, tunnel);
}

/** An autossh and its ssh, or an ssh alone. */
function realChain({ stage, actors, env, signal }: Play, { engine, port }: DemoTunnel): StaleChain {
  const ssh = findProgram('ssh', env) ?? 'ssh';
  const autossh = engine === 'autossh' ? findProgram('autossh', env) : undefined;
  const monitor = autossh === undefined ? [] : ['-M', '0'];
  const forward = `${port}:127.0.0.1:${stage.service.port}`;
  let root: ProcessRef | undefined;
  return {
    story:
      `put in its way what a crashed run leaves behind: ${autossh === undefined ? 'an ssh' : 'an autossh and its ssh'} ` +
      'that nobody supervises any more.',
    heldBy: `stale ${autossh === undefined ? 'ssh' : 'autossh → ssh'}`,
    complainer: 'plain ssh',
    async open() {
      const words = [...monitor, '-N', '-F', SSH_CONFIG, '-L', forward, SSH_HOST];
      root = actors.strand(autossh ?? ssh, words, { ssh, cwd: stage.dir });
      await waitForPort(port, { state: 'listening', signal });
    },
    resist: async () => (root ? readFamily(openProc(), root) : []),
    async complain() {
      const words = ['-N', '-F', SSH_CONFIG, '-o', 'ExitOnForwardFailure=yes', '-L', `127.0.0.1:${forward}`, SSH_HOST];
      const said = await actors.hear(ssh, words, { cwd: stage.dir, signal });
      return said.split('\n')[0]?.trim() ?? '';
    },
  };
}

/** The two processes of a chain that keeps itself alive. */
interface Pair {
  readonly keeper: ProcessStat;
  readonly worker: ProcessStat;
}

/** Two processes of node under the names of those that they stand in for. */
function playedChain(play: Play, { port }: DemoTunnel): StaleChain {
  const { tell, actors, signal } = play;
  return {
    story:
      'let two processes take its port, named autossh and ssh after those they stand in for. When the one that listens ' +
      'dies, the other starts it again; when that one dies, the first starts it again.',
    heldBy: 'played autossh → ssh',
    complainer: 'a plain listen',
    async open() {
      actors.play('keeper', port);
      await waitForPair(port, () => true, signal);
    },
    async resist() {
      tell.gap();
      tell.prose('To kill one of the two, as people do, is of no use:');
      const first = await waitForPair(port, () => true, signal);
      const second = await killOne(play, { port, pair: first, who: 'worker' });
      const { keeper, worker } = await killOne(play, { port, pair: second, who: 'keeper' });
      return [keeper, worker];
    },
    complain: () => complaintOfListening(port),
  };
}

/** Kills one of the two, as a person would, and waits until the other has replaced it. */
async function killOne(
  { tell, signal }: Play,
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

async function complaintOfListening(port: number): Promise<string> {
  const server = net.createServer();
  return new Promise((resolve) => {
    server.once('error', ({ message }) => resolve(message));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve('')));
  });
}
