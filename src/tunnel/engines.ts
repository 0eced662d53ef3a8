import type { Chains } from './chain.js';
import type { Engine } from './engine.js';
import type { TunnelSpec } from './spec.js';

/** All that starts links, and knows where they go. */
export interface Engines extends Pick<Chains, 'resolve' | 'resolveSpec' | 'refresh'> {
  /** What a spec asks for; `auto` is ssh where there is one at this moment, and else the client inside this process. */
  readonly engineFor: (spec: TunnelSpec) => Engine;
}

/** The engines that are programs, and the one that is not. */
export function createEngines({ hasSsh, ...chains }: Chains, embedded: Engine): Engines {
  return {
    ...chains,
    engineFor: (spec) => (isEmbedded(spec) ? embedded : chains.engineFor(spec)),
    // What ssh would make of its configuration is of no interest then.
    refresh: (spec) => {
      if (!isEmbedded(spec)) chains.refresh(spec);
    },
  };

  function isEmbedded({ engine }: TunnelSpec): boolean {
    return engine === 'embedded' || (engine === 'auto' && !hasSsh());
  }
}
