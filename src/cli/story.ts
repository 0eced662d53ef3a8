import type { DaemonEvent, TunnelChanges, TunnelName } from '../daemon/events.js';
import type { StopReport } from '../daemon/shutdown.js';
import type { KillReport } from '../kill.js';
import { systemClock } from '../time.js';
import type { TunnelStatus } from '../tunnel/runner.js';
import { type Line, type Span, styled } from './render.js';
import { listenOf, viaOf } from './tunnel-view.js';
import { formatMs, formatTime, programOf } from './units.js';

/** An event, with the moment it happened where it is known. */
export type ToldEvent = DaemonEvent & { readonly at?: string };

export interface StoryOptions {
  /** Tunnels whose names are known before any event has said them. */
  readonly names?: readonly TunnelName[];
  /** Every event has a line: also those on the way from one state to another, and what ssh says. */
  readonly isWhole?: boolean;
}

/** Tells what happens, one line for each event that is worth a person's while. */
export function createStory(
  tell: (line: Line) => void,
  { names: known = [], isWhole = false }: StoryOptions = {},
): (event: ToldEvent) => void {
  // A kill names its tunnel by id alone; the name came with an earlier event.
  const names = new Map(known.map(({ id, name }) => [id, name]));
  return (event) => {
    if ('status' in event) names.set(event.tunnel, event.status.name);
    const nameOf = (id: string) => names.get(id) ?? id.slice(0, 8);
    const line = lineOf(event, nameOf) ?? (isWhole ? wayLine(event, nameOf) : undefined);
    if (line) tell([...momentOf(event), ...line]);
  };
}

/** When it happened, as each line begins. */
export function momentOf({ at = new Date(systemClock.wallTime()).toISOString() }: ToldEvent): readonly Span[] {
  return [styled('dim', formatTime(at)), '  '];
}

function lineOf(event: ToldEvent, nameOf: (id: string) => string): readonly Span[] | undefined {
  switch (event.type) {
    case 'daemon.ready':
      return [styled('green', 'ready'), `  pid ${event.pid}, ${count(event.tunnels, 'tunnel')}, ${placesOf(event)}`];
    case 'daemon.stopping':
      return ['stopping'];
    case 'daemon.stopped':
      return endLine(event);
    case 'config.loaded':
      return [
        `configuration ${event.file}${event.changes === null ? '' : ` read again: ${changesOf(event.changes)}`}`,
        ...event.warnings.map((text) => styled('yellow', `; warning: ${text}`)),
      ];
    case 'config.rejected':
      return [styled('red', 'configuration rejected, nothing changed'), `  ${event.message}`];
    case 'config.unwatched':
      return [styled('yellow', 'configuration not watched'), `  ${event.message}`];
    case 'log.failed':
      return [styled('red', 'a log could not be written'), `  ${event.message}`];
    case 'state.failed':
      return [styled('red', 'state could not be written'), `  ${event.message}`];
    case 'state.replaced':
      return [styled('yellow', 'state replaced'), `  ${event.message}`];
    case 'hook.failed':
      return [styled('bold', nameOf(event.tunnel)), styled('yellow', '  nobody was told'), `  ${event.message}`];
    case 'init.missing':
      return [styled('yellow', 'no init'), `  ${event.message} (${count(event.zombies, 'zombie')} now)`];
    case 'port.freed':
      return [styled(event.free ? 'green' : 'red', `port ${event.port}`), `  ${event.explanation}`];
    case 'boot.swept':
      return killLine('cleared away', event.kill);
    case 'process.killed':
      return killLine(`${nameOf(event.tunnel)}  killed`, event.kill);
    case 'tunnel.up':
      return [styled('bold', event.status.name), styled('green', '  up'), `  ${routeOf(event.status)}`];
    case 'tunnel.backoff':
    case 'tunnel.fatal':
      return [styled('bold', event.status.name), styled('red', '  not up'), `  ${reasonOf(event.status)}`];
    case 'tunnel.degraded':
      return [styled('bold', event.status.name), styled('yellow', '  degraded'), `  ${event.status.healthReason}`];
    case 'tunnel.recovered':
      return [styled('bold', event.status.name), styled('green', '  well again')];
    case 'tunnel.needs_auth':
      return [styled('bold', event.status.name), styled('yellow', '  needs a person'), `  ${needOf(event)}`];
    case 'tunnel.stopped':
      return [styled('bold', event.status.name), ...stopOf(event.status)];
    // On the way from one to another, and ssh's own words: they are in the tunnel's log.
    case 'tunnel.starting':
    case 'tunnel.stopping':
    case 'tunnel.output':
      return undefined;
  }
}

/** What is on its way, or said by ssh. */
function wayLine(event: ToldEvent, nameOf: (id: string) => string): readonly Span[] {
  if (event.type === 'tunnel.output') return [styled('bold', nameOf(event.tunnel)), styled('dim', '  | '), event.line];
  if ('status' in event) return [styled('bold', event.status.name), `  ${event.status.state}`];
  return [event.type];
}

/** `localhost:8080 → db:5432 via user@web`, as the connection goes. */
export function routeOf(status: Pick<TunnelStatus, 'listen' | 'target' | 'jump' | 'remoteHost'>): string {
  return `${listenOf(status)} → ${status.target} via ${viaOf(status)}`;
}

/** Names at most in one line. */
const MAX_NAMES = 8;

/** `added web; removed db`. */
export function changesOf(changes: TunnelChanges): string {
  const kinds = (['added', 'removed', 'changed'] as const).filter((kind) => changes[kind].length > 0);
  const parts = kinds.map((kind) => `${kind} ${namesOf(changes[kind])}`);
  return parts.join('; ') || 'no tunnel changed';
}

function namesOf(tunnels: readonly TunnelName[]): string {
  const names = tunnels.slice(0, MAX_NAMES).map(({ id, name }) => (name === 'unnamed' ? id.slice(0, 8) : name));
  const more = tunnels.length - names.length;
  return more > 0 ? `${names.join(', ')} and ${more} more` : names.join(', ');
}

function placesOf({ socket, url, tokenFile }: Extract<ToldEvent, { type: 'daemon.ready' }>): string {
  return url === null ? `API at ${socket}` : `API at ${socket} and ${url} (token in ${tokenFile})`;
}

function reasonOf({ reason, lastError, remedy, nextRetryAt }: TunnelStatus): string {
  const why = [reason, lastError].filter((text) => text !== null).join(': ');
  const next = nextRetryAt === null ? 'given up' : `next try at ${formatTime(nextRetryAt)}`;
  return [why, next, remedy].filter((text) => text !== null).join('; ');
}

/** Since when it does, and what to type. */
function needOf({ why, status: { lastError, remedy } }: Extract<ToldEvent, { type: 'tunnel.needs_auth' }>): string {
  const lost = why === 'lost' ? `it was up and is lost${lastError === null ? '' : ` (${lastError})`}` : null;
  return [lost, remedy].filter((text) => text !== null).join('; ');
}

/** One that somebody has stopped, and one whose login has failed: that is tried again by nobody. */
function stopOf(status: TunnelStatus): readonly Span[] {
  const { reason } = status;
  return reason === null || reason === 'needs_auth'
    ? ['  stopped']
    : [styled('red', '  not up'), `  ${reasonOf(status)}`];
}

function killLine(what: string, { killed, survivors }: KillReport): readonly Span[] | undefined {
  if (killed.length + survivors.length === 0) return undefined;
  const dead = killed.map(({ pid, command, why }) => `${programOf(command)} ${pid} (${why})`);
  const alive = survivors.map(({ pid, why }) => styled('red', `; pid ${pid} survived: ${why}`));
  return [`${what} ${dead.join(', ') || 'nobody'}`, ...alive];
}

/** The last line: what a clean end took, or what was left behind. */
function endLine({ tookMs, trouble, survivors }: StopReport): readonly Span[] {
  if (trouble === null && survivors.length === 0) return [`stopped after ${formatMs(tookMs)}`];
  const left = survivors.map(({ tunnel, pid, command, why }) => `; ${tunnel}: pid ${pid} (${command}) is left: ${why}`);
  return [styled('red', `stopped after ${formatMs(tookMs)}`), ...(trouble === null ? [] : [`; ${trouble}`]), ...left];
}

function count(number: number, thing: string): string {
  return `${number} ${thing}${number === 1 ? '' : 's'}`;
}
