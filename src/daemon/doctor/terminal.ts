import { ADD_PTY, findPty } from '../../tunnel/asking/pty.js';
import { tryToLoad } from '../../tunnel/chain.js';
import { type Check, count, ok, type Surroundings, warning } from './check.js';
import { findEmbedded } from './programs.js';

/** Where those who need a person ask; nothing where no tunnel does. `pty`: the file of what makes pseudo-terminals. */
export async function checkTerminal(
  { config, env }: Surroundings,
  pty: string | null = findPty() ?? null,
): Promise<Check[]> {
  // The embedded engine asks by itself.
  const embedded = findEmbedded({ config, env });
  const number = config?.tunnels.filter((spec) => spec.interactive && !embedded.has(spec)).length ?? 0;
  if (number === 0) return [];
  const asking = `${count(number, 'tunnel')} may ask a person`;
  const instead = 'ssh asks through SSH_ASKPASS, a line at a time';
  if (pty === null) return [warning('terminal', `${asking}, and node-pty is not there: ${instead}`, ADD_PTY)];
  const failure = await tryToLoad(pty, env);
  if (failure === undefined) return [ok('terminal', `${asking}, on one made by ${pty}`)];
  return [warning('terminal', `${asking}, and ${pty} does not load (${failure}): ${instead}`, ADD_PTY)];
}
