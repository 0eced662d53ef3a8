import { type IdFields, tunnelId } from '../tunnel/spec.js';
import { readDocument } from './document.js';
import { ancestorKeys, isRecord, keepsText } from './schema.js';

/** A value that autossh-tunnel-dockerized takes for another text than YAML does, and tunward with it. */
export interface Quirk {
  /** From 1. */
  readonly line: number;
  readonly key: string;
  /** What the ancestor makes of it, and what it is. */
  readonly theirs: string;
  readonly ours: string;
  /** The id that the tunnel has there, and the one that it has here. */
  readonly theirId: string;
  readonly ourId: string;
}

/**
 * Where the ancestor's parser, which looks at lines, reads a value otherwise than YAML: it takes a comment behind a value
 * and single quotes for a part of it, and makes the id of that. Pure; nothing is found in what is no YAML.
 */
export function findQuirks(text: string): Quirk[] {
  const document = readDocument(text, '', keepsText);
  const written = isRecord(document.value) ? document.value.tunnels : undefined;
  const items: readonly unknown[] = Array.isArray(written) ? written : [];
  return readTheirs(text).flatMap((theirs, at) => quirksOf(theirs, items[at]));
}

type Fields = Partial<Record<string, string>>;

/** A value as the ancestor reads it, and its line. */
type Found = ReadonlyMap<string, { readonly line: number; readonly value: string }>;

function quirksOf(theirs: Found, item: unknown): Quirk[] {
  const ours: Fields = Object.fromEntries(
    Object.entries(isRecord(item) ? item : {}).flatMap(([key, value]) =>
      typeof value === 'string' ? [[key, value]] : [],
    ),
  );
  const values: Fields = { ...ours, ...Object.fromEntries([...theirs].map(([key, { value }]) => [key, value])) };
  const ids = { theirId: tunnelId(idFieldsOf(values)), ourId: tunnelId(idFieldsOf(ours)) };
  return [...theirs].flatMap(([key, { line, value }]) => {
    const own = ours[key];
    return own === undefined || own === value ? [] : [{ line, key, theirs: value, ours: own, ...ids }];
  });
}

function idFieldsOf(fields: Fields): IdFields {
  return {
    name: fields.name || 'unnamed',
    remoteHost: fields.remote_host ?? '',
    remotePort: fields.remote_port ?? '',
    localPort: fields.local_port ?? '',
    direction: fields.direction || 'remote_to_local',
    interactive: fields.interactive || 'false',
  };
}

/** The items of the list by their lines, one `key: value` on each; double quotes alone are taken away. */
function readTheirs(text: string): Found[] {
  const items: Map<string, { line: number; value: string }>[] = [];
  let indent: string | undefined;
  for (const [at, raw] of text.split(/\r?\n/).entries()) {
    const [, blanks = '', dash = '', key = '', value = ''] = /^( *)(- +)?([a-z_]+):\s*(.*?)\s*$/.exec(raw) ?? [];
    if (dash !== '') {
      indent ??= blanks;
      if (blanks === indent) items.push(new Map());
    }
    if (!ancestorKeys.includes(key)) continue;
    items.at(-1)?.set(key, { line: at + 1, value: value.replace(/^"|"$/g, '') });
  }
  return items;
}
