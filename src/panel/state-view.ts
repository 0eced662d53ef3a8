import { html, svg, type TemplateResult } from 'lit-html';
import { needsPerson } from './list.js';
import { said } from './text.js';
import type { Reason, Tunnel } from './types.js';
import { endpoint, formatAge } from './units.js';
import type { Words } from './words.js';

/** A shape, a colour and a word: each says it alone. */
export function stateBadge(tunnel: Tunnel, words: Words): TemplateResult {
  const look = lookOf(tunnel);
  return html`<span class=${`state ${look}`}><svg class="dot" viewBox="0 0 10 10" width="10" height="10" aria-hidden="true">${shapes[look]}</svg>${words.states[look]}</span>`;
}

export function lookOf(tunnel: Tunnel): keyof typeof shapes {
  const { state, health } = tunnel;
  if (needsPerson(tunnel)) return 'person';
  return state === 'up' && health === 'degraded' ? 'degraded' : state;
}

const ring = svg`<circle cx="5" cy="5" r="3.75" fill="none" stroke="currentColor" stroke-width="1.5" stroke-dasharray="14 10" />`;
const shapes = {
  up: svg`<circle cx="5" cy="5" r="4.5" fill="currentColor" />`,
  degraded: svg`<path d="M5 .8l4.6 8.4H.4z" fill="currentColor" />`,
  backoff: svg`<path d="M5 .8l4.6 8.4H.4z" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linejoin="round" />`,
  starting: ring,
  stopping: ring,
  fatal: svg`<path d="M1.5 1.5l7 7m0-7l-7 7" stroke="currentColor" stroke-width="2.2" stroke-linecap="round" />`,
  person: svg`<circle cx="5" cy="2.6" r="2.4" fill="currentColor" /><path d="M.6 9.8a4.4 4.4 0 0 1 8.8 0z" fill="currentColor" />`,
  stopped: svg`<rect x="1.2" y="1.2" width="7.6" height="7.6" rx="1" fill="none" stroke="currentColor" stroke-width="1.4" />`,
} as const;

/** Is there something to say of it beyond its state? One that somebody stopped is no trouble. */
export function hasTrouble({ state, health, reason, last_error }: Tunnel): boolean {
  if (state === 'up') return health === 'degraded';
  return reason !== null || last_error !== null;
}

/** What keeps it from being up, in words; then what ssh said, in its own. */
export function troubleLine(tunnel: Tunnel, words: Words, daemonNow: number): TemplateResult {
  const { reason, last_error, health_reason, state } = tunnel;
  const quoted = state === 'up' ? health_reason : last_error;
  const retry = retryText(tunnel, words, daemonNow);
  const why = reason && reasonText(tunnel, reason, words);
  return html`<span class="reason">${why ?? words.states[lookOf(tunnel)]}</span> ${
    quoted ? html`<span class="quoted">${said(quoted)}</span>` : ''
  } ${retry ? html`<span class="retry">${retry}</span>` : ''}`;
}

/** Of an interactive tunnel it is no misfortune that it asks. */
export function reasonText({ interactive }: Tunnel, reason: Reason, words: Words): string {
  return interactive && reason === 'needs_auth' ? words.person.reason : words.reasons[reason];
}

export function retryText({ next_retry_at, attempt, state }: Tunnel, words: Words, daemonNow: number): string {
  if (state !== 'backoff' || next_retry_at === null) return '';
  const seconds = (Date.parse(next_retry_at) - daemonNow) / 1000;
  return seconds < 1 ? words.trouble.now(attempt) : words.trouble.next(formatAge(seconds, words), attempt);
}

/** Where it listens: `localhost:8080` for both loopback addresses. */
export function listenText({ listen }: Tunnel): string {
  const [first] = listen;
  if (!first) return '–';
  const hosts = listen.map(({ host }) => host);
  const isBoth = hosts.length === 2 && hosts.includes('127.0.0.1') && hosts.includes('::1');
  return isBoth ? `localhost:${first.port}` : listen.map(({ host, port }) => endpoint(host, port)).join(', ');
}

/** `bastion, me@web`: the hosts in between and the destination, as the connection goes. */
export function viaText({ jump, remote_host }: Tunnel): string {
  return [...jump, remote_host].join(', ');
}

/** Seconds, for one that is up. */
export function uptimeOf({ state, since }: Tunnel, daemonNow: number): number | undefined {
  return state === 'up' ? (daemonNow - Date.parse(since)) / 1000 : undefined;
}
