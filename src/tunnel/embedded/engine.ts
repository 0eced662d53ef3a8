import type { Clock } from '../../time.js';
import type { Engine } from '../engine.js';

export interface EmbeddedOptions {
  /** Where HOME and SSH_AUTH_SOCK are. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** A known_hosts file of our own for keys met for the first time; null: the person's own file takes them. */
  readonly knownHosts: string | null;
  readonly clock: Clock;
}

/** The engine that is a client inside this process: no program, no child. */
export function createEmbeddedEngine(_options: EmbeddedOptions): Engine {
  return {
    name: 'embedded',
    async start() {
      throw new Error('not yet');
    },
  };
}
