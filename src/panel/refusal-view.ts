import { html, nothing, type TemplateResult } from 'lit-html';
import { closeIcon } from './icons.js';
import type { Outcome } from './model.js';
import { describePhases } from './phases-view.js';
import { said, text } from './text.js';
import type { Holder, Problem } from './types.js';
import { formatAge, formatMs, programOf } from './units.js';
import type { Verb, Words } from './words.js';

export interface RefusalActions {
  readonly onForce: (verb: Verb) => void;
  readonly onDismiss: () => void;
  /** Why nobody may be forced now. */
  readonly whyNot: string | undefined;
}

/** What came of a request: how long it took, or why not, who is in the way, and the button that forces. */
export function outcomeView(outcome: Outcome, words: Words, actions: RefusalActions): TemplateResult {
  const { verb } = outcome;
  const dismiss = html`<button type="button" class="quiet" aria-label=${words.frame.dismiss} title=${words.frame.dismiss} @click=${actions.onDismiss}>${closeIcon}</button>`;
  if (outcome.done) {
    const { took_ms, phases, kill } = outcome.done;
    const count = kill.killed.length;
    return html`<div class="outcome good"><p><b>${words.done[verb](formatMs(took_ms, words))}</b>
      <span class="faint">${describePhases(phases, words)}${count > 0 ? ` · ${words.tunnel.killed(count)}` : ''}</span></p>${dismiss}</div>`;
  }
  const { problem } = outcome;
  return html`<div class="outcome bad" role="group" aria-label=${words.tunnel.refused[verb]}>
    <div>
      <p><b>${words.tunnel.refused[verb]}: ${describeProblem(problem, words)}</b></p>
      ${problem.detail && !problem.holders?.length ? html`<p class="quoted">${said(problem.detail)}</p>` : ''}
      ${problem.holders?.length ? holderList(problem.holders, words) : ''}
      ${
        problem.code === 'ERR_PORT_HELD' && problem.holders?.length
          ? html`<p><button type="button" class="danger" aria-disabled=${actions.whyNot === undefined ? nothing : 'true'} title=${actions.whyNot ?? ''}
              @click=${() => actions.onForce(verb)}>${words.tunnel.force}</button></p>`
          : ''
      }
    </div>
    ${dismiss}
  </div>`;
}

/** By its code, which has words in every language. */
export function describeProblem(problem: Problem, words: Words): string {
  if (problem.code === 'ERR_START_FAILED' && problem.reason) return words.reasons[problem.reason];
  const known = problem.code === undefined ? undefined : words.errors[problem.code];
  return known ?? problem.title ?? `HTTP ${problem.status}`;
}

export function holderList(holders: readonly Holder[], words: Words): TemplateResult {
  return html`<ul class="holders" aria-label=${words.tunnel.holders}>
    ${holders.map((holder) => html`<li>${holderText(holder, words)}</li>`)}
  </ul>`;
}

/** `nginx 812 · www-data · 3 h 5 min`, and the whole command below. */
export function holderText({ pid, user, command, age_s }: Holder, words: Words): TemplateResult {
  return html`<strong>${text(programOf(command))} ${pid}</strong> · ${text(user)} · ${formatAge(age_s, words)}
    <code class="command">${text(command)}</code>`;
}
