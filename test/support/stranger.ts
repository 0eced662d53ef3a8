import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { buildRoot, repoRoot } from './paths.js';

/** The user that owns nothing. */
export const nobody = 65_534;

/**
 * Runs a compiled program as nobody, and answers what it emitted, by name. From a copy that everybody may read: the
 * checkout may be in a folder of root's. For root alone. With `hidepid` it sees a /proc that hides what is others'.
 */
export async function asNobody(
  programPath: string,
  args: readonly string[],
  { hidepid }: { readonly hidepid?: number } = {},
): Promise<Record<string, unknown>> {
  const dir = mkdtempSync(join(tmpdir(), 'tunward-nobody-'));
  try {
    for (const part of ['lib', 'package.json']) cpSync(join(repoRoot, part), join(dir, part), { recursive: true });
    for (const part of [dirname(programPath), 'test/support']) {
      cpSync(join(buildRoot, part), join(dir, '.build', part), { recursive: true });
    }
    await run('chmod', ['-R', 'a+rX', dir]);
    const argv = [process.execPath, join(dir, '.build', programPath), ...args];
    const { stdout } = await (hidepid === undefined ? runAsNobody(argv) : runHidden(hidepid, argv));
    const lines = stdout.split('\n').filter((line) => line.startsWith('{"emitted":'));
    const emitted = lines.map((line) => JSON.parse(line) as { emitted: string; value: unknown });
    return Object.fromEntries(emitted.map(({ emitted: name, value }) => [name, value]));
  } finally {
    rmSync(dir, { recursive: true });
  }
}

function runAsNobody([program = '', ...argv]: readonly string[]) {
  return run(program, argv, { uid: nobody, gid: nobody, timeout: 15_000 });
}

/** A mount namespace of its own, whose /proc is mounted anew with the option; the PID namespace is the caller's. */
function runHidden(hidepid: number, argv: readonly string[]) {
  const drop = `exec setpriv --reuid ${nobody} --regid ${nobody} --clear-groups "$@"`;
  const script = `mount -t proc -o hidepid=${hidepid} proc /proc && ${drop}`;
  return run('unshare', ['-m', 'sh', '-c', script, 'sh', ...argv], { timeout: 15_000 });
}

const run = promisify(execFile);
