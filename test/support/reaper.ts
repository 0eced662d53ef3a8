import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { until } from '#lib/time.js';
import { commandOf, descendantsOf, isAlive, processesWithEnv, type Ref, sendSignal, statOf } from './proc.js';

/** A process that a test left behind. */
export interface Survivor extends Ref {
  readonly command: string;
}

/** Owns every process that one test starts, and ends them all. */
export interface Reaper {
  /**
   * Goes into the environment of whatever is started: finds also descendants that were never reported. The name begins
   * with LC_ because a daemon under test hands only an allow-list on to ssh, and LC_* is in it.
   */
  readonly env: Readonly<Record<string, string>>;
  own(child: ChildProcess): void;
  ownPid(pid: number, startTicks?: number): void;
  /** What lives at this moment of all that was owned or carries `env`, and of its descendants; oldest first. */
  living(): Survivor[];
  /**
   * Kills all of it, by pid and start ticks looked at again just before, until five looks in a row find nothing (one
   * empty look proves nothing against a process that forks). Resolves to what still lived when it was called;
   * rejects when something survives.
   */
  end(): Promise<Survivor[]>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * @example
 * const reaper = createReaper();
 * afterEach(() => reaper.end());
 * const listener = startListener(reaper, { host: '127.0.0.1' });
 */
export function createReaper(): Reaper {
  const id = randomBytes(8).toString('hex');
  const owned: Ref[] = [];
  const ownPid = (pid: number, startTicks = statOf(pid)?.startTicks): void => {
    if (startTicks !== undefined) owned.push({ pid, startTicks });
  };
  const entry = `LC_TUNWARD_TEST_REAPER=${id}`;
  const living = () => describeAll(findLiving(owned, entry));
  const end = async (): Promise<Survivor[]> => {
    const left = living();
    await killAll(function* () {
      yield* withDescendants(owned);
      yield* processesWithEnv(entry);
    });
    owned.length = 0;
    return left;
  };
  return {
    env: { LC_TUNWARD_TEST_REAPER: id },
    own: (child) => child.pid !== undefined && ownPid(child.pid),
    ownPid,
    living,
    end,
    [Symbol.asyncDispose]: async () => {
      await end();
    },
  };
}

/**
 * Ends a process and all its descendants. They are frozen from the top first, so that none forks on while the others
 * are looked for: for servers such as sshd, that wipe their environment and put each connection in its own session.
 */
export async function endTree(root: Ref): Promise<void> {
  const tree = new Map<number, Ref>();
  const unseen = () => withDescendants([root]).filter(({ pid }) => !tree.has(pid));
  for (let fresh = unseen(); fresh.length > 0; fresh = unseen()) {
    for (const ref of fresh) {
      tree.set(ref.pid, ref);
      sendSignal(ref, 'SIGSTOP');
    }
  }
  await killAll(() => withDescendants([...tree.values()]));
}

/** Kills what `find` finds, each as it is found, until there is nothing left. */
export async function killAll(find: () => Iterable<Ref>): Promise<void> {
  let found: Ref[] = [];
  const look = (): number => {
    found = [];
    for (const ref of find()) {
      sendSignal(ref, 'SIGKILL');
      found.push(ref);
    }
    return found.length;
  };
  if (!(await isEmptied(look, 10_000))) throw new Error(`Still alive:\n${listSurvivors(describeAll(found))}`);
}

/** Whether `look` counts 0 five times in a row within the time: one such look proves nothing where processes fork. */
export async function isEmptied(look: () => number, timeoutMs: number): Promise<boolean> {
  let empty = 0;
  const count = (): boolean => {
    empty = look() === 0 ? empty + 1 : 0;
    return empty >= 5;
  };
  return (await until(count, { timeoutMs, everyMs: 2 })) === true;
}

/** The processes that carry `entry` in their environment, as they were found, the living of `owned`, and their descendants. */
export function findLiving(owned: readonly Ref[], entry: string): Ref[] {
  const marked = [...processesWithEnv(entry)];
  const all = [...marked, ...withDescendants([...owned, ...marked])];
  return [...new Map(all.map((ref) => [ref.pid, ref])).values()].sort(oldestFirst);
}

/** Those of `refs` that live, and their descendants; oldest first, since a parent would replace a killed child. */
export function withDescendants(refs: readonly Ref[]): Ref[] {
  const roots = refs.filter(({ pid, startTicks }) => isAlive(pid, startTicks));
  if (roots.length === 0) return [];
  const found = new Map<number, Ref>(roots.map((ref) => [ref.pid, ref]));
  for (const stat of descendantsOf(...roots.map(({ pid }) => pid))) found.set(stat.pid, stat);
  return [...found.values()].sort(oldestFirst);
}

function oldestFirst(one: Ref, other: Ref): number {
  return one.startTicks - other.startTicks || one.pid - other.pid;
}

export function describeAll(refs: readonly Ref[]): Survivor[] {
  return refs.map(({ pid, startTicks }) => ({ pid, startTicks, command: commandOf(pid) }));
}

/** One line a process: pid and command line. */
export function listSurvivors(survivors: readonly Survivor[]): string {
  return survivors.map(({ pid, command }) => `  ${pid}  ${command}`).join('\n');
}
