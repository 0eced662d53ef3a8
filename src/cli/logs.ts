import { systemClock } from '../time.js';
import type { TunnelStatus } from '../tunnel/runner.js';
import { type DaemonOptions, findDaemon } from './address.js';
import type { Context } from './context.js';
import { styled } from './render.js';
import { openTail, type Tail } from './tail.js';

export interface LogOptions extends DaemonOptions {
  readonly follow?: boolean;
  /** How many lines of the past. */
  readonly lines?: number;
}

/** The last lines of one tunnel's log, or of everyone's; with `follow`, what comes after them until Ctrl-C. */
export async function logs(which: string | undefined, options: LogOptions, context: Context): Promise<number> {
  const { screen, signal } = context;
  const client = await findDaemon(options, context);
  const tunnels = which === undefined ? await client.tunnels() : [await client.tunnel(which)];
  const past = options.lines ?? 100;
  const write = createWriter(tunnels, which === undefined, context);
  if (options.follow) {
    const many = tunnels.length > MOST_STREAMS;
    return follow(tunnels, { open: (tunnel) => openTail(client, tunnel, { past, many }), write, signal });
  }
  const found = await Promise.all(tunnels.map(async ({ id, name }) => ({ ...(await client.logs(id, past)), name })));
  if (screen.json) screen.data(which === undefined ? { logs: found } : found[0]);
  else for (const log of found) for (const line of log.lines) write(log, line);
  return 0;
}

type Named = Pick<TunnelStatus, 'id' | 'name'>;
type Writer = (tunnel: Named, line: string) => void;

/** One line of a log: as it is for one tunnel, after the tunnel's name for several; a record with `--json`. */
function createWriter(tunnels: readonly Named[], isPrefixed: boolean, { screen }: Context): Writer {
  const width = Math.max(0, ...tunnels.map(({ name }) => name.length));
  return ({ id, name }, line) => {
    if (screen.json) screen.record({ id, name, line });
    else if (isPrefixed) screen.print([styled('cyan', name.padEnd(width)), styled('dim', ' | '), line]);
    else screen.print(line);
  };
}

/** More logs than these are not followed by a connection for each. */
const MOST_STREAMS = 16;

/** How often the ends of the logs are looked at. */
const LOOK_EVERY_MS = 150;

interface Follow {
  readonly open: (tunnel: TunnelStatus) => Tail;
  readonly write: Writer;
  readonly signal: AbortSignal;
}

/** Ends by the signal alone, which it rejects with. */
async function follow(tunnels: readonly TunnelStatus[], { open, write, signal }: Follow): Promise<never> {
  const tails = tunnels.map((tunnel) => ({ tunnel, tail: open(tunnel) }));
  try {
    for (;;) {
      for (const { tunnel, tail } of tails) for (const line of await tail.read()) write(tunnel, line);
      await systemClock.sleep(LOOK_EVERY_MS, signal);
    }
  } finally {
    for (const { tail } of tails) tail.close();
  }
}
