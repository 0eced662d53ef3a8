import { html, type TemplateResult } from 'lit-html';
import type { LogKeeper } from './log.js';
import type { Panel } from './model.js';

/** The frame of the log. Its lines are put there by the keeper, who does not draw all of them anew for each. */
export function logView(panel: Panel, keeper: LogKeeper): TemplateResult {
  const { isFollowing, isEmpty, isBroken } = panel.model().log;
  const { log: words } = panel.words();
  return html`<section class="log-section" aria-labelledby="log-title">
    <div class="log-head"><h2 id="log-title">${words.title}</h2>
      ${isBroken ? html`<span class="faint">${words.broken}</span>` : ''}
      <label><input type="checkbox" .checked=${isFollowing} @change=${(event: Event) => keeper.follow((event.target as HTMLInputElement).checked)} /> ${words.follow}</label>
    </div>
    <div class="log-frame">
      <div id="log" role="log" aria-live="off" aria-labelledby="log-title" tabindex="0" @scroll=${keeper.noteScroll}></div>
      ${isEmpty ? html`<p class="log-empty faint">${words.empty}</p>` : ''}
      ${isFollowing ? '' : html`<button type="button" class="to-end" @click=${() => keeper.follow(true)}>${words.toEnd}</button>`}
    </div>
  </section>`;
}
