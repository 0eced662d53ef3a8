import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { TunwardError } from '../../errors.js';
import type { Clock } from '../../time.js';
import { findOnlookers, readOwnFile, replaceFile, requireOwnFolder } from '../files.js';
import type { Rights } from './route.js';

/** A file with a token in it, and what its bearer may. */
export interface TokenFile {
  readonly file: string;
  readonly rights: Rights;
}

/** Knows tokens by their digests alone. */
export interface Tokens {
  /** What the bearer may; undefined: it is none of ours. Takes as long for one as for another. */
  rightsOf(token: string): Rights | undefined;
  /** Of files that others may read as well: they are taken all the same, since a mounted secret is often like that. */
  readonly warnings: readonly string[];
}

/**
 * Reads the token files; one that is missing is made, with 32 random bytes, for its owner alone (0600).
 * `keyDigests`: of keys that open everything, SHA-256 in hexadecimal.
 */
export function openTokens(files: readonly TokenFile[], keyDigests: readonly string[]): Tokens {
  const known: readonly { readonly digest: Buffer; readonly rights: Rights }[] = [
    ...files.map(({ file, rights }) => ({ digest: digest(readToken(file)), rights })),
    ...keyDigests.map((hex) => ({ digest: Buffer.from(hex, 'hex'), rights: 'all' as const })),
  ];
  return { rightsOf, warnings: files.flatMap(({ file }) => findOnlookers(file, 'a token')) };

  function rightsOf(token: string): Rights | undefined {
    const given = digest(token);
    // All of them, whichever it is: of equal length, which timingSafeEqual wants.
    const found = known.filter((one) => timingSafeEqual(given, one.digest));
    return found.find(({ rights }) => rights === 'all')?.rights ?? found[0]?.rights;
  }
}

/** Any line of 8 or more printable characters. */
function readToken(file: string): string {
  // In somebody else's folder whoever owns that says which token it is.
  requireOwnFolder(path.dirname(file));
  if (!fs.existsSync(file)) replaceFile(file, `${randomBytes(32).toString('base64url')}\n`);
  const line = readOwnFile(file)
    ?.split('\n')
    .map((text) => text.trim())
    .find((text) => /^[\x21-\x7e]{8,}$/.test(text));
  if (line !== undefined) return line;
  throw new TunwardError(
    'ERR_ACCESS_DENIED',
    `Cannot take a token from ${file}: expected a plain file of this user with a line of 8 or more printable characters`,
    { path: file },
  );
}

/** What a browser has instead of the token, which it need not keep. */
export interface Sessions {
  open(rights: Rights): { readonly secret: string; readonly expiresAt: number };
  rightsOf(secret: string): Rights | undefined;
  close(secret: string): void;
}

export const SESSION_MS = 24 * 3_600_000;
const MAX_SESSIONS = 64;

/** In memory alone: a restart of the daemon ends them all. The oldest of the same rights goes when there are too many. */
export function createSessions(clock: Clock): Sessions {
  const sessions = new Map<string, { readonly rights: Rights; readonly until: number }>();
  return { open, rightsOf, close: (secret) => void sessions.delete(keyOf(secret)) };

  function open(rights: Rights) {
    const secret = randomBytes(32).toString('base64url');
    const alike = [...sessions].filter(([, session]) => session.rights === rights);
    if (alike.length >= MAX_SESSIONS) sessions.delete(alike[0]?.[0] ?? '');
    sessions.set(keyOf(secret), { rights, until: clock.now() + SESSION_MS });
    return { secret, expiresAt: clock.wallTime() + SESSION_MS };
  }

  /** Looked up by its digest: how long that takes says nothing about any other. */
  function rightsOf(secret: string): Rights | undefined {
    const key = keyOf(secret);
    const session = sessions.get(key);
    if (session && session.until > clock.now()) return session.rights;
    sessions.delete(key);
    return undefined;
  }
}

/** Counts what was no token, by address. */
export interface Failures {
  /** How long nobody of this address is listened to any more; 0: he is. */
  waitOf(address: string | undefined): number;
  note(address: string | undefined): void;
}

/** So many wrong tokens within a minute, and no other is looked at until that is over. */
const MAX_FAILURES = 10;
const WINDOW_MS = 60_000;
const MAX_ADDRESSES = 1024;

export function createFailures(clock: Clock): Failures {
  const failures = new Map<string, { count: number; readonly until: number }>();
  return { waitOf, note };

  function waitOf(address: string | undefined): number {
    const known = failures.get(networkOf(address));
    const left = known ? known.until - clock.now() : 0;
    return known && known.count >= MAX_FAILURES && left > 0 ? left : 0;
  }

  function note(address: string | undefined): void {
    const key = networkOf(address);
    const known = failures.get(key);
    if (known && known.until > clock.now()) {
      known.count++;
      return;
    }
    failures.delete(key);
    const [oldest] = failures.keys();
    if (failures.size >= MAX_ADDRESSES && oldest !== undefined) failures.delete(oldest);
    failures.set(key, { count: 1, until: clock.now() + WINDOW_MS });
  }
}

/** Of IPv6 the first 64 bits: so many addresses has whoever has one. */
function networkOf(address = ''): string {
  if (!address.includes(':') || /\.\d+$/.test(address)) return address;
  const [head = '', tail] = address.split('%')[0]?.split('::') ?? [];
  const groups = head.split(':').filter(Boolean);
  const rest = tail?.split(':').filter(Boolean) ?? [];
  return [...groups, ...Array(Math.max(0, 8 - groups.length - rest.length)).fill('0'), ...rest].slice(0, 4).join(':');
}

function keyOf(secret: string): string {
  return digest(secret).toString('base64');
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
