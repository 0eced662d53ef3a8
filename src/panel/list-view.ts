import { html, nothing, type TemplateResult } from 'lit-html';
import { guard } from 'lit-html/directives/guard.js';
import { live } from 'lit-html/directives/live.js';
import { repeat } from 'lit-html/directives/repeat.js';
import type { Actions } from './actions.js';
import { keyIcon, verbIcons } from './icons.js';
import { chooseTunnels, countStates, groupsOf, stateFilters } from './list.js';
import { type ListChoice, type Panel, whyNotAct } from './model.js';
import { phaseBar, scaleOf } from './phases-view.js';
import { outcomeView } from './refusal-view.js';
import { hasTrouble, listenText, lookOf, retryText, stateBadge, troubleLine, uptimeOf, viaText } from './state-view.js';
import { text } from './text.js';
import type { Tunnel } from './types.js';
import { formatAge, formatBytes, formatMs, formatPercent } from './units.js';
import type { Column, Verb, Words } from './words.js';

const columns: readonly Column[] = ['state', 'name', 'uptime', 'restart', 'cpu', 'memory'];

export function listView(panel: Panel, actions: Actions): TemplateResult {
  const { list, tunnels } = panel.model();
  const words = panel.words();
  const shown = chooseTunnels(tunnels, list, panel.daemonNow());
  const fullMs = scaleOf(tunnels.values());
  const current = shown.find(({ id }) => id === list.current)?.id ?? shown[0]?.id;
  return html`<h1 class="unseen" tabindex="-1">${words.list.title}</h1>
    ${filterBar(panel, words)}
    ${
      shown.length === 0
        ? emptyView(panel, words)
        : html`<table class="tunnels">
            <caption class="unseen">${words.list.title}</caption>
            <thead><tr>
              ${header(panel, 'state')}${header(panel, 'name')}<th scope="col" class="way">${words.list.columns.way}</th>
              ${header(panel, 'uptime')}${header(panel, 'restart', words.list.scale(formatMs(fullMs, words)))}
              ${header(panel, 'cpu')}${header(panel, 'memory')}<th scope="col" class="actions"><span class="unseen">${words.list.columns.actions}</span></th>
            </tr></thead>
            ${repeat(
              shown,
              ({ id }) => id,
              (tunnel) => rowView(panel, actions, { tunnel, fullMs, isCurrent: tunnel.id === current }),
            )}
          </table>`
    }
    <p class="count" aria-live="polite">${words.list.shown(shown.length, tunnels.size)}</p>`;
}

interface Row {
  readonly tunnel: Tunnel;
  readonly fullMs: number;
  readonly isCurrent: boolean;
}

/** A row is made anew only when something that stands in it is another. */
function rowView(panel: Panel, actions: Actions, { tunnel, fullMs, isCurrent }: Row): unknown {
  const { id } = tunnel;
  const words = panel.words();
  const now = panel.daemonNow();
  const [doing, outcome] = [panel.model().pending.get(id), panel.model().outcomes.get(id)];
  const whyNot = whyNotAct(panel.model(), words);
  const uptime = uptimeOf(tunnel, now);
  const age = uptime === undefined ? '' : formatAge(uptime, words);
  const seen = [tunnel, fullMs, isCurrent, words, age, doing, outcome, whyNot, retryText(tunnel, words, now)];
  return guard(seen, () => {
    const buttons = actionButtons(tunnel, words, { doing, whyNot, actions, isCompact: true, isCurrent });
    const hands = { whyNot, onForce: (verb: Verb) => actions.force(id, verb), onDismiss: () => actions.dismiss(id) };
    return html`<tbody class=${`tunnel is-${lookOf(tunnel)}`} data-id=${id} @focusin=${() => setCurrent(panel, id)}>
      <tr>
        <td class="state">${stateBadge(tunnel, words)}</td>
        <th scope="row" class="name">${nameView(tunnel, isCurrent)}</th>
        <td class="way">${wayView(tunnel, words)}</td>
        ${figureCells(tunnel, words, { age, fullMs })}
        <td class="actions">${buttons}</td>
      </tr>
      ${hasTrouble(tunnel) ? detailRow(troubleLine(tunnel, words, now)) : nothing}
      ${outcome && !outcome.done ? detailRow(outcomeView(outcome, words, hands)) : nothing}
    </tbody>`;
  });
}

function nameView({ id, name, groups }: Tunnel, isCurrent: boolean): TemplateResult {
  const tags = groups.map((group) => html` <span class="tag">${text(group)}</span>`);
  return html`<a href=${`#/tunnel/${encodeURIComponent(id)}`} tabindex=${isCurrent ? 0 : -1}>${text(name)}</a>${tags}`;
}

/** On a phone each figure has its name before it, and one that is not there is not shown. */
function figureCells(
  { usage, last_restart }: Tunnel,
  words: Words,
  { age, fullMs }: { readonly age: string; readonly fullMs: number },
): TemplateResult {
  const names = words.list.columns;
  const cell = (column: Column, value: unknown) =>
    html`<td class=${`${column} number${value ? '' : ' none'}`} data-label=${names[column]}>${value || '–'}</td>`;
  const bar =
    last_restart &&
    html`${phaseBar(last_restart, words, { width: 96, height: 10, fullMs })}<span>${formatMs(last_restart.took_ms, words)}</span>`;
  return html`${cell('uptime', age)}${cell('restart', bar)}${cell('cpu', usage && formatPercent(usage.cpu))}${cell('memory', usage && formatBytes(usage.memory))}`;
}

function detailRow(content: TemplateResult): TemplateResult {
  return html`<tr class="detail"><td></td><td colspan="7">${content}</td></tr>`;
}

/** From where it listens to where that leads; what is on the server is said to be there. */
export function wayView(tunnel: Tunnel, words: Words): TemplateResult {
  const isRemote = tunnel.listen[0]?.side === 'remote';
  return html`<span class="from">${text(listenText(tunnel))}${isRemote ? html` <em>${words.way.remote}</em>` : ''}</span>
    <span class="arrow" aria-hidden="true">→</span> <span class="to">${text(tunnel.target)}</span>
    <span class="via">${words.way.via} ${text(viaText(tunnel))}</span>`;
}

export interface ButtonOptions {
  readonly doing: Verb | undefined;
  readonly whyNot: string | undefined;
  readonly actions: Actions;
  readonly isCompact: boolean;
  readonly isCurrent: boolean;
}

/** What can be asked of a tunnel as it is now. One that is wanted can be stopped, whatever state that has led to. */
export function actionButtons(tunnel: Tunnel, words: Words, options: ButtonOptions): TemplateResult {
  const { doing, whyNot, actions, isCompact, isCurrent } = options;
  const toggle: Verb = tunnel.desired === 'up' ? 'stop' : 'start';
  const button = (verb: Verb) => {
    const isBusy = doing === verb;
    const label = isBusy ? words.doing[verb] : words.actOn[verb](tunnel.name);
    return html`<button type="button" class=${`act ${verb}${isBusy ? ' busy' : ''}`} tabindex=${isCurrent ? 0 : -1}
      aria-disabled=${whyNot !== undefined || isBusy ? 'true' : nothing} title=${whyNot ?? (isCompact ? words.verbs[verb] : '')}
      aria-label=${label} @click=${() => actions.act(tunnel.id, verb)}>${verbIcons[verb]}${isCompact ? '' : html`<span>${isBusy ? words.doing[verb] : words.verbs[verb]}</span>`}</button>`;
  };
  // One that is up is not restarted behind a person's back.
  if (tunnel.interactive) return toggle === 'start' ? authenticateButton(tunnel, words, options) : button('stop');
  return html`${button('restart')}${button(toggle)}`;
}

/** The one thing that is said in a word also where there is little room: nobody else will do it. */
function authenticateButton({ id, name }: Tunnel, words: Words, options: ButtonOptions): TemplateResult {
  const { whyNot, actions, isCurrent } = options;
  return html`<button type="button" class="act authenticate" tabindex=${isCurrent ? 0 : -1} aria-haspopup="dialog"
    aria-disabled=${whyNot === undefined ? nothing : 'true'} title=${whyNot ?? ''}
    aria-label=${words.person.authenticateOn(name)} @click=${() => actions.act(id, 'start')}>${keyIcon}<span>${words.person.authenticate}</span></button>`;
}

function filterBar(panel: Panel, words: Words): TemplateResult {
  const { list, tunnels } = panel.model();
  const groups = groupsOf(tunnels.values());
  const counts = countStates(tunnels.values());
  const chips = stateFilters.filter((state) => state === 'all' || counts[state] > 0 || list.states === state);
  return html`<div class="filters" role="search">
    <input id="filter" type="search" autocomplete="off" spellcheck="false" placeholder=${words.list.filterHint} aria-label=${words.list.filter}
      aria-keyshortcuts="/" .value=${live(list.query)} @input=${(event: Event) => choose(panel, { query: textIn(event) })} />
    ${
      groups.length > 0
        ? html`<select aria-label=${words.list.group} .value=${live(list.group)} @change=${(event: Event) => choose(panel, { group: textIn(event) })}>
            <option value="">${words.list.allGroups}</option>
            ${groups.map((group) => html`<option value=${group} ?selected=${group === list.group}>${group}</option>`)}
          </select>`
        : ''
    }
    <label class="sorting">${words.list.sort}
      <select .value=${live(list.sort?.column ?? '')} @change=${(event: Event) =>
        sortBy(
          panel,
          columns.find((column) => column === textIn(event)),
        )}>
        <option value="">${words.list.unsorted}</option>
        ${columns.map((column) => html`<option value=${column} ?selected=${column === list.sort?.column}>${words.list.columns[column]}</option>`)}
      </select>
    </label>
    <div class="chips" role="group" aria-label=${words.list.columns.state}>
      ${chips.map(
        (
          state,
        ) => html`<button type="button" class=${`chip is-${state}`} aria-pressed=${list.states === state ? 'true' : 'false'}
          @click=${() => choose(panel, { states: state })}>${words.list.states[state]} <b>${counts[state]}</b></button>`,
      )}
    </div>
  </div>`;
}

function header(panel: Panel, column: Column, hint = ''): TemplateResult {
  const { sort } = panel.model().list;
  const isSorted = sort?.column === column;
  const order = isSorted ? (sort.isDescending ? 'descending' : 'ascending') : 'none';
  return html`<th scope="col" class=${column} aria-sort=${order}><button type="button" class="sort" title=${hint} @click=${() => sortBy(panel, column)}>${
    panel.words().list.columns[column]
  }<span class="order" aria-hidden="true">${isSorted ? (sort.isDescending ? '↓' : '↑') : ''}</span></button></th>`;
}

function emptyView(panel: Panel, words: Words): TemplateResult {
  if (panel.model().tunnels.size === 0) return html`<p class="empty">${words.list.none}</p>`;
  return html`<p class="empty">${words.list.noneShown}
    <button type="button" @click=${() => choose(panel, { query: '', group: '', states: 'all' })}>${words.list.clear}</button></p>`;
}

/** The first time upwards, then downwards, then as the configuration has them. */
function sortBy(panel: Panel, column: Column | undefined): void {
  const { sort } = panel.model().list;
  if (column === undefined) return choose(panel, { sort: undefined });
  if (sort?.column !== column) return choose(panel, { sort: { column, isDescending: false } });
  choose(panel, { sort: sort.isDescending ? undefined : { column, isDescending: true } });
}

function choose(panel: Panel, part: Partial<ListChoice>): void {
  panel.update({ list: { ...panel.model().list, ...part } });
}

function setCurrent(panel: Panel, id: string): void {
  if (panel.model().list.current !== id) choose(panel, { current: id });
}

function textIn(event: Event): string {
  const { target } = event;
  return target instanceof HTMLInputElement || target instanceof HTMLSelectElement ? target.value : '';
}
