import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { killChains } from '../../kill.js';
import { openProc } from '../../proc/read.js';
import { isGone, isSame, type ProcessRef, readStat } from '../../proc/stat.js';
import { until } from '../../time.js';

/*
 * The third place that may spawn, beside tunnel/chain.ts (the tunnels) and cli/detach.ts (the daemon): what the demo
 * puts in a tunnel's way is started here, by hand and not by the daemon, and all of it ends with the demo.
 */

/** The descriptor that breaks when the demo is gone. Handed on from one generation of actors to the next. */
export const LEASH_FD = 3;

/** A command line that a person takes in at a glance: `node actor.js worker 10989`. */
const asActor = { argv0: 'node', cwd: fileURLToPath(new URL('.', import.meta.url)), detached: true } as const;

export type Part = 'keeper' | 'worker' | 'stranger' | 'client';

export interface Actors {
  /** A process of this program in a part, see actor.ts. */
  play(part: Part, port: number): ProcessRef;
  /** A chain that nobody supervises: what a killed manager leaves behind. The working folder is `cwd`. */
  strand(program: string, words: readonly string[], options: { ssh: string; cwd: string }): ProcessRef;
  /** Runs a program to its end, for 5 s at most; resolves to what it has said on stderr. */
  hear(program: string, words: readonly string[], options: { cwd: string; signal: AbortSignal }): Promise<string>;
  isAlive(actor: ProcessRef): boolean;
  /** Ends every actor, and whatever one of them has started. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** A chain that lost its demo ends by itself after so many seconds (node's actors hold a leash instead). */
const MAX_LIFE_S = 60;
const HEAR_MS = 5000;

export function openActors(env: NodeJS.ProcessEnv): Actors {
  const proc = openProc();
  const marker = `TUNWARD_DEMO=${randomBytes(8).toString('hex')}`;
  const own = { ...plain(env), ...Object.fromEntries([marker.split('=')]) };
  return {
    play: (part, port) =>
      start(process.execPath, ['actor.js', part, String(port)], {
        ...asActor,
        env: own,
        stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
      }),
    strand: (program, words, { ssh, cwd }) =>
      start(program, words, {
        env: { ...own, AUTOSSH_GATETIME: '0', AUTOSSH_PATH: ssh, AUTOSSH_MAXLIFETIME: String(MAX_LIFE_S) },
        cwd,
        stdio: 'ignore',
        detached: true,
      }),
    hear,
    isAlive,
    [Symbol.asyncDispose]: close,
  };

  function start(program: string, words: readonly string[], options: Parameters<typeof spawn>[2]): ProcessRef {
    const child = spawn(program, [...words], options);
    child.once('error', () => undefined); // without a pid, which is told here
    const stat = child.pid === undefined ? undefined : readStat(proc, child.pid);
    if (!stat) throw new Error(`The demo cannot run ${program}`);
    // The leash breaks with this process; an actor that ends first breaks it from the other side.
    child.stdio[LEASH_FD]?.on('error', () => undefined);
    return { pid: stat.pid, startTicks: stat.startTicks };
  }

  async function hear(program: string, words: readonly string[], options: { cwd: string; signal: AbortSignal }) {
    const { cwd, signal } = options;
    const child = spawn(program, [...words], { env: own, cwd, stdio: ['ignore', 'ignore', 'pipe'], detached: true });
    let said = '';
    let ended: Error | true | undefined;
    child.once('error', (error) => {
      ended = error;
    });
    child.once('close', () => {
      ended ??= true;
    });
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      said += chunk;
    });
    const end = await until(() => ended, { timeoutMs: HEAR_MS, signal });
    if (end instanceof Error) throw end;
    return said;
  }

  function isAlive(actor: ProcessRef): boolean {
    const stat = readStat(proc, actor.pid);
    return !isGone(stat) && isSame(stat, actor);
  }

  async function close(): Promise<void> {
    // By the marker and not by a list: what an actor started meanwhile is found too, in whatever session it is.
    const { survivors } = await killChains([], { marker: [marker] });
    const [left] = survivors;
    if (left) throw new Error(`The demo could not end pid ${left.pid} (${left.command}): ${left.why}`);
  }
}

/**
 * For an actor: starts the next one, on the same leash, in a session of its own, as a daemon's would be. A worker hears
 * from its stdin when its keeper has died.
 */
export function respawn(part: 'keeper' | 'worker', port: number): ChildProcess {
  return spawn(process.execPath, ['actor.js', part, String(port)], {
    ...asActor,
    stdio: [part === 'worker' ? 'pipe' : 'ignore', 'ignore', 'ignore', LEASH_FD],
  });
}

/** The person's environment without what steers autossh, or marks a chain as some daemon's own. */
function plain(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !/^(AUTOSSH_|TUNWARD_|TUNNEL_ID$)/.test(name)));
}
