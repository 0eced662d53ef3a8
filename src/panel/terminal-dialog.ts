import { html, render } from 'lit-html';
import { Refusal, Unreachable } from './api.js';
import { after, type CallOff } from './clock.js';
import type { Connection } from './connection.js';
import { focusOn } from './focus.js';
import { type Panel, whyNotAct } from './model.js';
import { type LinkEnd, openTerminal, type TerminalLink, terminalPath } from './terminal-link.js';
import { createScreen, type Screen } from './terminal-screen.js';
import { describeEnd, isUnderWay, type Stage, terminalView } from './terminal-view.js';
import type { Tunnel } from './types.js';

/** Long enough to read that it is up. */
const FAREWELL_MS = 1500;

/** Opens a terminal, at which a person answers what the ssh of this tunnel asks. */
export type Authenticate = (id: string) => void;

export function createAuthenticate(dialog: HTMLDialogElement, panel: Panel, connection: Connection): Authenticate {
  return (id) => {
    const tunnel = panel.model().tunnels.get(id);
    if (!tunnel || dialog.open || whyNotAct(panel.model(), panel.words()) !== undefined) return;
    sitDown(dialog, panel, connection, tunnel);
  };
}

/** One dialog, from its opening to its close, in which it can be tried again. Nothing of it is in the model. */
function sitDown(dialog: HTMLDialogElement, panel: Panel, connection: Connection, tunnel: Tunnel): void {
  const words = panel.words();
  const { id, name } = tunnel;
  let stage: Stage = { kind: 'opening' };
  let screen: Screen | undefined;
  let link: TerminalLink | undefined;
  let leaving: CallOff | undefined;
  /** What belongs to an attempt that was given up is not news. */
  let life = 0;
  const listening = new AbortController();
  const { signal } = listening;

  dialog.classList.add('with-terminal');
  show(stage);
  dialog.setAttribute('aria-labelledby', 'dialog-title');
  dialog.addEventListener('close', stand, { once: true });
  dialog.addEventListener('keydown', stay, { signal });
  dialog.addEventListener('cancel', (event) => isUnderWay(stage) && event.preventDefault(), { signal });
  dialog.showModal();
  void attempt();

  async function attempt(): Promise<void> {
    const mine = ++life;
    screen?.dispose();
    screen = undefined;
    show({ kind: 'opening' });
    try {
      const made = await createScreen(place('terminal'), {
        label: words.terminal.field,
        onType: (bytes) => link?.type(bytes),
        onResize: (columns, rows) => link?.resize(columns, rows),
        onSay: (text) => {
          place('terminal-said').textContent = text;
        },
      });
      if (mine !== life) return made.dispose();
      screen = made;
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      if (mine === life) show({ kind: 'lost' });
      return;
    }
    screen.focus();
    link = openTerminal(id, screen.size(), {
      onOpen: (via) => show({ kind: 'asking', via }),
      onShow: (bytes) => screen?.show(bytes),
      onEnd: (how) => void end(how, mine),
    });
  }

  async function end(how: LinkEnd, mine: number): Promise<void> {
    screen?.freeze();
    if (how.kind === 'up') return farewell(how.tunnel);
    const last = how.kind === 'refused' ? await askWhy() : how;
    if (mine !== life) return;
    show(last);
    focusOn('#dialog .primary');
  }

  function farewell(now: Tunnel): void {
    connection.learn(now);
    show({ kind: 'up' });
    focusOn('#dialog .primary');
    leaving = after(FAREWELL_MS, () => dialog.close());
  }

  /** A browser is not told why a WebSocket was refused; whoever asks by HTTP is. */
  async function askWhy(): Promise<Stage> {
    try {
      await panel.api.call(terminalPath(id));
    } catch (error) {
      if (error instanceof Refusal && error.problem.status !== 401) return { kind: 'refused', problem: error.problem };
      connection.suspect(error);
    }
    return { kind: 'lost' };
  }

  function show(next: Stage): void {
    stage = next;
    const hands = { onClose: () => dialog.close(), onAgain: () => void attempt() };
    render(terminalView(tunnel, stage, words, hands), dialog);
  }

  /** Escape is a key for ssh; beside the terminal it means nothing as long as somebody is asked. */
  function stay(event: KeyboardEvent): void {
    if (event.key === 'Escape' && isUnderWay(stage)) event.preventDefault();
  }

  /** The connection goes, and the attempt with it; what stood on the terminal goes as well. */
  function stand(): void {
    life++;
    leaving?.();
    listening.abort();
    link?.close();
    screen?.dispose();
    render(html``, dialog);
    dialog.classList.remove('with-terminal');
    if (stage.kind === 'up') panel.announce(words.terminal.isUp(name));
    else if (stage.kind === 'failed') panel.announce(`${name}: ${describeEnd('failed', stage.problem, words)}`);
    // What led here may be gone by now.
    for (const heir of [`[data-id="${CSS.escape(id)}"] .name a`, 'main h1']) {
      if (document.activeElement === document.body) focusOn(heir);
    }
  }
}

function place(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (!found) throw new TypeError(`The dialog has no #${id}`);
  return found;
}
