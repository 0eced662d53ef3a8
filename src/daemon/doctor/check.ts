import type { Proc } from '../../proc/read.js';
import type { TunnelStatus } from '../../tunnel/status.js';
import type { Config } from '../config.js';

/** One thing that was looked at. */
export interface Check {
  readonly check: string;
  /** `failed`: tunnels will not work as they are. `warning`: they work, and something will surprise somebody. */
  readonly status: 'ok' | 'warning' | 'failed' | 'unknown';
  readonly finding: string;
  /** What to do; null where nothing is to be done. */
  readonly remedy: string | null;
}

/** What the checks look at. */
export interface Surroundings {
  readonly proc: Proc;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly uid: number;
  /** null: there is none, or it is wrong. */
  readonly config: Config | null;
  /** The daemon that answers now. */
  readonly daemon: RunningDaemon | null;
}

export interface RunningDaemon {
  readonly pid: number | null;
  readonly zombies: number;
  /** Its tunnels that have not got their port, as they say it. */
  readonly blocked: readonly Pick<TunnelStatus, 'id' | 'name' | 'lastError' | 'remedy'>[];
}

export function ok(check: string, finding: string): Check {
  return { check, status: 'ok', finding, remedy: null };
}

export function warning(check: string, finding: string, remedy: string): Check {
  return { check, status: 'warning', finding, remedy };
}

export function failed(check: string, finding: string, remedy: string): Check {
  return { check, status: 'failed', finding, remedy };
}

export function unknown(check: string, finding: string, remedy: string | null = null): Check {
  return { check, status: 'unknown', finding, remedy };
}

/** `1 tunnel`, `3 tunnels`. */
export function count(number: number, thing: string): string {
  return `${number} ${thing}${number === 1 ? '' : 's'}`;
}
