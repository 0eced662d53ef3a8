import type { EventSourceMessage } from 'eventsource-parser';
import type { TunnelChanges } from '../daemon/events.js';
import type { PortReport } from '../port/inspect.js';
import type { OperationResult, TunnelStatus } from '../tunnel/runner.js';
import type { Size } from './area.js';
import { type Address, ask } from './exchange.js';
import { suggest } from './suggest.js';
import type { Draw, FarTerminal } from './terminal-client.js';

export type Verb = 'start' | 'stop' | 'restart';

export interface TunnelLog {
  readonly id: string;
  readonly logFile: string | null;
  readonly lines: readonly string[];
}

/** An older daemon says no more than its status. */
export interface Health {
  readonly status: string;
  readonly pid?: number;
  readonly pid1?: boolean;
  readonly zombies?: number;
  readonly advice?: string;
}

/** The configuration that the daemon runs on. */
export interface ConfigFile {
  readonly file: string;
  readonly etag: string;
  readonly text: string;
  readonly tunnels: readonly unknown[];
  readonly warnings: readonly string[];
}

export interface Reloaded {
  readonly changes: TunnelChanges;
  readonly warnings: readonly string[];
}

/** A start, a stop or a restart of many, and how far it has come. */
export interface ManyOperation {
  readonly id: string;
  readonly state: 'running' | 'done';
  readonly tunnels: readonly {
    readonly id: string;
    readonly name: string;
    readonly state: 'waiting' | 'done' | 'failed';
    readonly result?: Pick<OperationResult, 'state' | 'tookMs' | 'phases'>;
    /** Problem details. */
    readonly error?: unknown;
  }[];
}

export interface EventQuery {
  /** Ids; none: of all. */
  readonly tunnels: readonly string[];
  /** Types, or families of them; none: all. */
  readonly types: readonly string[];
  /** The id of the last event that was seen. */
  readonly after?: string | undefined;
}

/** The daemon's API, as functions. What the daemon throws is thrown here, with its code; see the issue for the shapes. */
export interface Client {
  readonly address: Address;
  tunnels(): Promise<readonly TunnelStatus[]>;
  tunnel(which: string): Promise<TunnelStatus>;
  operate(verb: Verb, which: string, options?: { force?: boolean }): Promise<OperationResult>;
  /** Begins a login, and is its terminal. */
  terminal(which: string, size: Size, draw: Draw, until: AbortSignal): Promise<FarTerminal>;
  /** Begins the same for many, and answers at once. */
  begin(many: { action: Verb; tunnels: readonly string[]; force: boolean }): Promise<ManyOperation>;
  /** How far it has come: when it is over, and at the latest after that time. */
  follow(id: string, waitMs: number): Promise<ManyOperation>;
  /** Who holds a port where the daemon is. */
  port(port: number, host: string): Promise<PortReport>;
  logs(which: string, lines: number): Promise<TunnelLog>;
  /** The last lines, then each as it comes (`line`); ends when the daemon ends the stream. */
  followLog(id: string, lines: number, signal: AbortSignal): AsyncGenerator<EventSourceMessage>;
  health(): Promise<Health>;
  /** What happens, from now on or from behind an event that was seen; ends when the daemon ends the stream. */
  events(wanted: EventQuery): AsyncGenerator<EventSourceMessage>;
  /** Writes a tunnel, in the keys of the file, into the configuration, and starts it: its id alone where that has to wait. */
  add(tunnel: Readonly<Record<string, unknown>>): Promise<TunnelStatus | { readonly id: string }>;
  /** Takes it out of the configuration; `down`: it has been stopped. */
  remove(which: string): Promise<{ readonly id: string; readonly name: string; readonly down: boolean }>;
  config(): Promise<ConfigFile>;
  /** Has it read its file now. @throws TunwardError ERR_CONFIG_INVALID: it is wrong, and nothing has changed */
  reload(): Promise<Reloaded>;
  /** Asks it to end; answers before it has. */
  shutdown(): Promise<{ readonly status: string; readonly pid: number }>;
}

export interface ClientOptions {
  readonly signal?: AbortSignal | undefined;
  /** The bound on a question. Default 10 s. */
  readonly timeoutMs?: number | undefined;
  /**
   * The bound on a start, a stop or a restart. The daemon answers each within the tunnel's restart_timeout_ms, so this
   * only has to be more than anybody configures. Default 10 minutes.
   */
  readonly operationTimeoutMs?: number | undefined;
}

/**
 * Speaks with a daemon. Every call has a deadline; nothing is kept open between two calls.
 *
 * @throws TunwardError whatever the daemon answered; ERR_DAEMON_UNREACHABLE when none does, ERR_ACCESS_DENIED when its
 *   socket belongs to another user, ERR_TIMEOUT when it says nothing in time; the signal's reason when it aborts
 */
export function createClient(address: Address, options: ClientOptions = {}): Client {
  const { signal, timeoutMs = 10_000, operationTimeoutMs = 600_000 } = options;
  const get = <T>(path: string) => ask<T>({ address, method: 'GET', path, timeoutMs, signal });
  const post = <T>(path: string, ms: number) => ask<T>({ address, method: 'POST', path, timeoutMs: ms, signal });
  const at = (which: string) => `/v1/tunnels/${encodeURIComponent(which)}`;
  const tunnels = async () => (await get<{ tunnels: TunnelStatus[] }>('/v1/tunnels')).tunnels;
  /** What is done with one that does not exist fails with the name that was probably meant. */
  const naming = <T>(which: string, answer: Promise<T>): Promise<T> =>
    answer.catch(async (error: unknown) => {
      throw await suggest(error, which, tunnels);
    });
  return {
    address,
    tunnels,
    tunnel: (which) => naming(which, get(at(which))),
    operate: (verb, which, { force = false } = {}) =>
      naming(which, post(`${at(which)}/${verb}${force ? '?force=true' : ''}`, operationTimeoutMs)),
    terminal: (which, ...window) => naming(which, terminal(which, ...window)),
    logs: (which, lines) => naming(which, get(`${at(which)}/logs?lines=${lines}`)),
    begin: (body) => ask({ address, method: 'POST', path: '/v1/operations', body, timeoutMs, signal }),
    follow: (id, waitMs) => get(`/v1/operations/${id}?wait_ms=${waitMs}`),
    port: (port, host) => get(`/v1/ports/${port}?host=${encodeURIComponent(host)}`),
    health: () => get('/health'),
    events,
    followLog,
    add: (body) => ask({ address, method: 'POST', path: '/v1/tunnels', body, timeoutMs: operationTimeoutMs, signal }),
    remove: (which) =>
      naming(which, ask({ address, method: 'DELETE', path: at(which), timeoutMs: operationTimeoutMs, signal })),
    config: () => get('/v1/config'),
    reload: () => post('/v1/config/reload', operationTimeoutMs),
    shutdown: () => post('/v1/shutdown', timeoutMs),
  };

  async function terminal(
    which: string,
    { columns, rows }: Size,
    draw: Draw,
    until: AbortSignal,
  ): Promise<FarTerminal> {
    const { openTerminal } = await import('./terminal-client.js');
    const path = `${at(which)}/terminal?columns=${columns}&rows=${rows}`;
    return openTerminal({ address, method: 'GET', path, timeoutMs, signal: either(until) }, draw);
  }

  async function* events({ tunnels: ids, types, after }: EventQuery): AsyncGenerator<EventSourceMessage> {
    const { listen } = await import('./stream.js');
    const query = new URLSearchParams();
    for (const id of ids) query.append('tunnel', id);
    for (const type of types) query.append('type', type);
    const headers = after === undefined ? {} : { 'last-event-id': after };
    yield* listen({ address, method: 'GET', path: `/v1/events?${query}`, headers, timeoutMs, signal });
  }

  async function* followLog(id: string, lines: number, until: AbortSignal): AsyncGenerator<EventSourceMessage> {
    const { listen } = await import('./stream.js');
    const path = `${at(id)}/logs?lines=${lines}&follow=true`;
    yield* listen({ address, method: 'GET', path, timeoutMs, signal: either(until) });
  }

  function either(until: AbortSignal): AbortSignal {
    return signal ? AbortSignal.any([signal, until]) : until;
  }
}
