import { html, type TemplateResult } from 'lit-html';
import { closeIcon, keyIcon, mark } from './icons.js';
import { countStates } from './list.js';
import type { Panel } from './model.js';
import { describeProblem } from './refusal-view.js';
import { languages, themes } from './settings.js';
import { said } from './text.js';
import { formatTime } from './units.js';
import type { Words } from './words.js';

export interface FrameHands {
  readonly onSignOut: () => void;
  readonly onKeys: () => void;
}

/** What is around every page: where one can go, whether the daemon answers, and how one likes it. */
export function frameView(panel: Panel, page: TemplateResult, hands: FrameHands): TemplateResult {
  const { phase, link, asOf } = panel.model();
  const isStale = phase === 'in' && link.state === 'lost';
  return html`<a class="skip" href="#main" @click=${skip}>${panel.words().frame.skip}</a>
    <div class="top">
      ${headerView(panel, hands)} ${link.state === 'lost' ? lostView(panel, asOf) : ''} ${noticeView(panel)}
    </div>
    <main id="main" class=${isStale ? 'stale' : ''}>${page}</main>
    ${footerView(panel, hands)}`;
}

function headerView(panel: Panel, { onSignOut }: FrameHands): TemplateResult {
  const { phase, link, session, route } = panel.model();
  const words = panel.words();
  const to = (page: string, href: string, label: string, isHere: boolean) =>
    html`<a href=${href} class=${page} aria-current=${isHere ? 'page' : 'false'}>${label}</a>`;
  const isIn = phase === 'in';
  return html`<header>
    <a class="home" href="#/">${mark}<span>tunward</span></a>
    ${
      isIn
        ? html`<nav aria-label="tunward">${to('list', '#/', words.frame.tunnels, route.page !== 'port')}${to('port', '#/port/', words.frame.ports, route.page === 'port')}</nav>`
        : ''
    }
    <span class="grow"></span>
    ${isIn ? neededView(panel) : ''}
    ${isIn || link.state === 'lost' ? html`<span class=${`link ${link.state}`} role="status">${words.frame[link.state]}</span>` : ''}
    ${session?.scope === 'read' ? html`<span class="tag" title=${words.frame.readOnlyWhy}>${words.frame.readOnly}</span>` : ''}
    ${isIn && session?.via === 'cookie' ? html`<button type="button" class="quiet out" @click=${onSignOut}>${words.frame.signOut}</button>` : ''}
  </header>`;
}

/** How many wait for somebody, on every page; it leads to them. */
function neededView(panel: Panel): TemplateResult | '' {
  const { list, tunnels } = panel.model();
  const { person } = countStates(tunnels.values());
  if (person === 0) return '';
  const onClick = () => panel.update({ list: { ...list, query: '', group: '', states: 'person' } });
  const label = panel.words().person.needed(person);
  return html`<a class="needed" href="#/" title=${label} @click=${onClick}>${keyIcon}<b>${person}</b><span>${label}</span></a>`;
}

function choiceView({ settings, draw }: Panel, words: Words): TemplateResult {
  const { frame } = words;
  const names = { auto: frame.automatic, en: 'English', zh: '中文' };
  const pick = <T extends string>(values: readonly T[], event: Event, set: (value: T) => void) => {
    const found = values.find((value) => value === (event.target as HTMLSelectElement).value);
    if (found === undefined) return;
    set(found);
    draw();
  };
  return html`<select class="choice" aria-label=${frame.theme} @change=${(event: Event) => pick(themes, event, settings.setTheme)}>
      ${themes.map((theme) => html`<option value=${theme} ?selected=${settings.theme() === theme}>${frame.themes[theme]}</option>`)}
    </select>
    <select class="choice" aria-label=${frame.language} @change=${(event: Event) => pick(languages, event, settings.setLanguage)}>
      ${languages.map((language) => html`<option value=${language} ?selected=${settings.language() === language}>${names[language]}</option>`)}
    </select>`;
}

/** What was last known stays to be read, and is said to be old. */
function lostView(panel: Panel, asOf: number | undefined): TemplateResult {
  const words = panel.words();
  const { problem } = panel.model().link;
  return html`<div class="banner lost" role="alert"><p>
    <b>${problem ? words.lost.busy : words.lost.title}</b>
    ${problem ? html`${describeProblem(problem, words)}.` : ''}
    ${asOf === undefined ? words.lost.never : words.lost.asOf(formatTime(asOf, asOf))} ${words.lost.again}
  </p></div>`;
}

function noticeView(panel: Panel): TemplateResult {
  const { notice } = panel.model();
  const words = panel.words();
  if (!notice) return html``;
  return html`<div class="banner notice" role="status"><p><b>${words.notices[notice.kind]}</b> ${notice.detail ? said(notice.detail) : ''}</p>
    <button type="button" class="quiet" aria-label=${words.frame.dismiss} @click=${() => panel.update({ notice: undefined })}>${closeIcon}</button></div>`;
}

function footerView(panel: Panel, { onKeys }: FrameHands): TemplateResult {
  const words = panel.words();
  const { session, phase } = panel.model();
  return html`<footer>
    <span class="version">${session ? words.frame.version(session.version) : ''}</span>
    ${choiceView(panel, words)}
    ${phase === 'in' ? html`<button type="button" class="quiet" aria-keyshortcuts="?" @click=${onKeys}>${words.frame.keys} <kbd>?</kbd></button>` : ''}
  </footer>`;
}

/** The hash is the route, so a link into the page would lead away from it. */
function skip(event: Event): void {
  event.preventDefault();
  document.querySelector<HTMLElement>('main h1')?.focus();
}
