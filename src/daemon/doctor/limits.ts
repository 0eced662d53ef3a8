import { readCgroupLimit, readLimit } from '../../proc/limits.js';
import { readArguments } from '../../proc/stat.js';
import { type Check, count, ok, type Surroundings, warning } from './check.js';
import { findEmbedded } from './programs.js';

/** What there may be at most, and what so many tunnels take. */
interface Budget {
  readonly check: string;
  readonly limits: readonly (number | undefined)[];
  readonly need: number;
  readonly tunnels: number;
  readonly remedy: string;
  readonly note?: string;
  readonly show?: (amount: number) => string;
}

/** Connections at the same time for which there is to be room, of a tunnel whose bytes pass through the daemon. */
const CONNECTIONS = 16;

/**
 * May there be as many descriptors, processes and bytes as the tunnels take? Measured with OpenSSH 9.2 on Node 20: 2
 * descriptors of the daemon for each besides 21 of its own, one process (two with autossh) besides 11 threads, 1.4 MB for
 * an ssh (shared pages counted once) and 0.7 MB for what the daemon knows of it besides 72 MB. The rest is room for a
 * start of 16 at once, and for callers. An embedded tunnel is no process. Where the daemon itself listens, each connection
 * takes a descriptor for the client, and, where an ssh carries it, another one for the way there.
 */
export function checkLimits(surroundings: Surroundings, cgroupRoot?: string): Check[] {
  const { proc, uid, config } = surroundings;
  const specs = config?.tunnels.filter(({ interactive }) => !interactive) ?? [];
  const tunnels = specs.length;
  const theirs = findEmbedded(surroundings);
  const embedded = specs.filter((spec) => theirs.has(spec)).length;
  const processes = tunnels - embedded + specs.filter(({ engine }) => engine === 'autossh').length;
  const counted = specs.filter((spec) => spec.seamless !== null || theirs.has(spec)).length;
  const who = whoseLimits(surroundings);
  // Root is not bound by RLIMIT_NPROC.
  const ofUser = uid === 0 ? undefined : readLimit(proc, who, 'Max processes');
  return [
    weigh({
      check: 'descriptors',
      limits: [readLimit(proc, who, 'Max open files')],
      need: 64 + 2 * tunnels + counted * 2 * CONNECTIONS,
      tunnels,
      note: counted === 0 ? '' : `, with ${CONNECTIONS} connections through each that passes through the daemon`,
      remedy: 'raise it: ulimit -n, docker run --ulimit nofile=65536, LimitNOFILE= of a unit',
    }),
    weigh({
      check: 'processes',
      limits: [ofUser, readCgroupLimit(proc, 'pids', cgroupRoot)],
      need: 32 + processes,
      tunnels,
      remedy: 'raise it: ulimit -u, docker run --pids-limit, TasksMax= of a unit',
    }),
    weigh({
      check: 'memory',
      limits: [readCgroupLimit(proc, 'memory', cgroupRoot)],
      need: 90e6 + 0.7e6 * tunnels + 1.4e6 * (tunnels - embedded),
      tunnels,
      remedy: 'raise it: docker run --memory, MemoryMax= of a unit',
      show: (bytes) => `${Math.round(bytes / 1e6)} MB`,
    }),
  ];
}

/** Those of the daemon, where one runs that can be seen from here: an init may have given it others than this shell. */
function whoseLimits({ proc, daemon }: Surroundings): number | 'self' {
  const pid = daemon?.pid ?? null;
  return pid !== null && readArguments(proc, pid).includes('up') ? pid : 'self';
}

function weigh({ check, limits, need, tunnels, remedy, note = '', show = String }: Budget): Check {
  const limit = Math.min(...limits.map((each) => each ?? Number.POSITIVE_INFINITY));
  if (!Number.isFinite(limit)) return ok(check, 'no limit');
  const finding = `${show(limit)} at most, and ${count(tunnels, 'tunnel')} take about ${show(need)}${note}`;
  return limit < need ? warning(check, finding, remedy) : ok(check, finding);
}
