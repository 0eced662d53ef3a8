import { html, type TemplateResult } from 'lit-html';
import { Refusal } from './api.js';
import { type Connection, signedOut } from './connection.js';
import { mark } from './icons.js';
import type { Panel } from './model.js';
import { describeProblem } from './refusal-view.js';
import { said } from './text.js';

/** One field. The token goes out once, in a body, and is kept nowhere: the cookie that comes back is all there is. */
export function loginView(panel: Panel, connection: Connection): TemplateResult {
  const { login } = panel.model();
  const words = panel.words();
  const [before, between, after] = words.login.where;
  const wrong =
    login.problem?.status === 401 ? words.login.wrong : login.problem && describeProblem(login.problem, words);
  return html`<form class="login" @submit=${(event: SubmitEvent) => {
    event.preventDefault();
    void signIn(panel, connection);
  }}>
    <h1 tabindex="-1">${mark} ${words.login.title}</h1>
    ${login.hasEnded ? html`<p role="status">${words.login.ended}</p>` : ''}
    <label for="token">${words.login.token}</label>
    <input id="token" type="password" autocomplete="current-password" spellcheck="false" required aria-describedby="token-where token-wrong"
      aria-invalid=${wrong ? 'true' : 'false'} />
    <p id="token-wrong" class="bad-text" role="alert">${wrong ?? ''}${
      wrong && login.problem?.status !== 401 && login.problem?.detail ? html` ${said(login.problem.detail)}` : ''
    }</p>
    <button type="submit" class="primary" aria-disabled=${login.isBusy ? 'true' : 'false'}>${words.login.signIn}</button>
    <p id="token-where" class="faint">${before}<code>api.token_file</code>${between}<code>&lt;state_dir&gt;/token</code>${after}</p>
    <p class="faint">${words.login.kept}</p>
  </form>`;
}

async function signIn(panel: Panel, connection: Connection): Promise<void> {
  const { api, model, update } = panel;
  const field = document.getElementById('token');
  if (!(field instanceof HTMLInputElement) || model().login.isBusy) return;
  const token = field.value.trim();
  update({ login: { ...model().login, isBusy: true, problem: undefined } });
  try {
    await api.call('/v1/session', { method: 'POST', body: { token }, timeoutMs: 10_000 });
    field.value = '';
    update({ login: { isBusy: false, hasEnded: false }, phase: 'connecting' });
    connection.begin();
  } catch (error) {
    field.select();
    if (error instanceof Refusal) update({ login: { isBusy: false, hasEnded: false, problem: error.problem } });
    else {
      update({ login: { isBusy: false, hasEnded: false } });
      connection.suspect(error);
    }
  }
}

/** The cookie is of no use to anybody then; the daemon forgets it as well. */
export async function signOut(panel: Panel, connection: Connection): Promise<void> {
  try {
    await panel.api.call('/v1/session', { method: 'DELETE', timeoutMs: 10_000 });
  } catch (error) {
    return connection.suspect(error);
  }
  connection.pause();
  panel.update({ ...signedOut, login: { isBusy: false, hasEnded: false } });
}
