// What kill.test.ts runs as an ordinary user: what root's processes look like from there, and what cannot be done to them.
import * as cli from '#lib/cli/processes.js';
import { createScreen } from '#lib/cli/render.js';
import { isTunwardError } from '#lib/errors.js';
import { killTree } from '#lib/kill.js';
import { checkMarker } from '#lib/proc/marker.js';
import { denied, openProc } from '#lib/proc/read.js';
import { makeContext } from '../support/context.js';
import { emit } from '../support/namespace.js';

const pid = Number(process.argv[2]);
const proc = openProc();
emit('uid', process.getuid?.());
emit('denied', [proc.list(`${pid}/fd`) === denied, proc.text(`${pid}/environ`) === denied]);
emit('stat', typeof proc.text(`${pid}/stat`));
emit('marker', checkMarker(proc, pid, ['PATH=/bin']));
emit('kill', await killTree(pid, { timeoutMs: 1000 }));
emit('grace', await killTree(pid, { graceMs: 8000 }));

const context = makeContext({ screen: createScreen({ json: true }) });
emit('tunward kill', await cli.kill(pid, { timeout: 1000 }, context).catch(codeOf));
emit('tunward tree', await cli.tree(pid, context).catch(codeOf));

function codeOf(error: unknown): unknown {
  return isTunwardError(error) ? error.code : String(error);
}
