/**
 * Process trees of known shape, made of real processes. One program (programs/actor.mjs) plays every part: what it
 * listens to, which signals it ignores, which children it has and how stubbornly it keeps them. Each start function
 * takes the Reaper that ends what it starts.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { programsDir, which } from './paths.js';
import { statOf } from './proc.js';
import type { Reaper } from './reaper.js';

/** The part that one process plays. Everything is optional; `{}` just stays alive (180 s at most). */
export interface Actor {
  /** Listens there; port 0 (default) is any. A client is sent `<pid>\n`, then its own bytes. No host: `::`, dual-stack. */
  readonly listen?: readonly { readonly port?: number; readonly host?: string; readonly ipv6Only?: boolean }[];
  /** Connects there and holds the connection; it stays alive when the server goes. */
  readonly connect?: { readonly port: number; readonly host?: string };
  /** Signals that do nothing to it. */
  readonly ignore?: readonly NodeJS.Signals[];
  /** Its name in /proc/<pid>/comm, 15 bytes at most. */
  readonly comm?: string;
  /** The first word of its command line, in place of `node`. */
  readonly argv0?: string;
  /** Touched memory that the kernel must tear down before the port is free. */
  readonly memoryMb?: number;
  /** Added to the environment, for it and everything below it. */
  readonly env?: Readonly<Record<string, string>>;
  /** Starts in a session of its own. */
  readonly setsid?: boolean;
  readonly children?: readonly Actor[];
  /** How many dead children, in all, are replaced at once by a new one. Without it a child's death changes nothing. */
  readonly respawn?: number;
  /** Exits as soon as its children are ready: they become orphans. */
  readonly leave?: boolean;
}

/** What came of an Actor. */
export interface Shape {
  readonly pid: number;
  readonly startTicks: number;
  readonly ports: readonly { readonly port: number; readonly host: string }[];
  readonly children: readonly Shape[];
}

export interface Started<T> {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly startTicks: number;
  /** Resolves when it does its work: all sockets are open, all children are ready. Rejects when it ends before. */
  readonly ready: Promise<T>;
  /** Children that were started again, in order (only the tree's `respawn` actors report them). */
  readonly respawned: readonly Shape[];
  /** SIGKILL to the root alone, and the wait for its exit. What it leaves is the reaper's. */
  kill(): Promise<void>;
}

/**
 * Starts a tree of any shape.
 *
 * @example
 * const tree = startTree(reaper, { ignore: ['SIGTERM'], children: [{ setsid: true, listen: [{ host: '127.0.0.1' }] }] });
 * const { children } = await tree.ready;
 */
export function startTree(reaper: Reaper, actor: Actor): Started<Shape> {
  return startProgram(reaper, [process.execPath, join(programsDir, 'actor.mjs'), JSON.stringify(actor)], actor);
}

/** A process that listens on one address: 127.0.0.1 and any free port unless said otherwise. */
export function startListener(
  reaper: Reaper,
  { port = 0, host = '127.0.0.1', ...actor }: Actor & { readonly port?: number; readonly host?: string } = {},
): Started<Shape> {
  return startTree(reaper, { ...actor, listen: [{ port, host }, ...(actor.listen ?? [])] });
}

/** A process that holds a connection to `port` and must outlive the port's release. */
export function startClient(
  reaper: Reaper,
  { port, host = '127.0.0.1', ...actor }: Actor & { readonly port: number; readonly host?: string },
): Started<Shape> {
  return startTree(reaper, { ...actor, connect: { port, host } });
}

/** A process that neither SIGTERM, SIGHUP nor SIGINT ends. */
export function startStubborn(reaper: Reaper, actor: Actor = {}): Started<Shape> {
  return startTree(reaper, { ...actor, ignore: ['SIGTERM', 'SIGHUP', 'SIGINT'] });
}

/** Keeps `count` children alive and replaces a dead one at once, `generations` times in all. */
export function startRespawner(
  reaper: Reaper,
  {
    count = 3,
    generations = 100,
    child = {},
    ...actor
  }: Actor & { readonly count?: number; readonly generations?: number; readonly child?: Actor } = {},
): Started<Shape> {
  return startTree(reaper, { ...actor, respawn: generations, children: Array.from({ length: count }, () => child) });
}

/**
 * A daemon as daemons are made: forked twice, in a session of its own, adopted by pid 1. `ready` is the daemon's Shape;
 * `pid` and `child` are of the starter, which is gone by then.
 */
export function startDaemonized(reaper: Reaper, actor: Actor): Started<Shape> {
  const started = startTree(reaper, { leave: true, children: [{ setsid: true, leave: true, children: [actor] }] });
  const ready = started.ready.then(async (shape) => {
    await ended(started.child);
    const daemon = shape.children[0]?.children[0];
    if (!daemon) throw new Error(`the daemon is missing in ${JSON.stringify(shape)}`);
    reaper.ownPid(daemon.pid, daemon.startTicks);
    return daemon;
  });
  ready.catch(() => undefined); // as in startProgram
  return { ...started, ready };
}

/**
 * Forks every `everyMs` and lets the parent exit, `generations` times: by the time its pid is known it is another. Only
 * the marker stays: `reaper.living()` tells whether it still flies. Needs perl (`need(this, 'perl')`). With `exec` each generation
 * is a new program, whose environment reads empty for a moment.
 */
export function startComet(
  reaper: Reaper,
  {
    everyMs = 2,
    generations = 500,
    exec = false,
    env = {},
  }: {
    readonly everyMs?: number;
    readonly generations?: number;
    readonly exec?: boolean;
    readonly env?: Readonly<Record<string, string>>;
  } = {},
): Started<{ readonly pid: number }> {
  const argv = [which('perl') ?? 'perl', join(programsDir, 'comet.pl'), String(everyMs), String(generations)];
  return startProgram(reaper, exec ? [...argv, 'exec'] : argv, { env });
}

function startProgram<T>(reaper: Reaper, [program = '', ...args]: readonly string[], how: Actor): Started<T> {
  const child = spawn(program, args, {
    argv0: how.argv0 ?? program,
    detached: how.setsid === true,
    env: { ...process.env, ...reaper.env, ...how.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  reaper.own(child);
  const respawned: Shape[] = [];
  const ready = firstLine<T>(child, respawned);
  ready.catch(() => undefined); // a test that never asks must not fail for an unhandled rejection
  const pid = child.pid ?? 0;
  return {
    child,
    pid,
    startTicks: statOf(pid)?.startTicks ?? 0,
    ready,
    respawned,
    kill: async () => {
      child.kill('SIGKILL');
      await ended(child);
    },
  };
}

function firstLine<T>(child: ChildProcess & { stdout: Readable; stderr: Readable }, respawned: Shape[]): Promise<T> {
  const lines = createInterface({ input: child.stdout });
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    lines.on('line', (line) => {
      const said = JSON.parse(line) as T & { respawned?: Shape };
      if (said.respawned) respawned.push(said.respawned);
      else resolve(said);
    });
    // The end of stdout, not the child's exit: that may be heard before the line of a program that leaves.
    lines.once('close', () => setImmediate(() => reject(new Error(`ended before it was ready: ${errors}`))));
  });
}

/** The child's exit, also when it was before. Never its 'close': a descendant may hold the pipes for ever. */
async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}
