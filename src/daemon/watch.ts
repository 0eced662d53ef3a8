import fs from 'node:fs';
import { readlink, stat } from 'node:fs/promises';
import path from 'node:path';
import { isErrno } from '../errors.js';
import { type Clock, until } from '../time.js';

export interface Watch {
  /** Nothing is looked at any more. Does not wait for a look that is under way: a file may never answer. */
  close(): void;
}

export interface WatchOptions {
  readonly clock: Clock;
  /** Looks at the file: at once, after every burst of events and every 2 s. One look at a time. */
  readonly look: (signal: AbortSignal) => Promise<void>;
  /** The folder cannot be watched, or a look failed: each sentence once. */
  readonly onTrouble: (message: string) => void;
}

/** Without events (another host's edit, a single file that is mounted) the file is looked at this often. */
const POLL_MS = 2000;
/** One save of an editor is several events: the look comes when they pause, and in a folder without pause this late. */
const QUIET_MS = 100;
const BURST_MS = 1000;

/**
 * Calls `look` whenever a file may have changed. It is the folder that is watched, since an atomic rename leaves a
 * watched file behind; with it the folder of every link on the way, since the file may be swapped by one of those
 * (Kubernetes: `tunward.yaml → ..data/tunward.yaml`, `..data → ..2026_01_16`).
 */
export function watchFile(file: string, { clock, look, onTrouble }: WatchOptions): Watch {
  const closing = new AbortController();
  const { signal } = closing;
  const told = new Set<string>();
  let lastEvent = 0;
  /** Rung by an event; what rings it during a look is not lost. */
  let bell = new AbortController();
  const folders = watchFolders({ onEvent: ring, onTrouble: tellOnce });
  run().catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
  return { close };

  async function run(): Promise<void> {
    for (;;) {
      await lookOnce().catch(tellFailure);
      await pause();
    }
  }

  /** The watch comes before the look: what changes in between is an event. */
  async function lookOnce(): Promise<void> {
    const places = await findPlaces(file);
    signal.throwIfAborted();
    folders.set(places);
    await look(signal);
  }

  async function pause(): Promise<void> {
    await clock.sleep(POLL_MS, bell.signal).catch((error: unknown) => {
      if (error !== bell.signal.reason) throw error;
    });
    const isQuiet = () => clock.now() - lastEvent >= QUIET_MS;
    if (bell.signal.aborted) await until(isQuiet, { timeoutMs: BURST_MS, everyMs: QUIET_MS / 4, signal, clock });
    bell = new AbortController();
  }

  function ring(): void {
    lastEvent = clock.now();
    bell.abort(new Error(`${file} may have changed`));
  }

  /** Whatever went wrong with one look, the next one may go well, and no tunnel must fall for it. */
  function tellFailure(error: unknown): void {
    signal.throwIfAborted();
    tellOnce(`${file} could not be looked at: ${error instanceof Error ? error.message : String(error)}`);
  }

  function tellOnce(message: string): void {
    if (told.has(message)) return;
    told.add(message);
    onTrouble(message);
  }

  function close(): void {
    closing.abort(new Error(`${file} is no longer watched`));
    bell.abort(signal.reason);
    folders.set(new Map());
  }
}

/** A folder, by path and inode, and the names in it that decide what the file is. */
interface Place {
  readonly identity: string;
  readonly names: Set<string>;
}

/** Keeps a watch on each of the folders it was last told. */
function watchFolders({ onEvent, onTrouble }: { onEvent: () => void; onTrouble: (message: string) => void }) {
  const watchers = new Map<string, { readonly identity: string; readonly close: () => void }>();
  let places: ReadonlyMap<string, Place> = new Map();
  return { set };

  function set(wanted: ReadonlyMap<string, Place>): void {
    places = wanted;
    // A folder that was replaced by another of its name: the watch is on what is gone.
    for (const [folder, { identity }] of watchers) if (wanted.get(folder)?.identity !== identity) drop(folder);
    for (const [folder, { identity }] of wanted) if (!watchers.has(folder)) open(folder, identity);
  }

  function open(folder: string, identity: string): void {
    try {
      const watcher = fs.watch(folder, { persistent: false }, (_type, name) => {
        if (name === null || places.get(folder)?.names.has(name)) onEvent();
      });
      watcher.once('error', () => drop(folder));
      watchers.set(folder, { identity, close: () => watcher.close() });
    } catch (error) {
      if (!isErrno(error, ...refusals)) throw error;
      // Gone since it was looked up: the next look knows more.
      if (error.code === 'ENOENT') return;
      onTrouble(
        `${folder} cannot be watched (${explain(error.code)}): it is looked at every ${POLL_MS / 1000} s instead`,
      );
    }
  }

  function drop(folder: string): void {
    watchers.get(folder)?.close();
    watchers.delete(folder);
  }
}

const refusals = ['ENOENT', 'ENOTDIR', 'EACCES', 'EPERM', 'ENOSPC', 'EMFILE', 'ENFILE', 'ENOMEM', 'ENOSYS'];

function explain(code: string | undefined): string {
  if (code === 'ENOSPC') return 'ENOSPC: fs.inotify.max_user_watches is used up';
  return code === 'EMFILE' ? 'EMFILE: fs.inotify.max_user_instances, or the descriptors, are used up' : String(code);
}

/** As many links as the kernel follows in one path. */
const MAX_LINKS = 40;

/**
 * The folders in which something decides what a path leads to: that of every link on the way, and the one at the end.
 * Where the way ends early, the folder in which it does: what is missing may come back there.
 */
async function findPlaces(file: string): Promise<Map<string, Place>> {
  const places = new Map<string, Place>();
  let rest = partsOf(file);
  let folder = '/';
  for (let links = 0; ; ) {
    const [name = '', ...after] = rest;
    const target = await readLink(path.join(folder, name));
    if (target !== 'no link' || after.length === 0) await note(folder, name);
    const isOver = target === 'missing' || (target === 'no link' && after.length === 0);
    if (isOver || links > MAX_LINKS) return places;
    if (target === 'no link') {
      folder = path.join(folder, name);
      rest = after;
    } else {
      links++;
      if (path.isAbsolute(target.link)) folder = '/';
      rest = [...partsOf(target.link), ...after];
    }
  }

  async function note(at: string, name: string): Promise<void> {
    const known = places.get(at);
    known?.names.add(name);
    const identity = known?.identity ?? (await identify(at));
    if (identity !== undefined) places.set(at, known ?? { identity, names: new Set([name]) });
  }
}

function partsOf(text: string): string[] {
  return text.split('/').filter((part) => part !== '' && part !== '.');
}

async function readLink(file: string): Promise<{ readonly link: string } | 'no link' | 'missing'> {
  try {
    return { link: await readlink(file) };
  } catch (error) {
    if (isErrno(error, 'EINVAL')) return 'no link';
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'EACCES', 'EPERM', 'ENAMETOOLONG', 'ELOOP', 'ESTALE', 'EIO'))
      return 'missing';
    throw error;
  }
}

async function identify(folder: string): Promise<string | undefined> {
  try {
    const { dev, ino } = await stat(folder);
    return `${dev}:${ino}`;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'EACCES', 'EPERM', 'ESTALE', 'EIO')) return undefined;
    throw error;
  }
}
