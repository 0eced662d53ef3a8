import { type ErrorCode, errorCodes, TunwardError } from './errors.js';

/**
 * The two spellings of one record: camelCase in TypeScript, snake_case in configuration and JSON on the wire.
 * Keys only; values are left as they are. Everything that crosses the wire goes through these two, errors as well.
 */

/** A JSON value with snake_case keys: `{tookMs: 3}` becomes `{took_ms: 3}`. `undefined` fields are left out. */
export function toWire(value: unknown): unknown {
  return renameKeys(value, toSnake);
}

/** A name that begins with a capital is none of ours (an option of ssh, in `ssh_options`), and stays as it is. */
const toSnake = remembering((key) =>
  /^[A-Z]/.test(key) ? key : key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
);

/**
 * Control characters (C0, DEL, C1), what turns text around (the bidirectional controls), line and paragraph separators,
 * and halves of surrogate pairs: nothing that a person should meet in a text somebody else has written.
 */
export const unprintable = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\p{Cs}]/gu;

/** What is {@link unprintable} becomes `?`: for texts that a stranger has written. */
export function printable(text: string): string {
  // Mostly there is nothing in it, which this says in a tenth of the time.
  return /^[ -~]*$/.test(text) ? text : text.replace(unprintable, '?');
}

/** JSON text of a record, in which whatever is {@link unprintable} is an escape: it may be shown as it is, and says the same. */
export function toJson(value: unknown, indent = 0): string {
  return toJsonAsIs(toWire(value), indent);
}

/** The same of what has keys that somebody else has chosen: `ServerAliveInterval` is not one of ours to spell. */
export function toJsonAsIs(value: unknown, indent = 0): string {
  // JSON's own rules let DEL, C1 and the bidirectional controls stand in a text; line ends are its layout.
  return JSON.stringify(value, null, indent).replace(unprintable, (character) =>
    character === '\n' ? character : `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** The way back: `{took_ms: 3}` becomes `{tookMs: 3}`. */
export function fromWire(value: unknown): unknown {
  return renameKeys(value, toCamel);
}

const toCamel = remembering((key) => key.replace(/_([a-z0-9])/g, (_all, letter: string) => letter.toUpperCase()));

/** An error as RFC 9457 problem details: `{type, title, status, detail, code, …info}`, keys in snake_case. */
export function toProblem(error: unknown): { status: number; body: Record<string, unknown> } {
  if (!(error instanceof TunwardError)) {
    const body = { type: 'about:blank', title: 'Internal error', status: 500, detail: String(error) };
    return { status: 500, body };
  }
  const code: ErrorCode = error.code;
  const { status } = errorCodes[code];
  const info = toWire(error.info) as Record<string, unknown>;
  const head = { type: `urn:tunward:error:${code}`, title: titleOf(code), status };
  return { status, body: { ...info, ...head, detail: error.message, code } };
}

/** The way back, on the client: problem details become the error that was thrown in the daemon. */
export function fromProblem(body: unknown, status: number): TunwardError {
  const problem = (body ?? {}) as Record<string, unknown>;
  const { type: _type, title: _title, status: _status, detail, code, ...info } = problem;
  const known = typeof code === 'string' && Object.hasOwn(errorCodes, code) ? (code as ErrorCode) : 'ERR_BAD_REQUEST';
  const message = typeof detail === 'string' ? detail : `The daemon answered with status ${status}`;
  return new TunwardError(known, message, fromWire(info) as never);
}

/** `ERR_PORT_HELD` → `Port held`. */
function titleOf(code: ErrorCode): string {
  const words = code.slice('ERR_'.length).toLowerCase().replaceAll('_', ' ');
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** The same few keys again and again: the records of 500 tunnels have 27,000. Bounded, since a key may come from outside. */
function remembering(rename: (key: string) => string): (key: string) => string {
  const known = new Map<string, string>();
  return (key) => {
    const name = known.get(key) ?? rename(key);
    if (known.size < MOST_KEYS) known.set(key, name);
    return name;
  };
}

const MOST_KEYS = 1000;

/** Of 500 tunnels 27,000 fields, by a program that has just begun: plain loops, and no call for what has no keys. */
function renameKeys(value: unknown, rename: (key: string) => string): unknown {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map((item) => renameKeys(item, rename));
  const record = value as Record<string, unknown>;
  const renamed: Record<string, unknown> = {};
  for (const key of Object.keys(record)) {
    const field = record[key];
    if (field === undefined) continue;
    const value = typeof field === 'object' ? renameKeys(field, rename) : field;
    const name = rename(key);
    if (name === '__proto__') define(renamed, name, value);
    else renamed[name] = value;
  }
  return renamed;
}

/** To assign to this one would set what the object inherits. */
function define(object: object, name: string, value: unknown): void {
  Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
}
