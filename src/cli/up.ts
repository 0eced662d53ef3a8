import { isTunwardError, TunwardError } from '../errors.js';
import { findListeners } from '../port/listeners.js';
import type { Forward } from '../tunnel/spec.js';
import { type Board, createBoard, kindOf } from './board.js';
import { confirm } from './confirm.js';
import type { Context } from './context.js';
import { type Live, openLive } from './live.js';
import { describeSettled } from './live-view.js';
import { endsOf, type TunnelOptions } from './options.js';
import { createStory, momentOf, type ToldEvent } from './story.js';
import { holdersAsVictims, renderVictims } from './victims.js';

/** The daemon, until a signal or `tunward down` ends it. Without a terminal SIGHUP reads the configuration again. */
export async function up({ config }: { readonly config?: string }, context: Context): Promise<number> {
  const { screen, env, cwd } = context;
  const [{ startDaemon }, { boundOwnLog, watchParent }] = await Promise.all([
    import('../daemon/daemon.js'),
    import('./detach.js'),
  ]);
  const parent = watchParent(context.signal);
  const { signal } = parent;
  const board = createBoard();
  const live = openLive(board, context);
  const tell = createReporter(context, board, live);
  let boundLog = () => {};
  const onEvent = (event: ToldEvent) => {
    tell(event);
    boundLog();
  };
  const starting = startDaemon({ configFile: config, env, cwd, signal, onEvent });
  // From the first moment on: a SIGHUP that nobody listens to would end the process.
  const reload = () => {
    starting
      .then((daemon) => daemon.reload())
      .catch((error: unknown) => screen.complain(`error: the configuration was not read again: ${String(error)}\n`));
  };
  context.onHangup(reload);
  try {
    const daemon = await starting;
    if (parent.isThere) boundLog = await boundOwnLog(daemon.config);
    parent.tellReady({ pid: process.pid, ...daemon.address });
    live?.follow(daemon.supervisor);
    await Promise.race([daemon.closed, aborted(signal)]);
    const { trouble, survivors } = await daemon.close();
    return await leave(trouble === null && survivors.length === 0 ? 0 : 1);
  } catch (error) {
    // Told to end before it was ready: so it has, and that is no failure.
    if (signal.aborted && error === signal.reason) return await leave(0);
    throw error;
  } finally {
    await live?.close();
  }

  /** What is still going on (an ssh that survived, an `ssh -G` that does not answer) must not keep the program. */
  async function leave(exit: number): Promise<number> {
    await live?.close();
    context.exitNow(exit);
    return exit;
  }
}

export interface OpenOptions extends TunnelOptions {
  readonly forward: Forward;
  readonly name?: string;
  readonly force?: boolean;
}

/** One tunnel without a file, kept up until Ctrl-C. Fails when its first start does. */
export async function open(remoteHost: string, options: OpenOptions, context: Context): Promise<number> {
  const { screen, env, signal } = context;
  if (options.force && !(await mayOpen(options.forward, context))) return 1;
  const { openTunnel } = await import('../daemon/open.js');
  await using _tunnel = await openTunnel({
    remoteHost,
    ...endsOf(options.forward),
    name: options.name ?? remoteHost,
    engine: options.engine,
    seamless: options.seamless,
    sshConfig: options.sshConfig,
    identityFile: options.identity,
    sshOptions: { ...(options.port === undefined ? {} : { Port: options.port }), ...options.option },
    jump: options.jump,
    takeover: options.force ? 'any' : undefined,
    env,
    signal,
    onEvent: createTeller(context),
  }).catch(asUsage);
  screen.say('Ctrl-C ends it');
  await aborted(signal);
  return 0;
}

/** Whoever listens where the tunnel is to is told of before. */
async function mayOpen({ side, listen: { port, host } }: Forward, context: Context): Promise<boolean> {
  const isHere = side === 'local' && !context.consent.isGiven;
  const victims = isHere ? holdersAsVictims(await findListeners(port, { host })) : [];
  const act = `take port ${port} from whoever has it (--force)`;
  return confirm({ act, facts: victims.length > 0 ? renderVictims(victims) : [] }, context);
}

/** The same of many tunnels: also what came of a start of several, and the picture of them all where there is one. */
function createReporter(context: Context, board: Board, live: Live | undefined): (event: ToldEvent) => void {
  const tell = createTeller(context);
  return (event) => {
    live?.note(event);
    const settled = board.note(event);
    tell(event);
    // Of one tunnel its own line has said it.
    if (context.screen.json || !settled || settled.tunnels < 2) return;
    const tunnels = board.tunnels();
    const isToldMore = live || tunnels.every((tunnel) => kindOf(tunnel) === 'up');
    context.screen.say([...momentOf(event), ...describeSettled(settled, tunnels), isToldMore ? '' : ' (tunward ls)']);
  };
}

/** Events as they come: lines of talk, or with `--json` records on stdout. */
function createTeller({ screen }: Context): (event: ToldEvent) => void {
  return screen.json ? (event) => screen.record(event) : createStory((line) => screen.say(line));
}

/** Without a file the options are all there is: what is wrong with them is wrong on the command line. */
function asUsage(error: unknown): never {
  if (!isTunwardError(error, 'ERR_CONFIG_INVALID')) throw error;
  const { problems } = error.info;
  const message = problems.map(({ path, message }) => `${path.replace(/^tunnels\[0\]\./, '')}: ${message}`).join('\n');
  throw new TunwardError('ERR_BAD_REQUEST', message, { problems }, { cause: error });
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
