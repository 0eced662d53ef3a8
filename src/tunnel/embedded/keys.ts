import { createPrivateKey, type KeyObject } from 'node:crypto';
import type { ParsedKey } from 'ssh2';
import { printable } from '../../wire.js';
import { readPlainFile } from './plain-file.js';
import type { Ssh2 } from './ssh2.js';

/** What a file of a private key is to this client. */
export type KeyFile =
  | { readonly kind: 'key'; readonly file: string; readonly key: ParsedKey }
  | LockedKey
  | { readonly kind: 'absent'; readonly file: string }
  /** It is there and of no use, and why: one sentence with the file and the remedy. */
  | { readonly kind: 'unusable'; readonly file: string; readonly why: string };

/** One that has a passphrase. */
export interface LockedKey {
  readonly kind: 'locked';
  readonly file: string;
  /** What the file shows without its passphrase; undefined where its format hides that as well. */
  readonly publicHalf: Buffer | undefined;
  /** Tries a passphrase. Answers undefined for a wrong one. */
  readonly open: (passphrase: Buffer) => ParsedKey | undefined;
}

/** A key of RSA with 16,384 bits has 12 KB. */
const MAX_BYTES = 1024 * 1024;
/**
 * Each takes 18 ms in JavaScript, in which this process does nothing else: 16 of them, as ssh-keygen makes them, 0.3 s; the
 * 100 that some people ask for 1.8 s.
 */
const MAX_ROUNDS = 256;

/** What this client can prove that it has. */
const keyTypes: ReadonlySet<string> = new Set([
  'ssh-ed25519',
  'ssh-rsa',
  'ecdsa-sha2-nistp256',
  'ecdsa-sha2-nistp384',
  'ecdsa-sha2-nistp521',
]);

/**
 * Reads the file of a private key, whoever can read it: others must not be able to, as ssh has it. Those of OpenSSH's own
 * format and PuTTY's of version 2 are read by ssh2; PEM and PKCS#8 by Node, which tells a wrong passphrase from a right one
 * for certain, and knows what ssh2 does not (PKCS#8, with a passphrase or without). Never throws for what is in it.
 *
 * @example
 * const found = readKeyFile(loadSsh2(), '/home/me/.ssh/id_ed25519');
 * if (found.kind === 'locked') found.open(Buffer.from('its passphrase'))?.type; // 'ssh-ed25519'
 */
export function readKeyFile(ssh2: Ssh2, file: string): KeyFile {
  const found = readPlainFile(file, MAX_BYTES);
  if (found.kind === 'absent') return { kind: 'absent', file };
  if (found.kind !== 'file') return unusable(file, `cannot be read: ${found.why}`);
  const text = found.bytes.toString('latin1').trim();
  const [, label] = /^-----BEGIN ([A-Z0-9 ]+)-----\r?$/m.exec(text) ?? [];
  const isPutty = text.startsWith('PuTTY-User-Key-File-');
  if (!isPutty && !label?.endsWith('PRIVATE KEY')) return unusable(file, describeOther(text));
  const { uid, mode } = found;
  if (uid === process.geteuid?.() && (mode & 0o077) !== 0) {
    const shown = `0${(mode & 0o777).toString(8)}`;
    return unusable(file, `has permissions that are too open (${shown}), and ssh would ignore it too: 'chmod 600' it`);
  }
  if (isPutty) return readPutty(ssh2, file, text);
  if (label === 'OPENSSH PRIVATE KEY') return readOpenSsh(ssh2, file, text);
  return readByNode(ssh2, file, text);
}

function unusable(file: string, what: string): KeyFile {
  return { kind: 'unusable', file, why: `The key ${printable(file)} ${what}` };
}

/** What is no private key. */
function describeOther(text: string): string {
  if (/^\S+-cert-v0\d@openssh\.com /.test(text))
    return "is a certificate, which the engine embedded cannot use: use 'engine: ssh'";
  if (/^((sk-)?(ssh|ecdsa)-\S+ |---- BEGIN SSH2 PUBLIC KEY|-----BEGIN (RSA )?PUBLIC KEY)/.test(text))
    return 'is a public one: name the file of the private key, which has no .pub at its end';
  return "is none: expected a private key as 'ssh-keygen' makes them";
}

function describePutty(file: string): string {
  return `is one of PuTTY's that cannot be read here: make one of OpenSSH's of it by 'puttygen ${file} -O private-openssh -o …'`;
}

/** Its public half is never locked. */
function readPutty(ssh2: Ssh2, file: string, text: string): KeyFile {
  const found = readBySsh2(ssh2, file, text, describePutty(file));
  const [, body] = /^Public-Lines: \d+\r?\n((?:[A-Za-z0-9+/=]+\r?\n)+)/m.exec(text) ?? [];
  return found.kind === 'locked' && body ? { ...found, publicHalf: Buffer.from(body, 'base64') } : found;
}

function describeDsa(): string {
  return "is of DSA, which the engine embedded does not use and servers refuse: make another by 'ssh-keygen -t ed25519'";
}

function describeDamaged(file: string): string {
  return `is damaged, or of a kind that cannot be read here: see what 'ssh-keygen -y -f ${file}' says of it`;
}

/** OpenSSH's own format: what stands in front says which key it is, and how it is locked, before any passphrase. */
function readOpenSsh(ssh2: Ssh2, file: string, text: string): KeyFile {
  const [, body = ''] = /-----BEGIN OPENSSH PRIVATE KEY-----([^-]*)-----END/.exec(text) ?? [];
  const head = readHead(Buffer.from(body, 'base64'));
  if (!head) return unusable(file, describeDamaged(file));
  if (head.type.startsWith('sk-'))
    return unusable(file, "is that of a security key, which the engine embedded cannot ask: use 'engine: ssh'");
  if (head.type === 'ssh-dss') return unusable(file, describeDsa());
  if (!keyTypes.has(head.type))
    return unusable(file, `is of the type ${printable(head.type)}, which is not known here: use 'engine: ssh'`);
  if (head.rounds > MAX_ROUNDS) {
    const much = `takes ${head.rounds} rounds to be unlocked, and ${MAX_ROUNDS} are the most`;
    return unusable(file, `${much}: give it fewer by 'ssh-keygen -p -a 16 -f ${file}'`);
  }
  const refused =
    `is locked by ${printable(head.cipher)}, which cannot be opened here: lock it by another cipher, ` +
    `'ssh-keygen -p -Z aes256-ctr -f ${file}'`;
  // ssh2 takes it for one that it knows, and fails with the right passphrase.
  if (head.cipher === 'chacha20-poly1305@openssh.com') return unusable(file, refused);
  const found = readBySsh2(ssh2, file, text, head.cipher === 'none' ? describeDamaged(file) : refused);
  return found.kind === 'locked' ? { ...found, publicHalf: head.publicKey } : found;
}

interface Head {
  readonly cipher: string;
  readonly rounds: number;
  readonly type: string;
  readonly publicKey: Buffer;
}

/** cipher, name of the derivation, its options (a salt and a number of rounds), how many keys, the first public one. */
function readHead(bytes: Buffer): Head | undefined {
  const magic = 'openssh-key-v1\0';
  if (bytes.toString('latin1', 0, magic.length) !== magic) return undefined;
  let at = magic.length;
  const next = (): Buffer | undefined => {
    const end = at + 4 <= bytes.length ? at + 4 + bytes.readUInt32BE(at) : Number.POSITIVE_INFINITY;
    if (end > bytes.length) return undefined;
    const word = bytes.subarray(at + 4, end);
    at = end;
    return word;
  };
  const [cipher, derivation, options] = [next(), next(), next()];
  at += 4;
  const publicKey = next();
  if (!cipher || !derivation || !options || !publicKey || publicKey.length < 4) return undefined;
  const length = publicKey.readUInt32BE(0);
  const rounds = options.length >= 4 ? options.readUInt32BE(options.length - 4) : 0;
  return { cipher: cipher.toString('latin1'), rounds, type: publicKey.toString('latin1', 4, 4 + length), publicKey };
}

function readBySsh2(ssh2: Ssh2, file: string, text: string, otherwise: string): KeyFile {
  const parsed = parse(ssh2, text);
  if (typeof parsed === 'object') return { kind: 'key', file, key: parsed };
  if (parsed === 'dsa') return unusable(file, describeDsa());
  if (parsed !== 'locked') return unusable(file, otherwise);
  return { kind: 'locked', file, publicHalf: undefined, open: (passphrase) => opened(parse(ssh2, text, passphrase)) };
}

/** PEM as OpenSSL has it. ssh2 is given what it reads: the same key, unlocked, in the older form of its type. */
function readByNode(ssh2: Ssh2, file: string, text: string): KeyFile {
  if (/^-----BEGIN ENCRYPTED |^Proc-Type: *4, *ENCRYPTED/m.test(text)) {
    return {
      kind: 'locked',
      file,
      publicHalf: undefined,
      open: (passphrase) => {
        const unlocked = decode(text, passphrase);
        return unlocked && opened(convert(ssh2, unlocked));
      },
    };
  }
  const key = decode(text);
  if (!key) return unusable(file, describeDamaged(file));
  const parsed = convert(ssh2, key);
  if (typeof parsed === 'object') return { kind: 'key', file, key: parsed };
  return unusable(file, parsed === 'dsa' ? describeDsa() : describeDamaged(file));
}

type Parsed = ParsedKey | 'locked' | 'dsa' | 'other';

function opened(parsed: Parsed): ParsedKey | undefined {
  return typeof parsed === 'object' ? parsed : undefined;
}

function decode(text: string, passphrase?: Buffer): KeyObject | undefined {
  try {
    return createPrivateKey({ key: text, format: 'pem', ...(passphrase && { passphrase }) });
  } catch (error) {
    // Whatever OpenSSL says of a file that somebody else has written, or of a passphrase; it has a hundred codes for it.
    if (!(error instanceof Error)) throw error;
    return undefined;
  }
}

function convert(ssh2: Ssh2, key: KeyObject): Parsed {
  switch (key.asymmetricKeyType) {
    case 'rsa':
      return parse(ssh2, String(key.export({ type: 'pkcs1', format: 'pem' })));
    case 'ec':
      return parse(ssh2, String(key.export({ type: 'sec1', format: 'pem' })));
    case 'ed25519':
      return parse(ssh2, wrapEd25519(key));
    case 'dsa':
      return 'dsa';
    default:
      return 'other';
  }
}

/** Of Ed25519 ssh2 reads OpenSSH's own format alone. */
function wrapEd25519(key: KeyObject): string {
  const { x = '', d = '' } = key.export({ format: 'jwk' });
  const [publicKey, seed] = [Buffer.from(x, 'base64url'), Buffer.from(d, 'base64url')];
  const shown = Buffer.concat([word('ssh-ed25519'), word(publicKey)]);
  // Two numbers that are the same show that it was unlocked rightly; nothing was locked.
  const hidden = Buffer.concat([Buffer.alloc(8), shown, word(Buffer.concat([seed, publicKey])), word('')]);
  const padding = Buffer.from(Array.from({ length: -hidden.length & 7 }, (_, at) => at + 1));
  const head = [Buffer.from('openssh-key-v1\0'), word('none'), word('none'), word(''), Buffer.from([0, 0, 0, 1])];
  const body = Buffer.concat([...head, word(shown), word(Buffer.concat([hidden, padding]))]).toString('base64');
  return `-----BEGIN OPENSSH PRIVATE KEY-----\n${body}\n-----END OPENSSH PRIVATE KEY-----`;
}

function word(content: string | Buffer): Buffer {
  const bytes = Buffer.from(content);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

function parse({ utils }: Ssh2, text: string, passphrase?: Buffer): Parsed {
  let parsed: ParsedKey | Error | undefined;
  try {
    parsed = utils.parseKey(text, passphrase);
    if (parsed === undefined) return 'other';
    if (parsed instanceof Error) return /no passphrase given/.test(parsed.message) ? 'locked' : 'other';
    if (parsed.type === 'ssh-dss') return 'dsa';
    return keyTypes.has(parsed.type) && isSound(parsed) ? parsed : 'other';
  } catch (error) {
    // ssh2 answers an error for most that is malformed, and throws for the rest: RangeError, TypeError, those of OpenSSL.
    if (!(error instanceof Error)) throw error;
    return 'other';
  }
}

/** Can it sign, and is the public half its own? A wrong passphrase can open something that only looks like a key. */
function isSound(key: ParsedKey): boolean {
  if (!key.isPrivateKey()) return false;
  const text = Buffer.from('tunward');
  const hash = key.type === 'ssh-rsa' ? 'sha256' : undefined;
  const signature: unknown = key.sign(text, hash);
  return Buffer.isBuffer(signature) && key.verify(text, signature, hash) === true;
}
