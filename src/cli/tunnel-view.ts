import type { OperationResult, TunnelStatus } from '../tunnel/runner.js';
import { formatEndpoint } from '../tunnel/spec.js';
import type { Verb } from './client.js';
import { type Line, layTable, type Span, styled } from './render.js';
import { formatAge, formatBytes, formatMs, formatPercent, programOf } from './units.js';

/** One row a tunnel; below it, for one that is not up, what is the matter and when it is tried again. `now` in ms since the epoch. */
export function renderTunnels(tunnels: readonly TunnelStatus[], now: number): Line[] {
  const cpu = toTheRight('CPU', tunnels, ({ usage }) => (usage ? formatPercent(usage.cpu) : '-'));
  const memory = toTheRight('MEM', tunnels, ({ usage }) => (usage ? formatBytes(usage.memory) : '-'));
  const [head = '', ...rows] = layTable(
    ['NAME', 'STATE', 'LISTEN', 'TARGET', 'VIA', 'PID', cpu.title, memory.title, 'SINCE'],
    tunnels.map((tunnel, at) => [
      styled('bold', tunnel.name),
      styled(styleOf(tunnel), tunnel.state),
      listenOf(tunnel),
      tunnel.target,
      viaOf(tunnel),
      tunnel.pid === null ? '-' : String(tunnel.pid),
      cpu.cells[at] ?? '',
      memory.cells[at] ?? '',
      formatAge((now - Date.parse(tunnel.since)) / 1000),
    ]),
  );
  return [head, ...rows.flatMap((row, at) => [row, ...troubleOf(tunnels[at], now)])];
}

/** A column of figures, one below the other at its right edge. */
function toTheRight(
  title: string,
  tunnels: readonly TunnelStatus[],
  show: (tunnel: TunnelStatus) => string,
): { title: string; cells: string[] } {
  const cells = tunnels.map(show);
  const width = Math.max(title.length, ...cells.map((cell) => cell.length));
  return { title: title.padStart(width), cells: cells.map((cell) => cell.padStart(width)) };
}

/** `✔ web  up in 412 ms (stop 6, free 1, start 405) killed 2: autossh 812, ssh 815` */
export function renderOperation(verb: Verb, { name, state, tookMs, phases, kill }: OperationResult): Line {
  const parts = [
    // A start has nothing to stop, unless it met leftovers.
    ...(verb === 'start' && kill.killed.length === 0 ? [] : [`stop ${Math.round(phases.stopMs)}`]),
    `free ${Math.round(phases.freeMs)}`,
    ...(verb === 'stop' ? [] : [`start ${Math.round(phases.startMs)}`]),
  ];
  const killed = kill.killed.map(({ pid, command }) => `${programOf(command)} ${pid}`);
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

/** What keeps it from being up, in words; nothing for one that is up and well, or was stopped by somebody. */
function troubleOf(tunnel: TunnelStatus | undefined, now: number): Line[] {
  if (!tunnel) return [];
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
