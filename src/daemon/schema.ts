import { isIP, isIPv4 } from 'node:net';
import { join, resolve } from 'node:path';
import * as z from 'zod';
import type { ConfigProblem } from '../errors.js';
import {
  allowedSshOptions,
  type Endpoint,
  type Hop,
  isListenHost,
  isSafeDestination,
  isSafeName,
  parseEndpoint,
  parseHop,
} from '../tunnel/spec.js';
import { printable } from '../wire.js';
import type { ConfigDocument, Path } from './document.js';
import { nearest } from './nearest.js';

export type Schema = ReturnType<typeof createSchema>;
export type FileShape = z.infer<Schema['file']>;
export type TunnelShape = z.infer<Schema['tunnel']>;

/** The keys that a tunnel has in the ancestor's configuration; their values make its id and are read as text. */
export const ancestorKeys: readonly string[] = [
  'name',
  'remote_host',
  'remote_port',
  'local_port',
  'direction',
  'interactive',
];

/** `ssh_options` beside the ancestor's keys: `Compression: yes` is the text that ssh gets, and no YAML boolean. */
export function keepsText(keys: readonly string[]): boolean {
  const [last = '', parent] = [keys.at(-1), keys.at(-2)];
  return parent === 'ssh_options' || (parent === 'tunnels' && ancestorKeys.includes(last)) || last === 'listen';
}

/**
 * The shape of tunward.yaml, in the spelling of the file. Paths come out absolute: `~/` from `home`, relative ones from
 * `dir`. Messages read "expected …, found …". A tunnel is parsed by itself, so that one's mistakes hide no other's.
 */
export function createSchema(bases: PathBases) {
  const path = pathSchema(bases);
  const settings = {
    engine: choice('auto', 'ssh', 'autossh', 'embedded').optional(),
    ssh_config: pathSchema(bases, 'none').optional(),
    identity_file: path.optional(),
    ssh_options: sshOptionsSchema().optional(),
    jump: jumpSchema().optional(),
    takeover: choice('own', 'tunnels', 'any').optional(),
    backoff: mapping({ min_ms: ms(1), max_ms: ms(1), stable_ms: ms(0) }).optional(),
    start_timeout_ms: ms(1),
    restart_timeout_ms: ms(1),
    auth_retry: choice('slow', 'never').optional(),
    share: yesOrNo().optional(),
    seamless: yesOrNo().optional(),
    drain_ms: ms(0),
    connect_wait_ms: ms(0),
    check: checkSchema().optional(),
  };
  const address = addressShape();
  const directionMode = choice('default', 'ssh-standard').default('default');
  const file = mapping({
    ...settings,
    log_dir: path.optional(),
    log: mapping({
      max_bytes: wholeNumber(4096, 2 ** 30, ' of bytes'),
      keep: wholeNumber(1, 100, ' of files'),
    }).default({}),
    state_dir: path.optional(),
    api: mapping({
      socket: path.optional(),
      listen: apiListenSchema().optional(),
      allow_remote: yesOrNo().default(false),
      hosts: hostsSchema().default([]),
      token_file: path.optional(),
      tokens: z
        .array(mapping({ file: path, scope: choice('read', 'all') }), expected('a list of tokens'))
        .max(MAX_TOKENS, expected(`at most ${MAX_TOKENS} tokens`))
        .default([]),
      compat: yesOrNo().default(false),
    }).prefault({}),
    start: mapping({ concurrency: count(), per_host: count(), interval_ms: ms(0) }).default({}),
    direction_mode: directionMode,
    on_needs_auth: hookSchema(path).optional(),
    stop_timeout_ms: ms(1),
    reload: choice('auto', 'signal').default('auto'),
    tunnels: z.array(z.unknown(), expected('a list of tunnels')).default([]),
  });
  const name = text('a name of at most 200 characters, none of them a control character', isName);
  const interactive = choice('true', 'false').default('false');
  const labels = { groups: groupsSchema().default([]), enabled: yesOrNo().default(true) };
  const tunnel = mapping({ name: name.default('unnamed'), ...address, interactive, ...labels, ...settings });
  const place = z.object({ ...address, enabled: labels.enabled.catch(true), jump: settings.jump.catch(undefined) });
  return { file, tunnel, place, sshOptions: sshOptionsSchema(), directionMode };
}

/** What a parse has found so far. */
export interface Findings {
  readonly document: ConfigDocument;
  readonly errors: ConfigProblem[];
  readonly warnings: ConfigProblem[];
  /** The tunnel of which nothing is forgiven, also where it stands among an ancestor's. */
  readonly strict?: number | undefined;
}

/** The value in its shape; undefined, and what is wrong with it among the errors, when it does not fit. */
export function parseShape<S extends z.ZodType>(
  { document, errors }: Findings,
  schema: S,
  value: unknown,
  path: Path,
): z.output<S> | undefined {
  const result = schema.safeParse(value);
  for (const issue of result.error?.issues ?? []) {
    const at = [...path, ...issue.path];
    if (issue.code !== 'unrecognized_keys') errors.push(document.problem(at, issue.message));
    else {
      const messages = issue.message.split('\n');
      for (const [n, key] of issue.keys.entries())
        errors.push(document.problem([...at, key], messages[n] ?? '', 'key'));
    }
  }
  return result.data;
}

/** A value as a message quotes it. */
export function show(value: unknown): string {
  if (value === undefined || value === null) return 'nothing';
  if (typeof value === 'string') return `'${value.length > 80 ? `${value.slice(0, 79)}…` : value}'`;
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' ? 'a mapping' : String(value);
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What to say of a host that cannot be listened on. */
export function noListenHost(host: string): string {
  return `expected an IP address, localhost or * to listen on, found ${show(host)}`;
}

export interface PathBases {
  readonly dir: string;
  /** Undefined when there is no home: `~/` is then an error. */
  readonly home: string | undefined;
}

function addressShape() {
  const destination = "[user@]host of letters, digits, '.', '_' and '-', beginning with a letter, a digit or '_'";
  return {
    // ssh takes an IPv6 address as a destination without brackets only
    remote_host: text(destination, isSafeDestination).transform((host) => host.replace(/\[(.*)\]$/, '$1')),
    // 0 where it is the listening end: the server chooses. See checkAddresses.
    remote_port: endpointSchema(0),
    local_port: endpointSchema(1),
    direction: choice('remote_to_local', 'local_to_remote').default('remote_to_local'),
  };
}

interface Found {
  readonly code?: string;
  readonly input?: unknown;
  readonly keys?: unknown;
}

function expected(what: string) {
  return { error: ({ input }: Found) => `expected ${what}, found ${show(input)}` };
}

/**
 * A mapping with these keys and no other. zod reports all unknown keys of one mapping in one issue: its message has one
 * line for each of them, in the order of `issue.keys`.
 */
function mapping<S extends z.ZodRawShape>(shape: S) {
  const known = Object.keys(shape);
  return z.strictObject(shape, {
    error: ({ code, input, keys }: Found) => {
      if (code !== 'unrecognized_keys' || !Array.isArray(keys)) return `expected a mapping, found ${show(input)}`;
      return keys.map((key) => unknownKey(String(key), known)).join('\n');
    },
  });
}

function unknownKey(key: string, known: readonly string[]): string {
  const hint = nearest(key, known);
  const expectation = hint === undefined ? `one of ${known.join(', ')}` : 'a known key';
  return singleLine(
    `expected ${expectation}, found ${show(key)}${hint === undefined ? '' : `; did you mean '${hint}'?`}`,
  );
}

/** See {@link mapping}: a key with a line break in it must not look like two messages. */
function singleLine(message: string): string {
  return message.replaceAll('\n', '\\n');
}

function choice<const T extends readonly [string, ...string[]]>(...values: T) {
  return z.enum(values, expected(values.join(' or ').replace(/ or (?=.* or )/g, ', ')));
}

function yesOrNo() {
  return z.boolean(expected('true or false'));
}

function text(what: string, isValid: (value: string) => boolean) {
  return z.string(expected(what)).refine(isValid, expected(what));
}

function ms(min: number) {
  return wholeNumber(min, 86_400_000, ' of milliseconds');
}

function count() {
  return wholeNumber(1, 10_000, '');
}

function wholeNumber(min: number, max: number, unit: string) {
  const message = expected(`a whole number${unit} from ${min} to ${max}`);
  return z.int(message).min(min, message).max(max, message).optional();
}

function endpointSchema(leastPort: 0 | 1) {
  return z.string(expected('a port, host:port or [IPv6 address]:port')).transform((written, context): Endpoint => {
    const endpoint = parseEndpoint(written, leastPort);
    if (typeof endpoint !== 'string') return endpoint;
    context.addIssue(endpoint);
    return z.NEVER;
  });
}

function checkSchema() {
  const path = text("a path of printable characters without blanks that begins with '/'", (value) =>
    /^\/[!-~]*$/.test(value),
  );
  return mapping({
    connect: z.literal(true, expected('true, which is what a check without http does')).optional(),
    http: path.optional(),
    every_ms: wholeNumber(1000, 86_400_000, ' of milliseconds'),
    timeout_ms: ms(1),
  });
}

const MAX_TOKENS = 32;

function apiListenSchema() {
  const what = expected('off, a port, host:port or [IPv6 address]:port');
  return z.string(what).transform((written, context): Endpoint | null => {
    if (['off', 'false', 'null', '~'].includes(written)) return null;
    const endpoint = parseEndpoint(written);
    if (typeof endpoint !== 'string' && isListenHost(endpoint.host)) return endpoint;
    context.addIssue(typeof endpoint === 'string' ? endpoint : noListenHost(endpoint.host));
    return z.NEVER;
  });
}

/** As a browser writes them in the header Host, lower case, an address in brackets where it is IPv6. */
function hostsSchema() {
  const host = text('host or host:port, as browsers ask for it', (value) =>
    /^([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(:\d{1,5})?$/.test(value),
  );
  return z.array(host, expected('a list of hosts')).max(32, expected('at most 32 hosts'));
}

/** An address, or a mapping with it and the file of a header. */
function hookSchema(path: ReturnType<typeof pathSchema>) {
  const what = expected('an http or https URL, or a mapping of url and header_file');
  const whole = mapping({ url: urlSchema(), header_file: path.optional() });
  const isOne = (value: unknown) => typeof value === 'string' || isRecord(value);
  return z.custom<unknown>(isOne, what).transform((written, context) => {
    const isText = typeof written === 'string';
    const { data, error } = whole.safeParse(isText ? { url: written } : written);
    for (const issue of error?.issues ?? []) context.addIssue({ ...issue, path: isText ? [] : issue.path });
    return data ? { url: data.url, headerFile: data.header_file ?? null } : z.NEVER;
  });
}

const MAX_URL = 2000;

/** What is behind the host may be a secret, and so may what is before it: a message has neither. */
function urlSchema() {
  const found = (value: unknown) => {
    if (typeof value !== 'string') return show(value);
    const [, scheme = '', authority = ''] = /^([a-z][\w+.-]*:\/*)?([^/?#\\]*)/i.exec(value) ?? [];
    const shown = `${scheme}${authority.replace(/^.*@/, '…@')}`;
    return `${show(shown).slice(0, -1)}${shown === value ? '' : '/…'}'`;
  };
  const complain = (what: string) => ({ error: ({ input }: Found) => `expected ${what}, found ${found(input)}` });
  const remedy = 'a user and a password stand in the file that header_file names';
  return z
    .string(complain('an http or https URL'))
    .max(MAX_URL, complain(`a URL of at most ${MAX_URL} characters`))
    .refine((text) => parseUrl(text) !== undefined, complain('an http or https URL'))
    .refine((text) => !hasUser(parseUrl(text)), complain(`a URL without a user and a password (${remedy})`))
    .transform((text) => new URL(text).href);
}

function hasUser({ username, password }: Partial<URL> = {}): boolean {
  return Boolean(username || password);
}

function parseUrl(text: string): URL | undefined {
  const url = /^https?:\/\/[^\s\p{Cc}]+$/iu.test(text) && URL.canParse(text) ? new URL(text) : undefined;
  return url?.hostname ? url : undefined;
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}

/** `word`: one that stands for itself, and is no file of that name. */
function pathSchema({ dir, home }: PathBases, word?: string) {
  const what = 'a path: absolute, relative to this file, or beginning with ~/';
  return text(what, (path) => !/\p{Cc}|^~[^/]/u.test(path)).transform((path, context) => {
    if (path === word) return path;
    if (!path.startsWith('~')) return resolve(dir, path);
    if (home !== undefined) return join(home, path.slice(1));
    context.addIssue(`expected HOME in the environment for ${show(path)}, found nothing`);
    return z.NEVER;
  });
}

const MAX_HOPS = 5;
const MAX_GROUPS = 20;

/** As for `ssh -J`, or a list. */
function jumpSchema() {
  const what = `[user@]host[:port], or a list of at most ${MAX_HOPS} of them`;
  return z.union([z.string(), z.array(z.unknown())], expected(what)).transform((written, context): Hop[] => {
    const texts = typeof written === 'string' ? written.split(',') : written;
    if (texts.length > MAX_HOPS) context.addIssue(expected(what).error({ input: written }));
    const hops = texts.map((text) => (typeof text === 'string' ? parseHop(text.trim()) : noHop(text)));
    for (const [at, hop] of hops.entries()) {
      if (typeof hop === 'string') context.addIssue({ code: 'custom', path: [at], message: hop });
    }
    return hops.filter((hop) => typeof hop !== 'string');
  });
}

function noHop(value: unknown): string {
  return `expected [user@]host[:port], found ${show(value)}`;
}

function groupsSchema() {
  const group = text("a name of letters, digits, '.', '_' and '-', beginning with a letter or a digit", isGroup);
  return z.array(group, expected('a list of groups')).max(MAX_GROUPS, expected(`at most ${MAX_GROUPS} groups`));
}

function isGroup(text: string): boolean {
  return /^[A-Za-z0-9][\w.-]{0,99}$/.test(text);
}

function isName(text: string): boolean {
  return text.length <= 200 && printable(text) === text;
}

/** Names in ssh's own spelling, values as text. */
function sshOptionsSchema() {
  // z.record would pass over a key __proto__ in silence
  return z.custom<Record<string, unknown>>(isRecord, expected('a mapping')).transform((written, context) => {
    const options: Record<string, string> = {};
    for (const [key, value] of Object.entries(written)) {
      const name = allowedSshOptions.find((allowed) => allowed.toLowerCase() === key.toLowerCase());
      const complaint = name === undefined ? unknownOption(key) : optionComplaint(name, value);
      if (name === undefined || Object.hasOwn(options, name)) {
        const message = complaint ?? `expected the option ${name} once, found it again as ${show(key)}`;
        context.addIssue({ code: 'unrecognized_keys', keys: [key], message: singleLine(message), input: written });
      } else if (complaint !== undefined) context.addIssue({ code: 'custom', path: [key], message: complaint });
      else options[name] = String(value);
    }
    return options;
  });
}

function unknownOption(key: string): string {
  const hint = nearest(key, allowedSshOptions);
  const remedy = hint === undefined ? 'put it in the file that ssh_config names' : `did you mean '${hint}'?`;
  return `expected an ssh option that a tunnel may set, found ${show(key)}; ${remedy}`;
}

function optionComplaint(name: string, value: unknown): string | undefined {
  if (typeof value !== 'string' || /\p{Cc}/u.test(value)) {
    return `expected a value without control characters, found ${show(value)}`;
  }
  if (name === 'StrictHostKeyChecking') return hostKeyComplaint(value);
  // The same rule as for remote_host: each can end up in the person's own ProxyCommand or `Match exec` (%h, %r, %k), and
  // of the last ssh checks nothing. It expands %h in a host name
  const text = name === 'HostName' ? value.replaceAll('%h', 'h') : value;
  const isSafe = isSafeName(text) || (name !== 'User' && isIP(text) !== 0);
  if (isSafe || !['HostName', 'HostKeyAlias', 'User'].includes(name)) return undefined;
  return `expected a name of letters, digits, '.', '_' and '-', found ${show(value)}`;
}

/** ssh knows more spellings of "no" (`false`, `"no"` in quotes of its own), so only what is safe is let through. */
function hostKeyComplaint(value: string): string | undefined {
  if (/^(yes|true|ask|accept-new)$/i.test(value)) return undefined;
  const remedy = 'accept-new is the way to connect to a new host, and refuses a key that has changed';
  return `expected yes, ask or accept-new, found ${show(value)}; ${remedy}`;
}
