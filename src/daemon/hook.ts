import { once } from 'node:events';
import fs from 'node:fs';
import http, { type IncomingMessage } from 'node:http';
import type { RequestOptions } from 'node:https';
import os from 'node:os';
import path from 'node:path';
import { isTunwardError, TunwardError } from '../errors.js';
import type { Clock } from '../time.js';
import { toJson } from '../wire.js';
import type { Config } from './config.js';
import type { DaemonEvent, JournalEntry } from './events.js';
import { findOnlookers, readOwnFile, requireOwnFolder } from './files.js';

/** Who is told that a tunnel waits for a person. */
export type HookTarget = NonNullable<Config['onNeedsAuth']>;

export interface HookOptions {
  /** As it is now: a configuration that is read again may change it. null: nobody is told. */
  readonly target: () => HookTarget | null;
  readonly version: string;
  readonly clock: Clock;
  readonly publish: (event: DaemonEvent) => void;
}

export interface Hook {
  /** A reader of the journal: takes note, and makes nobody wait. */
  readonly hear: (entry: JournalEntry) => void;
  /** Gives up what is under way, and takes no more. Never rejects. */
  readonly close: () => Promise<void>;
}

type Announcement = Extract<JournalEntry, { type: 'tunnel.needs_auth' }>;

/** Why a try came to nothing. */
interface Failure {
  /** What was answered; null: nothing. */
  readonly httpStatus: number | null;
  readonly why: string;
}

/** The bound on one try: from the look at the header's file to the end of the answer. */
const TRY_MS = 5000;
/** Before each try. */
const PAUSES_MS = [0, 1000, 4000] as const;
/** A boot announces all tunnels that wait for somebody in one moment. */
const MOST_AT_ONCE = 8;
/** So much of an answer is taken, and thrown away, so that a server sees its answer out. */
const MOST_BYTES = 65_536;

/**
 * Tells an address of the configuration, by a POST with JSON, each time that a tunnel waits for a person. The only place
 * that asks anybody out there: no proxy, no redirect, and nothing of the answer but its status. Of what is told about one
 * tunnel the newest alone counts. A failure is an event; in it the address is no more than its origin, since what comes
 * behind may be a secret.
 *
 * @example
 * const hook = createHook({ target: () => config.onNeedsAuth, version: '1.0.0', clock, publish });
 * journal.subscribe(hook.hear);
 */
export function createHook({ target, version, clock, publish }: HookOptions): Hook {
  /** By the tunnel. */
  const queue = new Map<string, Announcement>();
  const underWay = new Map<string, AbortController>();
  const lanes = new Set<Promise<void>>();
  let busy = 0;
  let isClosed = false;
  return { hear, close };

  function hear(entry: JournalEntry): void {
    if (entry.type !== 'tunnel.needs_auth' || isClosed || target() === null) return;
    underWay.get(entry.tunnel)?.abort();
    queue.set(entry.tunnel, entry);
    if (busy >= MOST_AT_ONCE) return;
    const lane = work().finally(() => lanes.delete(lane));
    lanes.add(lane);
  }

  async function close(): Promise<void> {
    isClosed = true;
    queue.clear();
    for (const one of underWay.values()) one.abort();
    await Promise.all(lanes);
  }

  async function work(): Promise<void> {
    busy++;
    for (let next = take(); next; next = take()) await tell(next);
    busy--;
  }

  function take(): Announcement | undefined {
    const [next] = queue.values();
    if (next) queue.delete(next.tunnel);
    return next;
  }

  async function tell(announcement: Announcement): Promise<void> {
    const { tunnel } = announcement;
    const giveUp = new AbortController();
    underWay.set(tunnel, giveUp);
    const failed = await tryAll(announcement, giveUp.signal);
    if (underWay.get(tunnel) === giveUp) underWay.delete(tunnel);
    if (failed) publish({ type: 'hook.failed', tunnel, ...failed });
  }

  /** What has become of it in the end; undefined: it was taken, or is not wanted any more. */
  async function tryAll({ why, at, status }: Announcement, signal: AbortSignal) {
    let tries = 0;
    let last: { readonly url: string; readonly failure: Failure } | undefined;
    for (const pause of PAUSES_MS) {
      // Also before the first: what is to be done about an event is not done in the turn of whoever published it.
      const isOver = await clock.sleep(pause, signal).catch(() => signal.aborted);
      const to = target();
      if (isOver || to === null) break;
      tries++;
      const body = toJson({ event: 'tunnel.needs_auth', why, at, host: os.hostname(), tunnel: status });
      const failure = await tryOnce(to, body, signal);
      if (!failure) return undefined;
      last = { url: new URL(to.url).origin, failure };
    }
    // A newer one is told instead, or nobody is to be told any more.
    if (!last || (signal.aborted && !isClosed) || target() === null) return undefined;
    const { url, failure } = last;
    const given = isClosed ? ', and given up, since the daemon stops' : '';
    const message = `${url} was not told, after ${tries} ${tries === 1 ? 'try' : 'tries'}: ${failure.why}${given}`;
    return { url, httpStatus: failure.httpStatus, tries, message };
  }

  async function tryOnce(to: HookTarget, body: string, signal: AbortSignal): Promise<Failure | undefined> {
    const over = new AbortController();
    let isLate = false;
    const late = clock.sleep(TRY_MS, over.signal).then(() => {
      isLate = true;
      over.abort();
    });
    late.catch(() => undefined); // called off: it was over in time
    try {
      const httpStatus = await post(to, { body, version, signal: AbortSignal.any([signal, over.signal]) });
      if (httpStatus >= 200 && httpStatus < 300) return undefined;
      const isRedirect = httpStatus >= 300 && httpStatus < 400;
      return { httpStatus, why: `it answered ${httpStatus}${isRedirect ? ', and redirects are not followed' : ''}` };
    } catch (error) {
      if (signal.aborted) return { httpStatus: null, why: 'no answer yet' };
      return { httpStatus: null, why: isLate ? `no answer within ${TRY_MS} ms` : describe(error) };
    } finally {
      over.abort();
    }
  }
}

interface Posting {
  readonly body: string;
  readonly version: string;
  readonly signal: AbortSignal;
}

/** Answers the status. */
async function post({ url, headerFile }: HookTarget, { body, version, signal }: Posting): Promise<number> {
  const to = new URL(url);
  const secret = headerFile === null ? {} : { authorization: readAuthorization(headerFile) };
  const options: RequestOptions = {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'user-agent': `tunward/${version}`, ...secret },
    // Neither kept open, nor through a proxy that the environment names, nor with less than a certificate that holds.
    agent: false,
    rejectUnauthorized: true,
    signal,
  };
  const { request } = to.protocol === 'https:' ? await import('node:https') : http;
  const asked = request(to, options);
  asked.on('error', () => undefined); // after the answer it is nobody's; before it `once` rejects with it
  asked.end(body);
  const [answer] = (await once(asked, 'response', { signal })) as [IncomingMessage];
  await see(answer);
  return answer.statusCode ?? 0;
}

/** To its end, or as far as it is worth while. */
async function see(answer: IncomingMessage): Promise<void> {
  let length = 0;
  try {
    for await (const chunk of answer) {
      length += (chunk as Buffer).length;
      if (length > MOST_BYTES) return; // which cuts it off
    }
  } catch {
    // Cut off, or too late: its status has been said.
  }
}

const untrusted = [
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
];
const words: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nobody listens there',
  ECONNRESET: 'it broke the connection off',
  ENOTFOUND: 'no such host',
  EAI_AGAIN: 'the name of the host cannot be resolved now',
  CERT_HAS_EXPIRED: 'its certificate has expired',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is of another host',
};

/** In words of ours alone: those of others may quote what was sent. */
function describe(error: unknown): string {
  if (isTunwardError(error)) return error.message;
  const { code, name } = error as NodeJS.ErrnoException;
  if (code === undefined) return name;
  if (!untrusted.includes(code)) return words[code] === undefined ? code : `${words[code]} (${code})`;
  return `its certificate is by an authority that is not known here (${code}): NODE_EXTRA_CA_CERTS names more of them`;
}

/** What will keep the header from being sent, or shows it to others: a line for each. */
export function warningsOfHook(target: HookTarget | null): string[] {
  if (!target || target.headerFile === null) return [];
  try {
    readAuthorization(target.headerFile);
    return findOnlookers(target.headerFile, 'a header');
  } catch (error) {
    return [`on_needs_auth: ${describe(error)}`];
  }
}

/** Anew each time: a secret may be exchanged while the daemon runs. As for tokens, it must be a plain file of ours. */
function readAuthorization(file: string): string {
  const folder = path.dirname(file);
  if (fs.existsSync(folder)) requireOwnFolder(folder);
  const lines = readOwnFile(file)
    ?.split('\n')
    .map((line) => line.trim())
    .filter(Boolean);
  const [, value] = /^authorization:[ \t]*([\x21-\x7e][\x20-\x7e]*)$/i.exec(lines?.[0] ?? '') ?? [];
  if (value !== undefined && lines?.length === 1) return value;
  throw new TunwardError(
    'ERR_ACCESS_DENIED',
    `Cannot take a header from ${file}: expected a plain file of this user with one line, 'Authorization: …'`,
    { path: file },
  );
}
