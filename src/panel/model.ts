import type { Api } from './api.js';
import type { Settings } from './settings.js';
import type { Done, PortReport, Problem, ProcessNode, Session, Traffic, Tunnel } from './types.js';
import type { Column, StateFilter, Verb, Words } from './words.js';

export type Route =
  | { readonly page: 'list' }
  | { readonly page: 'tunnel'; readonly id: string }
  | { readonly page: 'port'; readonly text: string };

/** What is known of the daemon at this moment. Lost is not the same as stopped: then nothing is known of any tunnel. */
export interface Link {
  readonly state: 'connecting' | 'live' | 'lost';
  /** It answers, and not what it was asked for: it is still booting, or busy. */
  readonly problem?: Problem | undefined;
}

/** What came of the last thing that was asked of a tunnel. */
export type Outcome =
  | { readonly verb: Verb; readonly done: Done }
  | { readonly verb: Verb; readonly done?: undefined; readonly problem: Problem };

export interface ListChoice {
  readonly query: string;
  readonly group: string;
  readonly states: StateFilter;
  /** undefined: as the configuration has them. */
  readonly sort: { readonly column: Column; readonly isDescending: boolean } | undefined;
  /** The tunnel whose row the keyboard is at. */
  readonly current: string | undefined;
}

export interface PortLook {
  readonly doing: 'look' | 'plan' | 'free' | undefined;
  readonly isInvalid?: boolean;
  readonly report?: PortReport | undefined;
  /** A dry run: nobody was touched. */
  readonly plan?: PortReport | undefined;
  /** What was done. */
  readonly result?: PortReport | undefined;
  readonly problem?: Problem | undefined;
}

/** What the daemon had counted for a tunnel at a moment by its clock, in ms since the epoch. */
export interface Sample {
  readonly atMs: number;
  readonly traffic: Traffic;
}

export interface Model {
  /** Who is not signed in sees nothing but the form for that. */
  readonly phase: 'connecting' | 'login' | 'in';
  readonly session: Session | undefined;
  readonly login: { readonly isBusy: boolean; readonly problem?: Problem | undefined; readonly hasEnded: boolean };
  readonly link: Link;
  /** When what is shown was so, in ms since the epoch. */
  readonly asOf: number | undefined;
  /** By id, for two tunnels may have one name; in the order of the configuration. */
  readonly tunnels: ReadonlyMap<string, Tunnel>;
  readonly pending: ReadonlyMap<string, Verb>;
  readonly outcomes: ReadonlyMap<string, Outcome>;
  readonly notice: { readonly kind: 'rejected' | 'stopping' | 'wrong'; readonly detail?: string } | undefined;
  readonly route: Route;
  readonly list: ListChoice;
  readonly processes: { readonly id: string; readonly tree: ProcessNode | null } | undefined;
  /** By tunnel, the latest last: two minutes of it at most. */
  readonly traffic: ReadonlyMap<string, readonly Sample[]>;
  readonly log: { readonly isFollowing: boolean; readonly isEmpty: boolean; readonly isBroken: boolean };
  readonly port: PortLook;
}

/** What every part of the page has in its hands. */
export interface Panel {
  readonly api: Api;
  readonly settings: Settings;
  readonly model: () => Model;
  readonly words: () => Words;
  /** By the daemon's clock, ms since the epoch. */
  readonly daemonNow: () => number;
  /** Replaces these parts, and has the page drawn. */
  readonly update: (part: Partial<Model>) => void;
  readonly draw: () => void;
  /** To those who hear the page. */
  readonly announce: (text: string) => void;
}

export const firstModel: Model = {
  phase: 'connecting',
  session: undefined,
  login: { isBusy: false, hasEnded: false },
  link: { state: 'connecting' },
  asOf: undefined,
  tunnels: new Map(),
  pending: new Map(),
  outcomes: new Map(),
  notice: undefined,
  route: { page: 'list' },
  list: { query: '', group: '', states: 'all', sort: undefined, current: undefined },
  processes: undefined,
  traffic: new Map(),
  log: { isFollowing: true, isEmpty: true, isBroken: false },
  port: { doing: undefined },
};

/** A copy with one more entry, or, for undefined, one less. */
export function withEntry<V>(map: ReadonlyMap<string, V>, key: string, value: V | undefined): ReadonlyMap<string, V> {
  const copy = new Map(map);
  if (value === undefined) copy.delete(key);
  else copy.set(key, value);
  return copy;
}

/** May this session act, and is there somebody to ask? Otherwise why not. */
export function whyNotAct({ session, link }: Model, words: Words): string | undefined {
  if (session?.scope === 'read') return words.frame.readOnlyWhy;
  return link.state === 'live' ? undefined : words.lost.title;
}
