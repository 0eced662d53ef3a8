import { html, render, type TemplateResult } from 'lit-html';
import { createActions } from './actions.js';
import { createAnnouncer } from './announcer.js';
import { createApi } from './api.js';
import { every, now, oncePainted } from './clock.js';
import { createConnection } from './connection.js';
import { createConfirm, showKeys } from './dialog.js';
import { focusOn, keepFocus } from './focus.js';
import { frameView } from './frame-view.js';
import { listenToKeys } from './keyboard.js';
import { countStates } from './list.js';
import { listView } from './list-view.js';
import { createLogKeeper } from './log.js';
import { loginView, signOut } from './login-view.js';
import { firstModel, type Model, type Panel, type Route } from './model.js';
import { createPortInspector } from './port.js';
import { portView } from './port-view.js';
import { createProcessWatch } from './processes.js';
import { createSettings } from './settings.js';
import { createAuthenticate } from './terminal-dialog.js';
import { createTrafficWatch } from './traffic.js';
import { tunnelView } from './tunnel-view.js';

/** Everything is put together here, and drawn from one model. */
function start(): void {
  const [root, dialog, region] = [element('panel'), element('dialog'), element('said')];
  if (!(dialog instanceof HTMLDialogElement)) throw new TypeError('#dialog is no <dialog>');
  let model: Model = { ...firstModel, route: readRoute() };
  let shown: Pick<Model, 'phase' | 'route'> = model;
  const draw = oncePainted(drawNow);
  const settings = createSettings();
  const api = createApi();
  const panel: Panel = {
    api,
    settings,
    model: () => model,
    words: settings.words,
    // What is not known any more does not go on either.
    daemonNow: () => (model.link.state === 'lost' ? (model.asOf ?? now()) : now()) + api.clockAheadMs(),
    update: (part) => {
      model = { ...model, ...part };
      draw();
    },
    draw,
    announce: createAnnouncer(region, settings.words),
  };
  const connection = createConnection(panel);
  const confirm = createConfirm(dialog, panel);
  const authenticate = createAuthenticate(dialog, panel, connection);
  const actions = createActions(panel, { connection, confirm, authenticate });
  const inspector = createPortInspector(panel, connection, confirm);
  const log = createLogKeeper(panel);
  const watchProcesses = createProcessWatch(panel, connection);
  const watchTraffic = createTrafficWatch(panel, connection);
  const onKeys = () => showKeys(dialog, panel);
  const onSignOut = () => void signOut(panel, connection);

  listenToKeys(panel, { actions, onKeys });
  addEventListener('hashchange', enter);
  addEventListener('online', () => model.link.state === 'lost' && connection.begin());
  document.addEventListener('visibilitychange', watch);
  // Ages and the time until the next try.
  every(1000, () => document.visibilityState === 'visible' && draw());
  enter();
  watch();

  /** A page that nobody sees asks nothing, and leaves its connections to those that are seen: a browser has six. */
  function watch(): void {
    if (document.visibilityState === 'visible') connection.begin();
    else connection.pause();
    followTunnel();
  }

  function enter(): void {
    const route = readRoute();
    panel.update({ route });
    if (route.page === 'port') inspector.look(route.text);
  }

  function drawNow(): void {
    keepFocus(() => render(frameView(panel, pageView(), { onSignOut, onKeys }), root));
    document.title = titleOf();
    watchProcesses();
    followTunnel();
    arrive(shown);
    shown = { phase: model.phase, route: model.route };
  }

  function pageView(): TemplateResult {
    const { phase, route } = model;
    if (phase === 'login') return loginView(panel, connection);
    if (phase === 'connecting')
      return html`<p class="faint">${model.link.state === 'lost' ? '' : panel.words().frame.connecting}</p>`;
    if (route.page === 'port') return portView(panel, route.text, inspector);
    if (route.page === 'tunnel') return tunnelView(panel, route.id, { actions, log });
    return listView(panel, actions);
  }

  /** The log of the tunnel whose page is seen, and what passes through it. */
  function followTunnel(): void {
    const { phase, link, route, tunnels } = model;
    const isSeen =
      phase === 'in' && link.state === 'live' && document.visibilityState === 'visible' && route.page === 'tunnel';
    const tunnel = isSeen ? tunnels.get(route.id) : undefined;
    log.show(tunnel?.id);
    watchTraffic(Boolean(tunnel?.traffic));
  }

  function titleOf(): string {
    const { route, tunnels, phase } = model;
    if (phase !== 'in') return 'tunward';
    if (route.page === 'tunnel') return `${tunnels.get(route.id)?.name ?? route.id} · tunward`;
    if (route.page === 'port') return `${panel.words().frame.ports} · tunward`;
    const { trouble, person } = countStates(tunnels.values());
    // To be seen in a tab that is not.
    return trouble + person > 0 ? `(${trouble + person}) tunward` : 'tunward';
  }

  /** Who came here by a link or a key goes on from the head of the page, with the keyboard as well as by ear. */
  function arrive(from: Pick<Model, 'phase' | 'route'>): void {
    const { phase, route } = model;
    if (phase === 'login' && from.phase !== 'login') return focusOn('#token');
    if (phase !== 'in' || route === from.route) return;
    if (route.page === 'port') return focusOn('#port');
    if (route.page === 'tunnel') return focusOn('main h1');
    if (from.route.page === 'tunnel') focusOn(`[data-id="${CSS.escape(from.route.id)}"] .name a`);
    else if (from.route.page === 'port') focusOn('main h1');
  }
}

/** `#/`, `#/tunnel/<id>`, `#/port/<port or host:port>`. */
function readRoute(): Route {
  const [, page, rest = ''] = /^#\/(tunnel|port)\/?(.*)$/.exec(location.hash) ?? [];
  const text = decode(rest);
  if (page === 'tunnel' && text !== '') return { page, id: text };
  return page === 'port' ? { page, text } : { page: 'list' };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    if (error instanceof URIError) return text;
    throw error;
  }
}

function element(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (!found) throw new TypeError(`The page has no #${id}`);
  return found;
}

start();
