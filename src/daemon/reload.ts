import { join } from 'node:path';
import { type ConfigProblem, isTunwardError, TunwardError } from '../errors.js';
import type { Clock } from '../time.js';
import { isBlindness } from '../tunnel/blind.js';
import type { TunnelSpec } from '../tunnel/spec.js';
import { compareTunnels, unappliedKeys, warningsOf } from './changes.js';
import { type Config, parseSource } from './config.js';
import { configChanged, digestOf } from './edit/digest.js';
import { saveConfig } from './edit/save.js';
import type { DaemonEvent, TunnelChanges } from './events.js';
import { warningsOfHook } from './hook.js';
import { type ConfigSource, formatProblem, readText } from './source.js';

export interface Reloader {
  /** What holds now. */
  readonly config: () => Config;
  /**
   * Takes the file as it is: somebody asked. Resolves when the tunnels that leave are down.
   *
   * @throws TunwardError ERR_CONFIG_INVALID: it is wrong, or there was no descriptor left to read it with, which is an
   * event as well, and changes nothing
   */
  reload(): Promise<Taken>;
  /** Takes the file when it says something that it did not say at the last look, and is sure to be whole. */
  look(signal: AbortSignal): Promise<void>;
  /**
   * Writes the file and takes it, in a turn of its own: nobody else's reading or edit comes in between, and a
   * watch sees no news in it. Resolves when the tunnels that leave are down and the others on their way, see
   * {@link Edited.settled}.
   *
   * @throws TunwardError ERR_CONFIG_CHANGED: the file is not the one with `ifMatch`, or was written by somebody else in
   * this moment; ERR_CONFIG_INVALID: it would be wrong, or is; ERR_CONFIG_UNWRITABLE, ERR_NO_SPACE; ERR_DAEMON_BUSY: its
   * turn did not come. Nothing was changed then.
   */
  edit(change: Change, options?: EditOptions): Promise<Edited>;
  /** The file as it is now; not in force while it is wrong, or not yet taken. */
  read(): Promise<ConfigView>;
  /** What would become of a text. Changes nothing. */
  validate(text: string): Validation;
}

/** What has come of a configuration that was taken. */
export interface Taken {
  readonly changes: TunnelChanges;
  readonly warnings: readonly string[];
}

/** Makes another text of the file's. Pure; what it throws ends the edit. */
export type Change = (text: string) => ChangedText;

export interface ChangedText {
  readonly text: string;
  /** The index of the tunnel that is new, of which nothing is forgiven. */
  readonly strict?: number | undefined;
}

export interface EditOptions {
  /** The digest of the text that the edit is meant for. */
  readonly ifMatch?: string | undefined;
}

export interface Edited extends Taken {
  /** The digest of the text that was written. */
  readonly etag: string;
  readonly config: Config;
  /** False: it was written and taken, and a tunnel that leaves is still on its way down. */
  readonly settled: boolean;
}

export interface ConfigView {
  readonly file: string;
  readonly etag: string;
  readonly text: string;
  /** False: it is wrong, and `warnings` says what is. What was taken before holds. */
  readonly valid: boolean;
  readonly warnings: readonly string[];
}

export interface Validation {
  readonly valid: boolean;
  readonly problems: readonly ConfigProblem[];
  readonly warnings: readonly string[];
  /** Against what holds now; null when the text is wrong. */
  readonly changes: TunnelChanges | null;
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

type Invalid = TunwardError<'ERR_CONFIG_INVALID'>;

/**
 * Reads the daemon's configuration again, and writes it, one at a time. It stays with the file it was started with: should
 * that vanish, no other that would be found in its place is taken.
 */
export function createReloader({ source, config, env, cwd, clock, publish, apply }: ReloadOptions): Reloader {
  const { file } = source;
  let current = config;
  /** What was taken last, or refused. A content that comes twice is news once. */
  let seen = digestOf(source.text);
  /** What was taken last. */
  let inForce = seen;
  let busy: Promise<unknown> = Promise.resolve();
  return { config: () => current, reload, look, edit, read: view, validate };

  function reload(): Promise<Taken> {
    return inTurn(async () => {
      const reading = await read().catch(tellBlindness);
      const taken = await take(reading.digest, parse(reading));
      if (isTunwardError(taken)) throw taken;
      return taken;
    });
  }

  /** Whoever sends a signal hears of it by an event alone. */
  function tellBlindness(error: unknown): never {
    if (isTunwardError(error)) publish({ type: 'config.unwatched', file, message: error.message });
    throw error;
  }

  async function look(signal: AbortSignal): Promise<void> {
    let doubted: string | undefined;
    for (;;) {
      const reading = await read();
      const { digest } = reading;
      if (digest === seen) return;
      const next = parse(reading);
      if (digest === doubted || !isDoubtful(reading, next)) {
        if (await inTurn(() => takeIfStill(digest, next))) return;
        continue;
      }
      doubted = digest;
      await clock.sleep(DOUBT_MS, signal);
    }
  }

  /** A reload that was asked for, or an edit, may have come first; then what was read is of no use any more. */
  async function takeIfStill(digest: string, next: Config | Invalid): Promise<boolean> {
    if (digest === seen) return true;
    if ((await read()).digest !== digest) return false;
    await take(digest, next);
    return true;
  }

  /** A reload waits for the one before it: what that one made of the tunnels is what the next one changes. */
  function inTurn<T>(act: () => Promise<T>): Promise<T> {
    const turn = busy.then(act);
    busy = turn.catch(() => undefined); // told by `turn`
    return turn;
  }

  async function read(): Promise<Reading> {
    try {
      const text = await readText(file);
      return { digest: digestOf(text), text };
    } catch (error) {
      // No descriptor was left to look with: that says nothing of the file, and passes.
      if (!isTunwardError(error, 'ERR_CONFIG_INVALID') || isBlindness(error.cause)) throw error;
      // Not there, a FIFO, too large: what is wrong stands for the content.
      return { digest: error.message, error };
    }
  }

  /** The configuration, or what is wrong with it. */
  function parse(reading: Reading): Config | Invalid {
    if (reading.text === undefined) return reading.error;
    try {
      return parseSource({ file, text: reading.text }, { env, cwd });
    } catch (error) {
      if (!isTunwardError(error, 'ERR_CONFIG_INVALID')) throw error;
      return error;
    }
  }

  /**
   * Wrong, less than before, or cut off in the middle of a line: so looks a file that an editor has emptied and not
   * yet written, and no tunnel is to fall for that.
   */
  function isDoubtful({ text }: Reading, next: Config | Invalid): boolean {
    if (isTunwardError(next) || !text?.endsWith('\n')) return true;
    return compareTunnels(current.tunnels, next.tunnels).removed.length > 0;
  }

  async function take(digest: string, next: Config | Invalid): Promise<Taken | Invalid> {
    if (isTunwardError(next)) {
      seen = digest;
      publish({ type: 'config.rejected', file, message: next.message });
      return next;
    }
    const taken = accept(digest, next);
    await apply(next.tunnels);
    return taken;
  }

  /** From here on it holds; the tunnels are for `apply`. */
  function accept(digest: string, next: Config): Taken {
    seen = digest;
    inForce = digest;
    const changes = compareTunnels(current.tunnels, next.tunnels);
    const unapplied = unappliedKeys(current, next);
    const { logDir, stateDir, api, start, reload } = current;
    current = { ...next, logDir, stateDir, api, start, reload };
    const warnings = [
      ...warningsOf(next),
      ...warningsOfHook(next.onNeedsAuth),
      ...unapplied.map((key) => `${file}: ${key}: changed, and in force after a restart of the daemon`),
    ];
    publish({ type: 'config.loaded', file, warnings, changes });
    return { changes, warnings };
  }

  function edit(change: Change, options: EditOptions = {}): Promise<Edited> {
    const turnLimitMs = current.stopTimeoutMs;
    return new Promise((resolve, reject) => {
      let state: 'waiting' | 'begun' | 'given up' = 'waiting';
      const begun = new AbortController();
      const giveUp = () => {
        state = 'given up';
        const message = `${file} is being read or written for more than ${turnLimitMs} ms, nothing was changed: try again`;
        reject(new TunwardError('ERR_DAEMON_BUSY', message, { timeoutMs: turnLimitMs }));
      };
      clock.sleep(turnLimitMs, begun.signal).then(giveUp, () => undefined); // its turn has come
      inTurn(async () => {
        if (state === 'given up') return;
        state = 'begun';
        begun.abort();
        const written = await write(change, options);
        const applying = apply(written.config.tunnels);
        resolve({ ...written, settled: await isInTime(applying) });
        await applying;
      }).catch(reject);
    });
  }

  async function write(change: Change, { ifMatch }: EditOptions): Promise<Omit<Edited, 'settled'>> {
    const reading = await read();
    if (reading.text === undefined) throw reading.error;
    const { text: before, digest: found } = reading;
    if (ifMatch !== undefined && ifMatch !== found) throw configChanged(file, ifMatch, found);
    const old = found === inForce ? current : parse(reading);
    if (isTunwardError(old)) throw wrongAlready(file, old);
    const { text, strict } = change(before);
    await clock.sleep(0); // both halves of this take a tenth of a second for 500 tunnels
    const etag = digestOf(text);
    const next = parseSource({ file, text }, { env, cwd, strict });
    if (text !== before) {
      const backups = join(current.stateDir, 'backups');
      await saveConfig({ file, before, text, backups, wallTime: clock.wallTime() });
    }
    const isNews = etag !== inForce;
    const taken = isNews ? accept(etag, next) : { changes: nothing, warnings: warningsOf(current) };
    return { ...taken, etag, config: current };
  }

  /** The answer does not wait for ever for a process that does not die. */
  async function isInTime(applying: Promise<void>): Promise<boolean> {
    const over = new AbortController();
    const late = clock.sleep(current.stopTimeoutMs, over.signal).then(
      () => false,
      () => true, // called off
    );
    try {
      // It is written and holds. That the daemon is on its way down is no reason to say that it is not.
      const applied = applying.then(
        () => true,
        () => false,
      );
      return await Promise.race([applied, late]);
    } finally {
      over.abort();
    }
  }

  async function view(): Promise<ConfigView> {
    const reading = await read();
    if (reading.text === undefined) throw reading.error;
    const { digest: etag, text } = reading;
    const said = etag === inForce ? current : parse(reading);
    const warnings = isTunwardError(said) ? said.info.problems.map(formatProblem) : warningsOf(said);
    return { file, etag, text, valid: !isTunwardError(said), warnings };
  }

  function validate(text: string): Validation {
    const next = parse({ digest: '', text });
    if (isTunwardError(next)) return { valid: false, problems: next.info.problems, warnings: [], changes: null };
    const changes = compareTunnels(current.tunnels, next.tunnels);
    return { valid: true, problems: [], warnings: warningsOf(next), changes };
  }
}

const nothing: TunnelChanges = { added: [], removed: [], changed: [] };

/** What a file says at one moment: its text and the digest of that, or why it cannot be read. */
type Reading =
  | { readonly digest: string; readonly text: string }
  | { readonly digest: string; readonly text?: undefined; readonly error: Invalid };

function wrongAlready(file: string, { message, info }: Invalid): Invalid {
  const why = `${file} is wrong as it is, so that nothing was written: mend it first`;
  return new TunwardError('ERR_CONFIG_INVALID', `${why}\n${message}`, info);
}
