import type { JournalEntry } from '../../daemon/events.js';
import { isTunwardError } from '../../errors.js';
import { waitForPort } from '../../port/wait.js';
import { openProc } from '../../proc/read.js';
import { type ProcessRef, readFamily } from '../../proc/stat.js';
import { systemClock, until } from '../../time.js';
import { findProgram } from '../../tunnel/chain.js';
import type { OperationResult } from '../../tunnel/runner.js';
import { type Client, createClient, type Verb } from '../client.js';
import { styled } from '../render.js';
import { renderOperation } from '../tunnel-view.js';
import { connectClient, mistakes, type Outcome, promise, type Scene, showClient, showHolder } from './scene.js';
import { type DemoTunnel, SSH_CONFIG, SSH_HOST, type Stage } from './stage.js';
import type { Act } from './table.js';
import { wrap } from './teller.js';
import type { Answer } from './traffic.js';

/** What the acts with tunnels play with. */
export interface Play extends Scene {
  readonly env: NodeJS.ProcessEnv;
  readonly stage: Stage;
  /** Everything the daemon has said so far. */
  readonly journal: readonly JournalEntry[];
}

/** One act and what is checked of it. */
interface Take {
  readonly act: Act;
  /** Killed, and should not have been; or the other way round. */
  readonly mistaken: readonly string[];
  readonly survivors: number;
  /** Requests through the other tunnels that were not served, and through this one after it was said to be up. */
  readonly neighboursLost: number;
  readonly servedAfterUp: number;
  readonly lostAfterUp: number;
}

/** The acts with real tunnels: each is restarted; then two ports are blocked, by a stale chain and by a stranger. */
export async function playTunnels(play: Play): Promise<Outcome> {
  const restarts = await restartEach(play);
  const stale = await meetStaleChain(play);
  const stranger = await meetStranger(play);
  const takes = [...restarts, stale.take, stranger.take];
  return { acts: takes.map(({ act }) => act), promises: promisesOf(play, takes, stale, stranger) };
}

async function restartEach(play: Play): Promise<Take[]> {
  const { tell, stage } = play;
  tell.chapter('Restart each tunnel, while requests run through all three');
  tell.prose(
    'The usual script kills, sleeps two seconds, and hopes that the port is free by then. tunward kills the whole ' +
      'chain in one go, binds the port itself to prove that it is free, and only then starts the next ssh.',
  );
  tell.command(`tunward restart ${stage.tunnels.map(({ name }) => name).join(' ')}`);
  const takes: Take[] = [];
  for (const tunnel of stage.tunnels) {
    const { chain } = stage.daemon.supervisor.status(tunnel.name);
    const heldBy = `own ${tunnel.engine === 'autossh' ? 'autossh → ssh' : 'ssh'}`;
    const { take, result } = await perform(play, { tunnel, verb: 'restart', heldBy, expected: chain });
    tell.answer(renderOperation('restart', result));
    takes.push(take);
  }
  return takes;
}

interface Encounter {
  readonly take: Take;
  readonly client: ProcessRef;
  readonly clientLived: boolean;
}

async function meetStaleChain(play: Play): Promise<Encounter & { readonly plainSsh: string }> {
  const { tell, stage, signal } = play;
  const tunnel = tunnelOf(stage, 'reports');
  tell.chapter(`A stale chain holds the port of ${tunnel.name}`);
  tell.prose(
    `We stop ${tunnel.name} and put in its way what a crashed run leaves behind: ` +
      `${tunnel.engine === 'autossh' ? 'an autossh and its ssh' : 'an ssh'} that nobody supervises any more. ` +
      'A client is connected to the port, as your application would be.',
  );
  await api(play).operate('stop', tunnel.name);
  const root = strandChain(play, tunnel);
  await waitForPort(tunnel.port, { state: 'listening', signal });
  const client = await connectClient(play, tunnel.port);
  const chain = readFamily(openProc(), root);
  await showHolder(play, tunnel.port);
  const plainSsh = await tryPlainSsh(play, tunnel);
  tell.gap();
  tell.prose('This is what an ssh says that is started now, and how a restart usually ends:');
  tell.answer(styled('red', plainSsh));
  tell.command(`tunward start ${tunnel.name}`);
  const heldBy = `stale ${tunnel.engine === 'autossh' ? 'autossh → ssh' : 'ssh'}`;
  const { take, result } = await perform(play, { tunnel, verb: 'start', heldBy, expected: chain });
  tell.answer(renderOperation('start', result));
  const clientLived = await showClient(play, { client, port: tunnel.port, tunnel: tunnel.name });
  tell.answer(styled('dim', `  lsof -ti :${tunnel.port} | xargs kill -9 would have killed it too`));
  return { take, client, clientLived, plainSsh };
}

function strandChain({ stage, actors, env }: Play, tunnel: DemoTunnel): ProcessRef {
  const ssh = findProgram('ssh', env) ?? 'ssh';
  const program = tunnel.engine === 'autossh' ? findProgram('autossh', env) : undefined;
  const monitor = program === undefined ? [] : ['-M', '0'];
  const words = [...monitor, '-N', '-F', SSH_CONFIG, '-L', `${tunnel.port}:127.0.0.1:${stage.service.port}`, SSH_HOST];
  return actors.strand(program ?? ssh, words, { ssh, cwd: stage.dir });
}

/** What everybody gets who starts the next ssh without freeing the port: its own words, from a real one. */
async function tryPlainSsh({ stage, actors, env, signal }: Play, { port }: DemoTunnel): Promise<string> {
  const forward = `127.0.0.1:${port}:127.0.0.1:${stage.service.port}`;
  const words = ['-N', '-F', SSH_CONFIG, '-o', 'ExitOnForwardFailure=yes', '-L', forward, SSH_HOST];
  const said = await actors.hear(findProgram('ssh', env) ?? 'ssh', words, { cwd: stage.dir, signal });
  return said.split('\n')[0]?.trim() ?? '';
}

async function meetStranger(play: Play): Promise<Encounter & { readonly refused: boolean; readonly spared: boolean }> {
  const { tell, stage, actors, signal } = play;
  const tunnel = tunnelOf(stage, 'orders');
  tell.chapter(`A stranger holds the port of ${tunnel.name}`);
  tell.prose(
    `We stop ${tunnel.name} and let a program that is no tunnel take its port, as a forgotten development server ` +
      'does. Again a client is connected.',
  );
  await api(play).operate('stop', tunnel.name);
  const stranger = actors.play('stranger', tunnel.port);
  await waitForPort(tunnel.port, { state: 'listening', signal });
  const client = await connectClient(play, tunnel.port);
  await showHolder(play, tunnel.port);
  tell.command(`tunward start ${tunnel.name}`);
  const refusal = await findRefusal(play, tunnel);
  const spared = actors.isAlive(stranger);
  tell.answer(
    ...wrap(refusal ?? 'it was not refused', 72).map((line, at) => [styled('red', at === 0 ? '✖ ' : '  '), line]),
  );
  tell.gap();
  tell.prose('Nobody was touched: a stale tunnel is taken over, a stranger goes only when you say so.');
  tell.command(`tunward start ${tunnel.name} --force`);
  const options = { tunnel, verb: 'start' as const, force: true, heldBy: 'stranger (node)', expected: [stranger] };
  const { take, result } = await perform(play, options);
  tell.answer(renderOperation('start', result));
  const clientLived = await showClient(play, { client, port: tunnel.port, tunnel: tunnel.name });
  return { take, client, clientLived, refused: refusal !== undefined, spared };
}

async function findRefusal(play: Play, { name }: DemoTunnel): Promise<string | undefined> {
  try {
    await api(play).operate('start', name);
    return undefined;
  } catch (error) {
    if (!isTunwardError(error, 'ERR_PORT_HELD')) throw error;
    return error.message;
  }
}

interface Request {
  readonly tunnel: DemoTunnel;
  readonly verb: Verb;
  readonly force?: boolean;
  readonly heldBy: string;
  /** Who has to die of it, and nobody else. */
  readonly expected: readonly ProcessRef[];
}

/** Asks the daemon, through its API, and counts what happened to the requests meanwhile. */
async function perform(play: Play, request: Request): Promise<{ take: Take; result: OperationResult }> {
  const { tunnel, verb, force = false, heldBy, expected } = request;
  const { traffic } = play.stage;
  traffic.take();
  const result = await api(play).operate(verb, tunnel.name, { force });
  const upAt = systemClock.now();
  const servedAgain = () => traffic.peek(tunnel.name).filter(isServedSince(upAt)).length >= 3;
  await until(servedAgain, { timeoutMs: 3000, signal: play.signal });
  const answers = traffic.take();
  const own = answers.get(tunnel.name) ?? [];
  const others = [...answers].flatMap(([name, list]) => (name === tunnel.name ? [] : list));
  const { phases, kill, tookMs } = result;
  const act: Act = {
    what: tunnel.name,
    heldBy,
    killed: kill.killed,
    goneMs: phases.stopMs,
    freeMs: tunnel.side === 'local' ? phases.stopMs + phases.freeMs : null,
    upMs: tookMs,
    served: [...own, ...others].filter(({ outcome }) => outcome === 'served').length,
    lost: own.filter(({ outcome, at }) => outcome !== 'served' && at < upAt).length,
  };
  const take: Take = {
    act,
    mistaken: mistakes(kill.killed, expected),
    survivors: kill.survivors.length,
    neighboursLost: others.filter(({ outcome }) => outcome !== 'served').length,
    servedAfterUp: own.filter(isServedSince(upAt)).length,
    lostAfterUp: own.filter(({ outcome, at }) => outcome !== 'served' && at >= upAt).length,
  };
  return { take, result };
}

function isServedSince(since: number): (answer: Answer) => boolean {
  return ({ at, outcome }) => outcome === 'served' && at >= since;
}

type StaleEncounter = Awaited<ReturnType<typeof meetStaleChain>>;
type StrangerEncounter = Awaited<ReturnType<typeof meetStranger>>;

function promisesOf(play: Play, takes: readonly Take[], stale: StaleEncounter, stranger: StrangerEncounter) {
  const { traffic } = play.stage;
  const inUse = play.journal.filter((entry) => entry.type === 'tunnel.output' && IN_USE.test(entry.line)).length;
  const mistaken = takes.flatMap((take) => take.mistaken);
  const survivors = sum(takes, ({ survivors }) => survivors);
  const neighboursLost = sum(takes, (take) => take.neighboursLost);
  const lostAfterUp = sum(takes, (take) => take.lostAfterUp);
  const deaf = takes.filter(({ servedAfterUp }) => servedAfterUp === 0).map(({ act }) => act.what);
  const clients = [stale, stranger].map(({ client }) => client.pid).join(' and ');
  return [
    promise(
      inUse === 0 && IN_USE.test(stale.plainSsh),
      `No tunnel met "Address already in use" in ${takes.length} starts; plain ssh did`,
      `${inUse} lines of the tunnels' logs say "Address already in use"; plain ssh said: ${stale.plainSsh}`,
    ),
    promise(
      mistaken.length === 0 && survivors === 0,
      'What held a port was killed to the last process, and nobody else',
      `Of what held a port ${survivors} survived; ${mistaken.join('; ')}`,
    ),
    promise(
      stranger.refused && stranger.spared,
      'A stranger was refused and left alone until --force',
      `The stranger was ${stranger.refused ? 'refused' : 'not refused'}, and ${stranger.spared ? 'spared' : 'killed'}, without --force`,
    ),
    promise(
      stale.clientLived && stranger.clientLived,
      `The clients of both blocked ports live (pids ${clients})`,
      `A client of a blocked port (pids ${clients}) did not live through it, or did not come back`,
    ),
    promise(
      neighboursLost + lostAfterUp === 0 && deaf.length === 0,
      `${traffic.total('served')} requests served; none lost by a tunnel that was up`,
      `${neighboursLost + lostAfterUp} requests lost by tunnels that were up; not served again: ${deaf.join(', ') || 'none'}`,
    ),
  ];
}

/** glibc says "Address already in use", musl "Address in use". */
const IN_USE = /address (already )?in use|cannot listen to port/i;

function sum(takes: readonly Take[], of: (take: Take) => number): number {
  return takes.reduce((total, take) => total + of(take), 0);
}

function api({ stage, signal }: Play): Client {
  return createClient({ socket: stage.daemon.address.socket }, { signal });
}

function tunnelOf({ tunnels }: Stage, name: DemoTunnel['name']): DemoTunnel {
  const found = tunnels.find((tunnel) => tunnel.name === name);
  if (!found) throw new Error(`The demo has no tunnel ${name}`);
  return found;
}
