import { nearest } from '../daemon/nearest.js';
import { isTunwardError, TunwardError } from '../errors.js';
import type { TunnelStatus } from '../tunnel/runner.js';

type Known = Pick<TunnelStatus, 'id' | 'name' | 'groups'>;

/**
 * What was probably meant, for an error that no tunnel is called so; any other error, and one of which nobody can say
 * more, as it is.
 */
export async function suggest(error: unknown, which: string, list: () => Promise<readonly Known[]>): Promise<unknown> {
  if (!isTunwardError(error, 'ERR_TUNNEL_UNKNOWN')) return error;
  const tunnels = await list().catch((failure: unknown) => {
    if (!(failure instanceof Error)) throw failure;
    return [];
  });
  if (tunnels.length === 0) return error;
  const message = `No tunnel is called '${which}': ${meant(which, tunnels)}`;
  return new TunwardError('ERR_TUNNEL_UNKNOWN', message, { which }, { cause: error });
}

/** As many names as are read at a glance. */
const MAX_NAMES = 8;

/** The end of the sentence. Pure. */
export function meant(which: string, tunnels: readonly Known[]): string {
  if (tunnels.some(({ groups }) => groups.includes(which))) return `it is a group; did you mean --group ${which}?`;
  const [first, ...others] = tunnels.filter(({ id }) => /^[0-9a-f]+$/.test(which) && id.startsWith(which));
  if (first && others.length === 0) return `8 digits of an id are the least; did you mean '${first.id.slice(0, 8)}'?`;
  const names = [...new Set(tunnels.map(({ name }) => name))].filter((name) => name !== 'unnamed');
  const hint = nearest(which, names) ?? names.find((name) => which.length >= 3 && name.includes(which));
  if (hint !== undefined) return `did you mean '${hint}'?`;
  if (names.length === 0) return 'the tunnels have no names, only ids (tunward ls --json)';
  const more = names.length > MAX_NAMES ? ` and ${names.length - MAX_NAMES} more (tunward ls)` : '';
  return `the tunnels are ${names.slice(0, MAX_NAMES).join(', ')}${more}`;
}
