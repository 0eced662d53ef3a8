import type { JournalEntry } from '../../daemon/events.js';
import { inspectPort } from '../../port/inspect.js';
import type { ProcessRef } from '../../proc/stat.js';
import { until } from '../../time.js';
import { readChain } from '../chain-view.js';
import { renderHeld } from '../port-view.js';
import { styled } from '../render.js';
import type { Actors } from './actors.js';
import type { Stage } from './stage.js';
import { type Act, namesOf, type Promised } from './table.js';
import type { Teller } from './teller.js';

/** What every act plays with. */
export interface Scene {
  readonly tell: Teller;
  readonly signal: AbortSignal;
  readonly actors: Actors;
}

/** What the acts with tunnels play with. */
export interface Play extends Scene {
  readonly env: NodeJS.ProcessEnv;
  readonly stage: Stage;
  /** Everything the daemon has said so far. */
  readonly journal: readonly JournalEntry[];
}

/** What the acts came to. */
export interface Outcome {
  readonly acts: readonly Act[];
  readonly promises: readonly Promised[];
}

/** How long an actor may take to be where it should be, on a busy machine. */
export const CUE_MS = 5000;

/** Who holds the port and who is connected to it, as `tunward who` shows it. */
export async function showHolder({ tell, signal }: Scene, port: number): Promise<void> {
  tell.command(`tunward who 127.0.0.1:${port}`);
  const report = await inspectPort(port, { host: '127.0.0.1', signal });
  // The requests that this very process sends are left out: they come and go.
  const clients = report.clients.filter(({ pid }) => pid !== process.pid);
  const { processes, unlisted } = await readChain(report, signal);
  // What is above it here is the demo itself, and whoever started that.
  const chain = { processes: processes.filter(({ role, startsAgain }) => role !== 'above' || startsAgain), unlisted };
  const [, ...lines] = renderHeld({ ...report, clients }, chain);
  tell.columns(...lines);
}

/** A process of its own that is connected to the port, and stays so: `lsof -ti :port | xargs kill -9` kills it as well. */
export async function connectClient({ actors, signal }: Scene, port: number): Promise<ProcessRef> {
  const client = actors.play('client', port);
  await isConnected(port, client, signal);
  return client;
}

/** Did the client live, and is it back through the tunnel? */
export async function showClient(
  { tell, actors, signal }: Scene,
  { client, port }: { client: ProcessRef; port: number },
): Promise<boolean> {
  const lived = (await isConnected(port, client, signal)) && actors.isAlive(client);
  const whom = `the client (pid ${client.pid})`;
  if (lived) tell.answer([styled('green', '✔ '), `${whom} is alive, and connected again`]);
  else tell.answer([styled('red', '✖ '), `${whom} did not live through it`]);
  return lived;
}

async function isConnected(port: number, client: ProcessRef, signal: AbortSignal): Promise<boolean> {
  const look = async () => {
    const { clients } = await inspectPort(port, { host: '127.0.0.1', signal });
    return clients.some(({ pid, state }) => pid === client.pid && state === 'ESTABLISHED');
  };
  return (await until(look, { timeoutMs: CUE_MS, everyMs: 20, signal })) === true;
}

/** Who was killed and should not have been, and the other way round. */
export function mistakes(killed: Act['killed'], expected: readonly ProcessRef[]): string[] {
  const dead = new Set(killed.map(({ pid }) => pid));
  const meant = new Set(expected.map(({ pid }) => pid));
  return [
    ...killed.filter(({ pid }) => !meant.has(pid)).map((process) => `${namesOf([process])} was killed`),
    ...expected.filter(({ pid }) => !dead.has(pid)).map(({ pid }) => `pid ${pid} was not killed`),
  ];
}

export function promise(kept: boolean, text: string, otherwise: string): Promised {
  return { kept, text: kept ? text : otherwise };
}
