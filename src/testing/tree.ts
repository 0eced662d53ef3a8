import net from 'node:net';
import { TunwardError } from '../errors.js';
import { type KillOptions, type KillReport, killChains } from '../kill.js';
import { openProc } from '../proc/read.js';
import { isGone, isSame, type ProcessRef, readStat } from '../proc/stat.js';
import { assertMs, until } from '../time.js';
import { createTreeMarker } from './environment.js';
import { type Actor, LEASH_FD, type Report, startActor, type TreeShape } from './spawn.js';

/** One process of a tree. */
export interface TreeProcess extends ProcessRef {
  /** What it listens on, in the order of its shape. */
  readonly ports: readonly number[];
}

export interface TreeNode extends TreeProcess {
  readonly children: readonly TreeNode[];
}

/** A tree that is there: every socket is open, everybody who was to leave has left. */
export interface SpawnedTree extends TreeNode {
  /** Everybody who ever was in it, in the order in which they were ready, those that were started again included. */
  processes(): readonly TreeProcess[];
  /** Those of them that live at this moment. */
  living(): readonly TreeProcess[];
  /** Ends all of it, wherever it has gone (by a marker in its environment): see `killTree`. */
  kill(options?: KillOptions): Promise<KillReport>;
  /** Ends all of it with SIGKILL. Rejects when somebody survives. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Starts a tree of real processes. A tree that a test forgot ends with the program that started it, however that ends,
 * or after `lifetimeMs` (default: two minutes), whatever signals it ignores; one that is stopped by a signal ends when
 * it is continued.
 *
 * @throws TunwardError ERR_SPAWN_FAILED when a part cannot be played (a port that is in use), ERR_TIMEOUT after 20 s;
 * nothing is left of the tree then. RangeError for more than 100 processes, or a `respawn` above that.
 * @example
 * await using tree = await spawnTree({ ignore: ['SIGTERM'], children: [{ setsid: true, listen: [{ port: 8080 }] }] });
 * await killTree(tree.pid);
 * tree.living(); // []
 */
export async function spawnTree(shape: TreeShape, { lifetimeMs = 120_000 } = {}): Promise<SpawnedTree> {
  assertMs('lifetimeMs', lifetimeMs);
  const paths = pathsOf(shape);
  if (paths.length > MAX) {
    throw new RangeError(`Cannot start a tree of ${paths.length} processes: expected ${MAX} or less`);
  }
  const marker = createTreeMarker();
  const env = { ...shape.env, ...marker.env };
  const child = startActor(
    { shape: { ...shape, env }, path: '0', lifetimeMs: Math.min(lifetimeMs, LONGEST_MS) },
    'pipe',
  );
  const reports = receiveReports(child);
  const living = () => reports.filter(isAlive);
  const kill = async (options: KillOptions = {}): Promise<KillReport> => {
    const targets = living().map((ref) => ({ ref, why: 'of the tree', below: 'all' as const }));
    return killChains(targets, { ...options, marker: [marker.entry] });
  };
  const end = async (): Promise<void> => {
    const { survivors } = await kill();
    child.stdio[LEASH_FD]?.destroy();
    const [left] = survivors;
    if (left) throw new Error(`Cannot end pid ${left.pid} (${left.command}) of the tree: ${left.why}`);
  };
  try {
    await waitForAll(child, reports, paths);
  } catch (error) {
    await end();
    throw error;
  }
  letGo(child);
  const root = toNode(shape, reports, '0');
  return {
    ...root,
    processes: () => reports.map(toProcess),
    living: () => living().map(toProcess),
    kill,
    [Symbol.asyncDispose]: end,
  };
}

const READY_MS = 20_000;
/** A timer of Node that is longer is one of 1 ms. */
const LONGEST_MS = 2 ** 31 - 1;
/** What forks has a limit: a tree that grew without one would outlive every attempt to end it. */
const MAX = 100;

interface Place {
  readonly path: string;
  readonly leaves: boolean;
}

function pathsOf(shape: TreeShape, path = '0'): Place[] {
  const { respawn = 0 } = shape;
  if (!(Number.isInteger(respawn) && respawn >= 0 && respawn <= MAX)) {
    throw new RangeError(`Cannot use ${respawn} as respawn: expected an integer from 0 to ${MAX}`);
  }
  const children = (shape.children ?? []).flatMap((child, at) => pathsOf(child, `${path}.${at}`));
  return [{ path, leaves: shape.leave === true }, ...children];
}

/** The reports as they come. One is far smaller than what a pipe takes in one piece, so lines of two never mix. */
function receiveReports(child: Actor): Report[] {
  const reports: Report[] = [];
  const leash = child.stdio[LEASH_FD];
  let text = '';
  child.once('error', (error) => reports.push({ path: '0', pid: 0, startTicks: 0, ports: [], error: error.message }));
  leash?.on('error', () => undefined); // broken by an actor's end: its exit tells
  leash?.on('data', (chunk) => {
    const lines = `${text}${chunk}`.split('\n');
    text = lines.pop() ?? '';
    reports.push(...lines.map((line) => JSON.parse(line) as Report));
  });
  return reports;
}

async function waitForAll(child: Actor, reports: readonly Report[], places: readonly Place[]): Promise<void> {
  const reportOf = (path: string) => reports.find((report) => report.path === path);
  const failed = () => reports.find(({ error }) => error !== undefined);
  const isDead = () => child.exitCode !== null || child.signalCode !== null;
  const isReady = () =>
    places.every(({ path, leaves }) => {
      const report = reportOf(path);
      return report && !(leaves && isAlive(report));
    });
  const isSettled = () => failed() !== undefined || isReady() || (isDead() && !places[0]?.leaves);
  const settled = await until(isSettled, { timeoutMs: READY_MS });
  const failure = failed();
  if (failure) {
    throw new TunwardError(
      'ERR_SPAWN_FAILED',
      `Cannot start process ${failure.path} of the tree: ${failure.error}`,
      {},
    );
  }
  if (isReady()) return;
  const missing = places.filter(({ path }) => !reportOf(path)).map(({ path }) => path);
  if (settled) {
    const message = `The tree ended (${child.exitCode ?? child.signalCode}) before ${missing.join(', ')} was there`;
    throw new TunwardError('ERR_SPAWN_FAILED', message, {});
  }
  const message = `The tree is not complete after ${READY_MS} ms: ${missing.join(', ')} is missing`;
  throw new TunwardError('ERR_TIMEOUT', message, { timeoutMs: READY_MS });
}

/** It shall not keep the program from ending, which ends it. */
function letGo(child: Actor): void {
  child.unref();
  const leash = child.stdio[LEASH_FD];
  if (leash instanceof net.Socket) leash.unref();
}

function toNode(shape: TreeShape, reports: readonly Report[], path: string): TreeNode {
  const report = reports.find((candidate) => candidate.path === path);
  if (!report) throw new Error(`Process ${path} of the tree has not reported`);
  const children = (shape.children ?? []).map((child, at) => toNode(child, reports, `${path}.${at}`));
  return { ...toProcess(report), children };
}

function toProcess({ pid, startTicks, ports }: Report): TreeProcess {
  return { pid, startTicks, ports };
}

function isAlive(ref: ProcessRef): boolean {
  const stat = readStat(openProc(), ref.pid);
  return !isGone(stat) && isSame(stat, ref);
}
