// What processes.test.ts runs as an ordinary user whose /proc hides what is others' (hidepid=2).
import { Writable } from 'node:stream';
import { kill, ps, tree } from '#lib/cli/processes.js';
import { createScreen } from '#lib/cli/render.js';
import { toProblem } from '#lib/wire.js';
import { makeContext } from '../support/context.js';
import { emit } from '../support/namespace.js';

const pid = Number(process.argv[2]);
let said = '';
const paper = new Writable({
  write(chunk, _encoding, done) {
    said += chunk;
    done();
  },
});
const context = makeContext({ screen: createScreen({ stdout: paper, stderr: paper }) });
const commands = { tree: () => tree(pid, context), kill: () => kill(pid, {}, context), ps: () => ps(context) };
for (const [name, command] of Object.entries(commands)) {
  said = '';
  const answer = await command().catch((error: unknown) => toProblem(error).body);
  emit(name, { answer, said });
}
