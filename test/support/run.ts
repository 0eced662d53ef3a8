/**
 * Runs mocha, as root inside network, mount and PID namespaces of its own: the suites kill chains and sweep ports, and
 * a mistake of theirs must meet nobody outside. Arguments go on to mocha. Without root, or without unshare, mocha runs
 * as it is: what needs root skips itself then, loudly.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { loopbackUp } from './namespace.js';
import { repoRoot, which } from './paths.js';

const mocha = [process.execPath, join(repoRoot, 'node_modules/mocha/bin/mocha.js'), ...process.argv.slice(2)];
const unshare = which('unshare');
const isolated = process.getuid?.() === 0 && unshare !== undefined;
if (!isolated) process.stderr.write('The tests run without namespaces of their own: that needs root and unshare\n');

// Pid 1 in there is a shell that reaps, as in any system; it hands mocha's exit code on.
const inside = [
  '-n',
  '-m',
  '-p',
  '-f',
  '--mount-proc',
  '--kill-child',
  '/bin/sh',
  '-c',
  `${loopbackUp}\n"$@" & wait $!`,
  'sh',
];
const [program = '', ...args] = isolated ? [unshare, ...inside, ...mocha] : mocha;
const child = spawn(program, args, { cwd: repoRoot, stdio: 'inherit' });
const [code, signal] = await once(child, 'exit');
process.exitCode = code ?? (signal ? 1 : 0);
