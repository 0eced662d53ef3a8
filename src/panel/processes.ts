import { Refusal } from './api.js';
import type { Connection } from './connection.js';
import type { Panel } from './model.js';
import type { ProcessNode, Tunnel } from './types.js';

/** Looks at the chain of the tunnel whose page is open whenever something new is known of that tunnel. */
export function createProcessWatch(panel: Panel, connection: Connection): () => void {
  const { api, model, update } = panel;
  let seen: Tunnel | undefined;
  return () => {
    const { route, tunnels, phase } = model();
    const tunnel = route.page === 'tunnel' && phase === 'in' ? tunnels.get(route.id) : undefined;
    if (tunnel === seen) return;
    seen = tunnel;
    if (tunnel) void look(tunnel);
  };

  async function look(tunnel: Tunnel): Promise<void> {
    try {
      const path = `/v1/tunnels/${encodeURIComponent(tunnel.id)}/processes`;
      const { processes } = await api.call<{ processes: ProcessNode | null }>(path);
      // An answer about an older state of it is no news.
      if (seen === tunnel) update({ processes: { id: tunnel.id, tree: processes } });
    } catch (error) {
      // One that has gone meanwhile is said to be gone by the list.
      if (!(error instanceof Refusal) || error.problem.status === 401) connection.suspect(error);
    }
  }
}
