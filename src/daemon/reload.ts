import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { isTunwardError } from '../errors.js';
import type { Clock } from '../time.js';
import type { TunnelSpec } from '../tunnel/spec.js';
import { type Config, parseSource } from './config.js';
import type { DaemonEvent, TunnelChanges, TunnelName } from './events.js';
import { type ConfigSource, formatProblem, readText } from './source.js';

export interface Reloader {
  /** What holds now. */
  readonly config: () => Config;
  /** Takes the file as it is: somebody asked. A bad one is said, and changes nothing. */
  reload(): Promise<void>;
  /** Takes the file when it says something that it did not say at the last look, and is sure to be whole. */
  look(signal: AbortSignal): Promise<void>;
}

export interface ReloadOptions {
  /** What the daemon was started with. */
  readonly source: ConfigSource;
  readonly config: Config;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly clock: Clock;
  readonly publish: (event: DaemonEvent) => void;
  /** Makes these the tunnels; resolves when those that have left are down. */
  readonly apply: (tunnels: readonly TunnelSpec[]) => Promise<void>;
}

/** What is written in two goes may look like less than it will be: after this long it is looked at again. */
const DOUBT_MS = 1000;

/**
 * Reads the daemon's configuration again, one reading at a time. It stays with the file it was started with: should that
 * vanish, no other that would be found in its place is taken.
 */
export function createReloader({ source, config, env, cwd, clock, publish, apply }: ReloadOptions): Reloader {
  const { file } = source;
  let current = config;
  /** What was taken last, or refused. A content that comes twice is news once. */
  let seen = digestOf(source.text);
  let busy: Promise<void> = Promise.resolve();
  return { config: () => current, reload, look };

  function reload(): Promise<void> {
    return inTurn(async () => {
      const reading = await read();
      await take(reading.digest, parse(reading));
    });
  }

  async function look(signal: AbortSignal): Promise<void> {
    let doubted: string | undefined;
    for (;;) {
      const reading = await read();
      const { digest } = reading;
      if (digest === seen) return;
      const next = parse(reading);
      if (digest === doubted || !isDoubtful(reading, next)) {
        // A reload that was asked for may have come first.
        return inTurn(async () => (digest === seen ? undefined : take(digest, next)));
      }
      doubted = digest;
      await clock.sleep(DOUBT_MS, signal);
    }
  }

  /** A reload waits for the one before it: what that one made of the tunnels is what the next one changes. */
  function inTurn(act: () => Promise<void>): Promise<void> {
    const turn = busy.then(act);
    busy = turn.catch(() => undefined); // told by `turn`
    return turn;
  }

  async function read(): Promise<Reading> {
    try {
      const text = await readText(file);
      return { digest: digestOf(text), text };
    } catch (error) {
      if (!isTunwardError(error, 'ERR_CONFIG_INVALID')) throw error;
      // Not there, a FIFO, too large: what is wrong stands for the content.
      return { digest: error.message, text: undefined };
    }
  }

  /** The configuration, or what is wrong with it. */
  function parse({ text, digest }: Reading): Config | string {
    if (text === undefined) return digest;
    try {
      return parseSource({ file, text }, { env, cwd });
    } catch (error) {
      if (!isTunwardError(error, 'ERR_CONFIG_INVALID')) throw error;
      return error.message;
    }
  }

  /**
   * Wrong, less than before, or cut off in the middle of a line: so looks a file that an editor has emptied and not
   * yet written, and no tunnel is to fall for that.
   */
  function isDoubtful({ text }: Reading, next: Config | string): boolean {
    if (typeof next === 'string' || !text?.endsWith('\n')) return true;
    return compareTunnels(current.tunnels, next.tunnels).removed.length > 0;
  }

  async function take(digest: string, next: Config | string): Promise<void> {
    seen = digest;
    if (typeof next === 'string') return publish({ type: 'config.rejected', file, message: next });
    const changes = compareTunnels(current.tunnels, next.tunnels);
    const unapplied = fixedKeys.filter(([, of]) => !isDeepStrictEqual(of(current), of(next))).map(([key]) => key);
    const { logDir, stateDir, api, start, reload } = current;
    current = { ...next, logDir, stateDir, api, start, reload };
    const warnings = [
      ...warningsOf(next),
      ...unapplied.map((key) => `${file}: ${key}: changed, and in force after a restart of the daemon`),
    ];
    publish({ type: 'config.loaded', file, warnings, changes });
    await apply(next.tunnels);
  }
}

/** What a file says at one moment: its text and the digest of that, or the sentence why it cannot be read. */
interface Reading {
  readonly digest: string;
  readonly text: string | undefined;
}

/** What a running daemon cannot change: it has opened it. */
const fixedKeys: readonly (readonly [key: string, of: (config: Config) => unknown])[] = [
  ['log_dir', ({ logDir }) => logDir],
  ['state_dir', ({ stateDir }) => stateDir],
  ['api.socket', ({ api }) => api.socket],
  ['api.listen', ({ api }) => api.listen],
  ['api.token_file', ({ api }) => api.tokenFile],
  ['api.tokens', ({ api }) => api.tokens],
  ['api.hosts', ({ api }) => api.hosts],
  ['api.compat', ({ api }) => api.compat],
  ['start', ({ start }) => start],
  ['reload', ({ reload }) => reload],
];

/** By id: two tunnels may bear one name. Changed is also one that is labelled anew, and not restarted for that. */
export function compareTunnels(before: readonly TunnelSpec[], after: readonly TunnelSpec[]): TunnelChanges {
  const old = new Map(before.map((spec) => [spec.id, spec]));
  const ids = new Set(after.map(({ id }) => id));
  const isChanged = (spec: TunnelSpec) => {
    const former = old.get(spec.id);
    return former !== undefined && !isDeepStrictEqual(former, spec);
  };
  return {
    added: after.filter(({ id }) => !old.has(id)).map(nameOf),
    removed: before.filter(({ id }) => !ids.has(id)).map(nameOf),
    changed: after.filter(isChanged).map(nameOf),
  };
}

/** The warnings of a configuration, each as a line. */
export function warningsOf({ warnings }: Config): string[] {
  return warnings.map(formatProblem);
}

function nameOf({ id, name }: TunnelSpec): TunnelName {
  return { id, name };
}

function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
