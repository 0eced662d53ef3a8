import { isTunwardError } from '../../errors.js';
import { waitForPort } from '../../port/wait.js';
import type { ProcessRef } from '../../proc/stat.js';
import { systemClock, until } from '../../time.js';
import type { OperationResult } from '../../tunnel/runner.js';
import { type Client, createClient, type Verb } from '../client.js';
import { styled } from '../render.js';
import { renderOperation } from '../tunnel-view.js';
import { CUE_MS, connectClient, mistakes, type Outcome, type Play, promise, showClient, showHolder } from './scene.js';
import type { DemoTunnel, Stage } from './stage.js';
import { createStaleChain } from './stale.js';
import type { Act, Promised } from './table.js';
import { wrap } from './teller.js';
import { type Answer, openTraffic } from './traffic.js';

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

/**
 * Each tunnel is restarted, and one of them so that nobody notices; then two ports are blocked, by a stale chain and by a
 * stranger.
 */
export async function playTunnels(play: Play): Promise<Outcome> {
  const restarts = await restartEach(play);
  const seamless = await restartUnnoticed(play);
  const stale = await meetStaleChain(play);
  const stranger = await meetStranger(play);
  const takes = [...restarts, seamless, stale.take, stranger.take];
  return { acts: takes.map(({ act }) => act), promises: promisesOf(play, { takes, seamless, stale, stranger }) };
}

async function restartEach(play: Play): Promise<Take[]> {
  const { tell, stage } = play;
  const tunnels = stage.tunnels.filter(({ seamless }) => !seamless);
  const isEmbedded = tunnels.every(({ engine }) => engine === 'embedded');
  tell.chapter('Restart each tunnel, while requests run through all of them');
  tell.prose(
    'The usual script kills, sleeps two seconds, and hopes that the port is free by then. tunward ' +
      `${isEmbedded ? 'ends the old link, which is no process here,' : 'kills the whole chain in one go,'} binds the port ` +
      `itself to prove that it is free, and only then starts the next ${isEmbedded ? 'one' : 'ssh'}.`,
  );
  tell.command(`tunward restart ${tunnels.map(({ name }) => name).join(' ')}`);
  const takes: Take[] = [];
  for (const tunnel of tunnels) {
    const { chain } = stage.daemon.supervisor.status(tunnel.name);
    const heldBy = `own ${nameOf(tunnel)}`;
    const { take, result } = await perform(play, { tunnel, verb: 'restart', heldBy, expected: chain });
    tell.outcome(renderOperation('restart', result));
    takes.push(take);
  }
  return takes;
}

/** How many ask at the same time of the tunnel that is restarted unnoticed. */
const CLIENTS = 10;

async function restartUnnoticed(play: Play): Promise<Take> {
  const { tell, stage, actors, signal } = play;
  const tunnel = tunnelOf(stage, 'checkout');
  tell.chapter(`Restart ${tunnel.name}, and nobody notices`);
  tell.prose(
    `${tunnel.name} is seamless: tunward itself listens on its port, and makes the next link before it lets the old one ` +
      `go. ${CLIENTS} clients ask without a pause meanwhile.`,
  );
  tell.command(`tunward restart ${tunnel.name}`);
  const { chain } = stage.daemon.supervisor.status(tunnel.name);
  const names = Array.from({ length: CLIENTS }, (_none, at) => `client ${at + 1}`);
  await using crowd = openTraffic(new Map(names.map((name) => [name, tunnel.port])), stage.service.greeting);
  const isAtWork = () => names.every((name) => crowd.peek(name).length > 0);
  await until(isAtWork, { timeoutMs: CUE_MS, signal });
  const heldBy = `own ${nameOf(tunnel)}, seamless`;
  const { take, result } = await perform(play, { tunnel, verb: 'restart', heldBy, expected: [] });
  tell.outcome(renderOperation('restart', result));
  const isGone = () => chain.every((process) => !actors.isAlive(process));
  const survivors = (await until(isGone, { timeoutMs: CUE_MS, signal })) ? 0 : chain.length;
  const answers = [...crowd.take().values()].flat();
  const served = answers.filter(({ outcome }) => outcome === 'served').length;
  const lost = answers.length - served;
  const mark = lost === 0 ? styled('green', '✔ ') : styled('red', '✖ ');
  tell.answer([mark, `${served} requests of the ${CLIENTS} clients served, ${lost} refused or cut`]);
  const { act } = take;
  const whole = { served: act.served + served, lost: act.lost + lost };
  return { ...take, survivors, act: { ...act, ...whole, killed: chain, goneMs: null, freeMs: null } };
}

interface Encounter {
  readonly take: Take;
  readonly client: ProcessRef;
  readonly clientLived: boolean;
}

async function meetStaleChain(
  play: Play,
): Promise<Encounter & { readonly complainer: string; readonly complaint: string }> {
  const { tell, stage } = play;
  const tunnel = tunnelOf(stage, 'reports');
  const stale = createStaleChain(play, tunnel);
  tell.chapter(`A stale chain holds the port of ${tunnel.name}`);
  tell.prose(
    `We stop ${tunnel.name} and ${stale.story} A client is connected to the port, as your application would be.`,
  );
  await api(play).operate('stop', tunnel.name);
  await stale.open();
  const client = await connectClient(play, tunnel.port);
  await showHolder(play, tunnel.port);
  const chain = await stale.resist();
  const complaint = await stale.complain();
  tell.gap();
  tell.prose(`This is what ${stale.complainer} says now, and how a restart usually ends:`);
  tell.answer(styled('red', complaint));
  tell.command(`tunward start ${tunnel.name}`);
  const { heldBy } = stale;
  const { take, result } = await perform(play, { tunnel, verb: 'start', heldBy, expected: chain });
  tell.outcome(renderOperation('start', result));
  const clientLived = await showClient(play, { client, port: tunnel.port });
  tell.answer(styled('dim', `  lsof -ti :${tunnel.port} | xargs kill -9 would have killed it too`));
  return { take, client, clientLived, complainer: stale.complainer, complaint };
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
  tell.outcome(renderOperation('start', result));
  const clientLived = await showClient(play, { client, port: tunnel.port });
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

interface Played {
  readonly takes: readonly Take[];
  readonly seamless: Take;
  readonly stale: Awaited<ReturnType<typeof meetStaleChain>>;
  readonly stranger: Awaited<ReturnType<typeof meetStranger>>;
}

function promisesOf(play: Play, { takes, seamless, stale, stranger }: Played): Promised[] {
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
      inUse === 0 && IN_USE.test(stale.complaint),
      `No tunnel met "Address already in use" in ${takes.length} starts; ${stale.complainer} did`,
      `${inUse} lines of the tunnels' logs say "Address already in use"; ${stale.complainer} said: ${stale.complaint}`,
    ),
    promise(
      seamless.act.lost === 0,
      `${seamless.act.what} was restarted under ${CLIENTS} clients, and none was refused or cut`,
      `${seamless.act.lost} requests were refused or cut while ${seamless.act.what} was restarted`,
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

function nameOf({ engine }: DemoTunnel): string {
  return { ssh: 'ssh', autossh: 'autossh → ssh', embedded: 'link' }[engine];
}

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
