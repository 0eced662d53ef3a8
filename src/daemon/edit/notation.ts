import { stringify } from 'yaml';
import { TunwardError } from '../../errors.js';
import { unprintable } from '../../wire.js';
import { isRecord, keepsText } from '../schema.js';

/** A tunnel as it stands in the file: its keys, in snake_case, and their values. `null` is as not given. */
export type Written = Readonly<Record<string, unknown>>;

/** How values are written: as JSON, where the whole file is JSON, else as YAML. Always on one line. */
export type Notation = 'yaml' | 'json';

/** Deeper than any key of a tunnel goes. */
const maxDepth = 16;

/**
 * A tunnel without what is not given.
 *
 * @throws TunwardError ERR_BAD_REQUEST: there is something in it that no file can say
 */
export function tidy(tunnel: Written): Written {
  const tidied = tidyValue(tunnel, 0);
  if (!isRecord(tidied)) throw unwritable('expected a mapping');
  return tidied;
}

function tidyValue(value: unknown, depth: number): unknown {
  if (depth > maxDepth) throw unwritable(`expected at most ${maxDepth} levels of nesting, found more`);
  if (value === null || value === undefined || typeof value === 'boolean') return value ?? undefined;
  if (typeof value === 'string') return whole(value);
  if (Array.isArray(value)) return value.map((item) => tidyValue(item, depth + 1));
  if (isRecord(value)) {
    const given = Object.entries(value).filter(([, item]) => item !== null && item !== undefined);
    return Object.fromEntries(given.map(([key, item]) => [whole(key), tidyValue(item, depth + 1)]));
  }
  if (typeof value !== 'number' || !Number.isFinite(value)) throw unwritable(`expected JSON, found ${String(value)}`);
  return value === 0 ? 0 : value; // which is not -0
}

/** UTF-8 has no way to write half of a character. */
function whole(text: string): string {
  if (/\p{Cs}/u.test(text)) throw unwritable('expected text, found half of a character (a lone surrogate)');
  return text;
}

function unwritable(message: string): TunwardError<'ERR_BAD_REQUEST'> {
  return new TunwardError('ERR_BAD_REQUEST', `Cannot write this tunnel: ${message}`, {});
}

/** What {@link writeValue} has written, as it is read: the values of some keys as text, and an empty text as nothing. */
export function asRead(value: unknown, keys: readonly string[]): unknown {
  if (Array.isArray(value)) return value.map((item) => asRead(item, keys));
  if (isRecord(value)) {
    const read = Object.entries(value).map(([key, item]) => [key, asRead(item, [...keys, key])] as const);
    return Object.fromEntries(read.filter(([, item]) => item !== undefined));
  }
  if (value === '' || value === undefined) return undefined;
  return keepsText(keys) ? String(value) : value;
}

/** What was read, without the keys that have an empty value. Throws a RangeError for an alias within its own anchor. */
export function given(value: unknown, depth = 0): unknown {
  // 64 levels of nesting, and as many again through each of a few aliases.
  if (depth > 500) throw new RangeError('Cannot look into a value that contains itself');
  if (Array.isArray(value)) return value.map((item) => given(item, depth + 1));
  if (!isRecord(value)) return value;
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  return Object.fromEntries(entries.map(([key, item]) => [key, given(item, depth + 1)]));
}

/** `key: value` for each key of a mapping that stands below these keys. */
export function writePairs(record: Written, keys: readonly string[], notation: Notation): string[] {
  return Object.entries(record).map(([key, value]) => {
    return `${writeText(key, notation)}: ${writeValue(value, [...keys, key], notation)}`;
  });
}

/** A value on one line. Text that could be something else has quotes, but for the plain words where all is read as text. */
export function writeValue(value: unknown, keys: readonly string[], notation: Notation): string {
  if (Array.isArray(value)) return `[${value.map((item) => writeValue(item, keys, notation)).join(', ')}]`;
  if (isRecord(value)) return `{${writePairs(value, keys, notation).join(', ')}}`;
  if (value === undefined) return '""';
  if (typeof value !== 'string') return String(value);
  const isWord = notation === 'yaml' && /^(\d+|true|false)$/.test(value) && keepsText(keys);
  return isWord ? value : writeText(value, notation);
}

function writeText(text: string, notation: Notation): string {
  if (notation === 'yaml' && isPlain(text)) return text;
  return JSON.stringify(text).replace(hidden, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** Needs no quotes, neither in brackets nor for who reads it. */
function isPlain(text: string): boolean {
  if (/[,[\]{}]|: | #|[:?-]$/.test(text) || text.search(hidden) >= 0) return false;
  return stringify(text, { lineWidth: 0 }) === `${text}\n`;
}

/** What a person would not see in the file, the byte order mark among it. */
const hidden = new RegExp(`${unprintable.source}|\\ufeff`, 'gu');
