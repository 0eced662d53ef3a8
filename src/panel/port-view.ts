import { html, type TemplateResult } from 'lit-html';
import { backIcon } from './icons.js';
import { type Panel, whyNotAct } from './model.js';
import type { PortInspector } from './port.js';
import { describeProblem, holderText } from './refusal-view.js';
import { said, text } from './text.js';
import type { Fated, PortReport, Tunnel } from './types.js';
import { endpoint, formatMs, programOf } from './units.js';
import type { Words } from './words.js';

/** Who holds a port, who would be killed to free it, and what came of that: in this order, and nothing before its turn. */
export function portView(panel: Panel, asked: string, inspector: PortInspector): TemplateResult {
  const { port } = panel.model();
  const words = panel.words();
  const shown = port.result ?? port.report;
  return html`<a class="back" href="#/">${backIcon}${words.tunnel.back}</a>
    <h1 tabindex="-1">${words.port.title}</h1>
    ${questionView(panel, asked, words)}
    <div aria-live="polite" aria-busy=${port.doing ? 'true' : 'false'}>
      ${port.doing === 'look' ? html`<p class="faint">${words.port.looking}</p>` : ''}
      ${port.problem ? problemView(panel, words) : ''}
      ${shown ? reportView(panel, shown, words) : ''}
      ${port.result ? resultView(panel, port.result, inspector) : shown && !shown.free ? planView(panel, inspector, words) : ''}
    </div>`;
}

function questionView(panel: Panel, asked: string, words: Words): TemplateResult {
  const { isInvalid = false, doing } = panel.model().port;
  return html`<form class="question" @submit=${(event: SubmitEvent) => {
    event.preventDefault();
    const input = document.getElementById('port');
    if (input instanceof HTMLInputElement) goTo(input.value);
  }}>
    <label for="port">${words.port.question}</label>
    <input id="port" inputmode="text" autocomplete="off" spellcheck="false" placeholder=${words.port.hint} .value=${asked}
      aria-invalid=${isInvalid ? 'true' : 'false'} aria-describedby="port-problem" />
    <button type="submit" class="primary" aria-disabled=${doing === 'look' ? 'true' : 'false'}>${words.port.look}</button>
    <p id="port-problem" class="bad-text">${isInvalid ? words.port.invalid : ''}</p>
  </form>`;
}

/** The same port again is a new question too. */
function goTo(asked: string): void {
  const hash = `#/port/${encodeURIComponent(asked.trim())}`;
  if (location.hash === hash) window.dispatchEvent(new HashChangeEvent('hashchange'));
  else location.hash = hash;
}

function problemView(panel: Panel, words: Words): TemplateResult {
  const { problem } = panel.model().port;
  if (!problem) return html``;
  return html`<div class="outcome bad" role="alert"><div><p><b>${describeProblem(problem, words)}</b></p>
    ${problem.detail ? html`<p class="quoted">${said(problem.detail)}</p>` : ''}</div></div>`;
}

function reportView(panel: Panel, report: PortReport, words: Words): TemplateResult {
  const where = report.host === null ? words.port.everywhere : report.host;
  const tunnel = tunnelOf(panel.model().tunnels.values(), report);
  const { listeners, clients, respawner } = report;
  return html`<section class="report" aria-labelledby="report-title">
    <h2 id="report-title"><span class="port-number">${report.port}</span>
      <span class=${`verdict ${report.free ? 'free' : 'held'}`}>${words.verdicts[report.verdict]}</span>
      <span class="faint">${text(where)}${report === panel.model().port.report ? ` · ${words.port.took(formatMs(report.took_ms, words))}` : ''}</span></h2>
    <p class="explanation">${said(report.explanation)}</p>
    ${tunnel ? html`<p><a href=${`#/tunnel/${encodeURIComponent(tunnel.id)}`}>${text(words.port.tunnel(tunnel.name))}</a></p>` : ''}
    ${
      listeners.length > 0
        ? html`<h3>${words.port.listeners}</h3><ul class="rows">${listeners.map(
            ({ protocol, address, port, holders, hidden }) => html`<li>
              <code class="address">${text(endpoint(address, port))}</code> <span class="faint">${text(protocol)}</span>
              ${holders.map((holder) => html`<div class="holder">${holderText(holder, words)}</div>`)}
              ${hidden ? html`<div class="holder faint">${said(hidden)}</div>` : ''}
            </li>`,
          )}</ul>`
        : report.free
          ? ''
          : html`<p class="faint">${words.port.noListeners}</p>`
    }
    ${respawner ? html`<h3>${words.port.respawner}</h3><ul class="rows"><li>${holderText(respawner, words)}</li></ul>` : ''}
    ${
      clients.length > 0
        ? html`<h3>${words.port.clients}</h3><p class="faint">${words.port.clientsLive}</p>
          <ul class="rows">${clients.map(
            ({ pid, command, state }) =>
              html`<li><strong>${text(programOf(command))} ${pid}</strong> · ${text(state)} <code class="command">${text(command)}</code></li>`,
          )}</ul>`
        : ''
    }
  </section>`;
}

function planView(panel: Panel, inspector: PortInspector, words: Words): TemplateResult {
  const { plan, doing } = panel.model().port;
  if (!plan) return actButton(panel, { label: words.port.plan, kind: 'primary', act: inspector.plan });
  const isNobody = plan.kill === null || plan.kill.killed.length === 0;
  const label = doing === 'free' ? words.port.freeing : words.port.freeIt;
  return html`<section class="plan" aria-labelledby="plan-title">
    <h2 id="plan-title">${words.port.planTitle}</h2>
    ${isNobody ? html`<p>${words.port.planNobody} ${said(plan.explanation)}</p>` : ''}
    ${fatesView(plan, words, words.port.wouldKill)}
    ${isNobody ? '' : actButton(panel, { label, kind: 'danger', act: inspector.free })}
  </section>`;
}

function resultView(panel: Panel, result: PortReport, inspector: PortInspector): TemplateResult {
  const words = panel.words();
  return html`<section class=${`plan ${result.free ? 'good' : 'bad'}`} aria-labelledby="result-title">
    <h2 id="result-title">
      ${result.free ? words.port.isFree : words.port.stillHeld}
      <span class="faint">${formatMs(result.took_ms, words)}</span>
    </h2>
    ${fatesView(result, words, words.port.killed)}
    ${result.respawner && !result.free ? actButton(panel, { label: words.port.forGood, kind: 'danger', act: inspector.freeForGood }) : ''}
  </section>`;
}

interface ActButton {
  readonly label: string;
  readonly kind: 'primary' | 'danger';
  readonly act: () => void;
}

function actButton(panel: Panel, { label, kind, act }: ActButton): TemplateResult {
  const whyNot = whyNotAct(panel.model(), panel.words());
  const isOff = whyNot !== undefined || panel.model().port.doing !== undefined;
  return html`<p><button type="button" class=${kind} aria-disabled=${isOff ? 'true' : 'false'} title=${whyNot ?? ''}
    @click=${() => {
      if (!isOff) act();
    }}>${label}</button> ${whyNot ? html`<span class="faint">${whyNot}</span>` : ''}</p>`;
}

/** Everybody who is concerned: what becomes of each, and why. */
function fatesView({ kill, clients }: PortReport, words: Words, killed: string): TemplateResult {
  const protectedOnes = (kill?.survivors ?? []).filter(({ why }) => why.startsWith('protected: '));
  const survivors = (kill?.survivors ?? []).filter((one) => !protectedOnes.includes(one));
  const rows: readonly (readonly [string, string, Fated])[] = [
    ...(kill?.killed ?? []).map((one) => [killed, 'kill', one] as const),
    ...survivors.map((one) => [words.port.survived, 'kill', one] as const),
    ...protectedOnes.map((one) => [words.port.protected, 'spare', one] as const),
    ...(kill?.left ?? []).map((one) => [words.port.left, 'spare', one] as const),
    ...clients.map(({ state, ...one }) => [words.port.untouched, 'spare', { ...one, why: state }] as const),
  ];
  return html`<ul class="fates">${rows.map(
    ([fate, kind, { pid, command, why }]) => html`<li class=${kind}><span class="fate">${fate}</span>
      <div><strong>${text(programOf(command))} ${pid}</strong> <span class="faint">${whyText(why, words)}</span>
        <code class="command">${text(command)}</code></div></li>`,
  )}</ul>`;
}

/** The reasons that are most given, in the language of the page; the others as the daemon has written them. */
function whyText(why: string, words: Words): string | TemplateResult {
  const [, kind = '', number = ''] = /^(target|child of|in the session of|listens on port)(?: (\d+))?$/.exec(why) ?? [];
  const shield = /^protected: (.*)$/.exec(why)?.[1];
  if (shield) return said(shield);
  if (kind === 'target') return words.why.target;
  if (kind === 'child of') return words.why.child(number);
  if (kind === 'in the session of') return words.why.session(number);
  if (kind === 'listens on port') return words.why.listens(number);
  return said(why);
}

function tunnelOf(tunnels: Iterable<Tunnel>, { port }: PortReport): Tunnel | undefined {
  return [...tunnels].find(({ listen }) => listen.some((address) => address.side === 'local' && address.port === port));
}
