import { createHash, createHmac, randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { isErrno, TunwardError } from '../../errors.js';
import { matchesPatternList } from './pattern.js';
import { readPlainFile } from './plain-file.js';

/** A server's key as it comes over the wire: its algorithm (`ssh-ed25519`) and the blob of RFC 4253, section 6.6. */
export interface HostKey {
  readonly type: string;
  readonly blob: Buffer;
}

/** What known_hosts files say of a key. `file` and `line` (from 1) name the entry that contradicts. */
export type HostKeyVerdict =
  | { readonly kind: 'known' | 'unknown' }
  | { readonly kind: 'changed' | 'revoked'; readonly file: string; readonly line: number };

export interface KnownHosts {
  /**
   * `host` as known_hosts has it: lower case, the alias where there is one; `port` 22 is left out there. An alias has no
   * port of its own: ssh looks for it alone, which is port 22 here.
   */
  check(host: string, port: number, key: HostKey): HostKeyVerdict;
  /**
   * The algorithms for which there is a key of this host, so that the server is asked for one that can be checked. As the
   * files have them: `ssh-rsa` is the key of `rsa-sha2-512` as well, and an `sk-…` may be among them.
   */
  typesOf(host: string, port: number): string[];
}

interface Entry {
  readonly file: string;
  readonly line: number;
  readonly isRevoked: boolean;
  readonly names: string;
  readonly type: string;
  readonly blob: Buffer;
}

/** Some 100,000 hosts. */
const MAX_BYTES = 64 * 1024 * 1024;
/** A key of RSA with 16,384 bits has 2,700 characters; names may be many. */
const MAX_LINE = 65_536;

/** What can be a host's key. A line with anything else is one that ssh does not understand. */
const keyTypes: ReadonlySet<string> = new Set([
  'ssh-ed25519',
  'ssh-rsa',
  'ssh-dss',
  'ecdsa-sha2-nistp256',
  'ecdsa-sha2-nistp384',
  'ecdsa-sha2-nistp521',
  'sk-ssh-ed25519@openssh.com',
  'sk-ecdsa-sha2-nistp256@openssh.com',
]);

/**
 * Reads known_hosts files as sshd(8) describes them; what cannot be read or understood is passed over, as ssh does. What
 * they say is what they said at this moment.
 *
 * A key is `changed` where any key is written down for its host, of whatever type, and not this one (so OpenSSH 9.2 has it,
 * measured): whoever asks for a key of the types that are known ({@link KnownHosts.typesOf}) is not misled by a server that
 * has got one more. A host at another port than 22 is known by its plain name too, and a key that is revoked for that is
 * revoked. `@cert-authority` signs certificates, of which this client knows none: it says nothing of a key.
 *
 * @throws TunwardError ERR_ACCESS_DENIED for a file that is too large to be read: what it says must not be missed.
 *
 * @example
 * readKnownHosts(['/home/me/.ssh/known_hosts']).check('web.example', 2222, key).kind; // 'known'
 */
export function readKnownHosts(files: readonly string[]): KnownHosts {
  const entries = files.flatMap(readEntries);
  const entriesOf = (name: string) => entries.filter(({ names }) => isNamed(name, names));
  return {
    check(host, port, key) {
      const verdict = judge(entriesOf(nameOf(host, port)), key);
      if (port === 22 || verdict.kind === 'revoked') return verdict;
      const plain = judge(entriesOf(nameOf(host, 22)), key);
      if (plain.kind === 'revoked') return plain;
      return verdict.kind === 'unknown' && plain.kind === 'known' ? plain : verdict;
    },
    typesOf(host, port) {
      const typesOf = (name: string) => [
        ...new Set(entriesOf(name).flatMap(({ isRevoked, type }) => (isRevoked ? [] : [type]))),
      ];
      const types = typesOf(nameOf(host, port));
      return types.length > 0 || port === 22 ? types : typesOf(nameOf(host, 22));
    },
  };
}

function judge(entries: readonly Entry[], key: HostKey): HostKeyVerdict {
  const isSame = ({ type, blob }: Entry) => type === key.type && blob.equals(key.blob);
  const revoked = entries.find((entry) => entry.isRevoked && isSame(entry));
  if (revoked) return { kind: 'revoked', file: revoked.file, line: revoked.line };
  const pinned = entries.filter(({ isRevoked }) => !isRevoked);
  if (pinned.some(isSame)) return { kind: 'known' };
  const other = pinned.findLast(({ type }) => type === key.type) ?? pinned.at(-1);
  return other ? { kind: 'changed', file: other.file, line: other.line } : { kind: 'unknown' };
}

function readEntries(file: string): Entry[] {
  const found = readPlainFile(file, MAX_BYTES);
  if (found.kind === 'large')
    throw new TunwardError('ERR_ACCESS_DENIED', `Cannot read ${file}: ${found.why}`, { path: file });
  if (found.kind !== 'file') return [];
  return found.bytes
    .toString('latin1')
    .split('\n')
    .flatMap((text, at) => parseEntry(text, file, at + 1) ?? []);
}

function parseEntry(text: string, file: string, line: number): Entry | undefined {
  if (text.length > MAX_LINE) return undefined;
  const words = text.split(/[ \t\r]+/).filter((word) => word !== '');
  if (words[0]?.startsWith('#')) return undefined;
  const marker = words[0]?.startsWith('@') ? words.shift() : undefined;
  if (marker !== undefined && marker !== '@revoked') return undefined;
  const [names, type, encoded] = words;
  if (names === undefined || type === undefined || encoded === undefined || !keyTypes.has(type)) return undefined;
  const blob = decodeBase64(encoded);
  if (!blob || typeOf(blob) !== type) return undefined;
  return { file, line, isRevoked: marker !== undefined, names, type, blob };
}

/** Strictly: what Node would read with a character left out is another key. */
function decodeBase64(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64');
  return bytes.toString('base64') === text ? bytes : undefined;
}

/** The name that a key begins with. */
function typeOf(blob: Buffer): string | undefined {
  if (blob.length < 4) return undefined;
  const length = blob.readUInt32BE(0);
  return length > blob.length - 4 ? undefined : blob.toString('latin1', 4, 4 + length);
}

function isNamed(name: string, names: string): boolean {
  if (!names.startsWith('|')) return matchesPatternList(name, names.toLowerCase());
  const [, kind, salt, hash, ...more] = names.split('|');
  if (kind !== '1' || salt === undefined || hash === undefined || more.length > 0) return false;
  const bytes = decodeBase64(salt);
  return bytes?.length === 20 && createHmac('sha1', bytes).update(name).digest('base64') === hash;
}

function nameOf(host: string, port: number): string {
  const name = host.toLowerCase();
  return port === 22 ? name : `[${name}]:${port}`;
}

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDWR } = fs.constants;
const refusals = [
  'EACCES',
  'EPERM',
  'EROFS',
  'ENOTDIR',
  'EISDIR',
  'EEXIST',
  'ENOENT',
  'ELOOP',
  'ENXIO',
  'ENAMETOOLONG',
].concat(['ENOSPC', 'EDQUOT', 'EFBIG', 'EIO']);

/**
 * Writes a key down, met for the first time: one line at the end of the file, which is made when there is none (0600, its
 * folder 0700). A link on the way is followed where it is this user's own or root's, since people keep their known_hosts
 * among other files of theirs; somebody else's is refused, and so is a file of somebody else.
 *
 * @throws TunwardError ERR_ACCESS_DENIED.
 *
 * @example
 * addKnownHost('/home/me/.ssh/known_hosts', 'web.example', 2222, key); // [web.example]:2222 ssh-ed25519 AAAA…
 */
export function addKnownHost(
  file: string,
  host: string,
  port: number,
  { type, blob }: HostKey,
  /** As HashKnownHosts of ssh_config has it: nobody reads from the file where this user goes. */
  { isHashed = false }: { readonly isHashed?: boolean } = {},
): void {
  const name = nameOf(host, port);
  // What a pattern or a second word would be made of cannot be a host's name.
  if (host === '' || /^@|[\s,*?!|#]/.test(name) || !keyTypes.has(type) || typeOf(blob) !== type)
    throw new TypeError(`addKnownHost: expected a host's name and its key, found '${name}' and a key of '${type}'`);
  const line = `${isHashed ? hashName(name) : name} ${type} ${blob.toString('base64')}\n`;
  try {
    fs.mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
    append(file, line);
  } catch (error) {
    if (!isErrno(error, ...refusals)) throw error;
    throw denied(file, String(error.code), error);
  }
}

function append(file: string, line: string): void {
  const fd = fs.openSync(followOwnLink(file), O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600);
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) throw denied(file, 'it is no plain file');
    if (!isTrusted(stat)) throw denied(file, `it belongs to uid ${stat.uid}`);
    const last = Buffer.alloc(1);
    const isOpen = stat.size > 0 && fs.readSync(fd, last, 0, 1, stat.size - 1) === 1 && last.toString() !== '\n';
    // In one write: what another process appends at the same time comes before it or after it.
    fs.writeSync(fd, isOpen ? `\n${line}` : line);
  } finally {
    fs.closeSync(fd);
  }
}

/** Where the file is, behind a link that is trusted. Whoever can exchange it afterwards could have written the file. */
function followOwnLink(file: string): string {
  const link = fs.lstatSync(file, { throwIfNoEntry: false });
  if (!link?.isSymbolicLink()) return file;
  if (!isTrusted(link)) throw denied(file, `it is a symbolic link of uid ${link.uid}`);
  return fs.realpathSync(file);
}

function isTrusted({ uid }: fs.Stats): boolean {
  return uid === 0 || uid === process.geteuid?.();
}

function denied(file: string, why: string, cause?: unknown): TunwardError {
  const message = `Cannot write the host's key into ${file}: ${why}`;
  return new TunwardError('ERR_ACCESS_DENIED', message, { path: file }, { cause });
}

function hashName(name: string): string {
  const salt = randomBytes(20);
  return `|1|${salt.toString('base64')}|${createHmac('sha1', salt).update(name).digest('base64')}`;
}

/** `SHA256:…` as ssh shows it. */
export function fingerprintOf({ blob }: HostKey): string {
  return `SHA256:${createHash('sha256').update(blob).digest('base64').replace(/=+$/, '')}`;
}
