import { html, type TemplateResult } from 'lit-html';
import { describeProblem, holderList } from './refusal-view.js';
import type { Via } from './terminal-link.js';
import { said, text } from './text.js';
import type { Problem, Tunnel } from './types.js';
import type { Words } from './words.js';

/** How far an attempt has come. */
export type Stage =
  | { readonly kind: 'opening' }
  | { readonly kind: 'asking'; readonly via: Via }
  | { readonly kind: 'up' }
  | { readonly kind: 'failed'; readonly problem: Problem }
  /** It was not let in. */
  | { readonly kind: 'refused'; readonly problem: Problem }
  | { readonly kind: 'lost' };

export interface TerminalViewHands {
  readonly onClose: () => void;
  readonly onAgain: () => void;
}

/** Whoever is at it can only give it up; where it has ended, there is no connection. */
export function isUnderWay({ kind }: Stage): boolean {
  return kind === 'opening' || kind === 'asking';
}

export function terminalView(
  { name, jump, remote_host }: Pick<Tunnel, 'name' | 'jump' | 'remote_host'>,
  stage: Stage,
  words: Words,
  { onClose, onAgain }: TerminalViewHands,
): TemplateResult {
  const { terminal, way, dialog, frame } = words;
  const button = (label: string, onClick: () => void, kind = '') =>
    html`<button type="button" class=${kind} @click=${onClick}>${label}</button>`;
  return html`<h2 id="dialog-title">${terminal.title} ${text(name)}</h2>
    <p class="asked-for"><code>${text(remote_host)}</code>
      ${jump.length > 0 ? html`<span class="faint">${way.via} ${text(jump.join(', '))}</span>` : ''}
      <span class="faint">${stage.kind === 'opening' ? frame.connecting : terminal.kept}</span></p>
    ${stage.kind === 'asking' && stage.via === 'askpass' ? html`<p class="hint">${terminal.askpass}</p>` : ''}
    <div id="terminal" class=${isUnderWay(stage) ? '' : 'over'}></div>
    <div id="terminal-said" class="unseen" role="status" aria-live="polite"></div>
    <div role="alert">${endView(stage, words)}</div>
    <div class="buttons">
      ${
        isUnderWay(stage)
          ? button(dialog.cancel, onClose)
          : stage.kind === 'up'
            ? button(dialog.close, onClose, 'primary')
            : html`${button(dialog.close, onClose)}${button(terminal.again, onAgain, 'primary')}`
      }
    </div>`;
}

function endView(stage: Stage, words: Words): TemplateResult | '' {
  const { terminal } = words;
  switch (stage.kind) {
    case 'opening':
    case 'asking':
      return '';
    case 'up':
      return html`<div class="outcome good"><p><b>${terminal.up}</b></p></div>`;
    case 'lost':
      return html`<div class="outcome bad"><p><b>${terminal.lost}</b></p></div>`;
    default:
      return problemView(stage.kind, stage.problem, words);
  }
}

/** Why not, in the page's language; then in the daemon's own words; then what to do about it. */
function problemView(kind: 'failed' | 'refused', problem: Problem, words: Words): TemplateResult {
  const { detail, reason, remedy, holders = [] } = problem;
  const known = reason && remedy ? words.remedies[reason] : null;
  const own = reason === 'auth_failed' ? words.terminal.retype : known;
  return html`<div class="outcome bad"><div>
    <p><b>${describeEnd(kind, problem, words)}</b></p>
    ${holders.length > 0 ? holderList(holders, words) : detail ? html`<p class="quoted">${said(detail)}</p>` : ''}
    ${own || remedy ? html`<p><b>${words.trouble.remedy}:</b> ${own ?? said(remedy ?? '')}</p>` : ''}
  </div></div>`;
}

/** Some codes mean something else here than where a button is pressed and that is all. */
export function describeEnd(kind: 'failed' | 'refused', problem: Problem, words: Words): string {
  const { code } = problem;
  if (kind === 'failed') return code === 'ERR_TIMEOUT' ? words.terminal.timeout : describeProblem(problem, words);
  if (code === 'ERR_TUNNEL_CONFLICT') return words.terminal.taken;
  return code === 'ERR_UPGRADE_REQUIRED' ? words.terminal.blocked : describeProblem(problem, words);
}
