import path from 'node:path';
import { isTunwardError } from '../errors.js';
import type { TunnelStatus } from '../tunnel/runner.js';
import type { Forward } from '../tunnel/spec.js';
import { toProblem } from '../wire.js';
import { type DaemonOptions, findDaemon } from './address.js';
import type { Client } from './client.js';
import { confirm } from './confirm.js';
import type { Context } from './context.js';
import { endsOf, type TunnelOptions } from './options.js';
import { layTable, styled } from './render.js';
import { exitOf } from './report.js';
import { routeOf } from './story.js';
import { renderFailure } from './tunnel-view.js';

export interface NewTunnel {
  readonly name: string;
  readonly remoteHost: string;
  readonly forward: Forward;
}

export interface AddOptions extends DaemonOptions, TunnelOptions {
  readonly group?: readonly string[];
  readonly disabled?: boolean;
}

/** Writes a tunnel into the daemon's configuration, where it is started: how it is then is for `ls` to say. */
export async function add(tunnel: NewTunnel, options: AddOptions, context: Context): Promise<number> {
  const { screen } = context;
  const client = await findDaemon(options, context);
  const written = toFile(tunnel, options, context);
  const isOther = await readsOtherWayRound(client);
  const direction = written.direction === 'remote_to_local' ? 'local_to_remote' : 'remote_to_local';
  const status = await client.add(isOther ? { ...written, direction } : written);
  if (screen.json) screen.data(status);
  else if (!('state' in status)) {
    const when = 'starts when what is on its way down is down';
    screen.print([
      styled('green', '✔ '),
      styled('bold', tunnel.name),
      `  is written (${status.id.slice(0, 8)}), and ${when}`,
    ]);
  } else {
    screen.print([styled('green', '✔ '), styled('bold', status.name), `  ${status.state}, ${routeOf(status)}`]);
    screen.say(status.enabled ? 'Next: tunward ls shows how it is' : `Next: tunward start ${status.id.slice(0, 8)}`);
  }
  return 0;
}

/** In the keys of the file. What is a path here is one for the file as well, whose folder is another one. */
function toFile({ name, remoteHost, forward }: NewTunnel, options: AddOptions, { cwd }: Context) {
  const { direction, localPort, remotePort } = endsOf(forward);
  const { sshConfig, identity, port, option, jump, engine, seamless = false, group = [], disabled = false } = options;
  const sshOptions = { ...(port === undefined ? {} : { Port: port }), ...option };
  return {
    name,
    direction,
    remote_host: remoteHost,
    remote_port: remotePort,
    local_port: localPort,
    ...(sshConfig === undefined ? {} : { ssh_config: path.resolve(cwd, sshConfig) }),
    ...(identity === undefined ? {} : { identity_file: path.resolve(cwd, identity) }),
    ...(Object.keys(sshOptions).length === 0 ? {} : { ssh_options: sshOptions }),
    ...(jump === undefined ? {} : { jump }),
    ...(engine === undefined ? {} : { engine }),
    ...(seamless ? { seamless } : {}),
    ...(group.length === 0 ? {} : { groups: group }),
    ...(disabled ? { enabled: false } : {}),
  };
}

/** `direction_mode: ssh-standard`, by a tunnel that there is, or by the file where there is none. */
async function readsOtherWayRound(client: Client): Promise<boolean> {
  const tunnel = (await client.tunnels()).find(({ listen }) => listen.length > 0);
  if (!tunnel) return /^["']?direction_mode["']?:\s*["']?ssh-standard\b/m.test((await client.config()).text);
  return (tunnel.direction === 'remote_to_local') !== (tunnel.listen[0]?.side === 'local');
}

type Removed = { readonly id: string; readonly name: string; readonly down: boolean };
type Outcome = Removed | { readonly name: string; readonly error: Error };

/** Takes tunnels out of the daemon's configuration, once somebody has agreed; one that fails does not keep the others. */
export async function remove(which: readonly string[], options: DaemonOptions, context: Context): Promise<number> {
  const { screen } = context;
  const client = await findDaemon(options, context);
  // All of them are found before any is removed.
  const tunnels = await Promise.all(which.map((each) => client.tunnel(each)));
  const meant = [...new Map(tunnels.map((tunnel) => [tunnel.id, tunnel])).values()];
  const names = meant.map(({ name }) => name).join(', ');
  const facts = layTable(['ID', 'NAME', 'STATE', 'ROUTE'], meant.map(rowOf));
  if (!(await confirm({ act: `remove ${names} from the configuration`, facts }, context))) return 1;
  const outcomes: Outcome[] = [];
  // One after the other: each writes the file anew.
  for (const tunnel of meant) {
    const outcome = await attempt(client, tunnel);
    outcomes.push(outcome);
    if ('error' in outcome) screen.say(renderFailure(outcome.name, outcome.error));
    else if (!screen.json) {
      const end = outcome.down ? 'is removed, and down' : 'is removed, and still on its way down';
      screen.print([styled('green', '✔ '), styled('bold', outcome.name), `  ${end}`]);
    }
  }
  const toRecord = (one: Outcome) => ('error' in one ? { ...one, error: toProblem(one.error).body } : one);
  if (screen.json) screen.data({ tunnels: outcomes.map(toRecord) });
  const failed = outcomes.find((outcome) => 'error' in outcome);
  return failed && 'error' in failed ? exitOf(failed.error) : 0;
}

function rowOf(tunnel: TunnelStatus): string[] {
  return [tunnel.id.slice(0, 8), tunnel.name, tunnel.state, routeOf(tunnel)];
}

/** What would meet every other one too is thrown: no daemon, no right, a signal. */
async function attempt(client: Client, { id, name }: TunnelStatus): Promise<Outcome> {
  try {
    return await client.remove(id);
  } catch (error) {
    if (isTunwardError(error) && only.has(error.code)) return { name, error };
    throw error;
  }
}

const only: ReadonlySet<string> = new Set(['ERR_TUNNEL_UNKNOWN', 'ERR_TUNNEL_CONFLICT', 'ERR_CONFIG_CHANGED']);
