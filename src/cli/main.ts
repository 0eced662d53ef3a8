#!/usr/bin/env node
import { Interruption } from './context.js';
import { runProgram } from './program.js';
import { createScreen } from './render.js';

/*
 * argv → command → exit code. The first Ctrl-C, SIGTERM or SIGHUP asks the command to end, which a daemon does in order
 * and everything else at once; the second one does not ask.
 */
const argv = process.argv.slice(2);
const interrupted = new AbortController();
const numbers = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 } as const;
const interrupt = (name: keyof typeof numbers) => {
  if (interrupted.signal.aborted) process.exit(130);
  interrupted.abort(new Interruption(name, 128 + numbers[name]));
};
const hasTerminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY;
// A terminal that goes away says so more than once (the shell that ends with it, the kernel): that is no impatience.
let hangUp = () => {
  if (!interrupted.signal.aborted) interrupt('SIGHUP');
};
process.on('SIGINT', interrupt).on('SIGTERM', interrupt);
process.on('SIGHUP', () => hangUp());

const end = argv.includes('--') ? argv.indexOf('--') : argv.length;
const asked = new Set(argv.slice(0, end));
const screen = createScreen({
  json: asked.has('--json'),
  color: !asked.has('--no-color'),
  // Ends what a closed pipe would end with SIGPIPE, if Node did not ignore that.
  onBroken: () => interrupted.abort(new Interruption('nobody reads the output', 128 + 13)),
});
process.exitCode = await runProgram(argv, {
  screen,
  env: process.env,
  cwd: process.cwd(),
  signal: interrupted.signal,
  onHangup: (act) => {
    if (!hasTerminal) hangUp = act;
  },
  // A question is read on stderr and answered on stdin: both have to be a person's.
  consent: { isGiven: false, input: process.stdin.isTTY && process.stderr.isTTY ? process.stdin : undefined },
  exitNow: (exit) => process.exit(exit),
});
