import { TunwardError } from '../errors.js';
import type { Proc } from './read.js';
import type { ProcessRef } from './stat.js';

/*
 * There are two back ends: /proc, and the packages of portable.ts for the systems that have none. Here is which of them
 * answers, and what both answer in the same shape.
 */

export type BackendName = 'linux' | 'portable';

export interface BackendOptions {
  /**
   * `linux` reads /proc; `portable` asks ps-tree, find-process, pidusage and tcp-port-used, which run other programs and
   * know less. Default: `linux` on Linux, `portable` elsewhere.
   */
  readonly backend?: BackendName | undefined;
  readonly proc?: Proc | undefined;
}

/** What the portable back end cannot know is this number: a start that no process has, a user that is none. */
export const UNKNOWN = -1;

/** What a process uses, as pidusage answers it. */
export interface Usage {
  /** Percent: 100 is one core. */
  readonly cpu: number;
  /** Resident bytes. Pages that several processes share count for each of them. */
  readonly memory: number;
  readonly ppid: number;
  readonly pid: number;
  /** User and system time, in milliseconds. */
  readonly ctime: number;
  /** Since its start, in milliseconds; 0 where /proc does not say when this host was booted. */
  readonly elapsed: number;
  /** When this was read, in milliseconds since the epoch. */
  readonly timestamp: number;
}

/** A process with all that came from it. */
export interface ProcessTree extends ProcessRef {
  /** The kernel's letter: R running, S sleeping, D uninterruptible, T stopped, t traced, Z zombie. */
  readonly state: string;
  readonly command: string;
  /** Seconds since its start; null where it is not known when this host was booted. */
  readonly ageS: number | null;
  readonly rssBytes: number;
  /**
   * The TCP ports that it listens on, ascending. Empty also for a process whose descriptors may not be seen, and in the
   * portable back end.
   */
  readonly ports: readonly number[];
  readonly children: readonly ProcessTree[];
}

/** A /proc that is handed in is read on any system: tests do that. */
export function usesPortable({ backend, proc }: BackendOptions): boolean {
  if (backend === undefined) return proc === undefined && process.platform !== 'linux';
  if (backend === 'linux' || backend === 'portable') return backend === 'portable';
  throw new TypeError(`Cannot use '${backend}' as a backend: expected 'linux' or 'portable'`);
}

/**
 * For what is done by a process's identity (its number and when it began) or not at all: only /proc tells that.
 *
 * @throws TunwardError ERR_BACKEND_UNAVAILABLE where the portable back end would have to do it.
 */
export function requireLinux(act: string, options: BackendOptions): void {
  if (!usesPortable(options)) return;
  const where = options.backend === 'portable' ? "with the back end 'portable'" : `on ${process.platform}`;
  const message = `Cannot ${act} ${where}: only Linux's /proc tells one process from the next that bears its number`;
  throw new TunwardError('ERR_BACKEND_UNAVAILABLE', message, { backend: 'portable' });
}
