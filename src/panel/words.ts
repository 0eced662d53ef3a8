import type { ErrorCode, Reason, State, Verdict } from './types.js';

export type Verb = 'start' | 'stop' | 'restart';
export type Column = 'state' | 'name' | 'uptime' | 'restart' | 'cpu' | 'memory';
export type StateFilter = 'all' | 'up' | 'person' | 'trouble' | 'stopped';

/**
 * Everything the panel says, once in each language. A key that one of them lacks does not compile, and neither does a
 * state, a reason, a verdict or an error code that the daemon knows and the panel has no words for.
 */
export interface Words {
  /** For `<html lang>`. */
  readonly lang: string;
  readonly states: Readonly<Record<State | 'degraded' | 'person', string>>;
  readonly reasons: Readonly<Record<Reason, string>>;
  /** Where the daemon's own sentence is no help, since it is English; null where that says it all. */
  readonly remedies: Readonly<Record<Reason, string | null>>;
  readonly verdicts: Readonly<Record<Verdict, string>>;
  readonly errors: Readonly<Record<ErrorCode, string>>;
  readonly phases: { readonly stop: string; readonly free: string; readonly start: string };
  readonly units: {
    readonly ms: string;
    readonly s: string;
    readonly min: string;
    readonly h: string;
    readonly d: string;
  };
  readonly verbs: Readonly<Record<Verb, string>>;
  readonly doing: Readonly<Record<Verb, string>>;
  readonly done: Readonly<Record<Verb, (took: string) => string>>;
  readonly actOn: Readonly<Record<Verb, (name: string) => string>>;

  readonly frame: {
    readonly tunnels: string;
    readonly ports: string;
    readonly live: string;
    readonly connecting: string;
    readonly lost: string;
    readonly readOnly: string;
    readonly readOnlyWhy: string;
    readonly signOut: string;
    readonly theme: string;
    readonly themes: Readonly<Record<'auto' | 'light' | 'dark', string>>;
    readonly language: string;
    readonly automatic: string;
    readonly keys: string;
    readonly skip: string;
    readonly dismiss: string;
    readonly version: (version: string) => string;
  };
  readonly lost: {
    readonly title: string;
    readonly asOf: (time: string) => string;
    readonly never: string;
    readonly again: string;
    readonly busy: string;
  };
  readonly notices: {
    readonly rejected: string;
    readonly stopping: string;
    readonly wrong: string;
  };
  readonly login: {
    readonly title: string;
    readonly token: string;
    readonly signIn: string;
    /** Before the name of the key, between that and the default, and after it. */
    readonly where: readonly [string, string, string];
    readonly wrong: string;
    readonly ended: string;
    readonly kept: string;
  };
  readonly list: {
    readonly title: string;
    readonly filter: string;
    readonly filterHint: string;
    readonly group: string;
    readonly allGroups: string;
    readonly sort: string;
    readonly unsorted: string;
    readonly states: Readonly<Record<StateFilter, string>>;
    readonly columns: Readonly<Record<Column, string>> & { readonly way: string; readonly actions: string };
    readonly none: string;
    readonly noneShown: string;
    readonly clear: string;
    readonly shown: (shown: number, all: number) => string;
    readonly scale: (full: string) => string;
  };
  readonly way: {
    /** In front of where it listens when that is on the server. */
    readonly remote: string;
    readonly via: string;
  };
  readonly trouble: {
    readonly next: (span: string, attempt: number) => string;
    readonly now: (attempt: number) => string;
    readonly said: string;
    readonly remedy: string;
    readonly disabled: string;
  };
  readonly person: {
    /** Why an interactive tunnel is not up that nobody has logged in for. */
    readonly reason: string;
    readonly authenticate: string;
    readonly authenticateOn: (name: string) => string;
    readonly needed: (count: number) => string;
  };
  readonly terminal: {
    /** Before the name of the tunnel. */
    readonly title: string;
    readonly field: string;
    readonly kept: string;
    readonly askpass: string;
    readonly up: string;
    readonly isUp: (name: string) => string;
    readonly lost: string;
    readonly taken: string;
    readonly blocked: string;
    readonly timeout: string;
    /** What to do where the server did not like the answers. */
    readonly retype: string;
    readonly again: string;
  };
  readonly restart: {
    readonly title: string;
    readonly none: string;
    readonly asked: string;
    readonly byItself: string;
    readonly total: string;
  };
  readonly tunnel: {
    readonly back: string;
    readonly gone: string;
    readonly facts: string;
    readonly since: string;
    readonly sinceTime: (time: string) => string;
    readonly uptime: string;
    readonly direction: string;
    readonly directions: Readonly<Record<'remote_to_local' | 'local_to_remote', string>>;
    readonly engine: string;
    readonly seamless: string;
    readonly seamlessWhy: string;
    readonly groups: string;
    readonly pid: string;
    readonly restarts: string;
    readonly usage: string;
    readonly health: string;
    readonly healths: Readonly<Record<'ok' | 'degraded' | 'unknown', string>>;
    readonly id: string;
    readonly logFile: string;
    readonly listeners: string;
    readonly sides: Readonly<Record<'local' | 'remote', string>>;
    readonly who: (address: string) => string;
    readonly processes: string;
    readonly inDaemon: string;
    readonly noProcesses: string;
    readonly listens: string;
    readonly age: string;
    readonly refused: Readonly<Record<Verb, string>>;
    readonly killed: (count: number) => string;
    readonly holders: string;
    readonly force: string;
    readonly forceTitle: (port: number) => string;
    readonly forceText: string;
    readonly forceDo: Readonly<Record<Verb, string>>;
  };
  readonly traffic: {
    readonly title: string;
    /** What the picture shows. */
    readonly span: string;
    readonly in: string;
    readonly out: string;
    readonly peak: string;
    readonly none: string;
    /** The picture in words. */
    readonly describe: (bytesIn: string, bytesOut: string, peak: string) => string;
    readonly open: string;
    readonly queued: string;
    readonly refused: string;
    readonly connections: string;
    readonly received: string;
    readonly sent: string;
  };
  readonly log: {
    readonly title: string;
    readonly follow: string;
    readonly toEnd: string;
    readonly empty: string;
    readonly broken: string;
  };
  readonly port: {
    readonly title: string;
    readonly question: string;
    readonly hint: string;
    readonly look: string;
    readonly invalid: string;
    readonly looking: string;
    readonly took: (took: string) => string;
    readonly everywhere: string;
    readonly listeners: string;
    readonly noListeners: string;
    readonly clients: string;
    readonly clientsLive: string;
    readonly respawner: string;
    readonly plan: string;
    readonly planTitle: string;
    readonly planNobody: string;
    readonly wouldKill: string;
    readonly left: string;
    readonly protected: string;
    readonly untouched: string;
    readonly freeIt: string;
    readonly freeing: string;
    readonly forceTitle: (port: number) => string;
    readonly forceText: string;
    readonly forceDo: string;
    readonly forGood: string;
    readonly forGoodTitle: (port: number) => string;
    readonly forGoodText: string;
    readonly isFree: string;
    readonly stillHeld: string;
    readonly killed: string;
    readonly survived: string;
    readonly tunnel: (name: string) => string;
  };
  readonly columns: {
    readonly program: string;
    readonly pid: string;
    readonly user: string;
    readonly age: string;
    readonly memory: string;
    readonly state: string;
    readonly why: string;
    readonly command: string;
    readonly address: string;
    readonly side: string;
  };
  readonly why: {
    readonly listens: (port: string) => string;
    readonly child: (pid: string) => string;
    readonly session: (pid: string) => string;
    readonly target: string;
  };
  readonly dialog: { readonly cancel: string; readonly close: string };
  readonly keys: {
    readonly title: string;
    readonly filter: string;
    readonly move: string;
    readonly open: string;
    readonly restart: string;
    readonly toggle: string;
    readonly ports: string;
    readonly back: string;
    readonly help: string;
  };
  readonly announce: {
    readonly state: (name: string, state: string) => string;
    readonly needed: (name: string) => string;
    readonly many: (count: number) => string;
    readonly lost: string;
    readonly back: string;
  };
}
