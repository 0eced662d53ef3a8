/**
 * Which values of ssh_config are in force for one host: its files line by line, with Host, Match and Include, the first value
 * of each keyword deciding. What the values mean is not asked here.
 */
import fs from 'node:fs';
import path from 'node:path';
import { isErrno } from '../../../errors.js';
import { printable } from '../../../wire.js';
import { normalizeAddress } from '../../spec.js';
import { matchesPattern, matchesPatternList, matchesPatterns } from '../pattern.js';
import { readPlainFile } from '../plain-file.js';
import { expandTilde, expandTokens, type Scene, shorten } from './expansion.js';
import { canonicalName, isKnown, placeOf, refusal, type Setting, useSsh } from './keywords.js';
import { createLineParser, splitCriteria, splitWords } from './line.js';

export interface Settings {
  /** The first of each, by its canonical name. A ProxyCommand that decided is the one of `proxyjump`. */
  readonly values: ReadonlyMap<string, Setting>;
  /** All of them, in their order. */
  readonly identityFiles: readonly Setting[];
}

export interface SettingsSource {
  /** null: `~/.ssh/config`, which need not be there. */
  readonly file: string | null;
  /** What counts before the file, in its order. */
  readonly own: readonly (readonly [name: string, value: string])[];
  readonly scene: Scene;
}

const MAX_BYTES = 1024 * 1024;
/** As ssh has it. */
const MAX_DEPTH = 16;
/** Of files that include files, twice each. */
const MAX_FILES = 1000;

/** One of the files that are read. */
interface Reading {
  /** The host's name that the first reading has found; null while that goes on. */
  readonly final: string | null;
  readonly depth: number;
  /** By the spec: it has to be there, and ssh takes whatever mode it has. */
  readonly isNamed: boolean;
}

/**
 * Reads the file and all that it includes, and once more where a `Match final` asks for that.
 *
 * @throws TunwardError ERR_SPAWN_FAILED `{reason: 'bad_spec'}` for what cannot be read, or is unknown.
 */
export async function readSettings({ file, own, scene }: SettingsSource): Promise<Settings> {
  const parseLine = await createLineParser();
  const values = new Map<string, Setting>();
  const identityFiles: Setting[] = [];
  let ignored: readonly string[] = [];
  let wantsFinal = false;
  let filesLeft = MAX_FILES;

  for (const [name, value] of own) take(name, value, null);
  readAll(null);
  if (wantsFinal) {
    const found = resolveHost(values, scene);
    values.set('hostname', { name: 'HostName', words: [found.replaceAll('%', '%%')], place: null });
    readAll(found);
  }
  return { values, identityFiles };

  function readAll(final: string | null): void {
    // Both say that there is none: `ssh -F none`, and what many write for it.
    if (file === 'none' || file === '/dev/null') return;
    const whole = file === null ? path.join(scene.home, '.ssh/config') : path.resolve(file);
    readFile(whole, { final, depth: 0, isNamed: file !== null });
  }

  function readFile(whole: string, reading: Reading): void {
    const { final, depth, isNamed } = reading;
    const shown = shorten(whole, scene);
    if (depth > MAX_DEPTH || filesLeft-- <= 0)
      throw refusal(`${shown} cannot be read: Include leads from file to file without end`);
    const found = readPlainFile(whole, MAX_BYTES);
    if (found.kind !== 'file') {
      if (found.kind === 'absent' && !isNamed) return;
      throw refusal(`${shown} cannot be read: ${found.why}`);
    }
    if (!isNamed && !isTrusted(found))
      throw refusal(
        `${shown} is not read, since others could write it: give it to this user and 'chmod 600' it, as ssh wants it`,
      );
    let isActive = true;
    for (const [index, text] of found.bytes.toString('utf8').split('\n').entries()) {
      const place = `${shown} line ${index + 1}`;
      const line = parseLine(text);
      if (line === 'blank') continue;
      if (line === 'broken')
        throw refusal(`${place} cannot be understood: it has quotes without an end, or nothing behind its keyword`);
      const { name, rest } = line;
      const lower = name.toLowerCase();
      // As they are written, in upper case or lower.
      if (lower === 'host') isActive = matchesPatterns(final ?? scene.original, wordsOf(rest, place));
      else if (lower === 'match') isActive = isMatch(rest, place, final);
      else if (!isActive) continue;
      else if (lower === 'include') {
        for (const each of wordsOf(rest, place).flatMap((word) => findIncluded(word, place, scene)))
          readFile(each, { final, depth: depth + 1, isNamed: false });
      } else take(name, rest, place);
    }
  }

  function take(name: string, rest: string, place: string | null): void {
    const keyword = canonicalName(name);
    const at = placeOf({ name, place });
    const setting = { name, words: wordsOf(rest, at), place };
    if (setting.words.length === 0) throw refusal(`${at} says nothing of ${printable(name)}`);
    if (keyword === 'ignoreunknown') {
      if (ignored.length === 0) ignored = setting.words;
    } else if (keyword === 'identityfile') {
      identityFiles.push(setting);
    } else if (isKnown(keyword)) {
      // ProxyJump and ProxyCommand are one: the first of either kind decides, and be it `none`.
      const slot = keyword === 'proxycommand' ? 'proxyjump' : keyword;
      if (!values.has(slot)) values.set(slot, setting);
    } else if (!ignored.some((list) => matchesPatternList(keyword, list.toLowerCase()))) {
      throw refusal(`${at} has the option ${printable(name)}, which the engine embedded does not know`);
    }
  }

  /** As ssh's Match: what comes before a condition that does not hold is of no interest, and neither is what comes after. */
  function isMatch(rest: string, place: string, final: string | null): boolean {
    const words = splitCriteria(rest);
    if (words.length === 0) throw refusal(`${place} cannot be understood: a Match has conditions`);
    let isMet = true;
    let unknown: string | undefined;
    for (let at = 0; at < words.length; at++) {
      const word = words[at] ?? '';
      const isNegated = word.startsWith('!');
      const criterion = word.slice(isNegated ? 1 : 0).toLowerCase();
      if (criterion === 'all') {
        if (at + 1 < words.length) throw refusal(`${place} cannot be understood: nothing may come after 'all'`);
        isMet &&= !isNegated;
        continue;
      }
      if (criterion === 'final' || criterion === 'canonical') {
        if (criterion === 'final') wantsFinal = true;
        isMet &&= (final !== null) !== isNegated;
        continue;
      }
      const wanted = words[++at];
      if (wanted === undefined) throw refusal(`${place} cannot be understood: nothing follows '${printable(word)}'`);
      const actual = actualOf(criterion, final);
      if (actual === undefined) unknown ??= criterion;
      else isMet &&= matchesPatternList(actual.text, actual.isHost ? wanted.toLowerCase() : wanted) !== isNegated;
    }
    if (isMet && unknown !== undefined)
      throw refusal(`The engine embedded cannot use 'Match ${printable(unknown)}', which ${place} asks for: ${useSsh}`);
    return isMet;
  }

  /** What a condition is about; undefined for one that this client knows nothing of. */
  function actualOf(
    criterion: string,
    final: string | null,
  ): { readonly text: string; readonly isHost?: true } | undefined {
    if (criterion === 'host') return { text: (final ?? expandHost(values, scene)).toLowerCase(), isHost: true };
    if (criterion === 'originalhost') return { text: scene.original.toLowerCase(), isHost: true };
    if (criterion === 'user') return { text: values.get('user')?.words[0] ?? scene.localUser };
    return criterion === 'localuser' ? { text: scene.localUser } : undefined;
  }
}

function wordsOf(text: string, place: string): string[] {
  const words = splitWords(text);
  if (!words) throw refusal(`${place} cannot be understood: a quote in it has no end`);
  return words;
}

/** The host that HostName leads to, by what is known so far: in lower case, an address without brackets. */
export function resolveHost(values: Settings['values'], scene: Scene): string {
  return normalizeAddress(expandHost(values, scene)).toLowerCase();
}

function expandHost(values: Settings['values'], { original }: Scene): string {
  const setting = values.get('hostname');
  return setting ? expandTokens(setting.words[0] ?? '', { '%': '%', h: original }, placeOf(setting)) : original;
}

/** The files that an Include names, in the order of their names; one that is not there is none. */
function findIncluded(word: string, place: string, scene: Scene): string[] {
  const expanded = expandTilde(word, place, scene);
  const absolute = path.isAbsolute(expanded) ? expanded : path.join(scene.home, '.ssh', expanded);
  if (absolute.includes('['))
    throw refusal(`The engine embedded cannot use '[' in an Include, which ${place} has: name the files, or use '*'`);
  let found = ['/'];
  for (const part of absolute.split('/').filter((each) => each !== '')) {
    found = found.flatMap((folder) =>
      (/[*?]/.test(part) ? findNames(folder, part) : [part]).map((name) => path.join(folder, name)),
    );
  }
  return found;
}

function findNames(folder: string, pattern: string): string[] {
  let names: string[];
  try {
    names = fs.readdirSync(folder);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'EACCES', 'EPERM', 'ELOOP', 'ENAMETOOLONG')) return [];
    throw error;
  }
  const isHidden = pattern.startsWith('.');
  return names.filter((name) => (isHidden || !name.startsWith('.')) && matchesPattern(name, pattern)).sort();
}

function isTrusted({ uid, mode }: { readonly uid: number; readonly mode: number }): boolean {
  return (uid === 0 || uid === process.getuid?.()) && (mode & 0o022) === 0;
}
