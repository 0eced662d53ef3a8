import { html, nothing, type TemplateResult } from 'lit-html';
import type { Actions } from './actions.js';
import { backIcon } from './icons.js';
import { needsPerson } from './list.js';
import { actionButtons, wayView } from './list-view.js';
import type { LogKeeper } from './log.js';
import { logView } from './log-view.js';
import { type Panel, whyNotAct } from './model.js';
import { phaseFigure } from './phases-view.js';
import { outcomeView } from './refusal-view.js';
import { hasTrouble, lookOf, stateBadge, troubleLine, uptimeOf } from './state-view.js';
import { said, text } from './text.js';
import { trafficView } from './traffic-view.js';
import { treeView } from './tree-view.js';
import type { Tunnel } from './types.js';
import { endpoint, formatAge, formatBytes, formatPercent, formatTime } from './units.js';
import type { Words } from './words.js';

/** One tunnel: how it is, what it is made of, what it says, and what can be done. */
export function tunnelView(panel: Panel, id: string, hands: { actions: Actions; log: LogKeeper }): TemplateResult {
  const { tunnels } = panel.model();
  const words = panel.words();
  const tunnel = tunnels.get(id);
  const back = html`<a class="back" href="#/">${backIcon}${words.tunnel.back}</a>`;
  if (!tunnel) return html`${back}<h1 tabindex="-1">${text(id)}</h1><p class="empty">${words.tunnel.gone}</p>`;
  return html`${back}
    ${headView(panel, tunnel, hands.actions)}
    <div class="columns">
      <div class="column">
        ${factsView(panel, tunnel, words)} ${trafficView(panel, tunnel, words)} ${restartView(panel, tunnel, words)} ${listenersView(tunnel, words)} ${processesView(panel, tunnel, words)}
      </div>
      <div class="column">${logView(panel, hands.log)}</div>
    </div>`;
}

function headView(panel: Panel, tunnel: Tunnel, actions: Actions): TemplateResult {
  const { pending, outcomes } = panel.model();
  const words = panel.words();
  const whyNot = whyNotAct(panel.model(), words);
  const { id } = tunnel;
  const doing = pending.get(id);
  const outcome = outcomes.get(id);
  return html`<div class="head">
      <h1 tabindex="-1">${text(tunnel.name)}</h1>
      ${stateBadge(tunnel, words)}
      ${tunnel.seamless ? html`<span class="tag" title=${words.tunnel.seamlessWhy}>${words.tunnel.seamless}</span>` : ''}
      <p class="way">${wayView(tunnel, words)}</p>
      <div class="buttons">${actionButtons(tunnel, words, { doing, whyNot, actions, isCompact: false, isCurrent: true })}</div>
    </div>
    ${hasTrouble(tunnel) ? troubleView(panel, tunnel, words) : ''}
    ${
      outcome
        ? outcomeView(outcome, words, {
            whyNot,
            onForce: (verb) => actions.force(id, verb),
            onDismiss: () => actions.dismiss(id),
          })
        : ''
    }`;
}

/** Why it is not well, what can be done about it, and where to look. */
function troubleView(panel: Panel, tunnel: Tunnel, words: Words): TemplateResult {
  const { reason, remedy, listen } = tunnel;
  // There is a button for that.
  const isAsking = needsPerson(tunnel) && (reason === 'needs_auth' || reason === 'auth_failed');
  const own = reason && remedy ? words.remedies[reason] : null;
  const [first] = listen;
  const address = reason === 'local_port_busy' && first ? endpoint(first.host, first.port) : undefined;
  return html`<section class=${`trouble is-${lookOf(tunnel)}`} aria-label=${words.list.columns.state}>
    <p>${troubleLine(tunnel, words, panel.daemonNow())}</p>
    ${remedy && !isAsking ? html`<p><b>${words.trouble.remedy}:</b> ${own ?? ''} ${own ? html`<span class="faint">${said(remedy)}</span>` : said(remedy)}</p>` : ''}
    ${address ? html`<p><a href=${`#/port/${encodeURIComponent(address)}`}>${words.tunnel.who(address)}</a></p>` : ''}
  </section>`;
}

function factsView(panel: Panel, tunnel: Tunnel, words: Words): TemplateResult {
  const now = panel.daemonNow();
  const { since, usage, groups, pid, health, enabled, log_file } = tunnel;
  const uptime = uptimeOf(tunnel, now);
  const sinceText = formatTime(Date.parse(since), now);
  const names = words.tunnel;
  const facts: readonly (readonly [string, unknown])[] = [
    uptime === undefined
      ? [names.since, sinceText]
      : [names.uptime, html`${formatAge(uptime, words)} <span class="faint">${names.sinceTime(sinceText)}</span>`],
    [names.usage, usage ? `${formatPercent(usage.cpu)} · ${formatBytes(usage.memory)}` : undefined],
    [names.direction, names.directions[tunnel.direction]],
    [names.health, health === 'unknown' ? undefined : names.healths[health]],
    [names.restarts, tunnel.restarts],
    [names.engine, text(tunnel.engine)],
    [names.pid, pid ?? undefined],
    [
      names.groups,
      groups.length > 0 ? groups.map((group) => html`<span class="tag">${text(group)}</span> `) : undefined,
    ],
    [words.list.columns.state, enabled ? undefined : words.trouble.disabled],
    [names.id, html`<code>${text(tunnel.id)}</code>`],
    [names.logFile, log_file ? html`<code>${text(log_file)}</code>` : undefined],
  ];
  const rows = facts.filter(([, value]) => value !== undefined);
  return html`<section aria-labelledby="facts-title"><h2 id="facts-title">${names.facts}</h2>
    <dl class="facts">${rows.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
  </section>`;
}

function restartView(panel: Panel, { last_restart }: Tunnel, words: Words): TemplateResult {
  const { asked, byItself } = words.restart;
  const why = last_restart?.reason ? `${byItself}: ${words.reasons[last_restart.reason]}` : byItself;
  const when = last_restart && formatTime(Date.parse(last_restart.at), panel.daemonNow());
  return html`<section aria-labelledby="restart-title"><h2 id="restart-title">${words.restart.title}
      ${last_restart ? html`<span class="faint">${when} · ${last_restart.asked ? asked : why}</span>` : ''}</h2>
    ${last_restart ? phaseFigure(last_restart, words) : html`<p class="faint">${words.restart.none}</p>`}
  </section>`;
}

/** A port of this side leads to whoever holds it; what the server holds is not to be seen from here. */
function listenersView({ listen }: Tunnel, words: Words): TemplateResult {
  return html`<section aria-labelledby="listen-title"><h2 id="listen-title">${words.tunnel.listeners}</h2>
    <ul class="listeners">${listen.map(({ side, host, port }) => {
      const address = endpoint(host, port);
      return html`<li><code>${text(address)}</code> <span class="faint">${words.tunnel.sides[side]}</span>
        ${side === 'local' ? html`<a href=${`#/port/${encodeURIComponent(address)}`}>${words.tunnel.who(address)}</a>` : ''}</li>`;
    })}</ul>
  </section>`;
}

function processesView(panel: Panel, { id, state, engine }: Tunnel, words: Words): TemplateResult {
  const { processes } = panel.model();
  const known = processes?.id === id ? processes : undefined;
  const none = state === 'up' && engine === 'embedded' ? words.tunnel.inDaemon : words.tunnel.noProcesses;
  return html`<section aria-labelledby="processes-title" aria-busy=${known ? nothing : 'true'}><h2 id="processes-title">${words.tunnel.processes}</h2>
    ${known?.tree ? treeView(known.tree, words) : known ? html`<p class="faint">${none}</p>` : ''}
  </section>`;
}
