// What rights.test.ts runs as root in namespaces of its own: mounts /proc with each hidepid and looks as two others.
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { openProc } from '#lib/proc/read.js';
import { hidesOthers } from '#lib/proc/rights.js';
import { readStat } from '#lib/proc/stat.js';
import { emit } from '../support/namespace.js';

const proc = openProc();
if (process.argv[2] === 'look') {
  const look = { hides: hidesOthers(proc), sees: readStat(proc, 1) !== undefined };
  process.stdout.write(JSON.stringify(look));
} else {
  for (const level of ['1', '2', '4']) {
    execFileSync('mount', ['-t', 'proc', '-o', `hidepid=${level},gid=4242`, 'proc', '/proc']);
    emit(level, { member: lookAs(4242), other: lookAs(1000) });
  }
}

function lookAs(gid: number): unknown {
  const argv = [fileURLToPath(import.meta.url), 'look'];
  return JSON.parse(execFileSync(process.execPath, argv, { encoding: 'utf8', uid: 1000, gid }));
}
