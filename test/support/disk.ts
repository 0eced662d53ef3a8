/** A disk that can be frozen: who writes to it then waits in uninterruptible sleep (D), and no signal ends it. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { which } from './paths.js';

export interface Disk {
  readonly dir: string;
  freeze(): void;
  thaw(): void;
  unmake(): void;
}

/** An ext4 of its own in a file. The mount ends with the namespace, if it is not ended before. */
export function makeDisk(): Disk {
  const folder = mkdtempSync(join(tmpdir(), 'tunward-disk-'));
  const dir = join(folder, 'mounted');
  const image = join(folder, 'image');
  mkdirSync(dir);
  run('truncate', '-s', '16M', image);
  run('mkfs.ext4', '-q', image);
  run('mount', '-o', 'loop', image, dir);
  return {
    dir,
    freeze: () => run('fsfreeze', '-f', dir),
    thaw: () => run('fsfreeze', '-u', dir),
    unmake: () => {
      run('umount', dir);
      rmSync(folder, { recursive: true });
    },
  };
}

/** Loop devices belong to the machine; a container has them seldom, whatever is installed. */
export function lacksDisk(): string | undefined {
  const missing = ['mkfs.ext4', 'fsfreeze', 'mount', 'truncate'].filter((program) => which(program) === undefined);
  if (missing.length > 0) return `needs ${missing.join(', ')} (apt-get install e2fsprogs util-linux)`;
  try {
    const disk = makeDisk();
    disk.freeze();
    disk.thaw();
    disk.unmake();
    return undefined;
  } catch (error) {
    if (error instanceof Error && 'status' in error) return `cannot freeze a disk in a file: ${error.message}`;
    throw error;
  }
}

function run(program: string, ...args: readonly string[]): void {
  execFileSync(which(program) ?? program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
}
