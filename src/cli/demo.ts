import path from 'node:path';
import type { JournalEntry } from '../daemon/events.js';
import { isTunwardError } from '../errors.js';
import { openActors } from './demo/actors.js';
import { playTunnels } from './demo/acts.js';
import type { Outcome, Scene } from './demo/scene.js';
import { chooseEngines, openStage, type Stage } from './demo/stage.js';
import { renderActs, renderLegend, renderPromises } from './demo/table.js';
import { createTeller } from './demo/teller.js';
import { createScreen, type Line, layTable, type Screen, styled } from './render.js';
import { createStory } from './story.js';
import { formatMs } from './units.js';

export interface DemoOptions {
  /** End after the table. Otherwise it stays up, to be played with, until the signal. */
  readonly once: boolean;
  readonly env: NodeJS.ProcessEnv;
  readonly signal: AbortSignal;
  readonly screen?: Screen;
}

/**
 * The main job, on this machine alone and on nothing that was there before: real tunnels are restarted and their ports
 * blocked, and every step is shown. Without ssh they are embedded ones. Whatever it started is gone when it ends, however it
 * ends.
 *
 * @returns the exit code: 0 when every promise held, 1 when one did not (it is named)
 * @throws Error when it cannot go on; the signal's reason, when that aborts before the table
 */
export async function runDemo(options: DemoOptions): Promise<number> {
  const { env, signal, screen = createScreen() } = options;
  const tell = createTeller(screen);
  await using actors = openActors(env);
  tell.title('tunward demo');
  try {
    // Awaited here: the actors end when this function does.
    return await show({ tell, signal, actors }, { ...options, screen });
  } catch (error) {
    // Whatever a part of the demo failed of, the demo's own exit code says only that it did.
    if (!isTunwardError(error)) throw error;
    throw new Error(`The demo could not go on: ${error.message}`, { cause: error });
  }
}

async function show(scene: Scene, { once, env, screen }: DemoOptions & { readonly screen: Screen }): Promise<number> {
  const { tell, signal } = scene;
  const journal: JournalEntry[] = [];
  let onEvent = (entry: JournalEntry): void => void journal.push(entry);
  tell.prose(
    'A restarted SSH tunnel dies with "Address already in use" when something still holds its port. tunward finds ' +
      'who holds it, kills that whole chain and no one else, proves the port free by binding it, and only then starts.',
  );
  tell.gap();
  tell.prose(describeEngines(env));
  tell.prose('Opening an SSH server, a web service and a tunward daemon with four tunnels, on this machine alone ...');
  await using stage = await openStage({ env, signal, onEvent: (entry) => onEvent(entry) });
  tell.gap();
  tell.lines(...describeStage(stage));
  const outcome = await playTunnels({ ...scene, env, stage, journal });
  const code = conclude(scene, screen, outcome);
  if (once) return code;
  const story = createStory((line) => tell.lines(line));
  onEvent = story;
  stage.traffic.pace(200);
  invite(scene, `The daemon stays up: its API is at ${stage.daemon.address.socket}`, [
    `ls --socket ${stage.daemon.address.socket}`,
    `restart reports --socket ${stage.daemon.address.socket}`,
    `who ${stage.tunnels[1]?.port}`,
  ]);
  await Promise.race([aborted(signal), stage.daemon.closed]);
  onEvent = () => undefined;
  tell.gap();
  tell.prose(`${stage.traffic.total('served')} requests served. Everything is taken down again.`);
  return code;
}

/** Which engine, and why. */
function describeEngines(env: NodeJS.ProcessEnv): string {
  const { engine, chained } = chooseEngines(env);
  if (engine === 'embedded')
    return 'There is no ssh on PATH: the engine is embedded, an SSH client inside this process.';
  if (chained === 'ssh') return 'The engine is ssh, which is on PATH; autossh is not.';
  return 'The engine is ssh, with an autossh above it for one of the tunnels: both are on PATH.';
}

function describeStage({ tunnels, upMs }: Stage): Line[] {
  const rows = tunnels.map(({ name, engine, side, port, seamless }) => [
    styled('bold', name),
    side === 'local' ? `localhost:${port}` : `SSH server:${port}`,
    `${engine === 'autossh' ? 'autossh → ssh' : engine}${seamless ? ', seamless' : ''}`,
    styled('dim', side === 'local' ? '-L: port here, service there' : '-R: port there, service here'),
  ]);
  return [
    ...layTable(['', '', '', ''], rows).slice(1),
    '',
    [styled('green', '✔ '), `all four are up after ${formatMs(upMs)}, and requests go through them from now on`],
  ];
}

/** The table and the promises. Answers the exit code. */
function conclude({ tell }: Scene, screen: Screen, { acts, promises }: Outcome): number {
  tell.chapter('What happened');
  tell.gap();
  tell.lines(...renderActs(acts));
  tell.gap();
  tell.lines(...renderLegend(), '', ...renderPromises(promises));
  if (screen.json) screen.data({ acts, promises });
  return promises.every(({ kept }) => kept) ? 0 : 1;
}

/** What to try in another terminal. */
function invite({ tell }: Scene, what: string, commands: readonly string[]): void {
  tell.chapter('Now you');
  tell.prose(`${what}. Try, in another terminal:`);
  tell.gap();
  for (const command of commands) tell.answer([styled('dim', '$ '), styled('bold', `${programName()} ${command}`)]);
  tell.gap();
  tell.prose('Ctrl-C ends the demo, and everything in it.');
  tell.gap();
}

/** How this very program is called from here: by its name where it is installed, by its file in a checkout. */
function programName(): string {
  const [, script = 'tunward'] = process.argv;
  const name = path.basename(script);
  return name === 'tunward' ? name : `node ${path.relative(process.cwd(), script)}`;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
