import type { ListChoice } from './model.js';
import type { State, Tunnel } from './types.js';
import { endpoint } from './units.js';
import type { Column, StateFilter } from './words.js';

export const stateFilters: readonly StateFilter[] = ['all', 'up', 'person', 'trouble', 'stopped'];

/** Those of the list that are to be seen, in the order that was chosen. Pure. `daemonNow` in ms. */
export function chooseTunnels(
  tunnels: ReadonlyMap<string, Tunnel>,
  { query, group, states, sort }: ListChoice,
  daemonNow: number,
): readonly Tunnel[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = [...tunnels.values()].filter(
    (tunnel) =>
      (group === '' || tunnel.groups.includes(group)) &&
      isOf(tunnel, states) &&
      (words.length === 0 || matches(textOf(tunnel), words)),
  );
  if (!sort) return chosen;
  const keyOf = (tunnel: Tunnel) => keys[sort.column](tunnel, daemonNow);
  // Array.sort is stable: what is equal stays as the configuration has it.
  return chosen.sort((one, other) => compare(keyOf(one), keyOf(other)) * (sort.isDescending ? -1 : 1));
}

export function countStates(tunnels: Iterable<Tunnel>): Readonly<Record<StateFilter, number>> {
  const counts = { all: 0, up: 0, person: 0, trouble: 0, stopped: 0 };
  for (const tunnel of tunnels) {
    for (const state of stateFilters) if (isOf(tunnel, state)) counts[state]++;
  }
  return counts;
}

export function groupsOf(tunnels: Iterable<Tunnel>): readonly string[] {
  return [...new Set([...tunnels].flatMap(({ groups }) => groups))].sort((one, other) => one.localeCompare(other));
}

/** It waits for somebody to log in. One that somebody has stopped has no reason: it is as it was wished. */
export function needsPerson({ interactive, enabled, state, reason }: Tunnel): boolean {
  return interactive && enabled && state === 'stopped' && reason !== null;
}

function isOf(tunnel: Tunnel, filter: StateFilter): boolean {
  const { state, health, reason } = tunnel;
  switch (filter) {
    case 'all':
      return true;
    case 'up':
      return state === 'up';
    case 'stopped':
      return state === 'stopped' && !needsPerson(tunnel);
    case 'person':
      return needsPerson(tunnel);
    // It waits, has failed or is unwell: a start that takes its time is no trouble, unless one has failed before.
    case 'trouble':
      return state === 'up' ? health === 'degraded' : reason !== null && state !== 'stopped';
  }
}

function textOf({ name, id, remote_host, jump, target, groups, listen }: Tunnel): string {
  const addresses = listen.map(({ host, port }) => endpoint(host, port));
  return [name, id, remote_host, ...jump, target, ...groups, ...addresses].join('\n').toLowerCase();
}

function matches(text: string, words: readonly string[]): boolean {
  return words.every((word) => text.includes(word));
}

/** What needs somebody comes first. */
const urgency: Readonly<Record<State, number>> = { fatal: 0, backoff: 1, stopping: 2, starting: 3, up: 5, stopped: 6 };

const keys: Readonly<Record<Column, (tunnel: Tunnel, daemonNow: number) => string | number>> = {
  state: (tunnel) => (needsPerson(tunnel) ? -1 : tunnel.health === 'degraded' ? 4 : urgency[tunnel.state]),
  name: ({ name }) => name,
  uptime: ({ state, since }, daemonNow) => (state === 'up' ? daemonNow - Date.parse(since) : -1),
  restart: ({ last_restart }) => last_restart?.took_ms ?? -1,
  cpu: ({ usage }) => usage?.cpu ?? -1,
  memory: ({ usage }) => usage?.memory ?? -1,
};

function compare(one: string | number, other: string | number): number {
  if (typeof one === 'number' && typeof other === 'number') return one - other;
  return String(one).localeCompare(String(other), undefined, { numeric: true });
}
