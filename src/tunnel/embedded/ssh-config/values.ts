/** The values in force as what each has to be: a word, a number, a time, yes or no. What is none is refused, with its place. */
import type { TunwardError } from '../../../errors.js';
import { printable } from '../../../wire.js';
import { isNone, placeOf, refusal, type Setting } from './keywords.js';

/** Asked by canonical names. Each throws TunwardError ERR_SPAWN_FAILED `{reason: 'bad_spec'}` for what is something else. */
export interface Values {
  /** null: it was not said. */
  word(keyword: string): string | null;
  number(keyword: string, fallback: number, bounds?: { readonly least?: number; readonly most?: number }): number;
  /** `90`, `1m30s`; none is 0, and so is what was not said. */
  timeMs(keyword: string): number;
  isYes(keyword: string, fallback: boolean): boolean;
  /** What the table has for the word, in whatever case that is written. */
  choose<T>(keyword: string, fallback: string, table: Readonly<Record<string, T>>): T;
  /** The words, of which there may be several; none for `none`. */
  files(keyword: string, usual: readonly string[]): readonly string[];
}

/** More is no timer of Node's. */
const MOST = 2 ** 31 - 1;

/** @example createValues(settings.values).number('port', 22, { least: 1, most: 65_535 }); */
export function createValues(values: ReadonlyMap<string, Setting>): Values {
  return { word, number, timeMs, isYes, choose, files };

  function word(keyword: string): string | null {
    const setting = values.get(keyword);
    return setting ? single(setting) : null;
  }

  function number(keyword: string, fallback: number, { least = 0, most = MOST } = {}): number {
    const digits = word(keyword);
    if (digits === null) return fallback;
    if (/^\d{1,10}$/.test(digits) && Number(digits) >= least && Number(digits) <= most) return Number(digits);
    throw wrong(keyword, `a number from ${least} to ${most}`);
  }

  function timeMs(keyword: string): number {
    const time = word(keyword) ?? 'none';
    if (isNone([time])) return 0;
    if (!/^(\d{1,9}[smhdw]?)+$/i.test(time)) throw wrong(keyword, "seconds, or a time as '1m30s'");
    const units: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };
    let seconds = 0;
    for (const [, digits, unit = ''] of time.matchAll(/(\d+)([smhdw]?)/gi))
      seconds += Number(digits) * (units[unit.toLowerCase()] ?? 1);
    return Math.min(seconds * 1000, MOST);
  }

  function isYes(keyword: string, fallback: boolean): boolean {
    return choose(keyword, fallback ? 'yes' : 'no', { yes: true, true: true, no: false, false: false });
  }

  function choose<T>(keyword: string, fallback: string, table: Readonly<Record<string, T>>): T {
    const chosen = (word(keyword) ?? fallback).toLowerCase();
    const found = Object.entries(table).find(([each]) => each === chosen);
    if (found) return found[1];
    throw wrong(keyword, Object.keys(table).join(', '));
  }

  function files(keyword: string, usual: readonly string[]): readonly string[] {
    const words = values.get(keyword)?.words ?? usual;
    if (!words.some((each) => isNone([each]))) return words;
    if (words.length > 1) throw wrong(keyword, "'none' to stand alone");
    return [];
  }

  function wrong(keyword: string, expected: string): TunwardError {
    const setting = values.get(keyword);
    const found = printable(setting?.words[0] ?? '');
    return refusal(`${placeOf(setting)}: expected ${expected} as ${setting?.name ?? keyword}, found '${found}'`);
  }
}

/** The one word of a value. */
export function single(setting: Setting): string {
  const { name, words } = setting;
  const [word = ''] = words;
  if (word !== '' && words.length === 1) return word;
  const [wanted, found] = word === '' ? ['a value', 'none'] : ['one value', words.length];
  throw refusal(`${placeOf(setting)}: expected ${wanted} of ${printable(name)}, found ${found}`);
}
