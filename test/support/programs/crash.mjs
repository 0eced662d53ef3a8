// Loaded before a daemon (`node --import`): counts the steps that change something outside of the process, and ends it
// by SIGKILL at one of them. A step's name is `<phase>:<kind>:<number>`: what the daemon is about (the text of the file
// TUNWARD_CRASH_PHASE, which the test writes), what it does, and how often it has done that in this phase. Each is
// appended to TUNWARD_CRASH_STEPS; TUNWARD_CRASH_AT (`reload:kill SIGSTOP:2:before`, or `…:after`) is where it ends,
// and the last line is then `crashed` and that.
import child_process from 'node:child_process';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import net from 'node:net';

const { TUNWARD_CRASH_PHASE: phaseFile, TUNWARD_CRASH_STEPS: stepsFile, TUNWARD_CRASH_AT: crashAt } = process.env;
const { readFileSync, appendFileSync, constants } = fs;
const kill = process.kill.bind(process);
const counts = new Map();
const writable = constants.O_WRONLY | constants.O_RDWR | constants.O_CREAT;
const always = () => true;

const opensToWrite = ([, flags]) => typeof flags === 'number' && (flags & writable) !== 0;
for (const name of ['mkdirSync', 'writeSync', 'fsyncSync', 'renameSync']) patch(fs, name, always);
patch(fs, 'openSync', opensToWrite);
patch(fs, 'rmSync', always);
patch(fs.promises, 'rm', always);
patch(fs.promises, 'rename', always);
patch(fs.promises, 'open', opensToWrite);
patch(child_process, 'spawn', always, (words) => (words[1].includes('-G') ? 'spawn -G' : 'spawn'));
patch(
  process,
  'kill',
  ([pid, signal]) => pid !== process.pid && signal !== 0,
  (words) => `kill ${words[1]}`,
);
patch(net.Server.prototype, 'listen', always);
syncBuiltinESMExports();

// The class of file handles has no other name.
const handle = await fs.promises.open('/dev/null', 'r');
for (const name of ['writeFile', 'sync']) patch(Object.getPrototypeOf(handle), name, always);
await handle.close();

function patch(owner, name, counted, kindOf = () => name) {
  const original = owner[name];
  owner[name] = function step(...words) {
    if (!counted(words)) return original.apply(this, words);
    const here = take(kindOf(words));
    if (crashAt === `${here}:before`) crash();
    const isEnd = crashAt === `${here}:after`;
    let result;
    try {
      result = original.apply(this, words);
    } finally {
      // Also after one that was refused: to rename what is not there.
      if (isEnd && typeof result?.then !== 'function') crash();
    }
    return isEnd ? result.finally(crash) : result;
  };
}

function crash() {
  appendFileSync(stepsFile, `crashed ${crashAt}\n`);
  kill(process.pid, 'SIGKILL');
}

function take(kind) {
  const phase = readFileSync(phaseFile, 'utf8');
  const key = `${phase}:${kind}`;
  counts.set(key, (counts.get(key) ?? 0) + 1);
  appendFileSync(stepsFile, `${key}:${counts.get(key)}\n`);
  return `${key}:${counts.get(key)}`;
}
