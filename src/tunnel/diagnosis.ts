import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { isErrno } from '../errors.js';
import { type Clock, until } from '../time.js';
import type { SshFacts } from './arguments.js';
import type { LinkExit } from './engine.js';

export interface DiagnosisOptions {
  readonly facts: SshFacts;
  /** The hosts it goes through by a command of ours. */
  readonly steps: readonly unknown[];
  /** What ssh said, oldest first. */
  readonly said: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
}

/**
 * Finds out what ssh does not say of its own end at the level at which it runs: that a key was of no use since it needs a
 * passphrase (without a person ssh passes over it in silence), and what a server said that hung up instead of greeting
 * (ssh shows that as debugging alone). Bounded; whatever cannot be found out leaves the exit as it is.
 */
export async function diagnoseExit(exit: LinkExit, options: DiagnosisOptions): Promise<LinkExit> {
  if (exit.reason === 'auth_failed') return explainKeys(exit, options);
  const hungUp = exit.reason === 'refused' && options.said.some((line) => /_exchange_identification: /.test(line));
  return hungUp && isDirect(options) ? explainRefusal(exit, options) : exit;
}

/** Only then is it that host and port that hung up. */
function isDirect({ facts, steps }: DiagnosisOptions): boolean {
  return steps.length === 0 && facts.proxyJump === null && facts.proxyCommand === null;
}

async function explainKeys(exit: LinkExit, { facts, env, clock }: DiagnosisOptions): Promise<LinkExit> {
  const keys = facts.identityFiles.flatMap((written) => readKey(expandHome(written)) ?? []);
  const locked = keys.filter(({ isLocked }) => isLocked);
  if (locked.length === 0) return exit;
  const agent = facts.identityAgent === 'SSH_AUTH_SOCK' ? env.SSH_AUTH_SOCK : facts.identityAgent;
  const lent = agent !== undefined && path.isAbsolute(agent) ? await askAgent(agent, clock) : Buffer.alloc(0);
  const isLent = ({ publicKey }: Key) => publicKey !== undefined && lent.includes(publicKey);
  const [unused] = locked.filter((key) => !isLent(key));
  if (!unused) return exit;
  const isOnly = keys.every((key) => key.isLocked && !isLent(key));
  const lastError = `${exit.lastError}; the key ${unused.file} needs a passphrase, and nobody was there to type it`;
  return { ...exit, reason: isOnly ? 'needs_auth' : 'auth_failed', lastError };
}

/** After so many failed logins sshd (9.8 and later, PerSourcePenalties) turns an address away for at least that long. */
const PENALTY_MS = 30_000;

async function explainRefusal(exit: LinkExit, { facts, clock }: DiagnosisOptions): Promise<LinkExit> {
  const endpoint = { host: facts.hostname, port: Number(facts.port) };
  const greeting = await converse(endpoint, { clock, isEnough: (said) => said.includes(0x0a) });
  const [line = ''] = greeting.toString('latin1').split(/\r?\n/);
  const isPenalty = /^Not allowed at this time/i.test(line);
  if (!isPenalty && !/^Exceeded MaxStartups/i.test(line)) return exit;
  const lastError = `${exit.lastError}; the server says: ${isPenalty ? 'Not allowed at this time' : 'Exceeded MaxStartups'}`;
  return { ...exit, lastError, ...(isPenalty ? { retryAfterMs: PENALTY_MS } : {}) };
}

/** A private key, as far as it may be read without its passphrase. */
interface Key {
  readonly file: string;
  readonly isLocked: boolean;
  /** As agents list it; undefined where the file does not show it. */
  readonly publicKey: Buffer | undefined;
}

/** Undefined where there is no such key, or none that may be read: then it was of no use to ssh either. */
function readKey(file: string): Key | undefined {
  const text = readSmallFile(file);
  if (text === undefined || !text.includes('PRIVATE KEY-----')) return undefined;
  const body = /-----BEGIN OPENSSH PRIVATE KEY-----([^-]+)/.exec(text)?.[1];
  if (body !== undefined) return { file, ...parseOpensshKey(Buffer.from(body, 'base64')) };
  const isLocked = /^Proc-Type: 4,ENCRYPTED|^-----BEGIN ENCRYPTED PRIVATE KEY/m.test(text);
  const beside = /^\S+ (\S+)/.exec(readSmallFile(`${file}.pub`) ?? '')?.[1];
  return { file, isLocked, publicKey: beside === undefined ? undefined : Buffer.from(beside, 'base64') };
}

/**
 * The head of OpenSSH's own format (PROTOCOL.key): a magic, then strings of which each is led by its length: the cipher,
 * the kdf, its options; how many keys there are; the public half of the first. All of that is in the clear.
 */
export function parseOpensshKey(bytes: Buffer): Pick<Key, 'isLocked' | 'publicKey'> {
  let at = 'openssh-key-v1\0'.length;
  const word = () => {
    at += 4;
    return at <= bytes.length ? bytes.readUInt32BE(at - 4) : 0;
  };
  const string = () => {
    const length = word();
    at += length;
    return bytes.subarray(at - length, at);
  };
  const cipher = string().toString('latin1');
  string();
  string();
  word();
  const publicKey = string();
  return { isLocked: cipher !== 'none' && cipher !== '', publicKey: publicKey.length > 0 ? publicKey : undefined };
}

const MAX_KEY_BYTES = 65_536;

function readSmallFile(file: string): string | undefined {
  let fd: number;
  try {
    fd = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EACCES', 'EPERM', 'ENOTDIR', 'ELOOP', 'ENXIO', 'ENAMETOOLONG')) return undefined;
    throw error;
  }
  try {
    if (!fs.fstatSync(fd).isFile()) return undefined;
    const buffer = Buffer.alloc(MAX_KEY_BYTES);
    return buffer.toString('latin1', 0, fs.readSync(fd, buffer, 0, buffer.length, 0));
  } finally {
    fs.closeSync(fd);
  }
}

/** ssh's `~` is the home of the password file, whatever HOME says. */
function expandHome(written: string): string {
  return written.startsWith('~/') ? path.join(os.userInfo().homedir, written.slice(2)) : written;
}

/** SSH_AGENTC_REQUEST_IDENTITIES (the agent protocol, draft-ietf-sshm-ssh-agent): a length and the request's number. */
const LIST_KEYS = Buffer.from([0, 0, 0, 1, 11]);

/** What an agent answers when it is asked for its keys; nothing where none answers. */
function askAgent(socket: string, clock: Clock): Promise<Buffer> {
  const isWhole = (said: Buffer) => said.length >= 4 && said.length >= 4 + said.readUInt32BE(0);
  return converse({ path: socket }, { clock, isEnough: isWhole, first: LIST_KEYS });
}

interface Conversation {
  readonly isEnough: (said: Buffer) => boolean;
  readonly first?: Buffer;
  readonly clock: Clock;
}

const TALK_MS = 1000;
const TALK_BYTES = 1_048_576;

/** What somebody says who is connected to, as far as it came in time. */
async function converse(to: net.NetConnectOpts, { isEnough, first, clock }: Conversation): Promise<Buffer> {
  let said: Buffer = Buffer.alloc(0);
  let isOver = false;
  const socket = net.connect(to);
  const end = () => {
    isOver = true;
  };
  socket.once('error', end).once('close', end);
  socket.on('data', (chunk: Buffer) => {
    said = Buffer.concat([said, chunk]);
  });
  if (first) socket.write(first);
  try {
    await until(() => isOver || isEnough(said) || said.length > TALK_BYTES, { timeoutMs: TALK_MS, clock });
    return said;
  } finally {
    socket.destroy();
  }
}
