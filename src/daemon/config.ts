import { dirname, join, resolve } from 'node:path';
import type { ConfigProblem } from '../errors.js';
import { whyNotEmbedded } from '../tunnel/embedded/ssh-config/keywords.js';
import { needsShell } from '../tunnel/jump.js';
import type { DirectionMode, Endpoint, TunnelSpec } from '../tunnel/spec.js';
import { checkAddresses, type HostFacts, readHostFacts } from './addresses.js';
import { applyDefaults, type EnvironmentDefaults, readEnvironmentDefaults } from './defaults.js';
import { type ConfigDocument, readDocument } from './document.js';
import type { LogLimits } from './logfile.js';
import {
  createSchema,
  type FileShape,
  type Findings,
  isLoopback,
  isRecord,
  keepsText,
  parseShape,
  type Schema,
  show,
} from './schema.js';
import {
  absoluteDir,
  atTop,
  type ConfigSource,
  type Defaults,
  defaultPaths,
  inOrder,
  invalid,
  maxBytes,
  readSource,
  type SourceOptions,
  tooLarge,
} from './source.js';
import { readTunnels } from './tunnels.js';

/** What a configuration file says, checked and complete. All paths are absolute. Frozen. */
export interface Config {
  /** The file it came from. */
  readonly file: string;
  /** In the order of the file. */
  readonly tunnels: readonly TunnelSpec[];
  readonly logDir: string;
  readonly log: LogLimits;
  readonly stateDir: string;
  readonly api: {
    readonly socket: string;
    readonly listen: Endpoint | null;
    readonly tokenFile: string;
    /** By what names, beside its own addresses, it is reached on TCP: `tunnels.example:8443`. */
    readonly hosts: readonly string[];
    /** More tokens than that, and what each is good for. */
    readonly tokens: readonly { readonly file: string; readonly scope: 'read' | 'all' }[];
    /** The routes of autossh-tunnel-dockerized as well. */
    readonly compat: boolean;
    /** Of keys that open the API beside the token, SHA-256 in hexadecimal. */
    readonly keyDigests: readonly string[];
  };
  readonly start: { readonly concurrency: number; readonly perHost: number; readonly intervalMs: number };
  readonly directionMode: DirectionMode;
  /** Who is told, by a POST, that a tunnel waits for a person; `headerFile` has the line `Authorization: …` for it. */
  readonly onNeedsAuth: { readonly url: string; readonly headerFile: string | null } | null;
  /** The bound on everything that a shutdown does. */
  readonly stopTimeoutMs: number;
  /** What reads the file again: every change of it, or SIGHUP alone. */
  readonly reload: 'auto' | 'signal';
  /** What is no error but will surprise somebody. */
  readonly warnings: readonly ConfigProblem[];
}

export interface LoadOptions extends Partial<SourceOptions>, Partial<HostFacts> {
  readonly uid?: number;
  /** The index of a tunnel that was asked for just now: nothing of it is forgiven as an ancestor's would be. */
  readonly strict?: number | undefined;
}

/**
 * Finds, reads and parses the configuration.
 *
 * @throws TunwardError ERR_CONFIG_INVALID: there is none, it cannot be read, or it is wrong; `info.problems` says where
 * @example
 * const config = await loadConfig({ file: 'tunward.yaml' });
 * console.log(config.tunnels.map((tunnel) => tunnel.name));
 */
export async function loadConfig(options: LoadOptions = {}): Promise<Config> {
  const { env = process.env, cwd = process.cwd() } = options;
  return parseSource(await readSource({ ...options, env, cwd }), options);
}

/** The second half: what the text says on this host. */
export function parseSource({ file, text }: ConfigSource, options: LoadOptions = {}): Config {
  const { env = process.env, cwd = process.cwd(), uid = process.getuid?.() ?? -1 } = options;
  const host = readHostFacts(env);
  const { ephemeralRange = host.ephemeralRange, hasIpv6Loopback = host.hasIpv6Loopback } = options;
  const { hasShell = host.hasShell, hasSsh = host.hasSsh, strict } = options;
  const defaults = readEnvironmentDefaults(env, { file, cwd });
  return parseConfig(text, { file, env, uid, ephemeralRange, hasIpv6Loopback, hasShell, hasSsh, defaults, strict });
}

export interface ParseOptions extends HostFacts {
  /** Names the file in messages; relative paths in it start from its folder. */
  readonly file: string;
  readonly env: NodeJS.ProcessEnv;
  readonly uid: number;
  /** What the environment says where the file says nothing; default: nothing. */
  readonly defaults?: EnvironmentDefaults;
  readonly strict?: number | undefined;
}

/**
 * Parses a configuration: YAML text to plain data. Reads nothing but its arguments.
 *
 * @throws TunwardError ERR_CONFIG_INVALID with every problem at once, in the order of the file
 */
export function parseConfig(text: string, options: ParseOptions): Config {
  const { env, uid, defaults = { keyDigests: [], complaints: [] } } = options;
  const file = resolve(options.file);
  if (Buffer.byteLength(text) > maxBytes) throw invalid([atTop(file, tooLarge)]);
  const document = readDocument(text, file, keepsText);
  if (!document.readable) throw invalid(document.problems);

  const schema = createSchema({ dir: dirname(file), home: absoluteDir(env, 'HOME') });
  const findings: Findings = { document, errors: [...document.problems], warnings: [], strict: options.strict };
  const written = document.value ?? {};
  const own = parseShape(findings, schema.file, written, []) ?? whatIsRight(schema, written);
  const top = applyDefaults(own, written, defaults);
  const { tunnels, places } = readTunnels(findings, schema, written, top);
  const found = checkAddresses(document, places, { ...options, apiListen: top.api.listen ?? null });
  const rest = placesAndLimits(top, { ...defaultPaths(env, uid), keyDigests: defaults.keyDigests });
  const ofEnvironment = defaults.complaints.map(({ variable, message }) => ({
    ...atTop(file, message),
    path: `$${variable}`,
  }));
  const errors = [...ofEnvironment, ...findings.errors, ...found.errors, ...apiProblems(document, top.api, rest.api)];
  if (errors.length > 0) throw invalid(errors);
  const warnings = [...findings.warnings, ...found.warnings, ...hostWarnings(document, tunnels, options)];
  return deepFreeze({ file, tunnels, ...rest, warnings: inOrder(warnings) });
}

/** What is right, and will not start on this host: by ssh for want of a shell, or by our own client for want of an ssh. */
function hostWarnings(
  document: ConfigDocument,
  tunnels: readonly TunnelSpec[],
  { hasShell = true, hasSsh = true }: HostFacts,
): ConfigProblem[] {
  const noShell =
    "expected /bin/sh, by which ssh goes through a jump host, found none: put a shell into the image, or take 'engine: embedded'";
  return tunnels.flatMap((spec, at) => {
    const isOurs = spec.engine === 'embedded' || (spec.engine === 'auto' && !hasSsh);
    if (!isOurs) return !hasShell && needsShell(spec) ? [document.problem(['tunnels', at, 'jump'], noShell)] : [];
    // Where embedded is asked for by name that is an error already.
    const [, why] = (spec.engine === 'auto' && whyNotEmbedded(spec.sshOptions)) || [];
    return why === undefined ? [] : [document.problem(['tunnels', at], `expected an ssh on PATH, found none. ${why}`)];
  });
}

/** The top level without the keys that are wrong, so that they do not keep the tunnels from being checked. */
function whatIsRight(schema: Schema, written: unknown): FileShape {
  const isRight = ([key, value]: [string, unknown]) => schema.file.safeParse({ [key]: value }).success;
  const entries = isRecord(written) ? Object.entries(written) : [];
  return schema.file.parse(Object.fromEntries(entries.filter(isRight)));
}

/** sockaddr_un holds 108 bytes with the closing zero. */
const maxSocketBytes = 107;

function apiProblems(document: ConfigDocument, written: FileShape['api'], api: Config['api']): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  const length = Buffer.byteLength(api.socket);
  if (length > maxSocketBytes) {
    const message = `expected a path of at most ${maxSocketBytes} bytes, found ${length}: ${show(api.socket)}`;
    problems.push(document.problem(['api', 'socket'], message));
  }
  // Whoever reaches the API may start and stop tunnels: it is put on a network by whoever says so twice.
  if (api.listen && !isLoopback(api.listen.host) && !written.allow_remote) {
    const message = `expected a loopback address, or allow_remote: true beside it, found ${show(api.listen.host)}`;
    problems.push(document.problem(['api', 'listen'], message));
  }
  // One text cannot be good for looking only and for everything.
  for (const [at, { file }] of api.tokens.entries()) {
    const isTaken = [api.tokenFile, ...api.tokens.slice(0, at).map((token) => token.file)].includes(file);
    const message = `expected a file of its own for each token, found ${show(file)} again`;
    if (isTaken) problems.push(document.problem(['api', 'tokens', at, 'file'], message));
  }
  return problems;
}

function placesAndLimits(top: FileShape, defaults: Defaults & Pick<Config['api'], 'keyDigests'>) {
  const stateDir = top.state_dir ?? defaults.stateDir;
  const { socket = defaults.socket, listen = null, token_file: tokenFile = join(stateDir, 'token') } = top.api;
  const { hosts, tokens, compat } = top.api;
  const { concurrency = 16, per_host: perHost = 8, interval_ms: intervalMs = 0 } = top.start;
  const { max_bytes: maxBytes = 1_048_576, keep = 5 } = top.log;
  return {
    logDir: top.log_dir ?? defaults.logDir,
    log: { maxBytes, keep },
    stateDir,
    api: { socket, listen, tokenFile, hosts, tokens, compat, keyDigests: defaults.keyDigests },
    start: { concurrency, perHost, intervalMs },
    directionMode: top.direction_mode,
    onNeedsAuth: top.on_needs_auth ?? null,
    // Docker kills 10 s after SIGTERM, and wants an exit before that.
    stopTimeoutMs: top.stop_timeout_ms ?? 8000,
    reload: top.reload,
  };
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) Object.values(value).forEach(deepFreeze);
  return Object.freeze(value);
}
