import type { SshLogin } from './policy.js';

/** A client, from its TCP connection on. */
export interface SshConnection {
  readonly id: number;
  /** Of the client's end. */
  readonly remotePort: number;
  /** Who has logged in; null before that. */
  readonly username: string | null;
  readonly isOpen: boolean;
}

/** What a client has asked to have forwarded. It is as it is at this moment. */
export interface SshForward {
  readonly connection: number;
  /** `direct-tcpip`: one connection of `ssh -L`. `tcpip-forward`: the port that is listened on for an `ssh -R`. */
  readonly kind: 'direct-tcpip' | 'tcpip-forward';
  /** Where it is to go; of a `tcpip-forward` what it asked to have listened on. */
  readonly host: string;
  /** Of a `tcpip-forward` the port that is listened on, also where any was asked for. */
  readonly port: number;
  /** Where the connection has come from, as the client says; of a `tcpip-forward` null. */
  readonly origin: { readonly host: string; readonly port: number } | null;
  /** null: it has not been answered yet. */
  readonly accepted: boolean | null;
  /** Why it was refused. */
  readonly why: string | null;
  readonly isOpen: boolean;
  /** How many connections there have been: of a `direct-tcpip` one. */
  readonly streams: number;
  readonly bytesFromClient: number;
  readonly bytesToClient: number;
}

type Writable<T> = { -readonly [K in keyof T]: T[K] };
export type ConnectionRecord = Writable<SshConnection>;
export type ForwardRecord = Writable<SshForward>;

/** What has happened, oldest first. Of each kind the last 10,000: a server that runs long must not grow. */
export interface Journal {
  readonly connections: readonly ConnectionRecord[];
  readonly logins: readonly SshLogin[];
  readonly forwards: readonly ForwardRecord[];
  noteConnection(remotePort: number): ConnectionRecord;
  noteLogin(login: SshLogin): void;
  noteForward(asked: Pick<SshForward, 'connection' | 'kind' | 'host' | 'port' | 'origin'>): ForwardRecord;
}

const KEPT = 10_000;

export function createJournal(): Journal {
  const connections: ConnectionRecord[] = [];
  const logins: SshLogin[] = [];
  const forwards: ForwardRecord[] = [];
  let ids = 0;
  return {
    connections,
    logins,
    forwards,
    noteConnection: (remotePort) => keep(connections, { id: ++ids, remotePort, username: null, isOpen: true }),
    noteLogin: (login) => void keep(logins, login),
    noteForward: (asked) =>
      keep(forwards, {
        ...asked,
        accepted: null,
        why: null,
        isOpen: false,
        streams: 0,
        bytesFromClient: 0,
        bytesToClient: 0,
      }),
  };
}

function keep<T>(list: T[], entry: T): T {
  list.push(entry);
  if (list.length > KEPT) list.shift();
  return entry;
}
