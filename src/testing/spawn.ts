import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { actorEnvironment } from './environment.js';

/** The part that one process of a tree plays. Everything is optional; `{}` just stays alive. */
export interface TreeShape {
  /** Listens there. Port 0 (the default) is any, the host is 127.0.0.1. A client is sent `<pid>\n`, then its own bytes. */
  readonly listen?: readonly { readonly port?: number; readonly host?: string }[];
  /** Connects there and holds the connection; it stays alive when the server goes. */
  readonly connect?: { readonly port: number; readonly host?: string };
  /** Signals that do nothing to it. */
  readonly ignore?: readonly NodeJS.Signals[];
  /** What ps and tunward call it, in place of `node …`. */
  readonly title?: string;
  /** Added to the environment, for it and everything below it. */
  readonly env?: Readonly<Record<string, string>>;
  /** Starts in a session of its own. */
  readonly setsid?: boolean;
  readonly children?: readonly TreeShape[];
  /** How many dead children, in all, are replaced at once by a new one. Without it a child's death changes nothing. */
  readonly respawn?: number;
  /** Exits as soon as its children are started: they become orphans, as daemons are. */
  readonly leave?: boolean;
}

/** What an actor is told: its part, its place in the tree (`0.1`: the second child of the first), how long it may live. */
export interface Part {
  readonly shape: TreeShape;
  readonly path: string;
  readonly lifetimeMs: number;
}

/** What it answers, in one line of JSON on its leash: what came of the part, or why nothing did. */
export interface Report {
  readonly path: string;
  readonly pid: number;
  readonly startTicks: number;
  readonly ports: readonly number[];
  readonly error?: string;
}

/**
 * One pipe for the whole tree, handed on from one generation to the next. The actors report on it, and it breaks when
 * the program that has started the tree is gone, however that ended: then they end too.
 */
export const LEASH_FD = 3;

export type Actor = ChildProcess;

/** The one place of the kit that starts processes. `leash`: `pipe` for the first of a tree, its descriptor after that. */
export function startActor(part: Part, leash: 'pipe' | typeof LEASH_FD): Actor {
  const stdio: StdioOptions = ['ignore', 'ignore', 'ignore', leash];
  return spawn(process.execPath, [program, JSON.stringify(part)], {
    detached: part.shape.setsid === true,
    env: actorEnvironment(part.shape.env),
    stdio,
  });
}

const program = fileURLToPath(new URL('./actor.js', import.meta.url));
