import { html, render, type TemplateResult } from 'lit-html';
import type { Panel } from './model.js';
import { text } from './text.js';
import type { Named } from './types.js';
import { programOf } from './units.js';

export interface ForceQuestion {
  readonly title: string;
  readonly text: string;
  readonly action: string;
  /** Who is going to be killed. */
  readonly processes: readonly (Named & { readonly user?: string })[];
}

export type ConfirmForce = (question: ForceQuestion) => Promise<boolean>;

/** Asks before anybody is killed. Nothing is agreed to by Enter alone: the focus is on the way out. */
export function createConfirm(dialog: HTMLDialogElement, panel: Panel): ConfirmForce {
  return ({ title, text: question, action, processes }) => {
    const rows = processes.map(
      (one) => html`<li>
        <strong>${text(programOf(one.command))} ${one.pid}</strong>${one.user ? html` · ${text(one.user)}` : ''}
        <code class="command">${text(one.command)}</code>
      </li>`,
    );
    const body = html`<p>${question}</p>
      <ul class="doomed">${rows}</ul>
      <div class="buttons">
        <button type="button" autofocus @click=${() => dialog.close('no')}>${panel.words().dialog.cancel}</button>
        <button type="button" class="danger" @click=${() => dialog.close('yes')}>${action}</button>
      </div>`;
    return open(dialog, title, body);
  };
}

/** The keys of the page. */
export function showKeys(dialog: HTMLDialogElement, panel: Panel): void {
  const { keys, dialog: words } = panel.words();
  const rows: readonly (readonly [readonly string[], string])[] = [
    [['/'], keys.filter],
    [['↑', '↓', 'j', 'k'], keys.move],
    [['Enter'], keys.open],
    [['r'], keys.restart],
    [['s'], keys.toggle],
    [['p'], keys.ports],
    [['Esc'], keys.back],
    [['?'], keys.help],
  ];
  const body = html`<dl class="keys">
      ${rows.map(([names, what]) => html`<dt>${names.map((name) => html`<kbd>${name}</kbd> `)}</dt><dd>${what}</dd>`)}
    </dl>
    <div class="buttons">
      <button type="button" autofocus @click=${() => dialog.close('no')}>${words.close}</button>
    </div>`;
  void open(dialog, keys.title, body);
}

/** Modal, so that the rest of the page is out of reach until it is answered; Escape is a no. */
function open(dialog: HTMLDialogElement, title: string, body: TemplateResult): Promise<boolean> {
  if (dialog.open) return Promise.resolve(false);
  dialog.returnValue = 'no';
  render(html`<h2 id="dialog-title">${title}</h2>${body}`, dialog);
  dialog.setAttribute('aria-labelledby', 'dialog-title');
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
  });
}
