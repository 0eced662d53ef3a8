import { nearest } from '../daemon/nearest.js';
import { TunwardError } from '../errors.js';
import { systemClock } from '../time.js';
import type { TunnelStatus } from '../tunnel/runner.js';
import { type DaemonOptions, findDaemon } from './address.js';
import type { Context } from './context.js';
import { styled } from './render.js';
import { describeTraffic, renderTunnels } from './tunnel-view.js';

export interface GroupOptions extends DaemonOptions {
  /** Tunnels of any of these alone. */
  readonly group?: readonly string[];
}

/** The tunnels and how they are; those that are named alone, as they are at this moment, with what has passed through them. */
export async function list(
  which: readonly string[],
  { group = [], ...options }: GroupOptions,
  context: Context,
): Promise<number> {
  const { screen } = context;
  const client = await findDaemon(options, context);
  const all = which.length > 0 ? await Promise.all(which.map(client.tunnel)) : await client.tunnels();
  const tunnels = group.length > 0 ? inGroups(all, group) : all;
  if (screen.json) screen.data({ tunnels });
  else if (tunnels.length === 0) screen.say('The configuration has no tunnels');
  else {
    const below = which.length > 0 ? (tunnel: TunnelStatus) => [describeTraffic(tunnel)] : undefined;
    screen.rows(...renderTunnels(tunnels, systemClock.wallTime(), below));
  }
  return 0;
}

/** @throws TunwardError ERR_TUNNEL_UNKNOWN for a group in which no tunnel is. */
export function inGroups(tunnels: readonly TunnelStatus[], wanted: readonly string[]): TunnelStatus[] {
  const known = [...new Set(tunnels.flatMap(({ groups }) => groups))].sort();
  const stranger = wanted.find((group) => !known.includes(group));
  if (stranger === undefined) return tunnels.filter(({ groups }) => groups.some((group) => wanted.includes(group)));
  const hint = nearest(stranger, known);
  if (hint !== undefined) throw unknownGroup(stranger, `did you mean '${hint}'?`);
  const list = known.length > 0 ? `the groups are ${known.join(', ')}` : 'no tunnel is in any group';
  throw unknownGroup(stranger, list);
}

function unknownGroup(group: string, remedy: string): TunwardError {
  return new TunwardError('ERR_TUNNEL_UNKNOWN', `No tunnel is in the group '${group}': ${remedy}`, { group });
}

/** Is the daemon there? Its own answer, for people, scripts and the HEALTHCHECK of an image. */
export async function health(options: DaemonOptions, context: Context): Promise<number> {
  const { screen } = context;
  const answer = await (await findDaemon(options, context)).health();
  if (screen.json) screen.data(answer);
  else screen.print(answer.status);
  if (answer.advice !== undefined) screen.say(styled('yellow', `${answer.zombies} zombies: ${answer.advice}`));
  return answer.status === 'ok' ? 0 : 1;
}
