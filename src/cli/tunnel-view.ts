import type { OperationResult, TunnelStatus } from '../tunnel/runner.js';
import { formatEndpoint } from '../tunnel/spec.js';
import type { Verb } from './client.js';
import { type Line, layTable, measureTable, type Span, styled } from './render.js';
import { formatAge, formatBytes, formatMs, formatPercent, programOf } from './units.js';

/** One row a tunnel; below it, for one that is not up, what is the matter and when it is tried again. `now` in ms since the epoch. */
export function renderTunnels(
  tunnels: readonly TunnelStatus[],
  now: number,
  below: (tunnel: TunnelStatus) => readonly Line[] = () => [],
): Line[] {
  return [...layTunnels(tunnels, now, { below }).lines];
}

/** What a narrow terminal can do without, in this order. */
const dispensable = ['PID', 'REFUSED', 'QUEUED', 'OUT', 'IN', 'OPEN', 'MEM', 'CPU', 'ENGINE', 'VIA', 'TARGET'];
/** What nobody can tell of a tunnel whose bytes do not pass through the daemon: not shown where there is no other one. */
const counted = ['OPEN', 'QUEUED', 'REFUSED', 'IN', 'OUT'];

export interface TableRoom {
  /** Default: as many as it takes. */
  readonly columns?: number;
  /** How wide each column is at least. */
  readonly widths?: readonly number[];
  /** What is said below each row, beside its trouble. */
  readonly below?: (tunnel: TunnelStatus) => readonly Line[];
}

export interface LaidTable {
  readonly lines: readonly Line[];
  /** How wide each column has become. */
  readonly widths: readonly number[];
}

/** The same without the columns that are too many for the room. */
export function layTunnels(
  tunnels: readonly TunnelStatus[],
  now: number,
  { columns = Number.POSITIVE_INFINITY, widths = [], below = () => [] }: TableRoom = {},
): LaidTable {
  const titles = ['NAME', 'STATE', 'LISTEN', 'TARGET', 'VIA', 'ENGINE', 'PID', 'CPU', 'MEM', ...counted, 'SINCE'];
  const cells = tunnels.map((tunnel) => [
    styled('bold', tunnel.name),
    styled(styleOf(tunnel), tunnel.state),
    listenOf(tunnel),
    tunnel.target,
    viaOf(tunnel),
    engineOf(tunnel),
    tunnel.pid === null ? '-' : String(tunnel.pid),
    tunnel.usage ? formatPercent(tunnel.usage.cpu) : '-',
    tunnel.usage ? formatBytes(tunnel.usage.memory) : '-',
    ...trafficCells(tunnel),
    formatAge((now - Date.parse(tunnel.since)) / 1000),
  ]);
  const measured = measureTable(titles, cells, widths);
  const isCounted = tunnels.some(({ traffic }) => traffic);
  const sought = titles.filter((title) => isCounted || !counted.includes(title));
  const kept = chooseColumns(titles, sought, measured, columns);
  const pick = <T>(row: readonly T[]) => row.filter((_cell, column) => kept.has(titles[column] ?? ''));
  const options = { right: ['CPU', 'MEM', ...counted], widths: pick(measured) };
  const [head = '', ...rows] = layTable(pick(titles), cells.map(pick), options);
  const lines = tunnels.flatMap((tunnel, at) => [rows[at] ?? '', ...troubleOf(tunnel, now), ...below(tunnel)]);
  return { lines: [head, ...lines], widths: measured };
}

function chooseColumns(
  titles: readonly string[],
  sought: readonly string[],
  widths: readonly number[],
  room: number,
): ReadonlySet<string> {
  const kept = new Set(sought);
  const total = () => titles.reduce((sum, title, at) => sum + (kept.has(title) ? (widths[at] ?? 0) + 2 : 0), -2);
  for (const title of dispensable) if (total() > room) kept.delete(title);
  return kept;
}

/** `✔ web  up in 412 ms (stop 6, free 1, start 405) killed 2: autossh 812, ssh 815` */
export function renderOperation(
  verb: Verb,
  { name, state, tookMs, phases, kill }: Omit<OperationResult, 'kill' | 'tunnel'> & Partial<OperationResult>,
): Line {
  const killed = (kill?.killed ?? []).map(({ pid, command }) => `${programOf(command)} ${pid}`);
  const parts = [
    // A start has nothing to stop, unless it met leftovers.
    ...(verb === 'start' && killed.length === 0 ? [] : [`stop ${Math.round(phases.stopMs)}`]),
    `free ${Math.round(phases.freeMs)}`,
    ...(verb === 'stop' ? [] : [`start ${Math.round(phases.startMs)}`]),
  ];
  return [
    styled('green', '✔ '),
    styled('bold', name),
    `  ${state} in ${formatMs(tookMs)}`,
    styled('dim', ` (${parts.join(', ')})`),
    killed.length > 0 ? ` killed ${killed.length}: ${killed.join(', ')}` : '',
  ];
}

/** `✖ web  Tunnel web (…) could not be started: …` */
export function renderFailure(name: string, { message }: Error): Line {
  return [styled('red', '✖ '), styled('bold', name), `  ${message}`];
}

/** Where it listens: `localhost:8080` for both loopback addresses, and on which side. */
export function listenOf({ listen }: Pick<TunnelStatus, 'listen'>): string {
  const [first] = listen;
  if (!first) return '-';
  const hosts = listen.map(({ host }) => host);
  const both = hosts.length === 2 && hosts.includes('127.0.0.1') && hosts.includes('::1');
  const text = both ? `localhost:${first.port}` : listen.map(formatEndpoint).join(', ');
  return first.side === 'remote' ? `${text} (remote)` : text;
}

/** `bastion, me@web`: the hosts in between and the destination, as the connection goes. */
export function viaOf({ jump, remoteHost }: Pick<TunnelStatus, 'jump' | 'remoteHost'>): string {
  return [...jump, remoteHost].join(', ');
}

/** `ssh`, `embedded, seamless`. */
export function engineOf({ engine, seamless }: Pick<TunnelStatus, 'engine' | 'seamless'>): string {
  return seamless ? `${engine}, seamless` : engine;
}

function trafficCells({ traffic }: Pick<TunnelStatus, 'traffic'>): string[] {
  if (!traffic) return counted.map(() => '-');
  const { open, queued, refused, bytesIn, bytesOut } = traffic;
  return [...[open, queued, refused].map(String), formatBytes(bytesIn), formatBytes(bytesOut)];
}

/** Below a tunnel that was asked for by its name: what has passed through the daemon for it, in words. */
export function describeTraffic({ traffic }: Pick<TunnelStatus, 'traffic'>): Line {
  const branch = ['  ', styled('dim', '└ ')];
  if (!traffic) return [...branch, styled('dim', 'traffic is not counted: it does not pass through the daemon')];
  const { connections, open, queued, refused, bytesIn, bytesOut } = traffic;
  const bytes = `${formatBytes(bytesIn)} in, ${formatBytes(bytesOut)} out`;
  const total = `${connections} connection${connections === 1 ? '' : 's'}`;
  return [...branch, `${total}: ${open} open, ${queued} waiting, ${refused} refused; ${bytes}`];
}

/** What keeps it from being up, in words; nothing for one that is up and well, or was stopped by somebody. */
export function troubleOf(tunnel: TunnelStatus, now: number): Line[] {
  const { state, health, healthReason, reason, lastError, remedy, nextRetryAt, attempt } = tunnel;
  const branch = ['  ', styled('dim', '└ ')];
  const advice: Line[] = remedy === null ? [] : [[`    ${remedy}`]];
  if (state === 'up' && health !== 'degraded') return [];
  if (state === 'up') return [[...branch, styled('yellow', `degraded: ${healthReason}`)], ...advice];
  if (reason === null && lastError === null) return [];
  const retry = nextRetryAt === null ? '' : retryText(Date.parse(nextRetryAt) - now, attempt);
  const why = [reason, lastError].filter((text) => text !== null).join(': ');
  return [[...branch, styled(styleOf(tunnel), why), retry], ...advice];
}

function retryText(inMs: number, attempt: number): string {
  const when = inMs <= 0 ? 'now' : `in ${formatMs(inMs)}`;
  return `; tried ${attempt === 1 ? 'once' : `${attempt} times`}, next try ${when}`;
}

function styleOf({ state, health }: Pick<TunnelStatus, 'state' | 'health'>): Exclude<Span, string>['style'] {
  if (state === 'up') return health === 'degraded' ? 'yellow' : 'green';
  if (state === 'fatal') return 'red';
  return state === 'stopped' ? 'dim' : 'yellow';
}
