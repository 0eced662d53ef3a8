import { whyNotEmbedded } from '../tunnel/embedded/ssh-config/keywords.js';
import {
  type BackoffOptions,
  type CheckOptions,
  type Direction,
  type DirectionMode,
  forwardOf,
  serverOf,
  type TunnelSpec,
  tunnelId,
} from '../tunnel/spec.js';
import type { Place } from './addresses.js';
import type { Path } from './document.js';
import {
  ancestorKeys,
  type FileShape,
  type Findings,
  isRecord,
  parseShape,
  type Schema,
  show,
  type TunnelShape,
} from './schema.js';

/**
 * The tunnels of a file, complete with the top level's settings, and the places they take. What is wrong goes to the
 * findings; a tunnel whose address is right has a place even when the rest of it is wrong, so that twins are found.
 */
export function readTunnels(
  findings: Findings,
  schema: Schema,
  written: unknown,
  top: FileShape,
): { tunnels: TunnelSpec[]; places: Place[] } {
  const settings = settingsOf(findings, top, defaultSettings, []);
  const candidates = tunnelsIn(findings, written);
  const tunnels = candidates.flatMap((candidate) => {
    const path = ['tunnels', candidate.index];
    const shape = parseShape(findings, schema.tunnel, candidate.value, path);
    if (shape === undefined) return [];
    const spec = toSpec(shape, candidate, settingsOf(findings, shape, settings, path), top.direction_mode);
    refuseContradictions(findings, shape, spec, path);
    return [spec];
  });
  // Under a mode that cannot be read nobody knows which side listens
  const mode = schema.directionMode.safeParse(isRecord(written) ? written.direction_mode : undefined);
  const places = mode.success ? candidates.flatMap((one) => toPlace(schema, one, settings, top.direction_mode)) : [];
  return { tunnels, places };
}

/** A tunnel of the file before it is checked. */
interface Candidate {
  readonly index: number;
  readonly value: unknown;
  /** As {@link Candidate.value}, but with the direction that was written: the id is made of that. */
  readonly written: unknown;
}

function tunnelsIn(findings: Findings, written: unknown): Candidate[] {
  const items: readonly unknown[] = isRecord(written) && Array.isArray(written.tunnels) ? written.tunnels : [];
  const isAncestors =
    isRecord(written) && Object.keys(written).every((key) => key === 'tunnels') && items.every(isPlain);
  return items.flatMap((item, index) => {
    const candidate = { index, value: item, written: item };
    return isAncestors && index !== findings.strict && isRecord(item)
      ? forgive(findings, candidate, item)
      : [candidate];
  });
}

/** Uses nothing that the ancestor does not know. */
function isPlain(item: unknown): boolean {
  return !isRecord(item) || Object.keys(item).every((key) => ancestorKeys.includes(key));
}

/** The ancestor skips a tunnel that lacks a key, and takes any unknown direction for remote_to_local. So do we, aloud. */
function forgive({ document, warnings }: Findings, candidate: Candidate, item: Record<string, unknown>): Candidate[] {
  const path = ['tunnels', candidate.index];
  const missing = ['remote_host', 'remote_port', 'local_port'].filter((key) => item[key] === undefined);
  if (missing.length > 0) {
    const message = `expected remote_host, remote_port and local_port, found no ${missing.join(' and no ')}`;
    warnings.push(document.problem(path, `${message}; the tunnel is skipped`));
    return [];
  }
  const { direction } = item;
  if (typeof direction !== 'string' || isDirection(direction)) return [candidate];
  const message = `expected remote_to_local or local_to_remote, found ${show(direction)}; taken for remote_to_local`;
  warnings.push(document.problem([...path, 'direction'], message));
  return [{ ...candidate, value: { ...item, direction: 'remote_to_local' } }];
}

function isDirection(text: string): text is Direction {
  return text === 'remote_to_local' || text === 'local_to_remote';
}

type Settings = Pick<
  TunnelSpec,
  | 'engine'
  | 'sshConfig'
  | 'identityFile'
  | 'sshOptions'
  | 'jump'
  | 'takeover'
  | 'backoff'
  | 'startTimeoutMs'
  | 'restartTimeoutMs'
  | 'authRetry'
  | 'share'
  | 'check'
> & { readonly seamless: boolean; readonly drainMs: number; readonly connectWaitMs: number };

export const defaultSettings: Settings = {
  engine: 'auto',
  sshConfig: null,
  identityFile: null,
  sshOptions: {},
  jump: [],
  takeover: 'tunnels',
  backoff: { minMs: 1000, maxMs: 60_000, stableMs: 30_000 },
  startTimeoutMs: 15_000,
  restartTimeoutMs: 6000,
  authRetry: 'slow',
  share: true,
  seamless: false,
  drainMs: 30_000,
  connectWaitMs: 10_000,
  check: null,
};

const defaultCheck: CheckOptions = { http: null, everyMs: 10_000, timeoutMs: 5000 };

/** What the top level or a tunnel says, and `base` for the rest; ssh_options and backoff are merged key by key. */
function settingsOf(findings: Findings, own: FileShape | TunnelShape, base: Settings, path: Path): Settings {
  return {
    engine: own.engine ?? base.engine,
    sshConfig: own.ssh_config ?? base.sshConfig,
    identityFile: own.identity_file ?? base.identityFile,
    sshOptions: { ...base.sshOptions, ...own.ssh_options },
    jump: own.jump ?? base.jump,
    takeover: own.takeover ?? base.takeover,
    backoff: own.backoff === undefined ? base.backoff : backoffOf(findings, own.backoff, base.backoff, path),
    startTimeoutMs: own.start_timeout_ms ?? base.startTimeoutMs,
    restartTimeoutMs: own.restart_timeout_ms ?? base.restartTimeoutMs,
    authRetry: own.auth_retry ?? base.authRetry,
    share: own.share ?? base.share,
    seamless: own.seamless ?? base.seamless,
    drainMs: own.drain_ms ?? base.drainMs,
    connectWaitMs: own.connect_wait_ms ?? base.connectWaitMs,
    check: own.check === undefined ? base.check : checkOf(own.check, base.check ?? defaultCheck),
  };
}

/** A path that stands at the top holds for all; `connect: true` of a tunnel puts an end to that. */
function checkOf(
  { connect, http, every_ms, timeout_ms }: NonNullable<FileShape['check']>,
  base: CheckOptions,
): CheckOptions {
  return {
    http: http ?? (connect ? null : base.http),
    everyMs: every_ms ?? base.everyMs,
    timeoutMs: timeout_ms ?? base.timeoutMs,
  };
}

function backoffOf(
  { document, errors }: Findings,
  own: NonNullable<FileShape['backoff']>,
  base: BackoffOptions,
  path: Path,
): BackoffOptions {
  const { min_ms: minMs = base.minMs, max_ms: maxMs = base.maxMs, stable_ms: stableMs = base.stableMs } = own;
  if (minMs > maxMs) {
    const key = own.min_ms === undefined ? 'max_ms' : 'min_ms';
    const message = `expected a min_ms of at most max_ms, found min_ms ${minMs} and max_ms ${maxMs}`;
    errors.push(document.problem([...path, 'backoff', key], message));
  }
  return { minMs, maxMs, stableMs };
}

/** What a tunnel says itself and cannot have. The same from the top of the file holds for those that can. */
function refuseContradictions({ document, errors }: Findings, own: TunnelShape, spec: TunnelSpec, path: Path): void {
  const refuse = (key: string, message: string) => errors.push(document.problem([...path, key], message));
  if (own.seamless && spec.forward.side === 'remote') {
    refuse('seamless', 'expected seamless for a tunnel that listens here, found one that listens on the far side');
  } else if (own.seamless && spec.interactive) {
    refuse('seamless', 'expected seamless for a tunnel that starts by itself, found an interactive one');
  }
  if (own.share && (spec.engine === 'ssh' || spec.engine === 'autossh')) {
    refuse('share', `expected share for the engine embedded, found the engine ${spec.engine}`);
  }
  const unable = spec.engine === 'embedded' ? whyNotEmbedded(spec.sshOptions) : undefined;
  if (!unable) return;
  const [name, why] = unable;
  // An option of the top is said to be in the way of a tunnel that stands below it.
  const isOwn = Object.keys(own.ssh_options ?? {}).includes(name);
  errors.push(document.problem(isOwn ? [...path, 'ssh_options', name] : path, why));
}

function toSpec(
  shape: TunnelShape,
  { written }: Candidate,
  { seamless, drainMs, connectWaitMs, ...settings }: Settings,
  mode: DirectionMode,
): TunnelSpec {
  const forward = forwardOf(shape.direction, mode, shape.local_port, shape.remote_port);
  const interactive = shape.interactive === 'true';
  const isSeamless = seamless && forward.side === 'local' && !interactive;
  return {
    id: writtenId(written),
    name: shape.name,
    remoteHost: shape.remote_host,
    remotePort: textOf(written, 'remote_port'),
    localPort: textOf(written, 'local_port'),
    direction: shape.direction,
    forward,
    interactive,
    groups: [...new Set(shape.groups)],
    enabled: shape.enabled,
    ...settings,
    seamless: isSeamless ? { drainMs, connectWaitMs } : null,
  };
}

/** The id of a tunnel as it stands in the file, with the defaults for what it does not say. */
export function writtenId(written: unknown): string {
  return tunnelId({
    name: textOf(written, 'name') || 'unnamed',
    remoteHost: textOf(written, 'remote_host'),
    remotePort: textOf(written, 'remote_port'),
    localPort: textOf(written, 'local_port'),
    direction: textOf(written, 'direction') || 'remote_to_local',
    interactive: textOf(written, 'interactive') || 'false',
  });
}

function toPlace(schema: Schema, { index, value }: Candidate, settings: Settings, mode: DirectionMode): Place[] {
  const place = schema.place.safeParse(value);
  if (!place.success) return [];
  const { remote_host: remoteHost, direction, local_port: local, remote_port: remote, enabled } = place.data;
  const own = isRecord(value) ? schema.sshOptions.safeParse(value.ssh_options ?? {}).data : {};
  const jump = place.data.jump ?? settings.jump;
  const server = serverOf({ remoteHost, sshOptions: { ...settings.sshOptions, ...own }, jump });
  const name = textOf(value, 'name') || 'unnamed';
  return [{ index, name, forward: forwardOf(direction, mode, local, remote), server, enabled }];
}

function textOf(value: unknown, key: string): string {
  const field = isRecord(value) ? value[key] : undefined;
  return typeof field === 'string' ? field : '';
}
