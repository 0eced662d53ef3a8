/** The records of the API as they come over the wire (snake_case): as much of them as the panel shows. */
import type { ErrorCode } from '#lib/errors.js';
import type { Verdict } from '#lib/port/verdict.js';
import type { Reason } from '#lib/tunnel/engine.js';
import type { Desired, State } from '#lib/tunnel/machine.js';

export type { Desired, ErrorCode, Reason, State, Verdict };

export interface Session {
  readonly scope: 'all' | 'read';
  readonly via: 'socket' | 'token' | 'cookie';
  readonly version: string;
}

export interface Phases {
  readonly stop_ms: number;
  readonly free_ms: number;
  readonly start_ms: number;
}

export interface LastRestart {
  readonly at: string;
  /** Somebody asked for it; otherwise it came by itself. */
  readonly asked: boolean;
  /** Why it was up no longer before that. */
  readonly reason: Reason | null;
  readonly took_ms: number;
  readonly phases: Phases;
}

export interface Address {
  readonly side: 'local' | 'remote';
  readonly host: string;
  readonly port: number;
}

export interface Tunnel {
  readonly id: string;
  readonly name: string;
  readonly state: State;
  readonly desired: Desired;
  readonly reason: Reason | null;
  readonly health: 'ok' | 'degraded' | 'unknown';
  readonly health_reason: string | null;
  readonly remedy: string | null;
  readonly direction: 'remote_to_local' | 'local_to_remote';
  /** What keeps it: ssh, autossh or embedded. */
  readonly engine: string;
  /** Its clients notice no restart. */
  readonly seamless: boolean;
  readonly listen: readonly Address[];
  readonly target: string;
  readonly remote_host: string;
  readonly jump: readonly string[];
  readonly groups: readonly string[];
  readonly enabled: boolean;
  /** A person starts it, and answers what ssh asks. */
  readonly interactive: boolean;
  readonly pid: number | null;
  readonly usage: { readonly cpu: number; readonly memory: number } | null;
  /** null: its bytes do not pass through the daemon. */
  readonly traffic: Traffic | null;
  readonly since: string;
  readonly attempt: number;
  readonly restarts: number;
  readonly next_retry_at: string | null;
  readonly last_error: string | null;
  readonly log_file: string | null;
  readonly last_restart: LastRestart | null;
}

/** What has passed through the daemon for a tunnel since that began. */
export interface Traffic {
  readonly connections: number;
  readonly open: number;
  readonly queued: number;
  readonly refused: number;
  readonly bytes_in: number;
  readonly bytes_out: number;
}

/** Of all tunnels whose bytes pass through the daemon, by id. */
export interface TrafficAnswer {
  readonly at: string;
  readonly tunnels: Readonly<Record<string, Traffic>>;
}

/** What a start, a stop or a restart answers. */
export interface Done {
  readonly state: State;
  readonly took_ms: number;
  readonly phases: Phases;
  readonly kill: Kill;
  readonly tunnel: Tunnel;
}

export interface Named {
  readonly pid: number;
  readonly command: string;
}

export interface Holder extends Named {
  readonly user: string;
  readonly age_s: number | null;
}

export interface Fated extends Named {
  readonly why: string;
}

export interface Kill {
  readonly killed: readonly Fated[];
  readonly left: readonly Fated[];
  readonly survivors: readonly Fated[];
}

export interface Listener {
  readonly protocol: string;
  readonly address: string;
  readonly port: number;
  readonly holders: readonly Holder[];
  /** Why nobody is to be seen who has it. */
  readonly hidden?: string;
}

export interface PortReport {
  readonly port: number;
  readonly host: string | null;
  readonly free: boolean;
  readonly verdict: Verdict;
  readonly explanation: string;
  readonly listeners: readonly Listener[];
  readonly clients: readonly (Named & { readonly state: string })[];
  readonly respawner: Holder | null;
  readonly kill: Kill | null;
  readonly took_ms: number;
}

export interface ProcessNode extends Named {
  readonly start_ticks: number;
  readonly state: string;
  readonly age_s: number | null;
  readonly rss_bytes: number;
  readonly ports: readonly number[];
  readonly children: readonly ProcessNode[];
}

/** RFC 9457, with what each code brings along. */
export interface Problem {
  readonly status: number;
  readonly title?: string;
  readonly detail?: string;
  readonly code?: ErrorCode;
  readonly port?: number;
  readonly holders?: readonly Holder[];
  readonly reason?: Reason;
  readonly last_error?: string | null;
  readonly next_retry_at?: string | null;
  readonly remedy?: string | null;
}
