import fs from 'node:fs';
import { isErrno } from '../errors.js';
import { known, type Proc } from './read.js';

export type LimitName = 'Max open files' | 'Max processes';

/** What a process may have (getrlimit(2)), the soft limit; Infinity: as much as it likes. Undefined where it is not told. */
export function readLimit(proc: Proc, pid: number | 'self', name: LimitName): number | undefined {
  const line = new RegExp(`^${name}\\s+(\\d+|unlimited)\\s`, 'm').exec(known(proc.text(`${pid}/limits`)) ?? '')?.[1];
  if (line === undefined) return undefined;
  return line === 'unlimited' ? Number.POSITIVE_INFINITY : Number(line);
}

export type CgroupLimit = 'pids' | 'memory';

const files: Readonly<Record<CgroupLimit, { readonly v1: string; readonly v2: string }>> = {
  pids: { v1: 'pids.max', v2: 'pids.max' },
  memory: { v1: 'memory.limit_in_bytes', v2: 'memory.max' },
};

/** Version 1 says "no limit" as the largest number of pages there is. */
const NO_LIMIT = 2 ** 60;

/**
 * What all of this control group may have together: the least of its own limit and of those above it, as far as they are
 * to be seen from here. Undefined: nothing limits it, or nothing is told.
 */
export function readCgroupLimit(proc: Proc, name: CgroupLimit, root = '/sys/fs/cgroup'): number | undefined {
  const rows = (known(proc.text('self/cgroup')) ?? '').split('\n').map((row) => row.split(':'));
  const { v1, v2 } = files[name];
  const limits = rows.flatMap(([id, controllers = '', ...path]) => {
    if (id === '0') return readUpwards(root, path.join(':'), v2);
    return controllers.split(',').includes(name) ? readUpwards(`${root}/${name}`, path.join(':'), v1) : [];
  });
  const least = Math.min(...limits);
  return least < NO_LIMIT ? least : undefined;
}

/** In a container the path may be that of the host, of which only the top is mounted: what is not there says nothing. */
function readUpwards(root: string, path: string, file: string): number[] {
  const parts = path.split('/').filter((part) => part !== '' && part !== '..');
  return [...parts, ''].flatMap((_part, depth) => {
    const text = readText([root, ...parts.slice(0, parts.length - depth), file].join('/'));
    return /^\d+\n?$/.test(text) ? [Number(text)] : [];
  });
}

function readText(path: string): string {
  try {
    return fs.readFileSync(path, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EACCES', 'ENOTDIR', 'EPERM', 'ENODEV')) return '';
    throw error;
  }
}
