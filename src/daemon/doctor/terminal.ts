import { createRequire } from 'node:module';
import { isErrno } from '../../errors.js';
import { tryToLoad } from '../../tunnel/chain.js';
import { type Check, count, ok, type Surroundings, warning } from './check.js';

/** What makes pseudo-terminals; each may be there in place of the other. */
const packages: readonly string[] = ['node-pty', '@lydell/node-pty'];
const remedy = 'npm i node-pty, or the prebuilt npm i node-pty@npm:@lydell/node-pty';

/** On what a tunnel that needs a person can ask; nothing where none does. `from`: the file that would load the package. */
export async function checkTerminal({ config, env }: Surroundings, from: string = import.meta.url): Promise<Check[]> {
  const number = config?.tunnels.filter(({ interactive }) => interactive).length ?? 0;
  if (number === 0) return [];
  const asks = `${count(number, 'tunnel')} may need a person`;
  const found = find(from);
  const instead = 'ssh asks by SSH_ASKPASS, a line at a time';
  if (!found) return [warning('terminal', `${asks}, and node-pty is not there: ${instead}`, remedy)];
  const failure = await tryToLoad(found.file, env);
  if (failure === undefined) return [ok('terminal', `${asks}, and ${found.name} makes the terminals`)];
  return [warning('terminal', `${asks}, and ${found.name} does not load (${failure}): ${instead}`, remedy)];
}

function find(from: string): { readonly name: string; readonly file: string } | undefined {
  const { resolve } = createRequire(from);
  for (const name of packages) {
    try {
      return { name, file: resolve(name) };
    } catch (error) {
      if (!isErrno(error, 'MODULE_NOT_FOUND')) throw error;
    }
  }
  return undefined;
}
