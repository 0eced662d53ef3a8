import { isTunwardError } from '../errors.js';
import type { Listener } from '../port/listeners.js';
import type { Client } from './client.js';
import { confirm } from './confirm.js';
import type { Context } from './context.js';
import { holdersAsVictims, renderVictims, type Victim } from './victims.js';

/** As many tunnels are looked at before somebody is asked; of more than these the rest goes unseen. */
const LOOKED_AT = 16;

/** A tunnel by its id where that is known, else by what it was called by. */
interface Named {
  readonly id?: string;
  readonly name: string;
}

/** `--force` kills whoever has a tunnel's port: who that is now is said, and somebody has to agree. */
export async function mayForce(client: Client, tunnels: readonly Named[], context: Context): Promise<boolean> {
  const { isGiven } = context.consent;
  const looks = isGiven ? [] : tunnels.slice(0, LOOKED_AT).map(({ id, name }) => findHolders(client, id ?? name));
  const victims = (await Promise.all(looks)).flat();
  const whose = tunnels.length === 1 ? tunnels[0]?.name : `${tunnels.length} tunnels`;
  const act = `kill whoever has the port of ${whose} (--force)`;
  return confirm({ act, facts: victims.length > 0 ? renderVictims(victims) : [] }, context);
}

/** Who listens where the tunnel is to, and is none of its own chain. What cannot be asked is for the start to say. */
async function findHolders(client: Client, which: string): Promise<Victim[]> {
  try {
    const { listen, chain } = await client.tunnel(which);
    const local = listen.filter(({ side }) => side === 'local');
    const reports = await Promise.all(local.map(({ port, host }) => client.port(port, host)));
    const taken = reports.filter(({ verdict }) => verdict !== 'protected' && verdict !== 'pid1');
    const isOwn = ({ pid }: Victim) => chain.some((process) => process.pid === pid);
    return holdersAsVictims(unique(taken.flatMap(({ listeners }) => listeners))).filter((one) => !isOwn(one));
  } catch (error) {
    if (isTunwardError(error)) return [];
    throw error;
  }
}

/** One socket may be in the way of both loopback addresses. */
function unique(listeners: readonly Listener[]): Listener[] {
  return [...new Map(listeners.map((listener) => [`${listener.inode} ${listener.address}`, listener])).values()];
}
