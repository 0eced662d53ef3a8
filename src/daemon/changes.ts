import { isDeepStrictEqual } from 'node:util';
import type { TunnelSpec } from '../tunnel/spec.js';
import type { Config } from './config.js';
import type { TunnelChanges, TunnelName } from './events.js';
import { formatProblem } from './source.js';

/** By id: two tunnels may bear one name. Changed is also one that is labelled anew, and not restarted for that. */
export function compareTunnels(before: readonly TunnelSpec[], after: readonly TunnelSpec[]): TunnelChanges {
  const old = new Map(before.map((spec) => [spec.id, spec]));
  const ids = new Set(after.map(({ id }) => id));
  const isChanged = (spec: TunnelSpec) => {
    const former = old.get(spec.id);
    return former !== undefined && !isDeepStrictEqual(former, spec);
  };
  return {
    added: after.filter(({ id }) => !old.has(id)).map(nameOf),
    removed: before.filter(({ id }) => !ids.has(id)).map(nameOf),
    changed: after.filter(isChanged).map(nameOf),
  };
}

/** The warnings of a configuration, each as a line. */
export function warningsOf({ warnings }: Config): string[] {
  return warnings.map(formatProblem);
}

/** The keys that have changed and that a running daemon cannot follow. */
export function unappliedKeys(before: Config, after: Config): string[] {
  return fixedKeys.filter(([, of]) => !isDeepStrictEqual(of(before), of(after))).map(([key]) => key);
}

/** What a running daemon cannot change: it has opened it. */
const fixedKeys: readonly (readonly [key: string, of: (config: Config) => unknown])[] = [
  ['log_dir', ({ logDir }) => logDir],
  ['state_dir', ({ stateDir }) => stateDir],
  ['api.socket', ({ api }) => api.socket],
  ['api.listen', ({ api }) => api.listen],
  ['api.token_file', ({ api }) => api.tokenFile],
  ['api.tokens', ({ api }) => api.tokens],
  ['api.hosts', ({ api }) => api.hosts],
  ['api.compat', ({ api }) => api.compat],
  ['start', ({ start }) => start],
  ['reload', ({ reload }) => reload],
];

function nameOf({ id, name }: TunnelSpec): TunnelName {
  return { id, name };
}
