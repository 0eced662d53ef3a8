/**
 * The two spellings of one record: camelCase in TypeScript, snake_case in configuration and JSON on the wire.
 * Keys only; values are left as they are. Everything that crosses the wire goes through these two.
 */

/** A JSON value with snake_case keys: `{tookMs: 3}` becomes `{took_ms: 3}`. `undefined` fields are left out. */
export function toWire(value: unknown): unknown {
  return renameKeys(value, (key) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`));
}

/** The way back: `{took_ms: 3}` becomes `{tookMs: 3}`. */
export function fromWire(value: unknown): unknown {
  return renameKeys(value, (key) => key.replace(/_([a-z0-9])/g, (_all, letter: string) => letter.toUpperCase()));
}

function renameKeys(value: unknown, rename: (key: string) => string): unknown {
  if (Array.isArray(value)) return value.map((item) => renameKeys(item, rename));
  if (value === null || typeof value !== 'object') return value;
  const fields = Object.entries(value).filter(([, field]) => field !== undefined);
  // fromEntries defines keys, `__proto__` too, where an assignment would set what the object inherits.
  return Object.fromEntries(fields.map(([key, field]) => [rename(key), renameKeys(field, rename)]));
}
